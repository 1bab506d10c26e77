//! Rows that are damaged where a node takes them over, or where a Raft group needs them.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use coterie::node::request::{RequestOptions, Transaction};
use coterie::protocol::group::command::Action;
use coterie::protocol::group::stored::Stored;
use coterie::protocol::planted::Planted;
use coterie::protocol::system::placing::Step;
use coterie::types::{GroupId, Key, KeyspaceId, NodeId, PartitionId};

use crate::cluster::{Cluster, Shape};
use crate::dice::Dice;
use crate::directed::moves::{rehearse, tell};
use crate::directed::system_voters;
use crate::disk::Survival;
use crate::run::{start_all, wait_until};
use crate::strong;
use crate::strong::watch::groups;
use crate::trace::Trace;

/// Three nodes that have every key, until another joins.
const SHAPE: Shape = Shape { machines: 4, late: 1, partitions: 32, ..crate::directed::SHAPE };

/// The machine whose node joins.
const JOINS: usize = 3;

/// How long each step may take, in virtual time.
const STEP_MAX: Duration = Duration::from_secs(60);

/// How often a write is tried, once a second.
const TRIES_MAX: usize = 20;

/// Two of three owners have a write. One of them is down, and what the other has of it is damaged:
/// the third, which lacks it, is not enough to take the partition over from. Whether the new owner
/// waits for the one that is down.
async fn an_owner_with_a_damaged_row_is_not_enough() -> bool {
    let mut moves = rehearse(SHAPE, JOINS).await.into_iter();
    let (key, partition, damaged) = moves.next().expect("some key moves");
    let mut others = (0..JOINS).filter(|machine| *machine != damaged);
    let (knows, lacks) = (others.next().expect("three"), others.next().expect("three"));
    let cluster = Cluster::new(Arc::new(Trace::new(false)), SHAPE, &Dice::new(1));
    start_all(&cluster).await;
    while system_voters(&cluster).await.len() < JOINS {
        cluster.agenda.sleep(Duration::from_secs(1)).await;
    }
    write_past(&cluster, lacks, knows, &key).await;
    let place = (KeyspaceId::DEFAULT, partition);
    let is_stored = || cluster.engine_disk(damaged).holds(place, &key);
    assert!(wait_until(&cluster, STEP_MAX, is_stored).await, "the engine is fed");
    // What hints it has kept for the third are not heard of.
    cluster.crash(knows, Survival::Everything);
    cluster.crash(damaged, Survival::Everything);
    cluster.engine_disk(damaged).damage(place, &key);
    cut_off(&cluster, lacks, false);
    cluster.start(damaged);
    cluster.start(JOINS);
    let copies = || is_copied(&cluster, lacks, partition);
    assert!(wait_until(&cluster, STEP_MAX, copies).await, "the move begins");
    if wait_until(&cluster, STEP_MAX, || !copies()).await {
        cluster.end();
        return false;
    }
    cluster.start(knows);
    assert!(wait_until(&cluster, STEP_MAX, || cluster.is_settled()).await, "it has moved");
    cluster.crash(knows, Survival::Everything);
    let node = cluster.session(JOINS).expect("it runs").node;
    let read = node.get(key, RequestOptions::default()).await.map(|read| read.value);
    cluster.end();
    read.ok().flatten() == Some(Bytes::from_static(b"value"))
}

#[test]
fn what_is_damaged_at_one_owner_is_taken_from_another_that_is_waited_for() {
    tell(Planted::DamageOverlooked, an_owner_with_a_damaged_row_is_not_enough);
}

/// Writes a key at a quorum of which one machine knows nothing.
async fn write_past(cluster: &Cluster, lacks: usize, coordinator: usize, key: &Key) {
    cut_off(cluster, lacks, true);
    let node = cluster.session(coordinator).expect("it runs").node;
    for _ in 0..TRIES_MAX {
        let value = Bytes::from_static(b"value");
        let timeout = Some(Duration::from_secs(1));
        let options = RequestOptions { timeout, ..RequestOptions::default() };
        if node.put(key.clone(), value, options).await.is_ok() {
            return;
        }
        cluster.agenda.sleep(Duration::from_secs(1)).await;
    }
    panic!("two of three took no write");
}

fn cut_off(cluster: &Cluster, machine: usize, blocked: bool) {
    for other in (0..JOINS).filter(|other| *other != machine) {
        cluster.network.set_blocked(machine, other, blocked);
        cluster.network.set_blocked(other, machine, blocked);
    }
}

/// Whether a partition is being copied, as a machine has heard.
fn is_copied(cluster: &Cluster, machine: usize, partition: PartitionId) -> bool {
    let state = cluster.session(machine).expect("it runs").node.system();
    state.is_some_and(|state| {
        let mut moving = state.placing().moving();
        moving.any(|(it, _, moving)| it == partition && matches!(moving.step, Step::Copying { .. }))
    })
}

/// One of three replicas of a group has a damaged row, and leads: it hands the lead on, and takes
/// the rows of another. Whether the group tells of the row and takes a write that acts on it, and
/// the replica gets that.
async fn a_replica_with_a_damaged_row_takes_those_of_another() -> bool {
    let shape = Shape { machines: 3, late: 0, ..SHAPE };
    let (dice, damaged, key) = (Dice::new(1), 1, Key::from("key"));
    let cluster = Cluster::new(Arc::new(Trace::new(false)), shape, &dice);
    start_all(&cluster).await;
    strong::create(&cluster, &mut dice.fork("keyspace")).await;
    assert!(write_strong(&cluster, &key, "old").await);
    let node = cluster.session(0).expect("it runs").node;
    let state = node.system().expect("it has joined");
    let keyspace = state.keyspace_named(strong::KEYSPACE).expect("it was made").id;
    let partition = node.owners(&key).partition;
    let (place, group) = ((keyspace, partition), GroupId(partition.0));
    let is_stored = || cluster.engine_disk(damaged).holds(place, &key);
    assert!(wait_until(&cluster, STEP_MAX, is_stored).await, "the engine is fed");
    let to = Some(cluster.node_ids()[&damaged]);
    cluster.crash(damaged, Survival::Everything);
    cluster.engine_disk(damaged).damage(place, &key);
    cluster.start(damaged);
    assert!(wait_until(&cluster, STEP_MAX, || cluster.is_settled()).await, "it is back");
    lead(&cluster, group, damaged).await;
    // It takes the very row that it had, which its engine still has damaged.
    let mut tries = 0;
    while !reads_strong(&cluster, &key).await || leader_at(&cluster, group, damaged).await != to {
        lead(&cluster, group, damaged).await;
        tries += 1;
        if tries == TRIES_MAX {
            cluster.end();
            return false;
        }
    }
    let held = || held_by(&cluster, damaged, &key, group);
    let new = Some(Bytes::from_static(b"new"));
    let is_over = write_strong(&cluster, &key, "new").await
        && wait_until(&cluster, STEP_MAX, || held() == new).await;
    cluster.end();
    is_over
}

#[test]
fn a_replica_of_a_group_with_a_damaged_row_takes_a_snapshot() {
    tell(Planted::DamagedReplicaStays, a_replica_with_a_damaged_row_takes_those_of_another);
}

/// Who leads a group, as a machine's node has heard.
async fn leader_at(cluster: &Cluster, group: GroupId, machine: usize) -> Option<NodeId> {
    let statuses = groups(cluster.session(machine).expect("it runs")).await;
    statuses.iter().find(|it| it.group == group).and_then(|it| it.leader)
}

async fn lead(cluster: &Cluster, group: GroupId, machine: usize) {
    let to = cluster.node_ids()[&machine];
    for _ in 0..TRIES_MAX {
        for node in cluster.nodes() {
            // Whoever does not lead refuses.
            let _refused = node.transfer_leader(group, to).await;
        }
        if leader_at(cluster, group, machine).await == Some(to) {
            return;
        }
        cluster.agenda.sleep(Duration::from_secs(1)).await;
    }
    panic!("{to} does not come to lead {group}");
}

/// Whether the keyspace tells of the key; after a second where it does not.
async fn reads_strong(cluster: &Cluster, key: &Key) -> bool {
    let node = cluster.session(0).expect("it runs").node;
    let read = node.get(key.clone(), strong_options()).await;
    let is_there = read.is_ok_and(|read| read.value == Some(Bytes::from_static(b"old")));
    if !is_there {
        cluster.agenda.sleep(Duration::from_secs(1)).await;
    }
    is_there
}

fn strong_options() -> RequestOptions {
    let (keyspace, timeout) = (Some(strong::KEYSPACE.into()), Some(Duration::from_secs(2)));
    RequestOptions { keyspace, timeout, ..RequestOptions::default() }
}

/// Whether the keyspace takes a write in good time.
async fn write_strong(cluster: &Cluster, key: &Key, value: &'static str) -> bool {
    for _ in 0..TRIES_MAX {
        let action = Action::Put(Bytes::from_static(value.as_bytes()));
        let transaction = Transaction { steps: vec![(key.clone(), action)] };
        let node = cluster.session(0).expect("it runs").node;
        if node.transact(transaction, strong_options()).await.is_ok() {
            return true;
        }
        cluster.agenda.sleep(Duration::from_secs(1)).await;
    }
    false
}

/// The value that a replica has of a key, in its rows.
fn held_by(cluster: &Cluster, machine: usize, key: &Key, group: GroupId) -> Option<Bytes> {
    let rows = cluster.session(machine)?.node.peek_group(group).ok()?;
    let row = rows.into_iter().find(|row| row.key == *key)?;
    Stored::from_record(&row.record).ok()?.value
}
