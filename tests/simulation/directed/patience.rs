//! Requests that take as long as they may: how long that is, and who waits for them.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use coterie::node::request::{RequestError, RequestOptions};
use coterie::node::steering::RingChange;
use coterie::protocol::planted::Planted;
use coterie::protocol::quorum::level::Level;
use coterie::protocol::system::SystemCommand;
use coterie::protocol::system::keyspace::Mode;
use coterie::protocol::system::limits::LimitsAsked;
use coterie::types::{Key, Merge};

use crate::cluster::Cluster;
use crate::dice::Dice;
use crate::directed::moves::tell;
use crate::directed::{SHAPE, insist};
use crate::planted::Planted as NetworkPlanted;
use crate::run::{start_all, virtually, wait_until};
use crate::trace::Trace;

/// A request for all replicas, which writes never reach.
fn for_all(keyspace: Option<&str>, time: Duration) -> RequestOptions {
    RequestOptions {
        keyspace: keyspace.map(Into::into),
        level: Some(Level::All),
        timeout: Some(time),
        ..RequestOptions::default()
    }
}

/// A node hears of a keyspace while a request waits for that, and then replicas are silent.
#[test]
fn the_wait_for_a_name_is_part_of_the_time_of_a_request() {
    const TIME: Duration = Duration::from_secs(2);
    const UNHEARD: Duration = Duration::from_millis(300);
    virtually(async {
        let cluster = Cluster::new(Arc::new(Trace::new(false)), SHAPE, &Dice::new(1));
        start_all(&cluster).await;
        let nodes = cluster.nodes();
        let leader = nodes
            .iter()
            .position(|node| node.status().raft.system_leader == Some(node.facts().node_id));
        let leader = leader.expect("the system group has a leader");
        let deaf = (leader + 1) % nodes.len();
        cluster.network.set_deaf(deaf, true);
        let create = SystemCommand::CreateKeyspace {
            name: "late".to_owned(),
            mode: Mode::Quorum,
            merge: Merge::Lww,
            replication: None,
            limits: LimitsAsked::default(),
        };
        insist(&cluster, || nodes[leader].decide(create.clone())).await.expect("most hear it");
        cluster.plant(Some(NetworkPlanted::LostWrites));

        let began = cluster.agenda.now();
        let value = Bytes::from_static(b"v");
        let write = nodes[deaf].put(Key::from("k"), value, for_all(Some("late"), TIME));
        let news = async {
            cluster.agenda.sleep(UNHEARD).await;
            cluster.network.set_deaf(deaf, false);
        };
        let (written, ()) = tokio::join!(write, news);
        let took = cluster.agenda.now().since(began);
        let Err(RequestError::Timeout { waited_ms, .. }) = written else { panic!("{written:?}") };
        assert!(waited_ms <= (TIME - UNHEARD).as_millis() as u64, "{waited_ms} ms for replicas");
        assert!(took < TIME + Duration::from_millis(50), "it took {took:?}");
        cluster.end();
    });
}

/// A node is told to leave while another has a request under way that began before, and that waits
/// much longer for silent replicas than requests usually do.
async fn a_node_is_there_for_requests_from_before_it_left() -> bool {
    const LEAVES: usize = 4;
    const TIME: Duration = Duration::from_secs(45);
    const LEAVE_MAX: Duration = Duration::from_secs(10);
    let cluster = Cluster::new(Arc::new(Trace::new(false)), SHAPE, &Dice::new(1));
    start_all(&cluster).await;
    let node = cluster.session(0).expect("it runs").node;
    cluster.plant(Some(NetworkPlanted::LostWrites));
    let (writer, value) = (node.clone(), Bytes::from_static(b"v"));
    let request = async move { writer.put(Key::from("k"), value, for_all(None, TIME)).await };
    let request = tokio::spawn(request);
    let leave = RingChange { leave: vec![format!("n{LEAVES}")], ..RingChange::default() };
    insist(&cluster, || node.change_ring(&leave)).await.expect("it may leave");
    assert!(!request.is_finished(), "it began before and is under way");
    cluster.expect_to_leave(LEAVES);
    let gone = || cluster.has_let_go(LEAVES);
    assert!(wait_until(&cluster, TIME * 2, || gone() || request.is_finished()).await);
    let early = gone();
    let left = wait_until(&cluster, LEAVE_MAX, gone).await;
    let written = request.await.expect("a request ends");
    cluster.end();
    left && !early && matches!(written, Err(RequestError::Timeout { .. }))
}

#[test]
fn a_node_leaves_once_no_request_from_before_is_under_way() {
    tell(Planted::LeavesLongRequests, a_node_is_there_for_requests_from_before_it_left);
}
