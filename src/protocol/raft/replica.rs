//! One replica: how it starts, how time passes for it, and what it does with a message.

use crate::protocol::raft::entry::Restored;
use crate::protocol::raft::log::Log;
use crate::protocol::raft::message::{Body, Message};
use crate::protocol::raft::planted::{Planted, planted};
use crate::protocol::raft::ready::Outbox;
use crate::protocol::raft::rounds::Rounds;
use crate::protocol::raft::{Options, Raft, Role, State};
use crate::types::{LogIndex, ReplicaId, Term};

impl Raft {
    /// A replica as it was last made durable; it always starts as a follower. With leases it grants
    /// no vote for an election timeout, as it may have confirmed a leader's lease before it stopped
    /// (Ongaro 2014, section 6.4.1).
    ///
    /// # Panics
    /// When what is restored contradicts itself: entries with gaps, or less log than was applied.
    pub fn new(own: ReplicaId, options: Options, restored: Restored, seed: u64, now: u64) -> Raft {
        let Restored { hard_state, start, entries, applied } = restored;
        let applied = applied.max(start.position.index);
        let mut log = Log::new(start, entries);
        assert!(applied <= log.last_index(), "invariant: what is applied is in the log, durably");
        log.commit_to(hard_state.commit.max(applied));
        let term = hard_state.term.max(log.last().term);
        let voted_for = hard_state.voted_for.filter(|_| term == hard_state.term);
        let no_votes_before = if options.lease_reads { now + options.election_ticks } else { now };
        let mut raft = Raft {
            own,
            options,
            // Replicas that are given one seed by mistake must not time out together for ever.
            dice: Dice(seed ^ own.0.rotate_left(32)),
            now,
            term,
            voted_for,
            log,
            applied,
            leader: None,
            state: State::Follower,
            election_at: now,
            heard_at: None,
            no_votes_before,
            began_in: term,
            answered: Rounds::default(),
            fresh: None,
            outbox: Outbox::new(hard_state),
        };
        raft.draw_election_deadline();
        if raft.is_sole_voter() {
            // Nobody else can be elected, but one who is being removed may still hold a lease.
            raft.election_at = no_votes_before.max(now + 1);
        }
        raft
    }

    /// Time has passed: `now` is the present tick, which never falls and may jump.
    pub fn tick(&mut self, now: u64) {
        self.now = self.now.max(now);
        if self.is_leader() {
            self.on_leader_tick();
        } else if self.now >= self.election_at {
            self.on_election_timeout();
        }
    }

    /// The next tick at which [`Raft::tick`] would do anything, `u64::MAX` if none. Any other call
    /// may change it.
    pub fn deadline(&self) -> u64 {
        match &self.state {
            State::Leader(leading) => leading.deadline(),
            _ if self.may_stand() || self.leader.is_some() => self.election_at,
            _ => u64::MAX,
        }
    }

    /// Takes a message. What is not for this replica is ignored. Senders that are no members are
    /// heard like others, as they may know a later membership than this replica does
    /// (section 4.2.2).
    pub fn step(&mut self, message: Message) {
        let Message { from, to, term, body } = message;
        if to != self.own {
            return;
        }
        match body {
            Body::Vote(vote) => self.on_vote(from, term, vote),
            // It bears the term that was asked about, which nobody has yet.
            Body::VoteReply { pre_vote: true, granted: true } => self.on_pre_vote_won(from, term),
            body => {
                self.note_term(term);
                if term >= self.term || planted(Planted::ObeyEarlierTerm) {
                    self.step_in_term(from, body);
                } else {
                    self.refuse_earlier_term(from, &body);
                }
            }
        }
    }

    /// The replica's number.
    pub fn own(&self) -> ReplicaId {
        self.own
    }

    /// What the replica is at present.
    pub fn role(&self) -> Role {
        match self.state {
            State::Follower => Role::Follower,
            State::PreCandidate(_) => Role::PreCandidate,
            State::Candidate(_) => Role::Candidate,
            State::Leader(_) => Role::Leader,
        }
    }

    /// Whether it leads, as far as it knows.
    pub fn is_leader(&self) -> bool {
        matches!(self.state, State::Leader(_))
    }

    /// The latest term that it has seen.
    pub fn term(&self) -> Term {
        self.term
    }

    /// Who leads in this term, as far as it knows.
    pub fn leader(&self) -> Option<ReplicaId> {
        self.leader
    }

    /// Entries up to here are committed, as far as it knows.
    pub fn commit(&self) -> LogIndex {
        self.log.committed()
    }

    /// Entries up to here were handed out as committed, or came with a snapshot.
    pub fn applied(&self) -> LogIndex {
        self.applied
    }

    /// The replica's log.
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// Takes over a later term (section 3.3): whoever led or stood for election in this one gives
    /// up.
    pub(super) fn note_term(&mut self, term: Term) {
        if term > self.term && !planted(Planted::IgnoreHigherTerm) {
            self.become_follower();
            self.enter_term(term);
        }
    }

    /// Begins a term without a vote and without a leader. Answers of the terms before that wait
    /// for a write which has not begun are not given: what they are about may be undone before it.
    pub(super) fn enter_term(&mut self, term: Term) {
        self.term = term;
        self.voted_for = None;
        self.leader = None;
        self.answered = Rounds::default();
        self.outbox.drop_unwritten();
    }

    /// Gives up leadership or candidacy within the term.
    pub(super) fn become_follower(&mut self) {
        if let State::Leader(leading) = &mut self.state {
            self.outbox.lose_reads(leading.take_reads());
            self.leader = None;
            self.draw_election_deadline();
        }
        self.state = State::Follower;
    }

    /// Draws when to stand for election, unless a leader is heard: from one election timeout up to
    /// two, so that replicas rarely do it together (section 3.4).
    pub(super) fn draw_election_deadline(&mut self) {
        let timeout = self.options.election_ticks.max(1);
        self.election_at = self.now + timeout + self.dice.roll(timeout);
    }

    pub(super) fn is_voter(&self) -> bool {
        self.log.membership().is_voter(self.own)
    }

    fn is_sole_voter(&self) -> bool {
        let membership = self.log.membership();
        membership.voters.len() == 1 && !membership.is_joint() && self.is_voter()
    }

    fn step_in_term(&mut self, from: ReplicaId, body: Body) {
        match body {
            Body::Append(append) => self.on_append(from, append),
            Body::AppendReply(reply) => self.on_append_reply(from, reply),
            Body::Heartbeat(heartbeat) => self.on_heartbeat(from, heartbeat),
            Body::HeartbeatReply { round, last } => self.on_heartbeat_reply(from, round, last),
            Body::VoteReply { pre_vote, granted } => self.on_vote_reply(from, pre_vote, granted),
            Body::TimeoutNow { .. } => self.on_timeout_now(),
            Body::Vote(_) => {}
        }
    }

    /// Tells a leader of an earlier term that there is a later one (section 3.3); anything else of
    /// an earlier term is ignored. The answer confirms no round: its sender may come to lead in
    /// the very term that the answer bears, and count rounds from 1 again.
    fn refuse_earlier_term(&mut self, from: ReplicaId, body: &Body) {
        if matches!(body, Body::Append(_) | Body::Heartbeat(_)) {
            let body = Body::HeartbeatReply { round: 0, last: self.log.last_index() };
            self.send_when_durable(from, body, LogIndex(0));
        }
    }
}

/// A small generator of numbers that look random (Steele et al., "Fast Splittable Pseudorandom
/// Number Generators", 2014): a seed replays a run.
#[derive(Clone, Debug)]
pub(super) struct Dice(u64);

impl Dice {
    /// A number below `bound`, which is at least 1.
    fn roll(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}
