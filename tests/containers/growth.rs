//! Three nodes grow to six and shrink to three again under load, and one is killed in the middle.

use std::time::Duration;

use coterie::proto::v1::Level;

use crate::compose::{Compose, FOUNDERS};
use crate::crew::{Crew, Footing};
use crate::dice::Dice;
use crate::harness::{PATIENCE, wait_until};

/// Writes that must succeed before, between and after the changes.
const WRITES: u64 = 300;

/// How long partitions may take to arrive, on a busy machine.
const TRANSFER_PATIENCE: Duration = Duration::from_secs(180);

/// A node of six has about this many of 256 partitions times three replicas, and more than half.
const SHARE: u64 = 128;

#[test]
#[ignore = "needs Docker: run with cargo test --test containers -- --ignored"]
fn three_containers_grow_to_six_and_shrink_to_three_and_lose_nothing() {
    let mut compose = Compose::start_founders();
    let mut crew = Crew::hire(&compose.cluster.nodes, &Dice::new(6));
    crew.start();
    crew.wait_acknowledged(WRITES, "by three nodes");

    (0..FOUNDERS).for_each(|node| crew.expect(node, Footing::Moving));
    compose.start_others();
    let founder = &compose.cluster.nodes[0];
    wait_until("n5 is a member", PATIENCE, || founder.member("n5").map(drop));
    compose.kill(4);
    crew.wait_acknowledged(WRITES, "while n5 is dead");
    compose.start_again(4);
    for name in ["n4", "n5", "n6"] {
        wait_until(&format!("{name} has its share"), TRANSFER_PATIENCE, || {
            let member = founder.member(name)?;
            let has = member["partitions"].as_u64() > Some(SHARE / 2);
            if has { Ok(()) } else { Err(member.to_string()) }
        });
    }
    wait_settled(&compose);
    compose.cluster.wait_formed();
    crew.wait_acknowledged(WRITES, "by six nodes");

    let left = compose.exec(0, &["cluster", "leave", "n4", "n5", "n6"]);
    assert!(left.status.success(), "{left:?}");
    wait_until("they have left", TRANSFER_PATIENCE, || {
        let members = compose.cluster.nodes[1].member_states()?;
        if members.len() == FOUNDERS { Ok(()) } else { Err(format!("{members:?}")) }
    });
    wait_settled(&compose);
    crew.wait_acknowledged(WRITES, "by three nodes again");
    crew.stop();
    crew.check("at the end");
    for node in 0..FOUNDERS {
        crew.read_back(node, Level::Quorum, "at the end");
    }
}

/// Waits until every partition and every group is where it is to lie, and nobody leaves any more.
fn wait_settled(compose: &Compose) {
    wait_until("partitions have arrived", TRANSFER_PATIENCE, || {
        let transfers = compose.cluster.nodes[0].get("/transfers").expect(200).json();
        let left = transfers["members"].as_array().is_none_or(|members| !members.is_empty());
        let moving = transfers["settled"] != true || transfers["groups"] != 0 || left;
        if moving { Err(transfers) } else { Ok(()) }
    });
}
