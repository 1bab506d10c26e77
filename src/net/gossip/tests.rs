use std::net::{Ipv4Addr, UdpSocket};

use super::*;
use crate::types::{Incarnation, NodeId};

/// Measured at 0.6 s for all three.
const SEEN_WITHIN: Duration = Duration::from_secs(3);

/// Measured at 2.4 to 3.8 s; a busy machine may take longer than the 5 s that are promised.
const DOWN_WITHIN: Duration = Duration::from_secs(8);

/// Generous: only a failing test waits this long.
const DEADLINE: Duration = Duration::from_secs(15);

pub(crate) fn facts(node: u64) -> NodeFacts {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
    NodeFacts {
        revision: 1,
        node_id: NodeId(node),
        incarnation: Incarnation(node),
        name: format!("node-{node}"),
        peer_address: address,
        client_address: address,
        zone: String::new(),
        vnodes: 128,
        epoch: crate::types::Epoch(3),
        requests_since: crate::types::Epoch(2),
        members_digest: 0,
        load_per_second: 0,
        complete: true,
    }
}

fn free_address() -> SocketAddr {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    socket.local_addr().unwrap()
}

fn options(node: u64, listen: SocketAddr, seeds: &[SocketAddr]) -> GossipOptions {
    GossipOptions {
        cluster_id: ClusterId(7),
        facts: facts(node),
        generation: 1,
        listen,
        advertise: listen,
        seeds: seeds.iter().map(SocketAddr::to_string).collect(),
    }
}

async fn start(node: u64, listen: SocketAddr, seeds: &[SocketAddr]) -> ChitchatDiscovery {
    ChitchatDiscovery::start(options(node, listen, seeds)).await.unwrap()
}

/// Waits until the sightings, as `(node, alive)`, are these.
async fn sees(discovery: &ChitchatDiscovery, expected: &[(u64, bool)], within: Duration) {
    let mut sightings = discovery.sightings();
    let seen = |sightings: &Arc<Vec<Sighting>>| -> Vec<(u64, bool)> {
        sightings.iter().map(|sighting| (sighting.facts.node_id.0, sighting.alive)).collect()
    };
    let waited = tokio::time::timeout(within, sightings.wait_for(|now| seen(now) == expected));
    let in_time = waited.await.is_ok();
    assert!(in_time, "saw {:?}, not {expected:?}", seen(&discovery.sightings().borrow()));
}

async fn start_three() -> (Vec<ChitchatDiscovery>, Vec<SocketAddr>) {
    let addresses: Vec<SocketAddr> = (0..3).map(|_| free_address()).collect();
    let mut nodes = Vec::new();
    // The seed comes last: any order of starting must do.
    for node in [3, 2, 1] {
        nodes.insert(0, start(node, addresses[node as usize - 1], &addresses[..1]).await);
    }
    (nodes, addresses)
}

const ALL_ALIVE: [(u64, bool); 3] = [(1, true), (2, true), (3, true)];

#[tokio::test]
async fn three_nodes_see_each_other_and_one_that_leaves_is_down_at_once() {
    let (nodes, addresses) = start_three().await;
    for node in &nodes {
        sees(node, &ALL_ALIVE, SEEN_WITHIN).await;
    }
    nodes[2].stop().await;
    assert!(!nodes[2].is_running());
    for node in &nodes[..2] {
        // Well below what the failure detector takes.
        sees(node, &[(1, true), (2, true), (3, false)], Duration::from_millis(1500)).await;
    }
    let again = GossipOptions { generation: 2, ..options(3, addresses[2], &addresses[..1]) };
    let again = ChitchatDiscovery::start(again).await.unwrap();
    for node in [&nodes[0], &nodes[1], &again] {
        sees(node, &ALL_ALIVE, DEADLINE).await;
    }
    for node in [&nodes[0], &nodes[1], &again] {
        node.stop().await;
    }
}

#[tokio::test]
async fn a_killed_node_is_down_in_time_and_seen_again_in_its_next_generation() {
    let (mut nodes, addresses) = start_three().await;
    for node in &nodes {
        sees(node, &ALL_ALIVE, SEEN_WITHIN).await;
    }
    kill(nodes.remove(2)).await;
    for node in &nodes {
        sees(node, &[(1, true), (2, true), (3, false)], DOWN_WITHIN).await;
    }
    let mut again = options(3, addresses[2], &addresses[..1]);
    again.generation = 2;
    again.facts.zone = "b".to_owned();
    let again = ChitchatDiscovery::start(again).await.unwrap();
    for node in nodes.iter().chain([&again]) {
        sees(node, &ALL_ALIVE, DEADLINE).await;
        assert_eq!(node.sightings().borrow()[2].facts.zone, "b");
    }
    for node in nodes.iter().chain([&again]) {
        node.stop().await;
    }
}

/// Ends a node without a word.
async fn kill(node: ChitchatDiscovery) {
    let driver = node.driver.lock().take().unwrap();
    driver.abort();
    assert!(driver.await.unwrap_err().is_cancelled());
}

#[tokio::test]
async fn published_facts_reach_the_others_and_only_changes_wake() {
    let (first, second) = (free_address(), free_address());
    let seed = start(1, first, &[]).await;
    let mut named = options(2, second, &[]);
    named.seeds = vec![format!("localhost:{}", first.port())];
    let other = ChitchatDiscovery::start(named).await.unwrap();
    sees(&seed, &ALL_ALIVE[..2], SEEN_WITHIN).await;
    sees(&other, &ALL_ALIVE[..2], SEEN_WITHIN).await;

    let mut sightings = seed.sightings();
    let digest_of_2 = |now: &Arc<Vec<Sighting>>| now[1].facts.members_digest;
    other.publish(NodeFacts { members_digest: 42, ..facts(2) });
    let seen = sightings.wait_for(|now| digest_of_2(now) == 42);
    tokio::time::timeout(DEADLINE, seen).await.unwrap().unwrap();

    seed.publish(facts(1));
    let woken = tokio::time::timeout(GOSSIP_INTERVAL * 5, sightings.changed()).await;
    assert!(woken.is_err(), "the same facts are no change");
    seed.stop().await;
    other.stop().await;
}

#[tokio::test]
async fn an_address_in_use_is_named() {
    let taken = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let listen = taken.local_addr().unwrap();
    let error = ChitchatDiscovery::start(options(1, listen, &[])).await.err().unwrap();
    assert!(error.to_string().contains(&listen.to_string()), "{error}");
}
