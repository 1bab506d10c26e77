//! Deletes that are reaped stay deleted, whatever comes late; and bugs planted there are seen.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use coterie::config::Replication;
use coterie::node::request::RequestOptions;
use coterie::node::service::Node;
use coterie::node::steering::RingChange;
use coterie::protocol::planted::Planted;
use coterie::protocol::quorum::level::Level;
use coterie::protocol::system::placing::Step;
use coterie::types::Key;

use crate::cluster::{Cluster, Mending, REAPED_AFTER, Shape};
use crate::dice::Dice;
use crate::directed::moves::{rehearse, tell};
use crate::disk::Survival;
use crate::planted::Planted as NetworkPlanted;
use crate::run::{start_all, virtually, wait_until};
use crate::trace::Trace;

const SHAPE: Shape = Shape {
    machines: 3,
    late: 0,
    replication: Replication { factor: 3, read_quorum: 2, write_quorum: 2 },
    partitions: 4,
    mending: Mending::Reaping,
    ..crate::directed::SHAPE
};

/// How long anything may take, in virtual time.
const TIME_MAX: Duration = Duration::from_secs(120);

/// How often a request is tried, once a second.
const TRIES_MAX: usize = 40;

/// A cluster, and a key on it.
struct Stage {
    cluster: Arc<Cluster>,
    key: Key,
}

impl Stage {
    async fn set(shape: Shape) -> Stage {
        let cluster = Cluster::new(Arc::new(Trace::new(false)), shape, &Dice::new(1));
        start_all(&cluster).await;
        Stage { cluster, key: Key::from("k") }
    }

    /// Stores a value, or deletes it, through a machine.
    async fn write(&self, machine: usize, value: Option<&'static str>, level: Level) {
        for _ in 0..TRIES_MAX {
            let node = self.cluster.session(machine).expect("it runs").node;
            let options = RequestOptions { level: Some(level), ..RequestOptions::default() };
            let key = self.key.clone();
            let written = match value {
                Some(value) => node.put(key, Bytes::from_static(value.as_bytes()), options).await,
                None => node.delete(key, options).await,
            };
            if written.is_ok() {
                return;
            }
            self.cluster.agenda.sleep(Duration::from_secs(1)).await;
        }
        panic!("{value:?} could not be written");
    }

    /// What a machine's node reads at ALL, and whether it knows of any version.
    async fn read(&self, machine: usize) -> (Option<Bytes>, bool) {
        for _ in 0..TRIES_MAX {
            let node = self.cluster.session(machine).expect("it runs").node;
            let options = RequestOptions { level: Some(Level::All), ..RequestOptions::default() };
            if let Ok(read) = node.get(self.key.clone(), options).await {
                return (read.value, read.receipt.version.is_some());
            }
            self.cluster.agenda.sleep(Duration::from_secs(1)).await;
        }
        panic!("nobody answered");
    }

    /// Waits until nobody holds anything of the key any more; false if that does not come.
    async fn is_reaped(&self, time: Duration) -> bool {
        let holds = |machine: usize| {
            let node = self.cluster.session(machine).expect("it runs").node;
            node.peek(None, &self.key).expect("it can be looked at").is_some()
        };
        let owners = self.cluster.primaries(&self.key);
        wait_until(&self.cluster, time, || !owners.iter().any(|owner| holds(*owner))).await
    }

    fn cut(&self, a: usize, b: usize, blocked: bool) {
        self.cluster.network.set_blocked(a, b, blocked);
        self.cluster.network.set_blocked(b, a, blocked);
    }
}

#[test]
fn a_delete_is_reaped_once_all_owners_share_it_and_its_room_is_freed() {
    virtually(async {
        let stage = Stage::set(SHAPE).await;
        stage.write(0, Some("v"), Level::All).await;
        stage.write(1, None, Level::Quorum).await;
        assert_eq!(stage.read(2).await, (None, true), "a tombstone has a version");
        assert!(stage.is_reaped(TIME_MAX).await, "it is never reaped");
        assert_eq!(stage.read(0).await, (None, false));
        let nodes = stage.cluster.nodes();
        let freed = |node: &Arc<Node>| {
            let status = node.status();
            let mut activities = status.activities.iter();
            let told = activities.find(|it| it.name == "reaping").expect("it is shown");
            told.state == "idle" && !told.detail.ends_with(" 0 rows were")
        };
        let freed = || nodes.iter().all(freed);
        assert!(wait_until(&stage.cluster, TIME_MAX, freed).await, "its room is kept");
        stage.write(2, Some("again"), Level::Quorum).await;
        assert_eq!(stage.read(1).await, (Some(Bytes::from_static(b"again")), true));
        stage.cluster.end();
    });
}

#[test]
fn without_all_owners_nothing_is_reaped() {
    virtually(async {
        let stage = Stage::set(SHAPE).await;
        stage.write(0, Some("v"), Level::All).await;
        stage.cluster.crash(2, Survival::Everything);
        stage.write(1, None, Level::Quorum).await;
        assert!(!stage.is_reaped_by_two().await, "one of three owners has not got the delete");
        stage.cluster.start(2);
        assert!(stage.is_reaped(TIME_MAX).await, "it is never reaped");
        assert_eq!(stage.read(2).await, (None, false));
        stage.cluster.end();
    });
}

impl Stage {
    /// Whether the first two machines let go of the key while the third is down.
    async fn is_reaped_by_two(&self) -> bool {
        let gone = |machine: usize| {
            let node = self.cluster.session(machine).expect("it runs").node;
            node.peek(None, &self.key).expect("it can be looked at").is_none()
        };
        wait_until(&self.cluster, REAPED_AFTER * 4, || gone(0) || gone(1)).await
    }
}

/// A hint for one owner waits at a node that is none while the value is deleted and the delete
/// reaped.
async fn a_late_hint_brings_nothing_back() -> bool {
    let stage = Stage::set(Shape { machines: 4, ..SHAPE }).await;
    let owners = stage.cluster.primaries(&stage.key);
    let keeper = (0..4).find(|machine| !owners.contains(machine)).expect("one owns nothing of it");
    let absent = owners[0];
    stage.cut(keeper, absent, true);
    stage.write(keeper, Some("v"), Level::Quorum).await;
    let ids = stage.cluster.node_ids();
    let keeps = || {
        let status = stage.cluster.session(keeper).expect("it runs").node.status();
        status.members.iter().any(|it| it.node_id == ids[&absent] && it.hint_bytes > 0)
    };
    assert!(wait_until(&stage.cluster, TIME_MAX, keeps).await, "no hint is kept");
    stage.write(owners[1], None, Level::All).await;
    assert!(stage.is_reaped(TIME_MAX).await, "it is never reaped");
    stage.cut(keeper, absent, false);
    assert!(wait_until(&stage.cluster, TIME_MAX, || !keeps()).await, "the hint stays");
    let read = stage.read(owners[1]).await;
    stage.cluster.end();
    read == (None, false)
}

/// One owner has missed a delete, and is never compared with the others.
async fn what_is_not_shared_is_not_reaped() -> bool {
    let stage = Stage::set(Shape { mending: Mending::ReapingUncompared, ..SHAPE }).await;
    stage.cluster.plant(Some(NetworkPlanted::BlockedHints));
    stage.write(0, Some("v"), Level::All).await;
    (0..2).for_each(|other| stage.cut(other, 2, true));
    stage.write(0, None, Level::Quorum).await;
    (0..2).for_each(|other| stage.cut(other, 2, false));
    assert!(wait_until(&stage.cluster, TIME_MAX, || stage.cluster.is_settled()).await);
    stage.cluster.agenda.sleep(REAPED_AFTER * 4).await;
    let read = stage.read(2).await;
    stage.cluster.end();
    read.0.is_none()
}

/// A node is down as a partition comes to another node, and a delete is reaped; then it gets the
/// partition back.
async fn what_is_left_of_before_does_not_come_back() -> bool {
    const JOINS: usize = 4;
    let shape = Shape { machines: 5, late: 1, partitions: 16, ..SHAPE };
    let (key, partition, lost) = rehearse(shape, JOINS).await.remove(0);
    let stage = Stage { key, ..Stage::set(shape).await };
    let by = (0..JOINS).find(|machine| *machine != lost).expect("there are four");
    let node = |machine: usize| stage.cluster.session(machine).expect("it runs").node;
    let step = || {
        let state = node(by).system().expect("it has heard of the system group");
        let mut moving = state.placing().moving();
        let step = moving.find(|(it, ..)| *it == partition).map(|(.., it)| it.step.clone());
        (step, state.placing().is_settled(), state.members().len())
    };
    stage.write(by, Some("v"), Level::All).await;
    stage.cluster.start(JOINS);
    let serves = || matches!(step().0, Some(Step::Serving { .. }));
    assert!(wait_until(&stage.cluster, TIME_MAX, serves).await, "the partition moves");
    stage.cluster.crash(lost, Survival::Everything);
    let arrived = || matches!(step(), (None, true, 5));
    assert!(wait_until(&stage.cluster, TIME_MAX, arrived).await, "the partition arrives");
    stage.write(by, None, Level::All).await;
    assert!(stage.is_reaped(TIME_MAX).await, "it is never reaped");

    let leave = RingChange { leave: vec![format!("n{JOINS}")], ..RingChange::default() };
    node(by).change_ring(&leave).await.expect("all that matter are there");
    stage.cluster.expect_to_leave(JOINS);
    stage.cluster.start(lost);
    let gone = || stage.cluster.is_settled() && stage.cluster.session(JOINS).is_none();
    assert!(wait_until(&stage.cluster, TIME_MAX, gone).await, "the partition comes back");
    assert!(stage.cluster.primaries(&stage.key).contains(&lost));
    // What came back would spread.
    stage.cluster.agenda.sleep(REAPED_AFTER * 2).await;
    let read = stage.read(by).await;
    stage.cluster.end();
    read == (None, false)
}

/// A machine's disks are put back to before a delete that has been reaped since.
async fn a_disk_that_is_put_back_brings_nothing_back() -> bool {
    const PUT_BACK: usize = 2;
    let stage = Stage::set(SHAPE).await;
    stage.write(0, Some("v"), Level::All).await;
    stage.cluster.crash(PUT_BACK, Survival::Everything);
    let backup = stage.cluster.back_up(PUT_BACK);
    stage.cluster.start(PUT_BACK);
    stage.write(0, None, Level::All).await;
    assert!(stage.is_reaped(TIME_MAX).await, "it is never reaped");
    stage.cluster.crash(PUT_BACK, Survival::Everything);
    stage.cluster.put_back(PUT_BACK, &backup);
    stage.cluster.start(PUT_BACK);
    let says_so = || {
        let status = stage.cluster.session(PUT_BACK).expect("it runs").node.status();
        format!("{:?}", status.serving).contains("put back to an earlier state")
    };
    if !wait_until(&stage.cluster, REAPED_AFTER * 4, says_so).await {
        let read = stage.read(0).await;
        stage.cluster.end();
        return read == (None, false);
    }
    // As whoever looks after it would do.
    stage.cluster.crash(PUT_BACK, Survival::Everything);
    stage.cluster.start(PUT_BACK);
    assert!(
        wait_until(&stage.cluster, TIME_MAX, || stage.cluster.is_settled()).await,
        "it refills"
    );
    stage.cluster.agenda.sleep(REAPED_AFTER * 2).await;
    let read = stage.read(PUT_BACK).await;
    stage.cluster.end();
    read == (None, false)
}

#[test]
fn hints_from_below_the_floor_are_dropped() {
    tell(Planted::HintsPassTheFloor, a_late_hint_brings_nothing_back);
}

#[test]
fn a_node_that_comes_back_to_a_partition_buries_what_it_had_of_it() {
    tell(Planted::LeftoversKept, what_is_left_of_before_does_not_come_back);
}

#[test]
fn rows_from_before_a_floor_are_given_up_and_taken_anew() {
    tell(Planted::OutdatedRowsKept, a_disk_that_is_put_back_brings_nothing_back);
}

#[test]
fn a_floor_rises_only_over_what_owners_were_found_to_share() {
    tell(Planted::ReapedUnshared, what_is_not_shared_is_not_reaped);
}
