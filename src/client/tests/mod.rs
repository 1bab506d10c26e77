//! The client against nodes that refuse, lose answers, name leaders and die.

mod fake;

use std::collections::BTreeSet;
use std::time::Duration;

use tonic::{Code, Status};

use self::fake::{Act, Cluster, status};
use super::surroundings::now;
use super::*;

fn client(cluster: &Cluster) -> Client {
    within(cluster, Duration::from_secs(10))
}

fn within(cluster: &Cluster, timeout: Duration) -> Client {
    Client::builder().nodes([cluster.address(0)]).timeout(timeout).connect().expect("an address")
}

fn lost() -> Status {
    status(Code::DeadlineExceeded, "timeout", "unknown")
}

fn not_now() -> Status {
    status(Code::Unavailable, "no_leader", "not-attempted")
}

/// Session, number: of all requests for keys, in order.
fn numbers(cluster: &Cluster) -> Vec<(String, u64)> {
    let sessions = cluster.seen().into_iter().filter_map(|seen| seen.session);
    sessions.map(|session| (session.client, session.sequence)).collect()
}

#[tokio::test]
async fn a_strong_write_whose_answer_is_lost_is_repeated_as_itself_and_applied_once() {
    let cluster = Cluster::start(3);
    for node in 0..3 {
        let acts = [Act::ExecuteAndSay(lost()), Act::ExecuteAndSay(Status::unavailable("proxy"))];
        cluster.plan(node, acts);
    }
    let strong = client(&cluster).keyspace("strong");
    let appended = strong.append("k", "x").await.expect("an answer");
    assert_eq!(appended.value_bytes, 2, "made anew by the fake node, one longer than the value");
    assert_eq!((cluster.executed(), cluster.value("k").as_deref()), (1, Some("x")));
    let numbers = numbers(&cluster);
    assert_eq!(numbers.len(), 7, "two losses at each of three nodes, then an answer");
    assert_eq!(numbers.iter().collect::<BTreeSet<_>>().len(), 1, "{numbers:?}");
    assert_eq!(numbers[0].1, 1);
}

#[tokio::test]
async fn a_strong_write_survives_the_death_of_the_node_that_executes_it() {
    let mut cluster = Cluster::start(3);
    cluster.lead(1);
    let strong = client(&cluster).keyspace("strong");
    strong.append("k", "a").await.expect("an answer");
    cluster.plan(1, [Act::ExecuteAndHang]);
    let writing = tokio::spawn(strong.append("k", "b").into_future());
    while cluster.value("k").as_deref() != Some("ab") {
        tokio::task::yield_now().await;
    }
    cluster.lead(2);
    cluster.stop(1);
    writing.await.expect("no panic").expect("an answer of the new leader");
    assert_eq!((cluster.executed(), cluster.value("k").as_deref()), (2, Some("ab")));
    let numbers = numbers(&cluster);
    let second = numbers.iter().filter(|(_, sequence)| *sequence == 2).count();
    assert!(second >= 2, "{numbers:?}");
    assert_eq!(numbers.iter().map(|(client, _)| client).collect::<BTreeSet<_>>().len(), 1);
}

#[tokio::test]
async fn a_quorum_write_whose_answer_is_lost_is_not_repeated_unless_that_is_allowed() {
    let cluster = Cluster::start(1);
    let keyspace = client(&cluster).keyspace("default");
    for answer in [lost(), Status::unavailable("proxy")] {
        cluster.plan(0, [Act::ExecuteAndSay(answer)]);
        let before = cluster.executed();
        let error = keyspace.put("k", "x").await.expect_err("lost");
        assert_eq!((error.outcome(), cluster.executed()), (Outcome::Unknown, before + 1));
    }
    cluster.plan(0, [Act::ExecuteAndSay(lost())]);
    keyspace.put("k", "x").idempotent(true).await.expect("the second attempt");
    assert_eq!(cluster.executed(), 4);
    assert!(cluster.seen().iter().all(|seen| seen.session.is_none()));
}

#[tokio::test]
async fn what_was_not_attempted_is_repeated_whatever_it_is() {
    let cluster = Cluster::start(2);
    cluster.plan(0, [Act::Refuse(not_now()), Act::Refuse(not_now())]);
    cluster.plan(1, [Act::Refuse(not_now()), Act::Refuse(not_now())]);
    client(&cluster).keyspace("default").put("k", "x").await.expect("the fifth attempt");
    assert_eq!((cluster.executed(), cluster.asked().len()), (1, 5));
}

#[tokio::test]
async fn what_no_node_would_do_is_asked_once() {
    let cluster = Cluster::start(2);
    let invalid =
        || Act::Refuse(status(Code::InvalidArgument, "invalid_argument", "not-attempted"));
    cluster.plan(0, [invalid()]);
    cluster.plan(1, [invalid()]);
    let error = client(&cluster).keyspace("strong").put("k", "x").await.expect_err("refused");
    assert_eq!((error.code(), error.outcome()), ("invalid_argument", Outcome::NotAttempted));
    assert_eq!(cluster.asked().len(), 1);
}

#[tokio::test]
async fn leaders_are_followed() {
    let cluster = Cluster::start(3);
    let strong = client(&cluster).keyspace("strong");
    for leader in [2, 1] {
        cluster.lead(leader);
        strong.put("k", "x").await.expect("an answer");
        let before = cluster.asked().len();
        for _ in 0..5 {
            strong.put("{k}1", "x").await.expect("an answer");
            strong.get("{k}2").await.expect("an answer");
        }
        assert_eq!(cluster.asked()[before..], [leader; 10], "of the same partition");
    }
}

#[tokio::test]
async fn stale_reads_and_quorum_keyspaces_use_all_nodes() {
    let cluster = Cluster::start(3);
    let client = client(&cluster);
    let max_staleness = Duration::from_secs(1);
    for _ in 0..6 {
        let stale = Consistency::Stale { max_staleness };
        client.keyspace("strong").get("k").consistency(stale).await.expect("an answer");
        client.keyspace("default").get("k").await.expect("an answer");
    }
    let asked = cluster.asked();
    for node in 0..3 {
        assert_eq!(asked.iter().filter(|asked| **asked == node).count(), 4, "{asked:?}");
    }
}

#[tokio::test]
async fn a_client_outlives_the_node_that_it_was_given() {
    let mut cluster = Cluster::start(3);
    let keyspace = client(&cluster).keyspace("default");
    keyspace.put("k", "x").await.expect("an answer");
    cluster.stop(0);
    for _ in 0..10 {
        // A write whose connection breaks is not repeated by itself; these find it broken.
        keyspace.put("k", "y").idempotent(true).await.expect("another node's answer");
        assert!(keyspace.get("k").await.expect("an answer").is_some());
    }
}

#[tokio::test]
async fn nodes_that_hang_do_not_hold_a_call_beyond_its_time() {
    let cluster = Cluster::start(2);
    (0..2).for_each(|node| cluster.plan(node, (0..9).map(|_| Act::Hang)));
    let timeout = Duration::from_millis(300);
    let client = within(&cluster, timeout);
    let cases = [("default", Outcome::Unknown), ("strong", Outcome::Unknown)];
    for (keyspace, outcome) in cases {
        let began = now();
        let error = client.keyspace(keyspace).put("k", "x").await.expect_err("no answer");
        assert_eq!((error.code(), error.outcome()), ("no_answer", outcome), "{keyspace}");
        assert!(began.elapsed() < timeout * 4, "{:?}", began.elapsed());
    }
    let error = client.keyspace("default").get("k").await.expect_err("no answer");
    assert_eq!(error.outcome(), Outcome::Failed, "a read has changed nothing");
    assert_eq!(cluster.executed(), 0);
    for seen in cluster.seen() {
        let timeout = seen.timeout.expect("a timeout is told");
        assert!(timeout.ends_with('u') || timeout.ends_with('n') || timeout.ends_with('m'));
    }
}

#[tokio::test]
async fn a_hanging_node_is_left_for_another_within_the_time() {
    let cluster = Cluster::start(2);
    cluster.plan(0, (0..9).map(|_| Act::Hang));
    let strong = client(&cluster).keyspace("strong");
    for _ in 0..3 {
        strong.append("k", "x").timeout(Duration::from_secs(3)).await.expect("the other's answer");
    }
    assert_eq!(cluster.value("k").as_deref(), Some("xxx"));
}

#[tokio::test]
async fn a_session_that_ended_is_renewed_for_what_was_not_executed() {
    let cluster = Cluster::start(1);
    let strong = client(&cluster).keyspace("strong");
    strong.append("k", "a").await.expect("an answer");
    strong.append("k", "b").await.expect("an answer");
    cluster.forget_sessions();
    strong.append("k", "c").await.expect("an answer under a new session");
    assert_eq!((cluster.executed(), cluster.value("k").as_deref()), (3, Some("abc")));
    let numbers = numbers(&cluster);
    let sequences: Vec<u64> = numbers.iter().map(|(_, sequence)| *sequence).collect();
    assert_eq!(sequences, [1, 2, 3, 1]);
    assert_ne!(numbers[2].0, numbers[3].0);
}

#[tokio::test]
async fn a_session_that_ended_leaves_what_was_lost_unknown() {
    let cluster = Cluster::start(1);
    let strong = client(&cluster).keyspace("strong");
    strong.append("k", "a").await.expect("an answer");
    // Executed by a group that then loses the session and what it remembers of it.
    let gone = status(Code::FailedPrecondition, "session_unknown", "failed");
    cluster.plan(0, [Act::ExecuteAndSay(lost()), Act::Refuse(gone)]);
    let error = strong.append("k", "b").await.expect_err("nobody knows");
    assert_eq!((error.code(), error.outcome()), ("session_unknown", Outcome::Unknown));
    assert_eq!((cluster.executed(), cluster.value("k").as_deref()), (2, Some("ab")));
    strong.append("k", "c").await.expect("an answer under a new session");
    let numbers = numbers(&cluster);
    assert_eq!(numbers.last().map(|(_, sequence)| *sequence), Some(1));
    assert_ne!(numbers[0].0, numbers[3].0);
}

#[tokio::test]
async fn many_tasks_share_a_session_within_its_window() {
    let cluster = Cluster::start(2);
    cluster
        .plan(0, [Act::ExecuteAndSay(lost()), Act::Refuse(not_now()), Act::ExecuteAndSay(lost())]);
    let strong = client(&cluster).keyspace("strong");
    let tasks: Vec<_> =
        (0..300).map(|_| tokio::spawn(strong.append("k", "x").into_future())).collect();
    for task in tasks {
        task.await.expect("no panic").expect("an answer");
    }
    assert_eq!((cluster.executed(), cluster.value("k").map(|value| value.len())), (300, Some(300)));
    let distinct: BTreeSet<(String, u64)> = numbers(&cluster).into_iter().collect();
    let sequences: Vec<u64> = distinct.iter().map(|(_, sequence)| *sequence).collect();
    assert_eq!(sequences, (1..=300).collect::<Vec<u64>>(), "one session, no number twice");
}

#[tokio::test]
async fn a_failed_condition_tells_what_the_key_holds() {
    let cluster = Cluster::start(1);
    let strong = client(&cluster).keyspace("strong");
    strong.compare_and_set("k").expect_absent().put("set").await.expect("it was absent");
    // The refusal is remembered too.
    cluster.plan(0, [Act::Refuse(not_now()), Act::ExecuteAndSay(lost())]);
    let error = strong.compare_and_set("k").expect_absent().delete().await.expect_err("present");
    let value = Some(bytes::Bytes::from("set"));
    let expected = Some(Current { value, version: "v7".to_owned() });
    let ClientError::ConditionFailed { step: 0, current, .. } = &error else { panic!("{error:?}") };
    assert_eq!((current, error.outcome()), (&expected, Outcome::Failed));
    assert_eq!(cluster.executed(), 1);
}

#[tokio::test]
async fn a_transaction_goes_to_the_partition_of_its_first_key_under_one_number() {
    let cluster = Cluster::start(1);
    let strong = client(&cluster).keyspace("strong");
    let steps = strong.transact().put("{a}1", "x").append("{a}2", "y").delete("{a}3");
    let done = steps.check("{a}4", Condition::Absent).await.expect("an answer");
    assert_eq!((done.results.len(), numbers(&cluster).len()), (4, 1));
    let error = strong.transact().await.expect_err("no steps");
    assert_eq!((error.code(), error.outcome()), ("invalid_argument", Outcome::NotAttempted));
}

#[tokio::test]
async fn a_missing_key_is_none_and_a_missing_keyspace_an_error() {
    let cluster = Cluster::start(2);
    let client = client(&cluster);
    assert_eq!(client.keyspace("strong").get("nothing").await, Ok(None));
    let error = client.keyspace("absent").get("k").await.expect_err("no such keyspace");
    assert_eq!((error.code(), error.outcome()), ("unknown_keyspace", Outcome::NotAttempted));
    assert_eq!(cluster.asked().len(), 1, "only the keyspace that exists is read");
}

#[tokio::test]
async fn a_keyspace_just_created_is_waited_for() {
    let cluster = Cluster::start(2);
    let client = client(&cluster);
    let created = client.admin().create_keyspace("fresh", Mode::Strong).await.expect("created");
    assert_eq!((created.name.as_str(), created.mode.as_str()), ("fresh", "strong"));
    let unheard = || Act::Refuse(status(Code::NotFound, "unknown_keyspace", "not-attempted"));
    (0..2).for_each(|node| cluster.plan(node, [unheard(), unheard()]));
    client.keyspace("fresh").put("k", "x").await.expect("an answer once it is heard of");
    assert_eq!(cluster.asked().len(), 5);
}

#[tokio::test]
async fn nodes_that_cannot_be_reached_are_named_and_nothing_was_attempted() {
    let mut cluster = Cluster::start(2);
    let nodes = [cluster.address(0), cluster.address(1)];
    (0..2).for_each(|node| cluster.stop(node));
    let timeout = Duration::from_secs(2);
    let client = Client::builder().nodes(nodes.clone()).timeout(timeout).connect().expect("nodes");
    let error = client.keyspace("default").put("k", "x").await.expect_err("nobody is there");
    assert_eq!((error.code(), error.outcome()), ("unreachable", Outcome::NotAttempted));
    for node in nodes {
        assert!(error.to_string().contains(&node), "{error}");
    }
}

#[tokio::test]
async fn what_found_no_connection_in_time_was_not_attempted() {
    let cluster = Cluster::start(1);
    cluster.plan(0, [Act::ExecuteAndHang]);
    let (deaf, _crowd) = deaf_node().await;
    let cases = [
        (deaf, "unreachable", Outcome::NotAttempted),
        (cluster.address(0), "no_answer", Outcome::Unknown),
    ];
    for (node, code, outcome) in cases {
        let put = strict([node]).keyspace("default").put("k", "x");
        let error = put.timeout(Duration::from_millis(300)).await.expect_err("no answer");
        assert_eq!((error.code(), error.outcome()), (code, outcome));
    }
}

/// Where connections are waited for in vain, and what keeps it so.
async fn deaf_node() -> (String, (tokio::net::TcpListener, Vec<tokio::net::TcpStream>)) {
    let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
    socket.bind("127.0.0.1:0".parse().expect("an address")).expect("a free port");
    let listener = socket.listen(0).expect("listens");
    let address = listener.local_addr().expect("bound");
    let mut crowd = Vec::new();
    let connect = || tokio::net::TcpStream::connect(address);
    while let Ok(connected) = tokio::time::timeout(Duration::from_millis(200), connect()).await {
        crowd.push(connected.expect("connects"));
    }
    (address.to_string(), (listener, crowd))
}

fn strict(nodes: impl IntoIterator<Item = String>) -> Client {
    Client::builder().nodes(nodes).strict().connect().expect("nodes")
}

#[tokio::test]
async fn a_strict_client_asks_the_given_nodes_once_and_no_other() {
    let mut cluster = Cluster::start(3);
    cluster.plan(0, [Act::Refuse(not_now())]);
    cluster.plan(1, [Act::Refuse(not_now())]);
    let nodes = [cluster.address(0), cluster.address(1)];
    let error = strict(nodes.clone()).keyspace("default").put("k", "x").await.expect_err("refused");
    assert_eq!((error.code(), error.outcome()), ("no_leader", Outcome::NotAttempted));
    assert_eq!(cluster.asked(), [0, 1]);
    (0..3).for_each(|node| cluster.stop(node));
    let error = strict(nodes).keyspace("default").put("k", "x").await.expect_err("nobody is there");
    assert_eq!((error.code(), error.outcome()), ("unreachable", Outcome::NotAttempted));
}

#[tokio::test]
async fn a_strict_client_repeats_a_strong_write_that_was_lost_as_itself() {
    let cluster = Cluster::start(1);
    cluster.plan(0, [Act::ExecuteAndSay(Status::unavailable("proxy"))]);
    strict([cluster.address(0)]).keyspace("strong").append("k", "x").await.expect("an answer");
    assert_eq!((cluster.executed(), cluster.value("k").as_deref()), (1, Some("x")));
    assert_eq!(numbers(&cluster).iter().collect::<BTreeSet<_>>().len(), 1);
}

#[test]
fn nodes_are_host_and_port() {
    let connect = |node: &str| Client::builder().nodes([node]).connect();
    for node in ["127.0.0.1:7400", "n1:1", "[::1]:7400", "http://127.0.0.1:7400/"] {
        assert!(connect(node).is_ok(), "{node}");
    }
    for node in ["", "7400", "127.0.0.1", "a:b", "127.0.0.1:99999", "a b:1"] {
        assert!(matches!(connect(node), Err(ClientError::Invalid { .. })), "{node}");
    }
    assert!(Client::builder().connect().is_err());
}
