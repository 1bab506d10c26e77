//! All five nodes stop, or are killed, at once, and start again.

use coterie::proto::v1::Level;

use crate::compose::{Compose, NODES};
use crate::crew::Crew;
use crate::dice::Dice;
use crate::harness::{PATIENCE, wait_until};

/// Writes between two restarts.
const WRITES: u64 = 500;

#[test]
#[ignore = "needs Docker: run with cargo test --test containers -- --ignored"]
fn the_whole_cluster_keeps_its_data_when_it_is_stopped_or_killed() {
    let mut compose = Compose::start();
    let mut crew = Crew::hire(&compose.cluster.nodes, &Dice::new(5));
    for command in ["stop", "kill"] {
        crew.start();
        crew.wait_acknowledged(WRITES, "before all nodes end");
        crew.stop();
        crew.check(&format!("before {command}"));
        compose.run(&[command]);
        if command == "stop" {
            let codes: Vec<String> = (0..NODES).map(|node| compose.exit_code(node)).collect();
            assert_eq!(codes, ["0"; NODES], "exit codes after a stop");
        }
        compose.run(&["start"]);
        compose.cluster.wait_formed();
        crew.reconnect();
        crew.read_back(0, Level::Quorum, command);
    }
    compose.wait_hints_drained();
    crew.read_back(NODES - 1, Level::All, "at the end");
    check_dashboard(&compose);
}

/// Whatever the dashboard for Grafana shows is something that nodes count, hints included, of which
/// there are some only when a node is away.
fn check_dashboard(compose: &Compose) {
    let dashboard = include_str!("../../docker/grafana/dashboards/coterie.json");
    let words = dashboard.split(|at: char| !at.is_ascii_alphanumeric() && at != '_');
    let shown: Vec<&str> = words.filter(|word| word.starts_with("coterie_")).collect();
    assert!(!shown.is_empty(), "the dashboard shows nothing");
    compose.kill(NODES - 1);
    let node = &compose.cluster.nodes[0];
    let mut keys = 0u32..;
    wait_until("a node counts all that the dashboard shows", PATIENCE, || {
        node.put(&format!("/kv/shown-{}", keys.next().unwrap_or(0)), "value").expect(200);
        let metrics = node.get("/metrics").expect(200).text();
        let missing: Vec<&&str> = shown.iter().filter(|it| !metrics.contains(**it)).collect();
        if missing.is_empty() { Ok(()) } else { Err(format!("{missing:?}")) }
    });
}
