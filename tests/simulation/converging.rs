//! What replicas hold when nobody has read for a while.

use std::time::Duration;

use coterie::types::Key;

use crate::cluster::Cluster;
use crate::history::Held;
use crate::keyspaces;
use crate::run::{has_panicked, wait_until};

/// How long replicas may take to become equal by themselves: a few turns of comparing, with the
/// pause in each.
const CONVERGE_MAX: Duration = Duration::from_secs(60);

/// Gives replicas the time that they need to become equal by themselves, and returns what they hold
/// then; nothing when hints are all that there is.
pub(crate) async fn converge(cluster: &Cluster, keys: &[Key]) -> Vec<(Key, Held)> {
    if !cluster.shape.mending.is_complete() {
        return Vec::new();
    }
    let held = || -> Vec<(Key, Held)> {
        // Replicas that cannot be looked at are told of by those who read.
        let of = |key: &Key| (key.clone(), held_by_primaries(cluster, key, &mut Vec::new()));
        keys.iter().map(of).collect()
    };
    let equal = |held: &[(Key, Held)]| {
        held.iter().all(|(_, held)| held.iter().all(|(_, record)| *record == held[0].1))
    };
    wait_until(cluster, CONVERGE_MAX, || equal(&held()) || has_panicked()).await;
    held()
}

/// What each primary of a key holds, by machine.
pub(crate) fn held_by_primaries(cluster: &Cluster, key: &Key, failures: &mut Vec<String>) -> Held {
    let mut held = Vec::new();
    for machine in cluster.primaries(key) {
        let Some(session) = cluster.session(machine) else { continue };
        match session.node.peek(keyspaces::of_key(key).as_deref(), key) {
            Ok(record) => held.push((machine, record)),
            Err(error) => failures.push(format!("n{machine} holds of {key}: {error}")),
        }
    }
    held
}
