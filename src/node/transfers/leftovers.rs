//! Rows that a node still has of a partition from the time before it lost it, as it comes back.
//!
//! What was deleted meanwhile, and the delete reaped, would come back to life with them. Below the
//! partition's floor its present owners have everything that there is, so what they do not have is
//! to go: it is buried, under a tombstone that the floor hides, or under a row without it.

use std::collections::BTreeSet;

use crate::node::env::run_blocking;
use crate::node::pages::Place;
use crate::node::transfers::{STRETCH_BYTES, Transfers};
use crate::protocol::message::{Refusal, ScanPage};
use crate::protocol::planted::{Planted, planted};
use crate::protocol::reaping::{ReapFloor, burial};
use crate::types::Key;

impl Transfers {
    /// The floor below which rows are to go that the present owners do not have; none where this
    /// node is one of them.
    pub(super) fn burying_floor(&self, (keyspace, partition): Place) -> ReapFloor {
        let topology = self.topology.load();
        let owns = topology.placement(keyspace).is_some_and(|placement| {
            placement.write_rings(partition).present.primaries(partition).contains(&self.own)
        });
        match owns || planted(Planted::LeftoversKept) {
            true => ReapFloor::default(),
            false => topology.reap_floor(partition),
        }
    }

    /// Buries what lies here behind a key, as far as a source's page goes, and is not in it.
    pub(super) async fn bury(
        &self,
        place: Place,
        floor: ReapFloor,
        mut after: Option<Key>,
        page: &ScanPage,
    ) -> Result<(), Refusal> {
        let listed = page.rows.iter().map(|(key, _)| key);
        // Of a row that is damaged there the other owners say whether it is to go.
        let theirs: BTreeSet<&Key> = listed.chain(&page.damaged).collect();
        let end = page.rows.last().map(|(key, _)| key).filter(|_| !page.done);
        loop {
            let store = std::sync::Arc::clone(&self.replica.store);
            let from = after.take();
            let scan = move || store.scan(place.0, place.1, from.as_ref(), STRETCH_BYTES as usize);
            let here = run_blocking(&*self.env, scan).await.map_err(|_| Refusal::Storage)?;
            let last = here.rows.last().map(|(key, _)| key.clone());
            let is_left = |(key, record): &(Key, _)| {
                end.is_none_or(|end| key <= end) && floor.covers(record) && !theirs.contains(key)
            };
            let left = here.rows.into_iter().filter(is_left);
            let rows = left.map(|(key, record)| (key, burial(place.0.merge(), &record))).collect();
            self.pages.keep(place, ScanPage { rows, ..ScanPage::default() }).await?;
            let is_behind = last.as_ref().is_none_or(|last| end.is_some_and(|end| last >= end));
            if here.done || is_behind {
                return Ok(());
            }
            after = last;
        }
    }
}
