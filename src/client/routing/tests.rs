use tonic::Status;

use super::*;
use crate::client::surroundings::now;

const P: PartitionId = PartitionId(3);
const Q: PartitionId = PartitionId(4);

fn member(id: &str, address: &str) -> Member {
    Member { id: id.to_owned(), address: address.to_owned() }
}

/// Three members, told by the first, which the client was given.
fn three(now: Instant) -> Routing {
    let mut routing = Routing::new(["10.0.0.1:1".to_owned()], Patience::Lasting);
    let members =
        vec![member("a", "10.0.0.1:1"), member("b", "10.0.0.2:1"), member("c", "10.0.0.3:1")];
    let view = View { id: "a".to_owned(), members, partitions: 8 };
    routing.learn("10.0.0.1:1", &view, now);
    routing
}

#[test]
fn a_strict_client_asks_the_nodes_that_it_was_given_in_their_order() {
    let now = now();
    let given = ["10.0.0.3:1", "10.0.0.1:1"].map(str::to_owned);
    let mut routing = Routing::new(given, Patience::Strict);
    let members = vec![member("a", "10.0.0.1:1"), member("b", "10.0.0.2:1")];
    routing.learn("10.0.0.3:1", &View { id: "c".to_owned(), members, partitions: 8 }, now);
    assert_eq!(addresses(&routing), ["10.0.0.3:1", "10.0.0.1:1"]);
    for _ in 0..3 {
        assert_eq!(choose(&mut routing, None, now), "10.0.0.3:1");
    }
    routing.failed("10.0.0.3:1", None, &Heard::late(), now);
    assert_eq!(choose(&mut routing, None, now), "10.0.0.1:1");
}

fn choose(routing: &mut Routing, partition: Option<PartitionId>, now: Instant) -> String {
    routing.choose(partition, &BTreeMap::new(), now).to_string()
}

fn addresses(routing: &Routing) -> Vec<String> {
    routing.nodes.iter().map(|node| node.address.to_string()).collect()
}

fn refusal(leader: Option<&str>) -> Heard {
    let heard = Heard::of(&Status::unavailable("no leader"));
    let leader = leader.map(str::to_owned);
    Heard { word: "no_leader".to_owned(), outcome: Some(Outcome::NotAttempted), leader, ..heard }
}

#[test]
fn nodes_take_turns() {
    let now = now();
    let mut routing = three(now);
    let mut chosen: Vec<String> = (0..3).map(|_| choose(&mut routing, None, now)).collect();
    let again: Vec<String> = (0..3).map(|_| choose(&mut routing, None, now)).collect();
    assert_eq!(chosen, again);
    chosen.sort();
    assert_eq!(chosen, ["10.0.0.1:1", "10.0.0.2:1", "10.0.0.3:1"]);
}

#[test]
fn a_leader_is_followed_in_its_partition_whether_named_by_id_or_address() {
    for leader in ["c", "10.0.0.3:1"] {
        let now = now();
        let mut routing = three(now);
        routing.answered("10.0.0.1:1", Some(P), Some(leader));
        let chosen: Vec<String> = (0..3).map(|_| choose(&mut routing, Some(P), now)).collect();
        assert_eq!(chosen, ["10.0.0.3:1"; 3]);
        let others: Vec<String> = (0..3).map(|_| choose(&mut routing, Some(Q), now)).collect();
        assert_ne!(others, ["10.0.0.3:1"; 3]);
    }
}

#[test]
fn a_refusal_names_the_next_leader_or_none() {
    let now = now();
    let mut routing = three(now);
    routing.answered("10.0.0.1:1", Some(P), Some("c"));
    routing.failed("10.0.0.3:1", Some(P), &refusal(Some("b")), now);
    assert_eq!(choose(&mut routing, Some(P), now), "10.0.0.2:1");
    routing.failed("10.0.0.2:1", Some(P), &refusal(None), now);
    assert!(routing.leader(P).is_none());
}

#[test]
fn a_failed_condition_is_no_reason_to_doubt_the_leader() {
    let now = now();
    let mut routing = three(now);
    routing.answered("10.0.0.1:1", Some(P), Some("c"));
    let failed = Heard { outcome: Some(Outcome::Failed), ..refusal(None) };
    routing.failed("10.0.0.3:1", Some(P), &failed, now);
    assert_eq!(choose(&mut routing, Some(P), now), "10.0.0.3:1");
}

#[test]
fn a_leader_that_was_not_known_becomes_a_node() {
    let now = now();
    let mut routing = three(now);
    routing.failed("10.0.0.1:1", Some(P), &refusal(Some("10.0.0.9:1")), now);
    assert_eq!(choose(&mut routing, Some(P), now), "10.0.0.9:1");
    assert!(routing.is_due(now + MEMBERS_AGE_MIN * 2));
    for useless in ["0.0.0.0:1", "10.0.0.8:0", "ffff"] {
        routing.failed("10.0.0.1:1", Some(P), &refusal(Some(useless)), now);
        assert_eq!(routing.nodes(), 4, "{useless}");
    }
}

#[test]
fn a_node_that_does_not_answer_rests_longer_each_time() {
    let now = now();
    let mut routing = three(now);
    routing.answered("10.0.0.1:1", Some(P), Some("c"));
    routing.failed("10.0.0.3:1", Some(P), &Heard::late(), now);
    let rested =
        |routing: &mut Routing, now| (0..3).any(|_| choose(routing, None, now) == "10.0.0.3:1");
    assert!(!rested(&mut routing, now));
    assert!(rested(&mut routing, now + REST));
    routing.failed("10.0.0.3:1", None, &Heard::late(), now);
    assert!(!rested(&mut routing, now + REST));
    assert!(rested(&mut routing, now + REST * 2));
    routing.answered("10.0.0.3:1", None, None);
    assert!(rested(&mut routing, now));
}

#[test]
fn when_all_rest_one_is_asked_all_the_same() {
    let now = now();
    let mut routing = Routing::new(["a:1".to_owned()], Patience::Lasting);
    routing.failed("a:1", None, &Heard::late(), now);
    assert_eq!(choose(&mut routing, None, now), "a:1");
}

#[test]
fn a_call_asks_those_first_that_it_has_not_asked() {
    let now = now();
    let mut routing = three(now);
    let asked = BTreeMap::from([("10.0.0.1:1".into(), 1), ("10.0.0.2:1".into(), 2)]);
    for _ in 0..3 {
        assert_eq!(&*routing.choose(None, &asked, now), "10.0.0.3:1");
    }
}

#[test]
fn members_come_and_go_but_those_given_stay() {
    let now = now();
    let mut routing = three(now);
    let members = vec![member("b", "10.0.0.7:1"), member("d", "0.0.0.0:1")];
    let view = View { id: "b".to_owned(), members, partitions: 8 };
    routing.learn("10.0.0.2:1", &view, now);
    assert_eq!(addresses(&routing), ["10.0.0.1:1", "10.0.0.7:1"]);
}

#[test]
fn a_node_given_by_name_is_not_counted_twice() {
    let now = now();
    let mut routing = Routing::new(["one:1".to_owned()], Patience::Lasting);
    let members = vec![member("a", "10.0.0.1:1")];
    routing.learn("one:1", &View { id: "a".to_owned(), members, partitions: 8 }, now);
    assert_eq!(addresses(&routing), ["one:1"]);
}

#[test]
fn members_are_asked_for_when_that_is_due() {
    let now = now();
    assert!(Routing::new(["a:1".to_owned()], Patience::Lasting).is_due(now));
    let mut routing = three(now);
    assert!(!routing.is_due(now + MEMBERS_AGE_MAX));
    assert!(routing.is_due(now + MEMBERS_AGE_MAX * 2));
    routing.failed("10.0.0.2:1", None, &Heard::late(), now);
    assert!(!routing.is_due(now));
    assert!(routing.is_due(now + MEMBERS_AGE_MIN * 2));
}

#[test]
fn a_node_without_a_ring_leaves_the_partitions_unknown() {
    let now = now();
    let mut routing = Routing::new(["10.0.0.1:1".to_owned()], Patience::Lasting);
    let view = View { id: "a".to_owned(), members: Vec::new(), partitions: 0 };
    routing.learn("10.0.0.1:1", &view, now);
    assert_eq!(routing.partitioning(), None);
    assert!(routing.is_due(now));
}
