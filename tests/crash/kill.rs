//! `kill -9` at random moments under load.

use coterie::proto::v1::Level;

use crate::harness::{Cluster, NodeProcess};
use crate::ledger::check_none;
use crate::load::{Load, Shape, acknowledged, read_back, writers};
use crate::plan::{Plan, pass};

/// Small tables and segments, so that kills meet feeding, checkpoints and changes of segments; and
/// time enough that a busy machine makes no timeouts.
const ARGUMENTS: [&str; 10] = [
    "--partitions=64",
    "--vnodes=32",
    "--request-timeout=20s",
    "--wal-segment-bytes=4MiB",
    "--value-bytes-max=1MiB",
    "--memtable-bytes-max=1MiB",
    "--memtable-age-max=500ms",
    "--disk-reserve-bytes=1MiB",
    "--log-format=text",
    "--log-level=info",
];

const NODES: usize = 3;
const WRITERS: usize = 6;

#[test]
fn nothing_acknowledged_is_missing_after_kills_of_one_node_and_of_all() {
    let plan =
        Plan::of("kill::nothing_acknowledged_is_missing_after_kills_of_one_node_and_of_all", 4, 30);
    let mut dice = plan.dice();
    let mut cluster = Cluster::start_with(NODES, &ARGUMENTS);
    let mut crew = writers(WRITERS, &dice);
    for round in 0..plan.rounds {
        // The first two rounds are one of each kind.
        let all = if round < 2 { round == 1 } else { dice.chance(400) };
        let victims = if all { (0..NODES).collect() } else { vec![dice.index(NODES)] };
        let load = Load::start(&cluster.nodes, crew, Shape::SMALL, true);
        pass(&mut dice, 50, 700);
        victims.iter().for_each(|&victim| load.set_open(victim, false));
        victims.iter().for_each(|&victim| cluster.nodes[victim].kill());
        pass(&mut dice, 0, 400);
        victims.iter().for_each(|&victim| cluster.nodes[victim].start());
        cluster.wait_formed();
        victims.iter().for_each(|&victim| load.set_open(victim, true));
        pass(&mut dice, 0, 200);
        let (returned, complaints) = load.finish();
        crew = returned;
        check_none(&format!("round {round}, kill of {victims:?}, under load"), &complaints);
        let reader = dice.pick(&[0, 1, 2]);
        let complaints = read_back(&cluster.nodes[reader], &mut crew, Level::Quorum);
        check_none(&format!("round {round}, kill of {victims:?}, read at QUORUM"), &complaints);
        check_no_warnings(&cluster.nodes);
    }
    let complaints = read_back(&cluster.nodes[0], &mut crew, Level::All);
    check_none("at the end, read at ALL", &complaints);
    assert!(acknowledged(&crew) > 0, "nothing was written");
}

/// A kill damages nothing, so there is nothing to warn of.
fn check_no_warnings(nodes: &[NodeProcess]) {
    for node in nodes {
        let status = node.status().expect("a status");
        let warnings = status["warnings"].as_array().expect("a list").iter();
        // A busy machine may make a node slow, which is no damage.
        let of_damage: Vec<_> =
            warnings.filter(|text| !text.to_string().contains(" is slow: ")).collect();
        assert!(of_damage.is_empty(), "{}: {of_damage:?}", node.spec.name);
    }
}
