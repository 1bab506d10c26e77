//! Raft groups as operators see them, and leaders that are handed on.

use std::collections::BTreeSet;

use coterie::proto::v1;
use serde_json::Value;
use tonic::{Code, Status};

use crate::harness::{Cluster, NodeProcess, PATIENCE, coterie, wait_for, wait_until};

const SYSTEM: u32 = 65_535;

/// Three nodes with a strong keyspace in few partitions, each of which has a leader.
fn strong_cluster() -> Cluster {
    let cluster = Cluster::start_with(3, &["--partitions", "8"]);
    let (code, _, error) =
        coterie(&cluster.nodes[0], &["keyspace", "create", "s", "--mode", "strong"]);
    assert_eq!(code, 0, "{error}");
    for node in &cluster.nodes {
        wait_until("every group has a leader", PATIENCE, || {
            let groups = groups(node);
            let led = groups.iter().filter(|group| !group.leader.is_empty()).count();
            if led == 9 { Ok(()) } else { Err(format!("{led} of {}", groups.len())) }
        });
    }
    cluster
}

fn groups(node: &NodeProcess) -> Vec<v1::Group> {
    let grpc = node.grpc();
    let answer = grpc.wait(grpc.admin().groups(v1::GroupsRequest { group: None }));
    answer.expect("the groups").into_inner().groups
}

fn leader_of(node: &NodeProcess, group: u32) -> String {
    let found = groups(node).into_iter().find(|view| view.group == group);
    found.expect("the node has a replica").leader
}

fn transfer(by: &NodeProcess, group: u32, node: &str) -> Result<(), Status> {
    let grpc = by.grpc();
    let request = v1::TransferLeaderRequest { group, node: node.to_owned() };
    grpc.wait(grpc.admin().transfer_leader(request)).map(drop)
}

/// The node that leads a group once its word is the same everywhere.
fn agreed_leader(cluster: &Cluster, group: u32) -> usize {
    wait_for("all nodes agree on the leader", PATIENCE, || {
        let leaders: Vec<String> =
            cluster.nodes.iter().map(|node| leader_of(node, group)).collect();
        let leads = |node: &NodeProcess| leaders.iter().all(|leader| *leader == node.node_id());
        cluster.nodes.iter().position(leads).ok_or(leaders)
    })
}

/// The node that leads a partition's group when nobody wants it otherwise.
fn preferred(cluster: &Cluster, group: u32) -> String {
    let ids: BTreeSet<String> = cluster.nodes.iter().map(NodeProcess::node_id).collect();
    ids.into_iter().nth(group as usize % 3).expect("three members")
}

/// Waits until those groups are led by the nodes that are to lead them.
fn await_spread(cluster: &Cluster, groups: &[u32]) {
    wait_until("leaders are spread", PATIENCE, || {
        let leads = |group: &u32| leader_of(&cluster.nodes[0], *group);
        let leaders: Vec<String> = groups.iter().map(leads).collect();
        let wanted: Vec<String> = groups.iter().map(|group| preferred(cluster, *group)).collect();
        if leaders == wanted { Ok(()) } else { Err((leaders, wanted)) }
    });
}

#[test]
fn every_node_tells_of_its_groups() {
    let cluster = strong_cluster();
    for node in &cluster.nodes {
        let groups = groups(node);
        let numbers: Vec<u32> = groups.iter().map(|group| group.group).collect();
        assert_eq!(numbers, [0, 1, 2, 3, 4, 5, 6, 7, SYSTEM]);
        for group in &groups {
            assert_eq!(group.replicas.len(), 3, "{group:?}");
            assert_eq!(group.role == "leader", group.leader == node.node_id(), "{group:?}");
            assert!(group.applied <= group.commit && group.commit <= group.last_index, "{group:?}");
        }
    }
    wait_until("status counts the groups", PATIENCE, || {
        let counts = |node: &NodeProcess| {
            let status = node.status().expect("a status");
            let count = |name: &str| status["raft"][name].as_u64().unwrap_or_default();
            (count("groups"), count("led"), count("leaderless"))
        };
        let all: Vec<_> = cluster.nodes.iter().map(counts).collect();
        let right = all.iter().all(|(groups, _, leaderless)| (*groups, *leaderless) == (9, 0))
            && all.iter().map(|(_, led, _)| led).sum::<u64>() == 9;
        if right { Ok(()) } else { Err(all) }
    });
    let metrics = cluster.nodes[0].get("/metrics").expect(200).text();
    assert!(metrics.contains("coterie_groups 9"), "{metrics}");
    let ring = cluster.nodes[0].get("/ring").expect(200).json();
    assert!(ring["partitions"][0]["leader"].is_string(), "{ring}");
}

#[test]
fn a_leader_hands_on_and_others_say_who_leads() {
    let cluster = strong_cluster();
    await_spread(&cluster, &[3]);
    for group in [3, SYSTEM] {
        let from = agreed_leader(&cluster, group);
        let to = (from + 1) % 3;
        let (name, id) = (&cluster.nodes[to].spec.name, cluster.nodes[to].node_id());
        let refused = transfer(&cluster.nodes[to], group, name).expect_err("it does not lead");
        assert_eq!(refused.code(), Code::FailedPrecondition, "{refused:?}");
        let leader = cluster.nodes[from].node_id();
        assert!(refused.message().contains(&format!("node {leader} does")), "{refused:?}");
        let unknown = transfer(&cluster.nodes[from], group, "n9").expect_err("no such member");
        assert_eq!(unknown.code(), Code::InvalidArgument, "{unknown:?}");
        transfer(&cluster.nodes[from], group, &id).expect("it hands on");
        wait_until("the other node leads", PATIENCE, || {
            let leader = leader_of(&cluster.nodes[from], group);
            if leader == id { Ok(()) } else { Err(leader) }
        });
    }
    let refused = transfer(&cluster.nodes[0], 70_000, "n1").expect_err("no such group");
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused:?}");
}

#[test]
fn a_group_that_was_ordered_elsewhere_while_its_first_node_was_down_stays_there() {
    let mut cluster = strong_cluster();
    let partitions: Vec<u32> = (0..8).collect();
    await_spread(&cluster, &partitions);
    // Those that group 5 prefers, in turn.
    let position = |id: String| cluster.nodes.iter().position(|node| node.node_id() == id);
    let [first, second, third] =
        [5, 6, 7].map(|turn| position(preferred(&cluster, turn)).expect("a member"));
    let id = cluster.nodes[second].node_id();
    cluster.nodes[first].kill();
    wait_until("the second leads", PATIENCE, || {
        let leaders = [second, third].map(|n| leader_of(&cluster.nodes[n], 5));
        if leaders.iter().all(|leader| *leader == id) { Ok(()) } else { Err(leaders) }
    });
    for viewer in [second, third] {
        cluster.wait_state(viewer, first, "down");
    }
    // There and back: what only the order keeps there is where it would lie without the first.
    for to in [third, second] {
        let name = &cluster.nodes[to].spec.name;
        let (code, _, error) = coterie(&cluster.nodes[to], &["leader", "transfer", "5", name]);
        assert_eq!(code, 0, "{error}");
    }
    cluster.nodes[first].start();
    cluster.nodes[first].wait_ready();
    await_spread(&cluster, &[0, 1, 2, 3, 4, 6, 7]);
    assert_eq!(leader_of(&cluster.nodes[first], 5), id);
}

#[test]
fn the_command_line_finds_the_leader_whichever_node_is_asked() {
    let cluster = strong_cluster();
    let from = agreed_leader(&cluster, 5);
    let to = &cluster.nodes[(from + 1) % 3].spec.name;
    let other = &cluster.nodes[(from + 2) % 3];
    let (code, out, error) = coterie(other, &["leader", "transfer", "5", to]);
    assert_eq!((code, out), (0, format!("{to} leads group 5\n")), "{error}");
    let (code, out, error) = coterie(other, &["raft", "status"]);
    assert!(code == 0 && out.contains("8 groups of partitions"), "{out}{error}");
    let (code, out, _) = coterie(other, &["raft", "status", "5"]);
    assert!(code == 0 && out.starts_with(&format!("group 5: led by {to}, term ")), "{out}");
    let (_, out, _) = coterie(other, &["raft", "status", "system", "--output", "json"]);
    let system: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!(system["groups"][0]["views"].as_array().map(Vec::len), Some(3), "{out}");
    let (code, _, error) = coterie(other, &["raft", "status", "8"]);
    assert!(code == 1 && error.contains("no node that was asked"), "{code}: {error}");
    let (code, out, _) = coterie(other, &["cluster", "members"]);
    assert!(code == 0 && out.matches("voter").count() == 2, "{out}");
}

#[test]
fn the_strong_section_of_the_readme_runs_as_printed() {
    let cluster = Cluster::start(3);
    let readme = include_str!("../../README.md");
    let (_, section) = readme.split_once("## Strong keyspaces").expect("the section");
    let section = section.split("\n## ").next().expect("its text");
    let commands = section.lines().filter_map(|line| line.strip_prefix("cargo run --release -- "));
    let mut held = Vec::new();
    for line in commands {
        let asked = line.strip_prefix("--node 127.0.0.1:7420 ");
        let node = &cluster.nodes[if asked.is_some() { 2 } else { 0 }];
        let words = asked.unwrap_or(line).split(' ').map(|word| word.trim_matches('\''));
        let (code, out, error) = coterie(node, &words.collect::<Vec<_>>());
        assert_eq!(code, 0, "{line}: {out}{error}");
        held.push(out);
    }
    assert!(held.len() >= 5 && held.contains(&"paid".to_owned()), "{held:?}");
}
