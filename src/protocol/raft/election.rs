//! Elections: when a replica stands, whom it votes for, and what makes it leader.
//!
//! A replica first asks whether it could win (pre-vote, Ongaro 2014, section 9.6): that changes
//! nobody's term, so a replica that was cut off does not depose a leader when it comes back. Who
//! has heard a leader within an election timeout refuses both kinds of votes, and does not even
//! take over the candidate's term (section 4.2.3); leases rest on the same refusal (section 6.4.1).
//!
//! A candidate's own vote counts once it is durable, like everybody else's: a voter that forgot it
//! could vote again.

use crate::protocol::raft::membership::Tally;
use crate::protocol::raft::message::{Body, Message, Vote};
use crate::protocol::raft::planted::{Planted, planted};
use crate::protocol::raft::{Campaign, Raft, State};
use crate::types::{LogIndex, ReplicaId, Term};

impl Raft {
    /// No leader was heard, and no election was won, for too long.
    pub(super) fn on_election_timeout(&mut self) {
        self.leader = None;
        self.draw_election_deadline();
        if self.may_stand() {
            self.ask_for_pre_votes();
        } else {
            self.state = State::Follower;
        }
    }

    /// The leader asks this replica to take over (section 3.10): it need not ask whether anybody
    /// would mind.
    pub(super) fn on_timeout_now(&mut self) {
        if !self.is_leader() && self.may_stand() {
            self.stand_for_election(true);
        }
    }

    /// Somebody asks for a vote, or a pre-vote.
    pub(super) fn on_vote(&mut self, from: ReplicaId, term: Term, vote: Vote) {
        let bound = !vote.transfer && self.is_bound_to_leader();
        if bound && term > self.term {
            return;
        }
        if vote.pre_vote {
            self.answer_pre_vote(from, term, vote);
        } else {
            self.answer_vote(from, term, vote);
        }
    }

    /// A pre-vote is granted.
    pub(super) fn on_pre_vote_won(&mut self, from: ReplicaId, term: Term) {
        if let State::PreCandidate(campaign) = &mut self.state
            && term == Term(self.term.0 + 1)
        {
            campaign.note(from, true);
            self.count_votes();
        }
    }

    /// A vote is granted or refused, or a pre-vote refused, in this term.
    pub(super) fn on_vote_reply(&mut self, from: ReplicaId, pre_vote: bool, granted: bool) {
        match &mut self.state {
            State::PreCandidate(campaign) if pre_vote => campaign.note(from, granted),
            State::Candidate(campaign) if !pre_vote => campaign.note(from, granted),
            _ => return,
        }
        self.count_votes();
    }

    /// This replica's vote of `term` is durable: if it was for itself, it counts now.
    pub(super) fn on_vote_durable(&mut self, term: Term, voted_for: Option<ReplicaId>) {
        if let State::Candidate(campaign) = &mut self.state
            && (term, voted_for) == (self.term, Some(self.own))
        {
            campaign.note(self.own, true);
            self.count_votes();
        }
    }

    /// Whether this replica may stand for election: as a voter, or because it was one and the
    /// entry that takes this away is not known to be committed. In the second case the others may
    /// lack that entry, need this replica's vote, and not get it, as its log is longer; so it must
    /// lead them, without counting itself, until the entry is committed (section 4.2.2).
    pub(super) fn may_stand(&self) -> bool {
        let index = self.log.membership_index();
        let before = LogIndex(index.0.saturating_sub(1));
        let was_voter = || self.log.membership_at(before).is_some_and(|m| m.is_voter(self.own));
        self.is_voter() || index > self.log.committed() && was_voter()
    }

    /// Whether a leader was heard so lately that no other must be elected now.
    fn is_bound_to_leader(&self) -> bool {
        let bound_until = self.heard_at.map_or(0, |heard| heard + self.options.election_ticks);
        self.is_leader() || self.now < bound_until.max(self.no_votes_before)
    }

    fn ask_for_pre_votes(&mut self) {
        let mut campaign = Campaign::default();
        campaign.note(self.own, true);
        self.state = State::PreCandidate(campaign);
        self.request_votes(Vote { last: self.log.last(), pre_vote: true, transfer: false });
        self.count_votes();
    }

    fn stand_for_election(&mut self, transfer: bool) {
        self.enter_term(Term(self.term.0 + 1));
        self.voted_for = Some(self.own);
        self.state = State::Candidate(Campaign::default());
        self.draw_election_deadline();
        self.request_votes(Vote { last: self.log.last(), pre_vote: false, transfer });
    }

    /// Requests for pre-votes promise nothing and leave at once; those for votes say that this
    /// replica has voted for itself, and wait until that is durable.
    fn request_votes(&mut self, vote: Vote) {
        let membership = self.log.membership();
        let voters = membership.voters.union(&membership.outgoing).copied();
        let others: Vec<ReplicaId> = voters.filter(|&voter| voter != self.own).collect();
        for to in others {
            if vote.pre_vote {
                let term = Term(self.term.0 + 1);
                self.outbox.push(Message { from: self.own, to, term, body: Body::Vote(vote) });
            } else {
                self.send_when_durable(to, Body::Vote(vote), LogIndex(0));
            }
        }
    }

    fn count_votes(&mut self) {
        let (State::PreCandidate(campaign) | State::Candidate(campaign)) = &self.state else {
            return;
        };
        match self.log.membership().tally(&campaign.votes) {
            Tally::Open => {}
            Tally::Lost => self.state = State::Follower,
            Tally::Won if matches!(self.state, State::Candidate(_)) => self.become_leader(),
            Tally::Won => self.stand_for_election(false),
        }
    }

    /// Whether the candidate's log has at least what this one has (section 3.6.1).
    fn is_up_to_date(&self, vote: &Vote) -> bool {
        if planted(Planted::VoteByIndexOnly) {
            return vote.last.index >= self.log.last_index();
        }
        self.log.is_up_to_date(vote.last)
    }

    /// A grant binds nobody and bears the term that was asked about; a refusal bears this
    /// replica's own term, from which a candidate that has fallen behind learns of it.
    fn answer_pre_vote(&mut self, from: ReplicaId, term: Term, vote: Vote) {
        let granted = term > self.term && self.is_up_to_date(&vote);
        let body = Body::VoteReply { pre_vote: true, granted };
        if granted {
            self.outbox.push(Message { from: self.own, to: from, term, body });
        } else {
            self.send_when_durable(from, body, LogIndex(0));
        }
    }

    /// At most one vote per term, for a log that is up to date (sections 3.4 and 3.6.1).
    fn answer_vote(&mut self, from: ReplicaId, term: Term, vote: Vote) {
        self.note_term(term);
        let free = self.voted_for.is_none_or(|voted| voted == from);
        let may_vote = free || planted(Planted::TwoVotesPerTerm) && !self.is_leader();
        let granted = term == self.term && may_vote && self.is_up_to_date(&vote);
        if granted {
            self.voted_for = Some(from);
            self.draw_election_deadline();
        }
        let body = Body::VoteReply { pre_vote: false, granted };
        if planted(Planted::VoteBeforeSync) {
            self.send(from, body);
        } else {
            self.send_when_durable(from, body, LogIndex(0));
        }
    }
}

impl Campaign {
    /// Notes an answer; a vote once granted stays granted, whatever order answers arrive in.
    fn note(&mut self, from: ReplicaId, granted: bool) {
        *self.votes.entry(from).or_insert(granted) |= granted;
    }
}
