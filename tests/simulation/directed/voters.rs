//! Who comes to vote in the system group.

use std::sync::Arc;
use std::time::Duration;

use coterie::protocol::planted::Planted;
use coterie::protocol::system::SystemCommand;
use coterie::protocol::system::keyspace::Mode;
use coterie::protocol::system::limits::LimitsAsked;
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
    let command = SystemCommand::CreateKeyspace {
        name: "late".to_owned(),
        mode: Mode::Quorum,
        merge: Merge::Lww,
        replication: None,
        limits: LimitsAsked::default(),
    };
    let decided = insist(&cluster, || node.decide(command.clone())).await.is_ok();
    cluster.end();
    decided
}

#[test]
fn a_member_votes_only_once_it_has_been_heard_as_a_learner() {
    tell(Planted::VotersUnheard, nodes_that_hear_nothing_do_not_vote);
}
