//! The words of the field as types: identities, positions, versions and records.
//!
//! Everything here is a plain value: no I/O, no clock, no randomness. Every other layer imports
//! this one and this one imports nothing of ours.

use std::fmt;
use std::num::ParseIntError;
use std::ops::{Add, Sub};
use std::str::FromStr;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// Declares a 64-bit identity that is shown, parsed and serialised as 16 hexadecimal digits.
macro_rules! hex_identity {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:016x}", self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({:016x})"), self.0)
            }
        }

        impl FromStr for $name {
            type Err = ParseIntError;
            fn from_str(text: &str) -> Result<Self, ParseIntError> {
                u64::from_str_radix(text, 16).map($name)
            }
        }

        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

hex_identity!(
    /// A member of the cluster: drawn at random when a data directory is first used, kept with it.
    NodeId
);
hex_identity!(
    /// One life of a node's data directory: drawn anew when the directory is made or loses data.
    Incarnation
);
hex_identity!(
    /// The cluster that a node belongs to: drawn by the founder, copied by those that join.
    ClusterId
);
hex_identity!(
    /// A session of a client with strong keyspaces: drawn at random by the client for each session
    /// and never used for another one.
    ClientId
);

/// Version of the ring as one node counts it: one more for every change of its member set.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Epoch(pub u64);

/// A position on the ring: the top 64 bits of `murmur3_x64_128`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Token(pub u64);

/// One of the Q equal ranges of the token space; the unit of replication.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PartitionId(pub u16);

/// How copies of a key that differ become one; fixed when a keyspace is created.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Merge {
    /// The last writer wins: the copy with the higher version stands.
    #[default]
    Lww,
    /// Values that were written concurrently all stand, until a write that has seen them replaces
    /// them.
    Siblings,
    /// A number to which all additions count, wherever and whenever they were made.
    Counter,
    /// Elements, each of which is there until it is removed by someone who has seen it.
    Set,
}

impl Merge {
    /// All of them.
    pub const ALL: [Merge; 4] = [Merge::Lww, Merge::Siblings, Merge::Counter, Merge::Set];

    /// The name at the interfaces.
    pub fn name(self) -> &'static str {
        match self {
            Merge::Lww => "lww",
            Merge::Siblings => "siblings",
            Merge::Counter => "counter",
            Merge::Set => "set",
        }
    }

    /// Whether copies are joined, as rows of siblings, rather than one of them chosen.
    pub fn joins(self) -> bool {
        self != Merge::Lww
    }
}

/// A named set of keys with its own replication and consistency. Ids are never reused.
///
/// The id tells how copies of the keyspace's keys become one, so that whoever meets a row of it,
/// in a log or from a peer, merges it right, whether or not it has heard of the keyspace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct KeyspaceId(pub u32);

impl KeyspaceId {
    /// The bits below tell which keyspace it is, those above how it merges. Internal ones have all
    /// of the latter set.
    const MERGE_SHIFT: u32 = 28;

    /// The keyspace that every cluster is founded with.
    pub const DEFAULT: KeyspaceId = KeyspaceId(0);

    /// Internal: how far each group was applied. The highest number of all is the storage's own.
    pub const GROUP: KeyspaceId = KeyspaceId(u32::MAX - 1);

    /// Internal: the sessions of each group, by [`ClientId`].
    pub const SESSIONS: KeyspaceId = KeyspaceId(u32::MAX - 2);

    /// The id of the keyspace of that number which merges so. The numbers end below 2^28.
    pub fn numbered(number: u32, merge: Merge) -> KeyspaceId {
        let merges = match merge {
            Merge::Lww => 0,
            Merge::Siblings => 1,
            Merge::Counter => 2,
            Merge::Set => 3,
        };
        KeyspaceId(number | merges << Self::MERGE_SHIFT)
    }

    /// Which keyspace it is: keyspaces are numbered in the order in which they were created.
    pub fn number(self) -> u32 {
        self.0 & ((1 << Self::MERGE_SHIFT) - 1)
    }

    /// How copies of its keys become one.
    pub fn merge(self) -> Merge {
        match self.0 >> Self::MERGE_SHIFT {
            1 => Merge::Siblings,
            2 => Merge::Counter,
            3 => Merge::Set,
            _ => Merge::Lww,
        }
    }
}

/// A Raft group: that of a partition bears the partition's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct GroupId(pub u16);

impl GroupId {
    /// The group that owns members, ring epochs and keyspaces. No partition bears its number, as
    /// there are at most 32768.
    pub const SYSTEM: GroupId = GroupId(u16::MAX);

    /// The group of a partition.
    pub fn of(partition: PartitionId) -> GroupId {
        GroupId(partition.0)
    }

    /// Where the group's rows lie.
    pub fn partition(self) -> PartitionId {
        PartitionId(self.0)
    }
}

impl fmt::Display for GroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            GroupId::SYSTEM => f.write_str("system"),
            GroupId(number) => write!(f, "{number}"),
        }
    }
}

/// One replica of one group. Numbers are never reused, so a replica that lost its memory of having
/// voted comes back under another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ReplicaId(pub u64);

impl fmt::Display for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A term of a Raft group: at most one leader each; 0 before the first election.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Term(pub u64);

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Position of an entry in a Raft group's log; the first entry has 1, 0 stands before it.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct LogIndex(pub u64);

impl LogIndex {
    /// The index after this one.
    pub fn next(self) -> LogIndex {
        LogIndex(self.0 + 1)
    }
}

impl fmt::Display for LogIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Position of a record in one node's write-ahead log; the first record has 1.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Lsn(pub u64);

/// A user's key: UTF-8 at the interfaces, bytes within.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Key(pub Bytes);

impl Key {
    /// The key's bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl From<&str> for Key {
    fn from(text: &str) -> Self {
        Key(Bytes::copy_from_slice(text.as_bytes()))
    }
}

impl From<String> for Key {
    fn from(text: String) -> Self {
        Key(Bytes::from(text))
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.0))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({:?})", String::from_utf8_lossy(&self.0))
    }
}

/// A hybrid logical clock reading: 48 bits of Unix milliseconds, 16 bits of counter
/// (Kulkarni et al., "Logical Physical Clocks", 2014).
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// Bits of the logical counter below the milliseconds.
    pub const COUNTER_BITS: u32 = 16;

    /// The first stamp of a wall-clock millisecond.
    pub const fn from_wall_ms(wall_ms: u64) -> Self {
        Timestamp(wall_ms << Self::COUNTER_BITS)
    }

    /// The Unix milliseconds of the stamp.
    pub const fn wall_ms(self) -> u64 {
        self.0 >> Self::COUNTER_BITS
    }
}

/// What orders two writes of one key: the stamp, then the incarnation that minted it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Version {
    /// When the write was stamped.
    pub timestamp: Timestamp,
    /// Which life of which node stamped it; breaks ties between nodes.
    pub incarnation: Incarnation,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}-{}", self.timestamp.0, self.incarnation)
    }
}

impl Version {
    /// Below every version that anybody mints.
    pub const NONE: Version = Version { timestamp: Timestamp(0), incarnation: Incarnation(0) };
}

/// What a version's text must look like.
#[derive(Debug, thiserror::Error)]
#[error("a version is 16 hexadecimal digits, '-', 16 hexadecimal digits; got {got:?}")]
pub struct VersionParseError {
    got: String,
}

impl FromStr for Version {
    type Err = VersionParseError;

    fn from_str(text: &str) -> Result<Self, VersionParseError> {
        let parse = |digits: &str| u64::from_str_radix(digits, 16).ok();
        text.split_once('-')
            .and_then(|(stamp, life)| Some((parse(stamp)?, parse(life)?)))
            .map(|(stamp, life)| Version {
                timestamp: Timestamp(stamp),
                incarnation: Incarnation(life),
            })
            .ok_or_else(|| VersionParseError { got: text.to_owned() })
    }
}

/// What orders the changes of one Raft group: every entry that is applied has one of its own, above
/// those of all entries before it. Clients see it as a [`Version`] of incarnation 0.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Revision(pub u64);

impl Revision {
    /// Stamps from here on (the year 6429) do not move revisions: a broken clock cannot use the
    /// numbers up.
    const STAMP_HEEDED_MAX: u64 = 1 << 63;

    /// The revision of the next entry: above this one, and as late as the entry's stamp.
    #[must_use]
    pub fn next(self, stamp: Timestamp) -> Revision {
        let heeded = if stamp.0 < Self::STAMP_HEEDED_MAX { stamp.0 } else { 0 };
        Revision(heeded.max(self.0.saturating_add(1)))
    }

    /// The revision that a version stands for; `None` for one of a `quorum` keyspace, whose
    /// incarnation is a random number.
    pub fn of(version: Version) -> Option<Revision> {
        (version.incarnation == Incarnation(0)).then_some(Revision(version.timestamp.0))
    }
}

impl From<Revision> for Version {
    fn from(revision: Revision) -> Version {
        Version { timestamp: Timestamp(revision.0), incarnation: Incarnation(0) }
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Version::from(*self).fmt(f)
    }
}

/// The end of a value's life, in milliseconds since 1970: from then on its record reads as absent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Expiry(pub u64);

/// What a replica holds for a key: a value, or a tombstone, under one version.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Record {
    /// Orders this record among all of the key.
    pub version: Version,
    /// `None` is a tombstone: a versioned delete.
    pub value: Option<Bytes>,
    /// When the value ends; `None` for one that stays. As much a part of the record as the value:
    /// wherever the record goes, its end goes with it.
    pub expires_at: Option<Expiry>,
}

impl Record {
    /// A record that does not expire; a tombstone when `value` is `None`.
    pub fn new(version: Version, value: Option<Bytes>) -> Record {
        Record { version, value, expires_at: None }
    }

    /// The same record with another end, or none.
    #[must_use]
    pub fn expiring(self, expires_at: Option<Expiry>) -> Record {
        Record { expires_at, ..self }
    }

    /// Whether its life is over when the wall clock shows `wall_ms`.
    pub fn is_expired(&self, wall_ms: u64) -> bool {
        self.expires_at.is_some_and(|end| wall_ms >= end.0)
    }

    /// Bytes of the value; 0 for a tombstone.
    pub fn value_len(&self) -> usize {
        self.value.as_ref().map_or(0, Bytes::len)
    }
}

/// A key of a keyspace and its record: what is written, hinted, repaired and streamed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// The keyspace of the key.
    pub keyspace: KeyspaceId,
    /// The key.
    pub key: Key,
    /// Its record.
    pub record: Record,
}

impl Row {
    /// Bytes that the row stands for against limits, as [`cost_bytes`] has it.
    pub fn cost_bytes(&self) -> usize {
        cost_bytes(&self.key, &self.record)
    }
}

/// Bytes that a record under a key stands for against limits: both, and a fixed overhead.
pub fn cost_bytes(key: &Key, record: &Record) -> usize {
    const ROW_OVERHEAD_BYTES: usize = 64;
    key.0.len() + record.value_len() + ROW_OVERHEAD_BYTES
}

/// A monotonic moment in microseconds since the node's clock began; never wall time.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Moment(pub u64);

impl Moment {
    /// Time since an earlier moment; zero if it lies ahead.
    pub fn since(self, earlier: Moment) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Moment {
    type Output = Moment;
    fn add(self, by: Duration) -> Moment {
        Moment(self.0.saturating_add(u64::try_from(by.as_micros()).unwrap_or(u64::MAX)))
    }
}

impl Sub<Duration> for Moment {
    type Output = Moment;
    fn sub(self, by: Duration) -> Moment {
        Moment(self.0.saturating_sub(u64::try_from(by.as_micros()).unwrap_or(u64::MAX)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_survives_its_text() {
        let version = Version { timestamp: Timestamp(0x1234_5678), incarnation: Incarnation(7) };
        assert_eq!(version.to_string().parse::<Version>().ok(), Some(version));
    }

    #[test]
    fn a_malformed_version_is_named_in_the_error() {
        let error = "12".parse::<Version>().err().map(|error| error.to_string());
        assert!(error.is_some_and(|text| text.contains("\"12\"")));
    }

    #[test]
    fn a_revision_is_shown_as_a_version_and_comes_back_from_it() {
        let revision = Revision(0x2a);
        assert_eq!(revision.to_string(), "000000000000002a-0000000000000000");
        let version: Version = revision.to_string().parse().unwrap();
        assert_eq!(Revision::of(version), Some(revision));
        assert_eq!(Revision::of(Version { incarnation: Incarnation(1), ..version }), None);
    }

    #[test]
    fn revisions_grow_whatever_the_stamps() {
        let after = |stamp| Revision(10).next(Timestamp(stamp)).0;
        assert_eq!((after(0), after(10), after(11), after(500)), (11, 11, 11, 500));
        assert_eq!(after(1 << 63), 11, "a stamp of the far future is not heeded");
    }

    #[test]
    fn a_record_is_expired_from_its_end_on() {
        let version = Version { timestamp: Timestamp(1), incarnation: Incarnation(1) };
        let stays = Record::new(version, Some(Bytes::from_static(b"v")));
        assert!(!stays.is_expired(u64::MAX));
        let ends = stays.expiring(Some(Expiry(1_000)));
        assert_eq!(
            [999, 1_000, 1_001].map(|wall_ms| ends.is_expired(wall_ms)),
            [false, true, true]
        );
    }

    #[test]
    fn versions_order_by_stamp_then_incarnation() {
        let version =
            |stamp, life| Version { timestamp: Timestamp(stamp), incarnation: Incarnation(life) };
        assert!(version(1, 9) < version(2, 1));
        assert!(version(2, 1) < version(2, 2));
    }
}
