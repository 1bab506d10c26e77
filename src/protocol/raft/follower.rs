//! What a follower makes of its leader's entries and heartbeats.

use crate::protocol::raft::message::{Append, AppendOutcome, AppendReply, Body, Heartbeat};
use crate::protocol::raft::planted::{Planted, planted};
use crate::protocol::raft::reading::Freshness;
use crate::protocol::raft::{Raft, State};
use crate::types::{LogIndex, ReplicaId};

impl Raft {
    /// Entries from the leader of this term (Ongaro 2014, section 3.5).
    pub(super) fn on_append(&mut self, from: ReplicaId, append: Append) {
        if !self.follow(from, append.round) {
            return;
        }
        let before = self.log.last();
        let outcome = self.log.try_append(append.previous, &append.entries);
        // Entries are only ever replaced by others, so a log that changed ends elsewhere.
        if self.log.last() != before {
            self.outbox.note_log_changed();
        }
        match outcome {
            Ok(matched) => {
                self.log.commit_to(append.commit.min(matched));
                self.acknowledge(from, append.round, matched);
            }
            Err(hint) => {
                let outcome = AppendOutcome::Rejected { previous: append.previous.index, hint };
                let reply = AppendReply { round: append.round, outcome };
                self.send_when_durable(from, Body::AppendReply(reply), LogIndex(0));
            }
        }
    }

    /// The leader of this term lives.
    pub(super) fn on_heartbeat(&mut self, from: ReplicaId, heartbeat: Heartbeat) {
        if !self.follow(from, heartbeat.round) {
            return;
        }
        self.log.commit_to(heartbeat.commit);
        self.note_freshness(&heartbeat);
        let body = Body::HeartbeatReply { round: heartbeat.round, last: self.log.last_index() };
        self.send_when_durable(from, body, LogIndex(0));
    }

    /// Says that the log matches the leader's through `matched`, once that is durable. What is
    /// committed here matches as well, as every leader holds it (section 3.6.3).
    fn acknowledge(&mut self, leader: ReplicaId, round: u64, matched: LogIndex) {
        let matched = matched.max(self.log.committed());
        let outcome = AppendOutcome::Matches(matched);
        let body = Body::AppendReply(AppendReply { round, outcome });
        if planted(Planted::AckBeforeSync) {
            self.send(leader, body);
        } else {
            self.send_when_durable(leader, body, matched);
        }
    }

    /// Notes a sign of life of this term's leader; false if this replica itself leads, which two
    /// replicas never do in one term (section 3.4).
    fn follow(&mut self, leader: ReplicaId, round: u64) -> bool {
        if self.is_leader() {
            return false;
        }
        self.state = State::Follower;
        self.leader = Some(leader);
        self.heard_at = Some(self.now);
        self.answered.note(round, self.now);
        self.draw_election_deadline();
        true
    }

    /// At the tick of the answer that the leader names, less the time since when no quorum had
    /// confirmed the leader, nothing beyond `fresh_commit` was committed. One tick more is taken
    /// off, as the clocks of the two tick at different times.
    ///
    /// In the term in which this life began the leader may name an answer of a former life, whose
    /// tick nobody knows: an old heartbeat that arrives now would pass for the one answered then.
    /// So freshness is known from the next term on.
    fn note_freshness(&mut self, heartbeat: &Heartbeat) {
        if self.term == self.began_in {
            return;
        }
        let Some(answered) = self.answered.tick_of(heartbeat.confirmed_round) else { return };
        let tick = answered.saturating_sub(heartbeat.quorum_age_ticks.saturating_add(1));
        if self.fresh.is_none_or(|fresh| fresh.tick < tick) {
            self.fresh = Some(Freshness { tick, commit: heartbeat.fresh_commit });
        }
    }
}
