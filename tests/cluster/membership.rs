//! How nodes find each other, stay apart from other clusters, and are removed.

use serde_json::Value;

use crate::harness::{Cluster, NodeProcess, NodeSpec, PATIENCE, coterie, wait_until};

#[test]
fn nodes_started_in_any_order_see_each_other() {
    for order in [[0, 1, 2], [2, 1, 0], [1, 0, 2]] {
        let mut cluster = Cluster::prepare(3, &[]);
        for index in order {
            cluster.nodes[index].start();
        }
        cluster.wait_formed();
        let digests: Vec<Value> = cluster
            .nodes
            .iter()
            .map(|node| node.status().expect("a status")["ring"]["digest"].clone())
            .collect();
        assert!(digests.iter().all(|digest| *digest == digests[0]), "{order:?}: {digests:?}");
        cluster.nodes[order[0]].put("/kv/k?level=all", "v").expect(200);
        let read = cluster.nodes[order[2]].get("/kv/k?level=all").expect(200).json();
        assert_eq!(read["value"], "v", "{order:?}");
    }
}

#[test]
fn all_nodes_come_back_as_they_were_after_all_were_killed() {
    let mut cluster = Cluster::start(3);
    let ids: Vec<String> = cluster.nodes.iter().map(NodeProcess::node_id).collect();
    cluster.nodes[0].put("/kv/k", "v").expect(200);
    cluster.nodes.iter_mut().for_each(NodeProcess::kill);
    for node in cluster.nodes.iter_mut().rev() {
        node.start();
    }
    cluster.wait_formed();
    let again: Vec<String> = cluster.nodes.iter().map(NodeProcess::node_id).collect();
    assert_eq!(again, ids);
    for node in &cluster.nodes {
        assert_eq!(node.get("/kv/k?level=all").expect(200).json()["value"], "v");
    }
}

#[test]
fn only_a_member_that_is_down_is_removed_and_then_everywhere() {
    let mut cluster = Cluster::start(3);
    for (refused, why) in [("n3", "is up; have it leave"), ("n9", "no member has the id or name")] {
        let (code, _, said) = coterie(&cluster.nodes[0], &["cluster", "remove", refused]);
        assert!(code != 0 && said.contains(why), "{refused}: {code} {said}");
    }
    cluster.nodes[2].kill();
    cluster.wait_state(0, 2, "down");
    let remove = ["cluster", "remove", "n3", "--wait"];
    wait_until("n3 is removed", PATIENCE, || match coterie(&cluster.nodes[0], &remove) {
        (0, ..) => Ok(()),
        failed => Err(failed),
    });
    let left = [("n1".to_owned(), "up".to_owned()), ("n2".to_owned(), "up".to_owned())];
    for node in &cluster.nodes[..2] {
        wait_until("two members are left", PATIENCE, || match node.member_states()? {
            states if states == left => Ok(()),
            states => Err(format!("{states:?}")),
        });
    }
    let receipt = cluster.nodes[1].put("/kv/k?level=all", "v").expect(200).json();
    assert_eq!((&receipt["required"], &receipt["replicas"]), (&2.into(), &2.into()), "{receipt}");
    assert_eq!(receipt["under_replicated"], true, "{receipt}");
    cluster.nodes[2].start();
    wait_until("n3 says that it was removed", PATIENCE, || {
        let reply = cluster.nodes[2].try_http("GET", "/readyz", &[], b"");
        let text = reply.map_err(|error| error.to_string())?.text();
        if text.contains("was removed from its cluster") { Ok(()) } else { Err(text) }
    });
}

#[test]
fn a_node_of_another_cluster_is_refused_and_both_clusters_are_named() {
    let cluster = Cluster::start(1);
    let ours = &cluster.nodes[0];
    let mut stranger = NodeProcess::new(NodeSpec::new(cluster.root.path(), "stranger", &[]));
    stranger.start();
    stranger.wait_ready();
    let id = |node: &NodeProcess| {
        let status = node.status().expect("a status");
        status["cluster_id"].as_str().expect("a cluster").to_owned()
    };
    let (our_id, their_id) = (id(ours), id(&stranger));
    assert_ne!(our_id, their_id);
    stranger.kill();
    stranger.spec.seeds = vec![ours.spec.peer_address];
    stranger.start();
    wait_until("somebody names both clusters", PATIENCE, || {
        let said = format!("{}\n{}", ours.log(), stranger.log());
        let both = |line: &str| line.contains(&our_id) && line.contains(&their_id);
        if said.lines().any(both) { Ok(()) } else { Err(said) }
    });
    assert_eq!(ours.member_states().expect("a status").len(), 1);
    assert_eq!(id(ours), our_id);
    ours.put("/kv/k", "v").expect(200);
}
