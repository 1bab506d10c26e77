//! A leader is killed: writes go on, and nothing that was acknowledged is lost or done twice.

use crate::harness::{Cluster, NodeProcess, PATIENCE, wait_for, wait_until};
use crate::strong::{path, start, wait_serves};

/// Keys that are written to before and after: enough to lie in several partitions.
const KEYS: usize = 8;
const RAW: (&str, &str) = ("content-type", "application/octet-stream");

/// Appends once, as often as it has to be asked.
fn append(node: &NodeProcess, key: usize, sequence: u64) {
    let path = format!("{}?op=append&timeout=1s", path(&format!("key-{key}")));
    let session = format!("{:016x}/{sequence}/{}", key + 1, sequence - 1);
    let headers = [RAW, ("coterie-session", session.as_str())];
    let suffix = format!("{sequence},");
    wait_until(&format!("{sequence} is appended to key {key}"), PATIENCE, || {
        let reply = node.try_http("POST", &path, &headers, suffix.as_bytes());
        let reply = reply.map_err(|error| error.to_string())?;
        if reply.status == 200 { Ok(()) } else { Err(reply.text()) }
    });
}

fn held(node: &NodeProcess, key: usize) -> String {
    wait_for("the key is read", PATIENCE, || {
        let reply = node.get(&path(&format!("key-{key}")));
        let value =
            (reply.status == 200).then(|| reply.json()["value"].as_str().map(str::to_owned));
        value.flatten().ok_or_else(|| reply.text())
    })
}

/// The node that leads the partition of a key.
fn leader_of(cluster: &Cluster, key: usize) -> usize {
    let answer = cluster.nodes[0].get(&path(&format!("key-{key}")));
    let leader = answer.header("coterie-leader").to_owned();
    let leads = |node: &NodeProcess| node.spec.client_address.to_string() == leader;
    cluster.nodes.iter().position(leads).unwrap_or_else(|| panic!("{leader:?} leads key {key}"))
}

#[test]
fn writes_go_on_after_a_leader_was_killed() {
    let mut cluster = start();
    for key in 0..KEYS {
        append(&cluster.nodes[key % 3], key, 1);
    }
    let victim = leader_of(&cluster, 0);
    cluster.nodes[victim].kill();
    let survivors = [(victim + 1) % 3, (victim + 2) % 3];
    for key in 0..KEYS {
        append(&cluster.nodes[survivors[key % 2]], key, 2);
    }
    for key in 0..KEYS {
        assert_eq!(held(&cluster.nodes[survivors[0]], key), "1,2,", "key {key}");
    }
    cluster.nodes[victim].start();
    cluster.wait_formed();
    wait_serves(&cluster.nodes[victim]);
    for key in 0..KEYS {
        append(&cluster.nodes[victim], key, 3);
        assert_eq!(held(&cluster.nodes[survivors[1]], key), "1,2,3,", "key {key}");
    }
}
