//! A node that missed writes, and that nobody kept hints for, gets them when replicas are compared.

use serde_json::Value;

use crate::harness::{Cluster, PATIENCE, coterie, wait_until};

const MISSED: u64 = 100;
const DEAD: usize = 2;

/// `coterie repair` with these arguments; what each node reports.
fn repair(cluster: &Cluster, arguments: &[&str]) -> Vec<Value> {
    let all = [&["repair", "--output", "json"], arguments].concat();
    let (code, out, error) = coterie(&cluster.nodes[0], &all);
    assert_eq!(code, 0, "{out} {error}");
    let report: Value = serde_json::from_str(&out).expect("JSON");
    report["nodes"].as_array().expect("a list").clone()
}

fn sum(reports: &[Value], field: &str) -> u64 {
    reports.iter().map(|report| report[field].as_u64().unwrap_or_default()).sum()
}

/// Three nodes of which one lacks rows, deletes among them.
fn diverged(arguments: &[&str]) -> Cluster {
    let mut cluster = Cluster::start_with(3, arguments);
    cluster.nodes[0].put("/kv/gone", "v").expect(200);
    cluster.nodes[DEAD].kill();
    cluster.wait_state(0, DEAD, "down");
    for number in 0..MISSED - 1 {
        cluster.nodes[0].put(&format!("/kv/missed-{number}"), "value").expect(200);
    }
    cluster.nodes[0].delete("/kv/gone").expect(200);
    cluster.nodes[DEAD].start();
    cluster.wait_formed();
    cluster
}

#[test]
fn repair_on_demand_copies_what_a_node_missed() {
    let never = ["--anti-entropy-interval", "0s", "--hint-bytes-per-target-max", "0"];
    let cluster = diverged(&never);
    let reports = repair(&cluster, &[]);
    assert_eq!((reports.len(), sum(&reports, "failed")), (3, 0), "{reports:?}");
    let copied = sum(&reports, "rows_sent") + sum(&reports, "rows_fetched");
    assert!(copied >= MISSED, "{reports:?}");
    let again = repair(&cluster, &["-k", "default"]);
    assert_eq!((sum(&again, "rows_differing"), sum(&again, "failed")), (0, 0), "{again:?}");
    assert!(
        cluster.nodes[DEAD].status().expect("a status")["activities"]
            .as_array()
            .expect("activities")
            .iter()
            .any(|activity| activity["name"] == "anti-entropy")
    );
}

#[test]
fn replicas_are_compared_unasked_where_hints_were_lost() {
    // The ordinary turn of a partition comes long after this test.
    let seldom = ["--anti-entropy-interval", "3h", "--hint-bytes-per-target-max", "0"];
    let cluster = diverged(&seldom);
    wait_until("what was missed is sent", PATIENCE, || {
        let sent: u64 =
            cluster.nodes.iter().map(|node| rows_sent(&node.get("/metrics").text())).sum();
        if sent >= MISSED { Ok(()) } else { Err(format!("{sent} rows were sent")) }
    });
}

fn rows_sent(metrics: &str) -> u64 {
    let counter = "coterie_anti_entropy_rows_sent_total ";
    let line = metrics.lines().find_map(|line| line.strip_prefix(counter));
    line.and_then(|count| count.parse().ok()).unwrap_or_default()
}

#[test]
fn what_is_not_there_is_not_repaired() {
    let cluster = Cluster::start(1);
    for (arguments, told) in [
        (["--partition", "256"], "there is no partition 256; give 0 to 255"),
        (["--keyspace", "nowhere"], "there is no keyspace named \"nowhere\""),
    ] {
        let all = [&["repair"][..], &arguments[..]].concat();
        let (code, _, error) = coterie(&cluster.nodes[0], &all);
        assert!(code != 0 && error.contains(told), "{error}");
    }
}
