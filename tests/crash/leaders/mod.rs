//! `kill -9` of leaders under load, and leaders that hand on: what clients of a strong keyspace
//! saw is linearizable, and lists that were appended to show no loss, duplicate or reorder.
//!
//! Four workloads run through `coterie::Client` with its sessions and retries: registers with
//! every kind of call, and compare-and-set on what was read (both judged by search); lists (judged
//! by their elements); and registers in bulk whose values all differ (judged by zones).
//!
//! Prints how long writes to a partition were not acknowledged after its leader was killed, and
//! while its leader handed on as an operator asked it to.

mod crew;
mod gaps;
mod steering;

use crate::dice::Dice;
use crate::harness::{Cluster, PATIENCE, wait_for};
use crate::leaders::crew::{Crew, Histories, PARTITIONS, Workload};
use crate::leaders::gaps::Gaps;
use crate::leaders::steering::Steering;
use crate::linearizability::{appends, search, zones};
use crate::plan::{Plan, pass};

const ARGUMENTS: [&str; 4] =
    ["--partitions=8", "--wal-segment-bytes=4MiB", "--disk-reserve-bytes=1MiB", "--log-level=info"];

const NODES: usize = 3;
/// Leaders that hand on after each kill.
const TRANSFERS_PER_ROUND: usize = 3;
/// Acknowledged writes that each workload has to come to in a round, on a busy machine too.
const WRITES_PER_ROUND_MIN: usize = 20;

#[test]
fn histories_are_linearizable_while_leaders_are_killed_and_hand_on() {
    let test = "leaders::histories_are_linearizable_while_leaders_are_killed_and_hand_on";
    let plan = Plan::of(test, 3, 30);
    let mut dice = plan.dice();
    let mut cluster = Cluster::start_with(NODES, &ARGUMENTS);
    let steering = Steering::begin(&cluster);
    let crew = Crew::start(&cluster, steering.tags(), &dice);
    let (mut killed, mut handed_on) = (Gaps::default(), Gaps::default());
    for round in 0..plan.rounds {
        crew.set_round(round);
        pass(&mut dice, 200, 1000);
        // The first victim stays away until the others lead; later ones may be back before.
        let stays_away = round == 0 || dice.chance(700);
        kill_a_leader(&mut cluster, &steering, &crew, &mut dice, stays_away, &mut killed);
        for _ in 0..TRANSFERS_PER_ROUND {
            hand_on(&cluster, &steering, &crew, &mut dice, &mut handed_on);
        }
    }
    let histories = crew.finish();
    println!("{histories}");
    println!("leader killed, until the next acknowledged write: {killed}");
    println!("leader handed on, between acknowledged writes: {handed_on}");
    assert!(!killed.is_empty() && !handed_on.is_empty(), "no leader was lost under load");
    judge(&histories, plan.rounds * WRITES_PER_ROUND_MIN);
}

/// Kills a node that leads, and waits until the cluster is whole again.
fn kill_a_leader(
    cluster: &mut Cluster,
    steering: &Steering,
    crew: &Crew,
    dice: &mut Dice,
    stays_away: bool,
    gaps: &mut Gaps,
) {
    let group = dice.between(0, u64::from(PARTITIONS) - 1);
    let group = u32::try_from(group).expect("few partitions");
    // A leader may be handed on between the two questions.
    let (victim, affected) = wait_for("a node that leads", PATIENCE, || {
        let victim = steering.leader_of(group);
        let affected = steering.led_by(victim);
        if affected.is_empty() { Err("it has handed on") } else { Ok((victim, affected)) }
    });
    let id = cluster.nodes[victim].node_id();
    cluster.nodes[victim].kill();
    let moment = crew.now();
    if stays_away {
        for partition in affected {
            let what = format!("partition {partition} acknowledges a write without its leader");
            let acknowledged = wait_for(&what, PATIENCE, || {
                crew.first_of_another(partition, moment, &id).ok_or("none yet")
            });
            gaps.note(acknowledged - moment);
        }
    } else {
        pass(dice, 0, 300);
    }
    cluster.nodes[victim].start();
    cluster.wait_formed();
    steering.await_leaders();
}

/// Has one leader hand on to another node.
fn hand_on(cluster: &Cluster, steering: &Steering, crew: &Crew, dice: &mut Dice, gaps: &mut Gaps) {
    let group = dice.between(0, u64::from(PARTITIONS) - 1);
    let group = u32::try_from(group).expect("few partitions");
    let from = steering.leader_of(group);
    let to = (from + 1 + dice.index(NODES - 1)) % NODES;
    let begun = crew.now();
    if !steering.transfer(group, from, to) {
        return;
    }
    let old = cluster.nodes[from].node_id();
    let next = wait_for("the new leader acknowledges a write", PATIENCE, || {
        crew.first_of_another(group, begun, &old).ok_or("none yet")
    });
    let last = crew.last_of(group, next, &old).unwrap_or(begun);
    gaps.note(next - last);
}

fn judge(histories: &Histories, writes_min: usize) {
    for workload in Workload::ALL {
        let acknowledged = histories.acknowledged(workload);
        assert!(acknowledged >= writes_min, "{workload:?} came to only {acknowledged} writes");
    }
    search::assert_linearizable(&histories.registers);
    search::assert_linearizable(&histories.swaps);
    zones::check(&histories.bulk).expect_linearizable();
    appends::assert_linearizable(&histories.lists);
}
