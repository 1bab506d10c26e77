//! Clusters that grow, shrink and have nodes replaced while clients are at work.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::Value;

use crate::harness::{Cluster, HTTP_TIMEOUT, NodeProcess, NodeSpec, PATIENCE, coterie, wait_until};

/// Clients at work at once.
const CLIENTS: usize = 4;

/// How long partitions may take to arrive, on a busy machine.
const TRANSFER_PATIENCE: Duration = Duration::from_secs(120);

/// What a client has had acknowledged: the last number written to each key.
type Ledger = BTreeMap<String, u64>;

/// Writes numbers to keys of its own until told to stop; no write may fail for good.
fn write_on(client: usize, addresses: &[SocketAddr], keyspace: &str, stop: &AtomicBool) -> Ledger {
    let mut ledger = Ledger::new();
    let mut round = 0;
    while !stop.load(Ordering::Relaxed) {
        let key = format!("{client}-{}", round % 200);
        put(addresses, keyspace, (client + round as usize, round), &key);
        ledger.insert(key, round);
        round += 1;
    }
    ledger
}

/// Asks one node after another until one has taken the write.
fn put(addresses: &[SocketAddr], keyspace: &str, (first, number): (usize, u64), key: &str) {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(HTTP_TIMEOUT))
        .build()
        .into();
    let body = format!("{{\"value\":\"{number}\"}}");
    let mut attempts = (first..).map(|attempt| addresses[attempt % addresses.len()]);
    wait_until(&format!("{key} is written"), PATIENCE, || {
        let address = attempts.next().expect("an endless sequence");
        let url = format!("http://{address}/v1/{keyspace}/{key}");
        match agent.put(&url).content_type("application/json").send(&body) {
            Ok(answer) if answer.status() == 200 => Ok(()),
            Ok(mut answer) => Err(answer.body_mut().read_to_string().unwrap_or_default()),
            Err(error) => Err(error.to_string()),
        }
    });
}

/// Tells clients to stop when it is dropped: a test that fails must not wait for them for ever.
struct StopsClients<'a>(&'a AtomicBool);

impl Drop for StopsClients<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Does something to a cluster while clients write; what they had acknowledged.
fn under_load(
    cluster: &mut Cluster,
    keyspaces: &[&str],
    act: impl FnOnce(&mut Cluster),
) -> Vec<(String, Ledger)> {
    // Clients know the first three nodes alone, as they would who read an older address list.
    let addresses: Vec<SocketAddr> =
        cluster.nodes.iter().take(3).map(|node| node.spec.client_address).collect();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|client| {
                let (addresses, stop) = (&addresses, &stop);
                let keyspace = keyspaces[client % keyspaces.len()].to_owned();
                scope.spawn(move || {
                    let ledger = write_on(client, addresses, &keyspace, stop);
                    (keyspace, ledger)
                })
            })
            .collect();
        let stopping = StopsClients(&stop);
        act(cluster);
        drop(stopping);
        clients.into_iter().map(|client| client.join().expect("a client that was served")).collect()
    })
}

fn check(node: &NodeProcess, ledgers: &[(String, Ledger)]) {
    for (keyspace, ledger) in ledgers {
        assert!(ledger.len() > 20, "clients got hardly anything done: {}", ledger.len());
        for (key, number) in ledger {
            let read = node.get(&format!("/v1/{keyspace}/{key}")).expect(200).json();
            assert_eq!(read["value"], number.to_string(), "{keyspace}/{key}");
        }
    }
}

fn wait_settled(node: &NodeProcess) {
    wait_until("partitions have arrived", TRANSFER_PATIENCE, || {
        let transfers = node.get("/transfers").expect(200).json();
        let left = transfers["members"].as_array().is_none_or(|members| !members.is_empty());
        let moving = transfers["settled"] != true || transfers["groups"] != 0 || left;
        if moving { Err(transfers) } else { Ok(()) }
    });
}

fn add(cluster: &mut Cluster, name: &str, arguments: &[&str]) {
    let seeds = [cluster.nodes[0].spec.peer_address];
    let mut spec = NodeSpec::new(cluster.root.path(), name, &seeds);
    spec.arguments = arguments.iter().map(|&argument| argument.to_owned()).collect();
    let mut node = NodeProcess::new(spec);
    node.start();
    cluster.nodes.push(node);
}

fn partitions_of(node: &NodeProcess, name: &str) -> u64 {
    node.member(name).expect("a member")["partitions"].as_u64().expect("a number")
}

#[test]
fn three_nodes_grow_to_six_and_shrink_to_three_under_load_and_lose_nothing() {
    let mut cluster = Cluster::start(3);
    let (code, _, said) =
        coterie(&cluster.nodes[0], &["keyspace", "create", "ledger", "--mode", "strong"]);
    assert_eq!(code, 0, "{said}");
    let ledgers = under_load(&mut cluster, &["default", "ledger"], |cluster| {
        for name in ["n4", "n5", "n6"] {
            add(cluster, name, &[]);
        }
        // One is killed while partitions are on their way to it, and comes back.
        wait_until("n5 is a member", PATIENCE, || cluster.nodes[0].member("n5").map(drop));
        cluster.nodes[4].kill();
        cluster.nodes[4].start();
        for name in ["n4", "n5", "n6"] {
            wait_until(&format!("{name} has its share"), TRANSFER_PATIENCE, || {
                let member = cluster.nodes[0].member(name)?;
                if member["partitions"].as_u64() > Some(60) {
                    Ok(())
                } else {
                    Err(member.to_string())
                }
            });
        }
        wait_settled(&cluster.nodes[0]);
        cluster.wait_formed();
        let leave = ["cluster", "leave", "n4", "n5", "n6", "--wait"];
        let (code, _, said) = coterie(&cluster.nodes[0], &leave);
        assert_eq!(code, 0, "{said}");
        wait_settled(&cluster.nodes[1]);
    });
    check(&cluster.nodes[2], &ledgers);
    let members = cluster.nodes[0].member_states().expect("a status");
    assert_eq!(members.len(), 3, "{members:?}");
    for gone in &cluster.nodes[3..] {
        wait_until("it says that it has left", PATIENCE, || {
            let ready = gone.get("/readyz").text();
            if ready.contains("has left its cluster") { Ok(()) } else { Err(ready) }
        });
    }
}

#[test]
fn a_dead_node_is_replaced_and_a_new_one_takes_exactly_its_place() {
    let mut cluster = Cluster::start(4);
    let mut owned: Vec<Value> = Vec::new();
    let old = cluster.nodes[3].node_id();
    let ledgers = under_load(&mut cluster, &["default"], |cluster| {
        owned = primaries(&cluster.nodes[0]);
        add(cluster, "n5", &["--join", "manual"]);
        wait_until("n5 waits", PATIENCE, || cluster.nodes[0].member("n5").map(drop));
        cluster.nodes[4].wait_ready();
        assert_eq!(partitions_of(&cluster.nodes[0], "n5"), 0, "it waits until it is told");
        let plan = ["cluster", "plan", "--join", "n5"];
        let (code, page, said) = coterie(&cluster.nodes[0], &plan);
        assert!(code == 0 && page.contains("partitions get other owners"), "{page} {said}");
        cluster.nodes[3].kill();
        cluster.wait_state(0, 3, "down");
        let replace = ["cluster", "replace", "n4", "n5", "--wait"];
        let (code, _, said) = coterie(&cluster.nodes[0], &replace);
        assert_eq!(code, 0, "{said}");
    });
    check(&cluster.nodes[4], &ledgers);
    let new = cluster.nodes[4].node_id();
    let expected: Vec<Value> = owned
        .into_iter()
        .map(|nodes| {
            let nodes = nodes.as_array().expect("nodes").clone();
            let swap = |node: Value| if node == old.as_str() { new.clone().into() } else { node };
            nodes.into_iter().map(swap).collect()
        })
        .collect();
    assert_eq!(primaries(&cluster.nodes[0]), expected);
}

#[test]
fn a_node_that_was_just_started_is_waited_for_by_name() {
    let cluster = Cluster::start(2);
    let watch = |arguments: &[&str]| {
        let command = [&["cluster", "transfers", "--watch"], arguments].concat();
        coterie(&cluster.nodes[0], &command)
    };
    let (code, page, said) = watch(&[]);
    let nobody_else = "2 members are on the ring: n1, n2";
    assert!(code == 0 && page.starts_with("nothing moves") && page.contains(nobody_else), "{said}");
    let seeds = [cluster.nodes[0].spec.peer_address];
    let mut node = NodeProcess::new(NodeSpec::new(cluster.root.path(), "n3", &seeds));
    let (code, page, said) = std::thread::scope(|scope| {
        let watching = scope.spawn(|| watch(&["--for", "n3"]));
        node.start();
        watching.join().expect("a command that ends")
    });
    let all = "3 members are on the ring: n1, n2, n3";
    assert!(code == 0 && page.starts_with("nothing moves") && page.contains(all), "{page} {said}");
    assert!(partitions_of(&cluster.nodes[0], "n3") > 0, "its partitions have come");
}

/// The primaries of all partitions, as a node has them.
fn primaries(node: &NodeProcess) -> Vec<Value> {
    let ring = node.get("/ring").expect(200).json();
    let partitions = ring["partitions"].as_array().expect("partitions").clone();
    partitions.into_iter().map(|partition| partition["primaries"].clone()).collect()
}
