//! Bugs of the leaderless side planted on purpose, to prove that tests and invariants can fail.
//!
//! Each is one decision made wrong. They exist only in tests and under the feature `planted`;
//! elsewhere [`planted`] is the constant `false` and costs nothing. Those of the Raft core stand in
//! [`crate::protocol::raft::planted`].

/// One decision made wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Planted {
    /// The new owners of a partition answer reads before they have its rows.
    ReadsFlippedBeforeSync,
    /// Nodes that a keyspace's larger N makes owners answer reads before they have its rows.
    OwnersAtOnce,
    /// While a partition moves, writes go to its old owners alone.
    WritesToOldOwnersOnly,
    /// While a partition moves, the acknowledgements of old and new owners count together.
    QuorumsOfAMoveAdded,
    /// Replicas take writes that were decided before the partition set out.
    WriteFenceIgnored,
    /// Replicas answer reads that were decided before the new owners served.
    ReadFenceIgnored,
    /// A move ends although the old owners have not heard that the new ones serve.
    SettledUnheard,
    /// A taker holds itself for synced once it has gone through one owner.
    SyncedAfterOneSource,
    /// A taker counts a source whose rows are damaged like any other.
    DamageOverlooked,
    /// A replica of a group whose rows are damaged goes on with them.
    DamagedReplicaStays,
    /// A source hands rows out before it has heard that the partition moves.
    UnfencedSource,
    /// A hint whose target owns the key no more is thrown away.
    HintOfFormerOwnerDropped,
    /// A node drops the rows of a partition that it is about to own.
    DroppedWhileMoving,
    /// A node leaves before its hints are delivered.
    LeavesWithHints,
    /// A delete does not tell the hash tree.
    TreeMissesDeletes,
    /// A hash tree that is refreshed keeps the hashes of stale buckets.
    StaleBucketsKept,
    /// An exchange copies the older row over the newer one.
    RepairsBackwards,
    /// An exchange overlooks rows that one of the replicas lacks altogether.
    AbsentRowsOverlooked,
    /// Hints are delivered whatever has been reaped since.
    HintsPassTheFloor,
    /// Tombstones are reaped before all owners have told that they share them.
    ReapedUnshared,
    /// A node that comes back to a partition keeps what it had of it from before.
    LeftoversKept,
    /// A node whose disk was put back to an earlier state goes on with its rows.
    OutdatedRowsKept,
    /// A read forgets which version its reader has seen.
    ContextIgnored,
    /// A listing goes on behind the key that the first of its replicas has come to, not the last.
    ListedBeyondComplete,
    /// A replica takes a row of siblings over without joining it with its own.
    RowsReplacedUnjoined,
    /// A write of siblings covers nothing, whatever its writer has seen.
    MintIgnoresContext,
    /// An addition to a counter leaves its life's old tally beside the new one.
    TallyStays,
    /// A node that has another mint a write forgets what its writer has seen.
    ContextLostOnTheWay,
    /// A node whose rows are gone goes on to write under the life that wrote them.
    LifeGoesOn,
    /// A node leaves as soon as nothing lies on it, and while it votes in the system group.
    LeavesVoting,
    /// A node that leaves waits for requests as long as they take that ask for no other time.
    LeavesLongRequests,
    /// Members become voters of the system group before they have been heard of as learners.
    VotersUnheard,
}

/// How bugs of a kind are planted and asked after: one at most in each thread.
macro_rules! plantable {
    ($Planted:ident) => {
        #[cfg(any(test, feature = "planted"))]
        thread_local! {
            static PLANTED: std::cell::Cell<Option<$Planted>> =
                const { std::cell::Cell::new(None) };
        }

        impl $Planted {
            /// Plants this bug, or none, in all that the calling thread runs.
            #[cfg(any(test, feature = "planted"))]
            pub fn set(bug: Option<$Planted>) {
                PLANTED.set(bug);
            }
        }

        /// Whether the bug is planted in this thread.
        #[cfg(any(test, feature = "planted"))]
        pub fn planted(bug: $Planted) -> bool {
            PLANTED.get() == Some(bug)
        }

        /// Whether the bug is planted in this thread: never, in this build.
        #[cfg(not(any(test, feature = "planted")))]
        pub const fn planted(_: $Planted) -> bool {
            false
        }
    };
}
pub(crate) use plantable;

plantable!(Planted);
