//! Keeps clients of a keyspace to what the system group allows it on each node.
//!
//! It is kept by the node that coordinates a request, before anything is sent. A keyspace without
//! limits costs a look at one flag.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};

use crate::node::request::{RequestError, RequestOptions};
use crate::node::service::Node;
use crate::protocol::group::command::Action;
use crate::protocol::meter::{Cost, Meter, UsedUp};
use crate::protocol::system::SystemState;
use crate::protocol::system::keyspace::DEFAULT_NAME;
use crate::types::{Key, KeyspaceId, Moment};

/// The meters of the keyspaces that are limited.
#[derive(Default)]
pub(crate) struct Meters {
    any: AtomicBool,
    by_keyspace: RwLock<BTreeMap<KeyspaceId, Arc<Mutex<Meter>>>>,
}

impl Meters {
    /// Takes over what the system group has decided. A meter whose limits stay goes on.
    pub(crate) fn follow(&self, state: &SystemState) {
        let mut meters = self.by_keyspace.write();
        let limited = state.keyspaces().filter(|keyspace| !keyspace.limits.is_none());
        *meters = limited
            .map(|keyspace| {
                let present = meters.get(&keyspace.id).cloned();
                let same = present.filter(|meter| meter.lock().limits() == keyspace.limits);
                let anew = || Arc::new(Mutex::new(Meter::new(keyspace.limits)));
                (keyspace.id, same.unwrap_or_else(anew))
            })
            .collect();
        self.any.store(!meters.is_empty(), Ordering::Relaxed);
    }

    fn admit(
        &self,
        keyspace: KeyspaceId,
        cost: Cost,
        now: impl Fn() -> Moment,
    ) -> Result<(), UsedUp> {
        match self.meter(keyspace) {
            Some(meter) => meter.lock().admit(cost, now()),
            None => Ok(()),
        }
    }

    fn charge(&self, keyspace: KeyspaceId, cost: Cost, now: impl Fn() -> Moment) {
        if let Some(meter) = self.meter(keyspace) {
            meter.lock().charge(cost, now());
        }
    }

    fn meter(&self, keyspace: KeyspaceId) -> Option<Arc<Mutex<Meter>>> {
        if !self.any.load(Ordering::Relaxed) {
            return None;
        }
        self.by_keyspace.read().get(&keyspace).cloned()
    }
}

/// What a request for a key costs, with the bytes of the value that it brings along.
pub(crate) fn cost_of(key: &Key, value_bytes: usize) -> Cost {
    Cost { operations: 1, bytes: (key.0.len() + value_bytes) as u64 }
}

/// What the steps of a transaction cost together.
pub(crate) fn cost_of_steps(steps: &[(Key, Action)]) -> Cost {
    let each = steps.iter().map(|(key, action)| cost_of(key, sent_bytes(action)));
    each.fold(Cost { operations: 0, bytes: 0 }, |sum, step| Cost {
        operations: sum.operations + step.operations,
        bytes: sum.bytes + step.bytes,
    })
}

/// Bytes of the value that an action brings along.
pub(crate) fn sent_bytes(action: &Action) -> usize {
    match action {
        Action::Put(value) | Action::Append(value) => value.len(),
        Action::CompareAndSet { then, .. } => then.as_ref().map_or(0, Bytes::len),
        Action::Delete | Action::Check(_) => 0,
    }
}

impl Node {
    /// Counts a request for keys of a keyspace, lets it through, and has it pay.
    ///
    /// # Errors
    /// [`RequestError::RateLimited`] when the keyspace has used up what this node may do for it.
    pub(crate) fn admit<'k>(
        &self,
        keyspace: KeyspaceId,
        keys: impl Iterator<Item = &'k Key>,
        cost: Cost,
        options: &RequestOptions,
    ) -> Result<(), RequestError> {
        // The clock is read only for those who want to know: most requests go by.
        let now = || self.local.env.now();
        keys.for_each(|key| self.local.hot_keys.note(keyspace, key, now));
        self.local.meters.admit(keyspace, cost, now).map_err(|refused| {
            let UsedUp { limit, max, sent, retry_after } = refused;
            let keyspace = options.keyspace.as_deref().unwrap_or(DEFAULT_NAME).to_owned();
            RequestError::RateLimited { keyspace, limit, max, sent, retry_after }
        })
    }

    /// Has a keyspace pay for the value that a read has brought.
    pub(crate) fn charge_value(&self, keyspace: KeyspaceId, value_bytes: usize) {
        let cost = Cost { operations: 0, bytes: value_bytes as u64 };
        self.local.meters.charge(keyspace, cost, || self.local.env.now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::system::keyspace::Mode;
    use crate::protocol::system::limits::LimitsAsked;
    use crate::protocol::system::{SystemCommand, samples};
    use crate::types::Merge;

    const ONE: Cost = Cost { operations: 1, bytes: 1 };
    const NOW: Moment = Moment(5_000_000);

    /// A state with these keyspaces, each with a limit on operations or none.
    fn limited(keyspaces: &[(&str, Option<u64>)]) -> SystemState {
        samples::decided(keyspaces.iter().map(|(name, operations_per_second)| {
            let (operations_per_second, bytes_per_second) = (*operations_per_second, None);
            SystemCommand::CreateKeyspace {
                name: (*name).to_owned(),
                mode: Mode::Quorum,
                merge: Merge::Lww,
                replication: None,
                limits: LimitsAsked { operations_per_second, bytes_per_second },
            }
        }))
    }

    fn passed(limits: &Meters, keyspace: u32) -> usize {
        let admit = |_: &i32| limits.admit(KeyspaceId(keyspace), ONE, || NOW).is_ok();
        (0..100).take_while(admit).count()
    }

    #[test]
    fn only_what_is_limited_is_held_back_and_only_while_it_is() {
        let limits = Meters::default();
        assert_eq!(passed(&limits, 1), 100);
        limits.follow(&limited(&[("a", Some(5)), ("b", None)]));
        let first = passed(&limits, 1);
        assert!((5..=6).contains(&first), "{first}");
        assert_eq!(passed(&limits, 2), 100);
        limits.follow(&limited(&[("a", Some(5)), ("b", Some(7))]));
        assert_eq!(passed(&limits, 1), 0, "what was used up stays so");
        limits.follow(&limited(&[("a", Some(20)), ("b", Some(7))]));
        assert!(passed(&limits, 1) >= 20, "other limits begin anew");
        limits.follow(&limited(&[("a", None), ("b", None)]));
        assert_eq!(passed(&limits, 1), 100);
    }
}
