//! A hash tree over the rows of one partition of one keyspace: root → branches → buckets.
//!
//! A row belongs to the bucket that its token's low bits name (the high bits name the partition). A
//! bucket's hash is the [`Digest`] of its rows, and every hash above is the XOR of those below it,
//! so a tree is its buckets. All trees have the same shape: two nodes compare theirs hash by hash.
//!
//! The tree is kept by the writes themselves, at the price of one bit each: a write says that its
//! bucket is *stale*, for the store takes a row in without knowing which one it replaces, and
//! looking would make writes a tenth dearer. Before a tree is compared it is *refreshed* from the
//! rows: one pass over the partition, in which only rows of stale buckets are hashed. A partition
//! that nobody writes to is never passed over.
//!
//! Invariant: a bucket that is not stale has the hash of its rows, provided that whoever changes a
//! row marks its bucket after the change is visible. A refresh may see a change that is marked
//! later (the bucket is then stale once more, for nothing), and never misses one that was marked
//! before.

use crate::protocol::digest::Digest;
use crate::protocol::planted::{Planted, planted};
use crate::protocol::ring::token_of;
use crate::types::{Key, Version};

/// Branches of a tree.
pub const BRANCHES: usize = 32;

/// Buckets of a branch. A tree's 1,024 buckets take 8 KiB; at the founders' 256 partitions, a
/// million keys lie four to a bucket, so a row that differs costs two lists of 32 hashes and four
/// keys.
pub const BUCKETS_OF_BRANCH: usize = 32;

/// Buckets of a tree.
pub const BUCKETS: usize = BRANCHES * BUCKETS_OF_BRANCH;

/// The bucket that a key belongs to.
pub fn bucket_of(key: &Key) -> u16 {
    (token_of(key).0 % BUCKETS as u64) as u16
}

/// A set of buckets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Buckets([u64; BUCKETS / 64]);

impl Buckets {
    /// None of them.
    pub const NONE: Buckets = Buckets([0; BUCKETS / 64]);

    /// All of them.
    pub const ALL: Buckets = Buckets([u64::MAX; BUCKETS / 64]);

    /// Adds a bucket; numbers above the last are none.
    pub fn insert(&mut self, bucket: u16) {
        if let Some(word) = self.0.get_mut(usize::from(bucket) / 64) {
            *word |= 1 << (bucket % 64);
        }
    }

    /// Whether a bucket is among them.
    pub fn contains(&self, bucket: u16) -> bool {
        self.0.get(usize::from(bucket) / 64).is_some_and(|word| word & (1 << (bucket % 64)) != 0)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }

    /// They, in order.
    pub fn iter(&self) -> impl Iterator<Item = u16> + '_ {
        (0..BUCKETS as u16).filter(|bucket| self.contains(*bucket))
    }
}

impl FromIterator<u16> for Buckets {
    fn from_iter<I: IntoIterator<Item = u16>>(buckets: I) -> Buckets {
        let mut set = Buckets::NONE;
        buckets.into_iter().for_each(|bucket| set.insert(bucket));
        set
    }
}

/// The tree of one partition of one keyspace.
#[derive(Clone, Debug)]
pub struct Tree {
    buckets: Box<[Digest; BUCKETS]>,
    stale: Buckets,
    /// What became stale since the last refresh began.
    touched: Buckets,
    /// Refreshes begun; only the last one counts.
    refreshes: u64,
}

impl Default for Tree {
    fn default() -> Self {
        Tree::new()
    }
}

impl Tree {
    /// The tree of rows that nobody has looked at.
    pub fn new() -> Tree {
        Tree {
            buckets: Box::new([Digest::default(); BUCKETS]),
            stale: Buckets::ALL,
            touched: Buckets::NONE,
            refreshes: 0,
        }
    }

    /// Notes that a row of this bucket has changed, after the change.
    pub fn mark(&mut self, bucket: u16) {
        self.stale.insert(bucket);
        self.touched.insert(bucket);
    }

    /// Whether every bucket has the hash of its rows.
    pub fn is_fresh(&self) -> bool {
        self.stale.is_empty()
    }

    /// Begins to hash the rows of the stale buckets anew; what an earlier refresh finds is void.
    pub fn refresh(&mut self) -> Refresh {
        self.begin(self.stale.clone())
    }

    /// Begins to hash all rows anew.
    pub fn verify(&mut self) -> Refresh {
        self.begin(Buckets::ALL)
    }

    /// Takes over what a refresh that saw all rows has found. Returns how many buckets were not
    /// what their rows say although no write had said so; `None` if the refresh is void.
    pub fn finish(&mut self, refresh: Refresh) -> Option<u32> {
        let Refresh { number, wanted, found } = refresh;
        if number != self.refreshes {
            return None;
        }
        let mut wrong = 0;
        for bucket in wanted.iter() {
            let at = usize::from(bucket);
            let is_marked = self.stale.contains(bucket) || self.touched.contains(bucket);
            wrong += u32::from(!is_marked && self.buckets[at] != found[at]);
            if !planted(Planted::StaleBucketsKept) || self.refreshes == 1 {
                self.buckets[at] = found[at];
            }
        }
        self.stale = std::mem::replace(&mut self.touched, Buckets::NONE);
        Some(wrong)
    }

    /// The hash over all rows.
    pub fn root(&self) -> u64 {
        combined(&self.buckets[..])
    }

    /// The hashes of all branches.
    pub fn branches(&self) -> Vec<u64> {
        self.buckets.chunks(BUCKETS_OF_BRANCH).map(combined).collect()
    }

    /// The hashes of a branch's buckets; nothing for a branch that there is not.
    pub fn buckets(&self, branch: u8) -> Vec<u64> {
        let mut branches = self.buckets.chunks(BUCKETS_OF_BRANCH);
        let buckets = branches.nth(usize::from(branch)).unwrap_or(&[]);
        buckets.iter().map(|bucket| bucket.value()).collect()
    }

    fn begin(&mut self, wanted: Buckets) -> Refresh {
        self.refreshes += 1;
        self.touched = Buckets::NONE;
        let found = Box::new([Digest::default(); BUCKETS]);
        Refresh { number: self.refreshes, wanted, found }
    }
}

fn combined(buckets: &[Digest]) -> u64 {
    buckets.iter().fold(0, |hash, bucket| hash ^ bucket.value())
}

/// A pass over the rows.
#[derive(Debug)]
pub struct Refresh {
    number: u64,
    wanted: Buckets,
    found: Box<[Digest; BUCKETS]>,
}

impl Refresh {
    /// Counts a row in, if it matters.
    pub fn add(&mut self, key: &Key, version: Version) {
        let bucket = bucket_of(key);
        if self.wanted.contains(bucket) {
            self.found[usize::from(bucket)].add(key, version);
        }
    }
}

#[cfg(test)]
mod tests;
