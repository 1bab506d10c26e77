//! The hash trees of the partitions that somebody compares.
//!
//! A partition gets its tree when it is first asked for. From then on each row that is published
//! marks its bucket, after the row is visible: see [`crate::protocol::merkle`] for what that
//! promises. Freezing and feeding tables changes no row, and so no tree. A tree that is dropped, or
//! was lost with the process, is made again by one pass over the partition's rows.

use std::collections::BTreeMap;

use parking_lot::Mutex;

use super::{Store, StoreError, scan};
use crate::protocol::merkle::{Buckets, Refresh, Tree, bucket_of};
use crate::protocol::message::tree::RowList;
use crate::protocol::planted::{Planted, planted};
use crate::storage::memtable::Place;
use crate::types::{Key, KeyspaceId, PartitionId, Row};

/// Trees that are kept: 32 MiB of them. At the founders' 256 partitions on three nodes, sixteen
/// keyspaces have theirs at hand; of more, those asked for longest ago are made anew each time.
const TREES_MAX: usize = 4096;

/// Bytes of rows that a pass reads at once.
const PASS_PAGE_BYTES: usize = 256 << 10;

/// Rows of one list.
const LIST_ROWS_MAX: usize = 1024;

/// Rows that are looked through for one list, so that nobody waits long for it.
const LIST_LOOKED_AT_MAX: usize = 64 << 10;

/// How much of a tree is hashed anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pass {
    /// The buckets that writes have marked.
    Stale,
    /// All of them; what no write has told of comes to light, such as rows that are damaged.
    All,
}

/// A tree as it is now, and what making it so came to.
#[derive(Clone, Debug)]
pub struct Hashed {
    /// The tree.
    pub tree: Tree,
    /// Rows that were read for it.
    pub rows: u64,
    /// Buckets whose rows had changed although no write had said so.
    pub wrong_buckets: u32,
}

/// A tree, and when it was last asked for.
struct Held {
    tree: Tree,
    asked: u64,
}

/// What is to be done before a tree is right.
enum Begun {
    /// Nothing.
    Fresh(Tree),
    /// To go through the rows.
    Pass(Refresh),
}

#[derive(Default)]
pub(super) struct Trees {
    held: Mutex<BTreeMap<Place, Held>>,
    /// One pass at a time, which counts them: peers that ask at once do not void each other's.
    passes: Mutex<u64>,
}

/// The buckets of rows that are about to be published.
#[derive(Default)]
pub(super) struct Marks(Vec<(Place, u16)>);

impl Marks {
    pub(super) fn note(&mut self, partition: PartitionId, row: &Row) {
        if row.record.value.is_none() && planted(Planted::TreeMissesDeletes) {
            return;
        }
        self.0.push(((row.keyspace, partition), bucket_of(&row.key)));
    }
}

impl Trees {
    /// Marks the buckets of rows that are visible now.
    pub(super) fn mark(&self, marks: Marks) {
        let mut held = self.held.lock();
        if held.is_empty() {
            return;
        }
        for (place, bucket) in marks.0 {
            if let Some(held) = held.get_mut(&place) {
                held.tree.mark(bucket);
            }
        }
    }

    /// Drops the tree of a partition whose rows are gone.
    pub(super) fn forget(&self, place: Place) {
        self.held.lock().remove(&place);
    }

    /// Drops the trees of a keyspace that is gone.
    pub(super) fn forget_keyspace(&self, keyspace: KeyspaceId) {
        self.held.lock().retain(|(of, _), _| *of != keyspace);
    }

    fn begin(&self, place: Place, pass: Pass, asked: u64) -> Begun {
        let mut held = self.held.lock();
        make_room(&mut held, place);
        let fresh = || Held { tree: Tree::new(), asked };
        let one = held.entry(place).or_insert_with(fresh);
        one.asked = asked;
        match pass {
            Pass::Stale if one.tree.is_fresh() => Begun::Fresh(one.tree.clone()),
            Pass::Stale => Begun::Pass(one.tree.refresh()),
            Pass::All => Begun::Pass(one.tree.verify()),
        }
    }

    /// `None` when the tree was dropped meanwhile.
    fn finish(&self, place: Place, refresh: Refresh) -> Option<(Tree, u32)> {
        let mut held = self.held.lock();
        let one = held.get_mut(&place)?;
        let wrong_buckets = one.tree.finish(refresh)?;
        Some((one.tree.clone(), wrong_buckets))
    }
}

fn make_room(held: &mut BTreeMap<Place, Held>, place: Place) {
    if held.len() < TREES_MAX || held.contains_key(&place) {
        return;
    }
    let oldest = held.iter().min_by_key(|(_, held)| held.asked).map(|(place, _)| *place);
    if let Some(oldest) = oldest {
        held.remove(&oldest);
    }
}

/// The tree of a partition, right for every row that was visible when this was called. Blocks
/// for as long as a pass over the partition takes, if one is needed.
///
/// # Errors
/// Those of the engine.
pub(super) fn hashed(store: &Store, place: Place, pass: Pass) -> Result<Hashed, StoreError> {
    let mut passes = store.trees.passes.lock();
    let mut rows = 0;
    loop {
        *passes += 1;
        let mut refresh = match store.trees.begin(place, pass, *passes) {
            Begun::Fresh(tree) => return Ok(Hashed { tree, rows, wrong_buckets: 0 }),
            Begun::Pass(refresh) => refresh,
        };
        let mut after = None;
        loop {
            let page = scan::page(store, place, after.as_ref(), PASS_PAGE_BYTES)?;
            rows += page.rows.len() as u64;
            page.rows.iter().for_each(|(key, record)| refresh.add(key, record.version));
            after = page.rows.last().map(|(key, _)| key.clone());
            if page.done || after.is_none() {
                break;
            }
        }
        // Otherwise the partition was dropped under way, and is looked at as it is now.
        if let Some((tree, wrong_buckets)) = store.trees.finish(place, refresh) {
            return Ok(Hashed { tree, rows, wrong_buckets });
        }
    }
}

/// The rows of some buckets above a key, by version.
///
/// # Errors
/// Those of the engine.
pub(super) fn list(
    store: &Store,
    place: Place,
    buckets: &Buckets,
    mut after: Option<Key>,
) -> Result<RowList, StoreError> {
    let (mut list, mut looked_at) = (RowList::default(), 0);
    loop {
        let page = scan::page(store, place, after.as_ref(), PASS_PAGE_BYTES)?;
        looked_at += page.rows.len();
        let end = page.rows.last().map(|(key, _)| key.clone());
        for (key, record) in page.rows {
            if !buckets.contains(bucket_of(&key)) {
                continue;
            }
            list.rows.push((key.clone(), record.version));
            if list.rows.len() == LIST_ROWS_MAX {
                list.complete_to = Some(key);
                return Ok(list);
            }
        }
        if page.done || end.is_none() {
            return Ok(list);
        }
        if looked_at >= LIST_LOOKED_AT_MAX {
            list.complete_to = end;
            return Ok(list);
        }
        after = end;
    }
}
