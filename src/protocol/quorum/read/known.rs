//! What a read knows of its replicas, and what is missing from it.

use super::ReadQuorum;
use super::replica::{Heard, Part, Repair, Replica};
use crate::protocol::message::{Holding, Refusal, Want};
use crate::protocol::quorum::QuorumError;
use crate::protocol::version::dvv::{Context, Siblings};
use crate::protocol::version::merging::joined;
use crate::types::{NodeId, Record, Version};

impl ReadQuorum {
    /// Replicas with a part in the read that are so.
    pub(super) fn count(&self, part: Part, is_so: impl Fn(&Replica) -> bool) -> usize {
        self.replicas.iter().filter(|replica| replica.has(part) && is_so(replica)).count()
    }

    /// Whether as many with that part are so as must be.
    pub(super) fn has(&self, part: Part, is_so: impl Fn(&Replica) -> bool) -> bool {
        self.count(part, is_so) >= self.required[part as usize]
    }

    pub(super) fn counted(&self) -> usize {
        self.count(Part::Answers, Replica::is_counted)
    }

    /// Whether the read may be answered, for what those that answer have said.
    pub(super) fn is_heard(&self) -> bool {
        self.has(Part::Answers, Replica::is_counted)
    }

    /// Whether the replica is known to hold the newest version.
    pub(super) fn is_holder(&self, replica: &Replica) -> bool {
        replica.is_known() && replica.holds == self.newest
    }

    pub(super) fn is_stale(&self, replica: &Replica) -> bool {
        replica.is_known() && replica.holds < self.newest
    }

    /// Whether the replica holds the newest version, or has not failed to take it.
    pub(super) fn may_be_holder(&self, replica: &Replica) -> bool {
        self.is_holder(replica) || (self.is_stale(replica) && replica.repair != Repair::Failed)
    }

    /// The newest record, unless its value is still to be fetched.
    pub(super) fn newest_record(&self) -> Option<&Record> {
        self.record.as_ref().filter(|record| Some(record.version) >= self.newest)
    }

    pub(super) fn lacks_value(&self) -> bool {
        (self.newest.is_some() && self.newest_record().is_none()) || self.seen.is_some()
    }

    /// Whether a question in flight, not yet slow, may bring the newest record.
    pub(super) fn is_value_coming(&self) -> bool {
        self.replicas.iter().any(|replica| {
            replica.is_prompt(Want::Value)
                && (replica.heard == Heard::Nothing || replica.holds >= self.newest)
        })
    }

    /// What is wrong if every replica that answered holds something older than is asked for.
    pub(super) fn behind(&self) -> Option<QuorumError> {
        let latest = |seen: &Context| seen.latest();
        let seen = self.seen.as_ref().and_then(latest);
        let seen = seen.map(|timestamp| Version { timestamp, ..Version::NONE });
        let wanted = self.at_least.or(seen)?;
        // One that follows a newer ring is to be asked again by that.
        if self.refusals.iter().any(|(_, refusal)| *refusal == Refusal::StaleRing) {
            return None;
        }
        let newest = self.replicas.iter().filter_map(|replica| replica.holds).max();
        let answered = self.replicas.iter().filter(|replica| replica.is_known()).count() as u32;
        (newest < Some(wanted) || seen.is_some()).then_some(QuorumError::Behind {
            wanted,
            newest,
            answered,
        })
    }

    /// Replicas of which it is so.
    pub(super) fn nodes(&self, is_so: impl Fn(&Replica) -> bool) -> Vec<NodeId> {
        self.replicas.iter().filter(|replica| is_so(replica)).map(|r| r.node).collect()
    }

    pub(super) fn merge(&mut self, holding: Holding) {
        self.newest = self.newest.max(Some(holding.version()));
        let Holding::Record(record) = holding else { return };
        let joined = match self.record.take() {
            Some(known) => joined(self.merge, known, record),
            None => record,
        };
        self.newest = self.newest.max(Some(joined.version));
        let reached =
            |seen: &Context| Siblings::of_record(&joined).is_ok_and(|row| seen.is_reached_by(&row));
        self.seen.take_if(|seen| reached(seen));
        self.record = Some(joined);
    }
}
