//! What a leader keeps: its replicas, its rounds of heartbeats, and whether a quorum still hears
//! it.
//!
//! Every round of heartbeats has a number. A quorum that answers one proves that no later leader
//! had been elected when it was begun; reads, leases and freshness rest on that (Ongaro 2014,
//! section 6.4). Appends bear the present round, so their replies confirm it as well.

use std::collections::BTreeMap;

use crate::protocol::raft::entry::{Entry, Payload};
use crate::protocol::raft::message::{Body, Heartbeat, Message};
use crate::protocol::raft::planted::{Planted, planted};
use crate::protocol::raft::progress::{Progress, State as Sending};
use crate::protocol::raft::reads::ReadQueue;
use crate::protocol::raft::rounds::Rounds;
use crate::protocol::raft::transfer::Transfer;
use crate::protocol::raft::{Raft, State};
use crate::types::{LogIndex, ReplicaId};

/// What only a leader has.
#[derive(Clone, Debug)]
pub(super) struct Leading {
    /// All other replicas of the membership in force.
    pub(super) peers: BTreeMap<ReplicaId, Peer>,
    pub(super) rounds: Rounds,
    /// The last round that was begun because it was time, and not for reads.
    beat_round: u64,
    heartbeat_at: u64,
    pub(super) reads: ReadQueue,
    /// The leader's first entry: once that is committed, the commit index is that of the group.
    pub(super) first_own: LogIndex,
    /// What the entries behind the commit index cost.
    pub(super) uncommitted_bytes: usize,
    /// Whether a replica may have to be sent entries.
    pub(super) appends_due: bool,
    pub(super) transfer: Option<Transfer>,
    /// A transfer was begun in this term. What it set going may have effects at any later time, so
    /// the lease stays void even if the transfer is given up.
    pub(super) lease_void: bool,
}

/// Another replica as its leader sees it.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    pub(super) progress: Progress,
    /// The tick at which its answer to `progress.round()` arrived.
    round_heard_tick: u64,
    /// Whether it has answered the last round that was begun because it was time.
    beat_answered: bool,
}

impl Peer {
    pub(super) fn new(next: LogIndex, appends_in_flight_max: usize, now: u64) -> Peer {
        let progress = Progress::new(next, appends_in_flight_max, now);
        Peer { progress, round_heard_tick: now, beat_answered: false }
    }

    /// Whether there is an append to send to it. A probe is sent even without entries, as its
    /// answer tells where the logs match.
    pub(super) fn wants_append(&self, last: LogIndex) -> bool {
        let news = self.progress.next() <= last || self.progress.state() != Sending::Replicate;
        news && self.progress.may_send()
    }
}

impl Leading {
    /// The next tick at which a leader does anything.
    pub(super) fn deadline(&self) -> u64 {
        let transfer = self.transfer.as_ref().map_or(u64::MAX, |transfer| transfer.given_up_at);
        self.heartbeat_at.min(transfer)
    }

    /// All reads that are not served.
    pub(super) fn take_reads(&mut self) -> Vec<u64> {
        self.reads.take_all()
    }

    /// Notes an answer that bears a round.
    pub(super) fn note_answer(&mut self, from: ReplicaId, round: u64, now: u64) {
        let Some(peer) = self.peers.get_mut(&from) else { return };
        peer.progress.on_heard(now);
        if round > peer.progress.round()
            && let Some(begun) = self.rounds.tick_of(round)
        {
            peer.progress.on_round(round, begun);
            peer.round_heard_tick = now;
        }
    }
}

impl Raft {
    /// An election is won. The leader appends an entry of its own term at once, as it may commit
    /// what earlier leaders left only together with one of its own (sections 3.6.2 and 6.4).
    pub(super) fn become_leader(&mut self) {
        let mut rounds = Rounds::default();
        rounds.note(1, self.now);
        let uncommitted = self.log.entries_from(self.log.committed().next());
        let leading = Leading {
            peers: BTreeMap::new(),
            rounds,
            beat_round: 1,
            heartbeat_at: self.next_beat(),
            reads: ReadQueue::new(),
            first_own: self.log.last_index().next(),
            uncommitted_bytes: uncommitted.iter().map(Entry::cost_bytes).sum(),
            appends_due: false,
            transfer: None,
            lease_void: false,
        };
        self.state = State::Leader(Box::new(leading));
        self.leader = Some(self.own);
        self.refresh_peers();
        self.append_own(Payload::Empty);
    }

    /// Keeps one [`Peer`] for every other replica of the membership in force.
    pub(super) fn refresh_peers(&mut self) {
        let State::Leader(leading) = &mut self.state else { return };
        let membership = self.log.membership();
        let (next, window) = (self.log.last_index().next(), self.options.appends_in_flight_max);
        leading.peers.retain(|peer, _| membership.contains(*peer));
        for replica in membership.replicas().into_iter().filter(|replica| *replica != self.own) {
            leading.peers.entry(replica).or_insert_with(|| Peer::new(next, window, self.now));
        }
    }

    /// Heartbeats, check-quorum and the end of a transfer's patience.
    pub(super) fn on_leader_tick(&mut self) {
        let next_beat = self.next_beat();
        let State::Leader(leading) = &mut self.state else { return };
        leading.transfer.take_if(|transfer| transfer.given_up_at <= self.now);
        if self.now < leading.heartbeat_at {
            return;
        }
        leading.heartbeat_at = next_beat;
        if self.is_heard_by_quorum() {
            self.begin_round();
            self.note_beat();
        } else {
            self.become_follower();
        }
    }

    /// The tick of the next heartbeat: the same for all groups of a node, so that one frame holds
    /// what they have to say to a peer.
    fn next_beat(&self) -> u64 {
        let every = self.options.heartbeat_ticks.max(1);
        (self.now / every + 1) * every
    }

    /// Begins a round of heartbeats, which the waiting reads go with.
    pub(super) fn begin_round(&mut self) {
        let quorum_tick = self.quorum_tick().filter(|_| self.has_committed_own_term());
        let State::Leader(leading) = &mut self.state else { return };
        let round = leading.rounds.latest() + 1;
        leading.rounds.note(round, self.now);
        let commit = self.log.committed();
        for (&to, peer) in &leading.peers {
            let clamped = commit.min(peer.progress.matched());
            let unclamped = planted(Planted::CommitBeyondMatched);
            let (confirmed_round, quorum_age_ticks) = peer.freshness(quorum_tick);
            let body = Body::Heartbeat(Heartbeat {
                commit: if unclamped { commit } else { clamped },
                round,
                fresh_commit: commit,
                confirmed_round,
                quorum_age_ticks,
            });
            self.outbox.push(Message { from: self.own, to, term: self.term, body });
        }
        self.begin_reads();
    }

    /// The tick at which the last round that a quorum confirmed was begun: until then at least, no
    /// other leader was elected. `None` if that is not known.
    pub(super) fn quorum_tick(&self) -> Option<u64> {
        let State::Leader(leading) = &self.state else { return None };
        self.log.membership().quorum_latest(|replica| {
            if replica == self.own {
                return Some(self.now);
            }
            leading.peers.get(&replica).and_then(|peer| peer.progress.round_tick())
        })
    }

    /// Whether the commit index covers everything that was ever committed (section 6.4).
    pub(super) fn has_committed_own_term(&self) -> bool {
        match &self.state {
            State::Leader(leading) => self.log.committed() >= leading.first_own,
            _ => false,
        }
    }

    /// A heartbeat is answered. Only one answer per beat says something of lost appends, as rounds
    /// for reads follow each other faster than appends become durable.
    pub(super) fn on_heartbeat_reply(&mut self, from: ReplicaId, round: u64, last: LogIndex) {
        let State::Leader(leading) = &mut self.state else { return };
        leading.note_answer(from, round, self.now);
        let beat_round = leading.beat_round;
        let Some(peer) = leading.peers.get_mut(&from) else { return };
        if round >= beat_round && !peer.beat_answered {
            peer.beat_answered = true;
            peer.progress.on_heartbeat_reply(round, last);
            leading.appends_due |= peer.wants_append(self.log.last_index());
        }
        self.confirm_reads();
        self.hasten_transfer(from);
    }

    fn note_beat(&mut self) {
        let State::Leader(leading) = &mut self.state else { return };
        leading.beat_round = leading.rounds.latest();
        leading.peers.values_mut().for_each(|peer| peer.beat_answered = false);
    }

    /// Check-quorum: a leader that a majority has not answered for an election timeout gives up,
    /// so that clients and followers look for another (section 6.2).
    fn is_heard_by_quorum(&self) -> bool {
        let State::Leader(leading) = &self.state else { return false };
        let heard_lately =
            |peer: &Peer| self.now < peer.progress.recent_tick() + self.options.election_ticks;
        self.log.membership().has_quorum(|replica| {
            replica == self.own || leading.peers.get(&replica).is_some_and(heard_lately)
        })
    }
}

impl Peer {
    /// For a heartbeat: the round that the peer has answered, and for how many ticks no quorum had
    /// confirmed the leader when that answer arrived.
    fn freshness(&self, quorum_tick: Option<u64>) -> (u64, u64) {
        match quorum_tick {
            Some(tick) => (self.progress.round(), self.round_heard_tick.saturating_sub(tick)),
            None => (0, 0),
        }
    }
}
