//! A coordinator and an owner that have not heard how far a partition's move is; mostly with one
//! replica of each key, so that any slip shows at once.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use coterie::config::Replication;
use coterie::node::request::RequestOptions;
use coterie::node::service::Node;
use coterie::node::steering::RingChange;
use coterie::protocol::planted::Planted;
use coterie::protocol::system::placing::Step;
use coterie::types::{Key, PartitionId};

use crate::cluster::{Cluster, Shape};
use crate::dice::Dice;
use crate::directed::system_voters;
use crate::disk::Survival;
use crate::planted::Planted as NetworkPlanted;
use crate::run::{start_all, virtually, wait_until};
use crate::trace::Trace;

const SHAPE: Shape = Shape {
    machines: 6,
    late: 1,
    replication: Replication { factor: 1, read_quorum: 1, write_quorum: 1 },
    partitions: 32,
    ..crate::directed::SHAPE
};

/// Two replicas, both of which have every write, and one of which answers: a read that is no
/// majority asks the owners of one ring only.
const READ_AT_ONE: Shape =
    Shape { replication: Replication { factor: 2, read_quorum: 1, write_quorum: 2 }, ..SHAPE };

/// Every node has every key, until another joins.
const EVERYWHERE: Shape = Shape {
    machines: 4,
    replication: Replication { factor: 3, read_quorum: 2, write_quorum: 2 },
    ..SHAPE
};

/// The machine whose node joins.
const JOINS: usize = 5;

/// How long each step may take, in virtual time.
const STEP_MAX: Duration = Duration::from_secs(30);

/// How often a thing is tried, once a second.
const TRIES_MAX: usize = 40;

/// A key that moves to the node that joins, and who has to do with it.
struct Stage {
    cluster: Arc<Cluster>,
    key: Key,
    partition: PartitionId,
    /// Its owner, which loses it.
    owner: usize,
    /// One that hears no news of the ring any more.
    deaf: usize,
    /// The others' coordinator: the leader of the system group.
    leader: usize,
}

impl Stage {
    /// A settled cluster of five voters in which one hears no more, with a value under the key.
    async fn set() -> Stage {
        let stage = Stage::set_up(SHAPE).await;
        stage.cluster.network.set_deaf(stage.deaf, true);
        stage
    }

    /// The same, while everybody hears everything.
    async fn set_up(shape: Shape) -> Stage {
        let cluster = Cluster::new(Arc::new(Trace::new(false)), shape, &Dice::new(1));
        start_all(&cluster).await;
        while system_voters(&cluster).await.len() < JOINS {
            cluster.agenda.sleep(Duration::from_secs(1)).await;
        }
        let ids = cluster.node_ids();
        let leads = |machine: usize| {
            let status = cluster.session(machine).expect("all run").node.status();
            status.raft.system_leader == Some(ids[&machine])
        };
        let leader = (0..JOINS).find(|it| leads(*it)).expect("the system group has a leader");
        // Which keys move is known once the node has joined: a rehearsal with the same dice tells.
        let moves = rehearse(shape, JOINS).await;
        let mut theirs = moves.into_iter().filter(|(_, _, owner)| *owner != leader);
        let (key, partition, owner) = theirs.next().expect("some key of another node moves");
        let owners = cluster.primaries(&key);
        let mut others = (0..JOINS).filter(|it| *it != leader && !owners.contains(it));
        let deaf = others.next().expect("five nodes");
        let stage = Stage { cluster, key, partition, owner, deaf, leader };
        stage.put(leader, "old").await.expect("all is well");
        stage
    }

    fn node(&self, machine: usize) -> Arc<Node> {
        self.cluster.session(machine).expect("it runs").node
    }

    async fn put(&self, machine: usize, value: &'static str) -> Result<(), String> {
        let value = Bytes::from_static(value.as_bytes());
        let written = self.node(machine).put(self.key.clone(), value, brief()).await;
        written.map(drop).map_err(|error| error.to_string())
    }

    async fn get(&self, machine: usize) -> Result<Option<Bytes>, String> {
        let read = self.node(machine).get(self.key.clone(), brief()).await;
        read.map(|read| read.value).map_err(|error| error.to_string())
    }

    /// Waits until a machine has heard that the key's partition is so far; false if it never is.
    async fn hears(&self, machine: usize, is_so: impl Fn(Option<&Step>) -> bool) -> bool {
        let heard = || {
            let state = self.node(machine).system();
            state.is_some_and(|state| {
                let mut moving = state.placing().moving();
                let step = moving.find(|(partition, ..)| *partition == self.partition);
                let settled = state.placing().is_settled();
                let begun = state.members().len() == SHAPE.machines;
                begun && (step.is_some() || settled) && is_so(step.map(|(.., it)| &it.step))
            })
        };
        wait_until(&self.cluster, STEP_MAX, heard).await
    }
}

fn brief() -> RequestOptions {
    let timeout = Some(Duration::from_secs(1));
    RequestOptions { timeout, ..RequestOptions::default() }
}

/// Keys that move to the machine that joins, and who loses them to it.
pub(crate) async fn rehearse(shape: Shape, joins: usize) -> Vec<(Key, PartitionId, usize)> {
    let cluster = Cluster::new(Arc::new(Trace::new(false)), shape, &Dice::new(1));
    start_all(&cluster).await;
    let keys = (0..500).map(|number| Key::from(format!("k{number}")));
    let before: Vec<(Key, Vec<usize>)> =
        keys.map(|key| (key.clone(), cluster.primaries(&key))).collect();
    cluster.start(joins);
    assert!(wait_until(&cluster, STEP_MAX, || cluster.is_settled()).await);
    let node = cluster.nodes()[0].clone();
    let moved = before.into_iter().filter_map(|(key, before)| {
        let after = cluster.primaries(&key);
        let lost = before.into_iter().find(|machine| !after.contains(machine));
        let partition = node.owners(&key).partition;
        lost.filter(|_| after.contains(&joins)).map(|lost| (key, partition, lost))
    });
    let moved = moved.collect();
    cluster.end();
    moved
}

fn is_copying(step: Option<&Step>) -> bool {
    matches!(step, Some(Step::Copying { .. }))
}

fn is_serving(step: Option<&Step>) -> bool {
    matches!(step, Some(Step::Serving { .. }))
}

/// The owner and a coordinator hear no more once it is being copied: nobody may write past it then.
async fn an_owner_that_has_not_heard_is_still_written_to() -> bool {
    let stage = Stage::set_up(READ_AT_ONE).await;
    // Nothing is taken over before both have heard that it is to be.
    let cut = |blocked: bool| {
        stage.cluster.network.set_blocked(JOINS, stage.owner, blocked);
        stage.cluster.network.set_blocked(stage.owner, JOINS, blocked);
    };
    cut(true);
    stage.cluster.start(JOINS);
    for machine in [stage.owner, stage.deaf] {
        assert!(stage.hears(machine, is_copying).await, "the move begins");
        stage.cluster.network.set_deaf(machine, true);
    }
    cut(false);
    let taken_over = |step: Option<&Step>| !is_copying(step);
    assert!(stage.hears(stage.leader, taken_over).await, "the new owner has taken over");
    // Time enough for a leader that would not wait.
    stage.cluster.agenda.sleep(Duration::from_secs(5)).await;
    stage.put(stage.leader, "new").await.expect("both owners are there");
    let read = stage.get(stage.deaf).await;
    stage.cluster.end();
    read != Ok(Some(Bytes::from_static(b"old")))
}

/// The owner hears no more once the new one serves: it answers nobody who has not heard that.
async fn an_owner_answers_nobody_who_has_not_heard_that_another_serves() -> bool {
    let stage = Stage::set().await;
    stage.cluster.start(JOINS);
    assert!(stage.hears(stage.owner, is_serving).await, "the new owner has taken over");
    stage.cluster.network.set_deaf(stage.owner, true);
    assert!(stage.hears(stage.leader, |step| step.is_none()).await, "the partition has arrived");
    stage.put(stage.leader, "new").await.expect("the new owner is there");
    let read = stage.get(stage.deaf).await;
    stage.cluster.end();
    read != Ok(Some(Bytes::from_static(b"old")))
}

/// Of three owners one missed a write, and only that one can be reached by the node that takes the
/// key over: it must wait for the others.
async fn rows_are_taken_from_more_than_one_owner() -> bool {
    const TAKER: usize = 3;
    let (key, partition, _) = rehearse(EVERYWHERE, TAKER).await.remove(0);
    let cluster = Cluster::new(Arc::new(Trace::new(false)), EVERYWHERE, &Dice::new(1));
    start_all(&cluster).await;
    let ids = cluster.node_ids();
    let leads = |machine: &usize| {
        let status = cluster.session(*machine).expect("all run").node.status();
        status.raft.system_leader == Some(ids[machine])
    };
    let leader = (0..TAKER).find(leads).expect("the system group has a leader");
    let others: Vec<usize> = (0..TAKER).filter(|machine| *machine != leader).collect();
    let (owner, deaf) = (others[0], others[1]);
    let stage = Stage { cluster, key, partition, owner, deaf, leader };
    stage.cluster.plant(Some(NetworkPlanted::BlockedHints));
    let cut = |machine: usize, blocked: bool| {
        for other in &others {
            stage.cluster.network.set_blocked(machine, *other, blocked);
            stage.cluster.network.set_blocked(*other, machine, blocked);
        }
    };
    cut(leader, true);
    stage.put(owner, "new").await.expect("two of three are there");
    cut(leader, false);
    cut(TAKER, true);
    stage.cluster.start(TAKER);
    let mut read = Err(String::new());
    for _ in 0..TRIES_MAX {
        stage.cluster.agenda.sleep(Duration::from_secs(1)).await;
        if stage.cluster.session(TAKER).is_some() {
            read = stage.get(TAKER).await;
        }
        if read.is_ok() {
            break;
        }
    }
    stage.cluster.end();
    read.is_err() || read == Ok(Some(Bytes::from_static(b"new")))
}

/// Neither the owner nor a coordinator has heard of the move: it may not have been copied yet.
async fn nothing_is_copied_from_an_owner_that_has_not_heard() -> bool {
    let stage = Stage::set().await;
    stage.cluster.network.set_deaf(stage.owner, true);
    stage.cluster.start(JOINS);
    let _maybe = stage.hears(stage.leader, |step| !is_copying(step)).await;
    let written = stage.put(stage.deaf, "new").await;
    let read = stage.get(stage.leader).await;
    stage.cluster.end();
    written.is_err() || read == Ok(Some(Bytes::from_static(b"new")))
}

/// A key whose owner is down, and the node that keeps a write for it.
async fn hinted() -> (Stage, usize) {
    let stage = Stage::set().await;
    stage.cluster.network.set_deaf(stage.deaf, false);
    stage.cluster.crash(stage.owner, Survival::Everything);
    let sloppy = RequestOptions { sloppy: Some(true), ..brief() };
    let mut keeper = None;
    let node = stage.node(stage.leader);
    for _ in 0..TRIES_MAX {
        let value = Bytes::from_static(b"new");
        if let Ok(receipt) = node.put(stage.key.clone(), value, sloppy.clone()).await {
            keeper = receipt.fallbacks.first().copied();
            break;
        }
        stage.cluster.agenda.sleep(Duration::from_secs(1)).await;
    }
    let ids = stage.cluster.node_ids();
    let keeper = keeper.and_then(|id| ids.into_iter().find(|(_, other)| *other == id));
    (stage, keeper.expect("a fallback keeps the write").0)
}

/// Asks again and again, as an operator would, until the change is decided.
async fn change(stage: &Stage, by: usize, change: RingChange) {
    for _ in 0..TRIES_MAX {
        if stage.node(by).change_ring(&change).await.is_ok() {
            return;
        }
        stage.cluster.agenda.sleep(Duration::from_secs(1)).await;
    }
    panic!("{change:?} was never decided");
}

/// A node that alone keeps an acknowledged write for another is told to leave, and comes to it
/// only once the other is back.
async fn a_node_that_leaves_delivers_what_it_keeps() -> bool {
    let (stage, keeper) = hinted().await;
    let by = (0..JOINS).find(|machine| *machine != keeper && *machine != stage.owner);
    let by = by.expect("five nodes");
    let leave = RingChange { leave: vec![format!("n{keeper}")], ..RingChange::default() };
    change(&stage, by, leave).await;
    stage.cluster.expect_to_leave(keeper);
    stage.cluster.plant(Some(NetworkPlanted::BlockedHints));
    stage.cluster.start(stage.owner);
    let node_id = stage.cluster.node_ids()[&keeper];
    let gone = || stage.node(by).members().is_forgotten(node_id);
    let left_early = wait_until(&stage.cluster, STEP_MAX, gone).await;
    stage.cluster.plant(None);
    let left = wait_until(&stage.cluster, STEP_MAX * 2, gone).await;
    let read = stage.get(by).await;
    stage.cluster.end();
    !left_early && left && read == Ok(Some(Bytes::from_static(b"new")))
}

/// The owner of a key is removed while another node keeps a write for it: whoever owns the key
/// then gets the write.
async fn hints_for_a_removed_node_go_to_the_new_owners() -> bool {
    let (stage, keeper) = hinted().await;
    let name = format!("n{}", stage.owner);
    let remove = RingChange { remove: vec![name], force: true, ..RingChange::default() };
    change(&stage, keeper, remove).await;
    let has_it = async || stage.get(keeper).await == Ok(Some(Bytes::from_static(b"new")));
    for _ in 0..TRIES_MAX {
        if has_it().await {
            break;
        }
        stage.cluster.agenda.sleep(Duration::from_secs(1)).await;
    }
    let holds = has_it().await;
    stage.cluster.end();
    holds
}

#[test]
fn a_node_does_not_leave_with_hints_that_nobody_else_has() {
    tell(Planted::LeavesWithHints, a_node_that_leaves_delivers_what_it_keeps);
}

#[test]
fn hints_find_those_who_own_the_key_now() {
    tell(Planted::HintOfFormerOwnerDropped, hints_for_a_removed_node_go_to_the_new_owners);
}

/// Runs a story as it should go, and with a bug that must spoil it.
pub(crate) fn tell(bug: Planted, story: impl AsyncFn() -> bool) {
    Planted::set(None);
    assert!(virtually(story()), "it does not hold without {bug:?}");
    Planted::set(Some(bug));
    let holds = virtually(story());
    Planted::set(None);
    assert!(!holds, "{bug:?} went unseen");
}

#[test]
fn no_step_is_taken_before_the_old_owner_has_heard_of_the_one_before() {
    tell(Planted::SettledUnheard, an_owner_that_has_not_heard_is_still_written_to);
}

#[test]
fn reads_by_an_old_ring_are_refused_once_the_new_owners_serve() {
    tell(Planted::ReadFenceIgnored, an_owner_answers_nobody_who_has_not_heard_that_another_serves);
}

#[test]
fn a_partition_is_served_only_with_the_rows_of_as_many_owners_as_a_write_may_have_missed() {
    tell(Planted::SyncedAfterOneSource, rows_are_taken_from_more_than_one_owner);
}

#[test]
fn rows_are_listed_only_by_a_ring_by_which_they_move() {
    tell(Planted::UnfencedSource, nothing_is_copied_from_an_owner_that_has_not_heard);
}
