//! What answers say.

use bytes::Bytes;

use crate::proto::v1;

/// Which guarantee held for one answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Receipt {
    /// Version of the value written or read; give it back as a context or in a condition. Empty if
    /// the key is unknown.
    pub version: String,
    /// Replicas that the answer had to wait for: R or W.
    pub required: u32,
    /// Replicas in effect: N, or the number of members while there are fewer.
    pub replicas: u32,
    /// Ids of the nodes whose acknowledgement or answer counted.
    pub acknowledged: Vec<String>,
    /// Ids of primaries for which a hint was kept by the time of the answer.
    pub hinted: Vec<String>,
    /// Ids of fallback replicas among `acknowledged`; not empty means that the quorum was sloppy.
    pub fallbacks: Vec<String>,
    /// Ids of stale replicas that were repaired before the answer.
    pub repaired: Vec<String>,
    /// True while the cluster has fewer members than the replication factor.
    pub under_replicated: bool,
    /// Of a strong keyspace: what held, `linearizable`, `lease` or `stale`.
    pub consistency: Option<String>,
    /// Of a strong keyspace: the id of the node that leads the key's partition.
    pub leader: Option<String>,
    /// When the value written or read ends by itself, in Unix milliseconds; `None` when it stays.
    pub expires_at_ms: Option<u64>,
    /// Of a write with a context: versions that it met and its writer had not seen. Those below
    /// `version` were replaced by the write; one above it replaced the write.
    pub unseen: Vec<String>,
    /// Of a keyspace that keeps siblings: how many values the key has.
    pub siblings: Option<u32>,
    /// Of a keyspace that joins copies: what to give back as context, instead of the version. A
    /// write of a sibling has one only if nothing stands beside it; else that must be read first.
    pub context: Option<String>,
}

impl From<Option<v1::Receipt>> for Receipt {
    fn from(receipt: Option<v1::Receipt>) -> Self {
        let receipt = receipt.unwrap_or_default();
        let unless_empty = |text: String| Some(text).filter(|text| !text.is_empty());
        Receipt {
            version: receipt.version,
            required: receipt.required,
            replicas: receipt.replicas,
            acknowledged: receipt.acknowledged,
            hinted: receipt.hinted,
            fallbacks: receipt.fallbacks,
            repaired: receipt.repaired,
            under_replicated: receipt.under_replicated,
            consistency: unless_empty(receipt.consistency),
            leader: unless_empty(receipt.leader),
            expires_at_ms: receipt.expires_at_ms,
            unseen: receipt.unseen,
            siblings: receipt.siblings,
            context: receipt.context,
        }
    }
}

/// A value that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Value {
    /// The value itself; of several siblings the one that was written last, of a counter its
    /// number in decimal digits, of a set its elements as an array in JSON.
    pub bytes: Bytes,
    /// All values of the key; several only in a keyspace that keeps siblings, where a write with
    /// the [context](Receipt::context) of this answer replaces them.
    pub siblings: Vec<Bytes>,
    /// The elements of a set, in the order of their bytes.
    pub elements: Vec<String>,
    /// Its version; the same as in the receipt.
    pub version: String,
    /// Which guarantee held.
    pub receipt: Receipt,
}

/// What an addition to a counter did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Incremented {
    /// What the counter stood at then, as far as the replica knew that took the addition.
    pub total: i64,
    /// Which guarantee held.
    pub receipt: Receipt,
}

/// What a change of a set did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetUpdated {
    /// How many elements the set had then, as far as the replica knew that took the change.
    pub size: u64,
    /// Which guarantee held.
    pub receipt: Receipt,
}

/// What an append did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Bytes of the value now.
    pub value_bytes: u64,
    /// Which guarantee held.
    pub receipt: Receipt,
}

/// What a transaction did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transacted {
    /// What each step did; empty in a repeated answer that was too large to be remembered whole.
    pub results: Vec<StepResult>,
    /// Which guarantee held.
    pub receipt: Receipt,
}

/// What a step of a transaction did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepResult {
    /// Whether the key had a value before.
    pub existed: bool,
    /// Bytes of its value after.
    pub value_bytes: u64,
}
