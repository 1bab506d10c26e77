//! Who comes to vote in the system group.

use std::sync::Arc;
use std::time::Duration;

use coterie::node::service::Node;
use coterie::node::steering::RingChange;
use coterie::protocol::planted::Planted;
use coterie::protocol::system::SystemCommand;
use coterie::protocol::system::keyspace::Mode;
use coterie::protocol::system::limits::LimitsAsked;
use coterie::protocol::system::voters::VOTERS_MAX;
use coterie::types::Merge;

use crate::cluster::{Cluster, Shape};
use crate::dice::Dice;
use crate::directed::moves::tell;
use crate::directed::{insist, system_voters};
use crate::disk::Survival;
use crate::run::{start_all, wait_until};
use crate::trace::Trace;

/// Of five machines, two join later.
const SHAPE: Shape = Shape { late: 2, ..crate::directed::SHAPE };
const FOUNDERS: usize = 3;

/// Of six machines, three join later.
const GROWN: Shape = Shape { machines: 6, late: 3, ..crate::directed::SHAPE };

const TRIES_MAX: usize = 120;

/// How long partitions may take to arrive.
const SETTLING_MAX: Duration = Duration::from_secs(120);

/// Two nodes join that are heard and hear nothing. Then a voter dies, and the group must go on
/// deciding with the other two.
async fn nodes_that_hear_nothing_do_not_vote() -> bool {
    let cluster = Cluster::new(Arc::new(Trace::new(false)), SHAPE, &Dice::new(1));
    start_all(&cluster).await;
    while system_voters(&cluster).await.len() < FOUNDERS {
        cluster.agenda.sleep(Duration::from_secs(1)).await;
    }
    let node = cluster.session(0).expect("it runs").node;
    for machine in FOUNDERS..SHAPE.machines {
        cluster.network.set_deaf(machine, true);
        cluster.start(machine);
    }
    let joined = || node.system().is_some_and(|it| it.members().len() == SHAPE.machines);
    assert!(wait_until(&cluster, Duration::from_secs(60), joined).await, "they are members");
    cluster.agenda.sleep(Duration::from_secs(20)).await;
    cluster.crash(FOUNDERS - 1, Survival::Everything);
    let decided = decides(&cluster, &node).await;
    cluster.end();
    decided
}

/// Whether the system group decides something that a node asks of it.
async fn decides(cluster: &Cluster, node: &Node) -> bool {
    let command = SystemCommand::CreateKeyspace {
        name: "late".to_owned(),
        mode: Mode::Quorum,
        merge: Merge::Lww,
        replication: None,
        limits: LimitsAsked::default(),
    };
    insist(cluster, || node.decide(command.clone())).await.is_ok()
}

/// Three nodes join three, and come to be most of the voters as one of the first is away for a
/// while. Then they leave, and those who stay must go on deciding.
async fn voters_that_leave_give_their_votes_up_first() -> bool {
    let cluster = Cluster::new(Arc::new(Trace::new(false)), GROWN, &Dice::new(1));
    start_all(&cluster).await;
    let node = cluster.session(0).expect("it runs").node;
    let votes = async |machines: &[usize]| {
        for _ in 0..TRIES_MAX {
            if system_voters(&cluster).await.is_superset(&machines.iter().copied().collect()) {
                return;
            }
            cluster.agenda.sleep(Duration::from_secs(1)).await;
        }
        panic!("{machines:?} never voted: {:?} do", system_voters(&cluster).await);
    };
    votes(&[0, 1, 2]).await;
    let late = [FOUNDERS, FOUNDERS + 1, FOUNDERS + 2];
    late.into_iter().for_each(|machine| cluster.start(machine));
    while system_voters(&cluster).await.len() < VOTERS_MAX {
        cluster.agenda.sleep(Duration::from_secs(1)).await;
    }
    cluster.crash(FOUNDERS - 1, Survival::Everything);
    votes(&late).await;
    cluster.start(FOUNDERS - 1);
    assert!(wait_until(&cluster, SETTLING_MAX, || cluster.is_settled()).await, "it comes back");

    let names = late.map(|machine| format!("n{machine}")).to_vec();
    let leave = RingChange { leave: names, ..RingChange::default() };
    insist(&cluster, || node.change_ring(&leave)).await.expect("they may leave");
    late.into_iter().for_each(|machine| cluster.expect_to_leave(machine));
    let gone = || late.into_iter().all(|machine| cluster.has_let_go(machine));
    let left = wait_until(&cluster, SETTLING_MAX, gone).await;
    let decided = decides(&cluster, &node).await;
    cluster.end();
    left && decided
}

#[test]
fn whoever_leaves_takes_no_vote_along() {
    tell(Planted::LeavesVoting, voters_that_leave_give_their_votes_up_first);
}

#[test]
fn a_member_votes_only_once_it_has_been_heard_as_a_learner() {
    tell(Planted::VotersUnheard, nodes_that_hear_nothing_do_not_vote);
}
