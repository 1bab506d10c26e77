//! Keyspaces: their names, modes and replication, and the rules for these.

use serde::{Deserialize, Serialize};

use crate::protocol::system::limits::KeyspaceLimits;
use crate::protocol::system::refusal::{SystemRefusal, rule};
use crate::protocol::system::settings::Replication;
use crate::protocol::system::spread::{Before, Spread};
use crate::types::{KeyspaceId, LogIndex};

/// Keyspaces at once. Each costs a hash tree per partition, so a cluster has few.
pub const KEYSPACES_MAX: usize = 1024;

/// Dropped keyspaces that are remembered, to recognise a repeated request; the oldest go first.
pub const DROPPED_KEYSPACES_MAX: usize = 1024;

/// Bytes of a keyspace's name.
pub const NAME_BYTES_MAX: usize = 64;

/// Names that are kept for the cluster's own use.
pub const RESERVED_NAMES: [&str; 3] = ["admin", "cluster", "system"];

/// The name of the keyspace that every cluster is founded with.
pub const DEFAULT_NAME: &str = "default";

/// What a keyspace promises; fixed when it is created.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Leaderless and always writable, N, R and W as one likes.
    Quorum,
    /// Linearizable: each partition's replicas run Raft.
    Strong,
}

impl Mode {
    /// The mode's name at the interfaces.
    pub fn name(self) -> &'static str {
        match self {
            Mode::Quorum => "quorum",
            Mode::Strong => "strong",
        }
    }
}

/// When something came to be, and by which request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marker {
    /// The index of the system entry; 0 for what the cluster was founded with.
    pub index: LogIndex,
    /// The request's own number.
    pub request_id: u64,
}

impl Marker {
    /// Whether a request of this number did it.
    pub(super) fn is_by(&self, request_id: u64) -> bool {
        self.index > LogIndex(0) && self.request_id == request_id
    }
}

/// A named set of keys with its own replication and consistency.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keyspace {
    /// Never used by another keyspace.
    pub id: KeyspaceId,
    /// Unique among the keyspaces that are not dropped.
    pub name: String,
    /// What it promises.
    pub mode: Mode,
    /// N, R and W; R and W of a strong keyspace are the majority of N.
    pub replication: Replication,
    /// What it had before its N was changed, while partitions are on their way from there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Before>,
    /// By what it was created.
    pub created: Marker,
    /// By what it was dropped, if it was.
    pub dropped: Option<Marker>,
    /// The numbers of the last requests that altered it: one that comes again must not undo what
    /// another has done since.
    #[serde(default)]
    pub altered_by: Vec<u64>,
    /// What it may ask of each node.
    #[serde(default, skip_serializing_if = "KeyspaceLimits::is_none")]
    pub limits: KeyspaceLimits,
}

impl Keyspace {
    /// Whether it is there to be read and written.
    pub fn is_live(&self) -> bool {
        self.dropped.is_none()
    }

    /// N, R and W by layout.
    pub fn spread(&self) -> Spread {
        Spread { now: self.replication, before: self.before }
    }

    /// Whether a read may miss the newest acknowledged write; never in a strong keyspace.
    pub fn is_weak(&self) -> bool {
        self.mode == Mode::Quorum && self.replication.is_weak()
    }
}

/// N, R and W as far as a request names them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReplicationAsked {
    /// N.
    pub factor: Option<u32>,
    /// R.
    pub read_quorum: Option<u32>,
    /// W.
    pub write_quorum: Option<u32>,
}

impl From<Replication> for ReplicationAsked {
    fn from(replication: Replication) -> Self {
        ReplicationAsked {
            factor: Some(replication.factor),
            read_quorum: Some(replication.read_quorum),
            write_quorum: Some(replication.write_quorum),
        }
    }
}

impl ReplicationAsked {
    /// What a new keyspace gets: what is not named comes from `default` if that has the same N,
    /// and is a majority otherwise.
    pub(super) fn for_new(self, default: Replication) -> Replication {
        let factor = self.factor.unwrap_or(default.factor);
        let same = factor == default.factor;
        self.over(if same { default } else { Replication::majority_of(factor) })
    }

    /// What a keyspace gets that has `present`: what is not named stays.
    pub(super) fn over(self, present: Replication) -> Replication {
        Replication {
            factor: self.factor.unwrap_or(present.factor),
            read_quorum: self.read_quorum.unwrap_or(present.read_quorum),
            write_quorum: self.write_quorum.unwrap_or(present.write_quorum),
        }
    }

    /// Refuses an R or W of a strong keyspace that is not the majority, which alone decides there.
    pub(super) fn check_strong(self, factor: u32) -> Result<(), SystemRefusal> {
        let majority = Replication::majority_of(factor).read_quorum;
        let right = format!("a strong keyspace of factor {factor} always uses its majority");
        for (field, asked) in [("r", self.read_quorum), ("w", self.write_quorum)] {
            let asked = asked.unwrap_or(majority);
            rule(asked == majority, field, asked, format!("{right} of {majority}; leave it out"))?;
        }
        Ok(())
    }
}

/// Checks N, R and W.
pub(super) fn check_replication(replication: Replication) -> Result<(), SystemRefusal> {
    let Replication { factor, read_quorum, write_quorum } = replication;
    check_factor(factor)?;
    let right = format!("it must be from 1 to n, which is {factor}");
    rule((1..=factor).contains(&read_quorum), "r", read_quorum, &right)?;
    rule((1..=factor).contains(&write_quorum), "w", write_quorum, &right)
}

/// Checks N.
pub(super) fn check_factor(factor: u32) -> Result<(), SystemRefusal> {
    let right = format!("it must be from 1 to {}", Replication::FACTOR_MAX);
    rule((1..=Replication::FACTOR_MAX).contains(&factor), "n", factor, right)
}

/// Checks the name of a new keyspace.
pub(super) fn check_name(name: &str) -> Result<(), SystemRefusal> {
    let right = format!(
        "it must have 1 to {NAME_BYTES_MAX} characters of a-z, 0-9, '_' and '-' and begin with a \
         letter"
    );
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '_' | '-');
    let begins = name.starts_with(|c: char| c.is_ascii_lowercase());
    let allowed = begins && name.len() <= NAME_BYTES_MAX && name.chars().all(plain);
    rule(allowed, "name", name, right)?;
    let free = !RESERVED_NAMES.contains(&name);
    rule(free, "name", name, "it is reserved for the cluster's own use")
}
