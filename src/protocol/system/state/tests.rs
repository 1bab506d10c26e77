//! What a cluster begins with, and what comes back from a state's text.

use super::*;
use crate::protocol::system::samples::{Cluster, describe, member, remove, settings, strong};

/// A state with something in every field.
fn full() -> SystemState {
    let mut cluster = Cluster::of(&["a", "b", "c", "a"]);
    cluster.apply(strong("orders", 3)).unwrap();
    cluster.apply(remove(2)).unwrap();
    cluster.state
}

#[test]
fn a_new_cluster_has_its_founder_and_the_default_keyspace() {
    let state = SystemState::found(&settings(), NodeId(9), member("a")).unwrap();
    assert_eq!(state.settings(), settings());
    assert_eq!(state.epoch(), Epoch(1));
    assert_eq!(state.members()[&NodeId(9)].system_replica, ReplicaId(1));
    assert_eq!(state.next_replica(), ReplicaId(2));
    let default = state.keyspace_named("default").unwrap();
    assert_eq!((default.id, default.mode), (KeyspaceId::DEFAULT, Mode::Quorum));
    assert_eq!(default.replication, settings().replication);
    assert_eq!(state.keyspaces().count(), 1);
    assert!(state.groups().is_empty() && state.removed().is_empty());
}

#[test]
fn unsound_settings_found_nothing() {
    let replication = |factor, read_quorum, write_quorum| ClusterSettings {
        replication: Replication { factor, read_quorum, write_quorum },
        ..settings()
    };
    let cases = [
        (ClusterSettings { partitions: 12, ..settings() }, "partitions is 12: it must be a power"),
        (ClusterSettings { partitions: 1 << 16, ..settings() }, "from 1 to 32768"),
        (replication(16, 2, 2), "n is 16: it must be from 1 to 15"),
        (replication(3, 4, 2), "r is 4: it must be from 1 to n, which is 3"),
        (replication(3, 2, 0), "w is 0: it must be from 1 to n, which is 3"),
    ];
    for (settings, expected) in cases {
        let refusal = SystemState::found(&settings, NodeId(1), member("")).unwrap_err();
        assert!(refusal.to_string().contains(expected), "{refusal}");
    }
    let nameless = Member { name: String::new(), ..member("") };
    let refusal = SystemState::found(&settings(), NodeId(1), nameless).unwrap_err();
    assert_eq!(refusal.to_string(), "name is empty: a member needs a name");
}

#[test]
fn a_state_comes_back_from_its_text() {
    let state = full();
    assert!(!state.groups().is_empty() && !state.removed().is_empty());
    assert_eq!(SystemState::decode(&state.encode()).unwrap(), state);
}

#[test]
fn another_format_is_named() {
    let text = String::from_utf8(full().encode()).unwrap();
    assert!(text.starts_with(r#"{"format":2,"#));
    let later = text.replacen(r#"{"format":2,"#, r#"{"format":3,"more":{},"#, 1);
    let error = SystemState::decode(later.as_bytes()).unwrap_err().to_string();
    assert!(error.contains("has format 3, this program knows format 2"), "{error}");
    let error = SystemState::decode(b"{}").unwrap_err().to_string();
    assert!(error.contains("missing field `format`"), "{error}");
}

#[test]
fn in_a_state_of_the_first_format_every_member_has_its_place() {
    let mut cluster = Cluster::sized(3);
    cluster.settle();
    let mut text: serde_json::Value = serde_json::from_slice(&cluster.state.encode()).unwrap();
    let fields = text.as_object_mut().unwrap();
    fields.insert("format".to_owned(), 1.into());
    fields.remove("placing");
    for member in fields["members"].as_object_mut().unwrap().values_mut() {
        let member = member.as_object_mut().unwrap();
        assert!(member.remove("standing").is_some() && member.remove("seat").is_some());
    }
    let old = SystemState::decode(text.to_string().as_bytes()).unwrap();
    assert!(old.placing().is_settled());
    assert_eq!(old.placing().target_layout(), cluster.state.placing().target_layout());
    assert_eq!(SystemState::decode(&old.encode()).unwrap(), old);
}

#[test]
fn a_replica_is_run_only_in_the_life_that_it_was_given_to() {
    let mut cluster = Cluster::sized(3);
    cluster.apply(strong("orders", 3)).unwrap();
    let (group, node, first) = (GroupId(5), NodeId(2), Incarnation(7));
    let voted = cluster.state.own_replica(group, node, first).unwrap();
    let system = cluster.state.own_replica(GroupId::SYSTEM, node, first).unwrap();
    assert_eq!(cluster.state.own_replica(group, node, Incarnation(8)), None);
    cluster.apply(describe(2, 2, |member| member.incarnation = Incarnation(8))).unwrap();
    assert_eq!(cluster.state.own_replica(group, node, first), None);
    let reborn = |group| cluster.state.own_replica(group, node, Incarnation(8)).unwrap();
    assert!(reborn(group) > voted && reborn(GroupId::SYSTEM) > system);
    assert_eq!(cluster.state.own_replica(GroupId(99), node, Incarnation(8)), None);
    assert_eq!(cluster.state.own_replica(group, NodeId(99), first), None);
}

#[test]
fn the_founding_target_is_the_founder_alone() {
    let cluster = Cluster::sized(1);
    let target = cluster.state.founding_target().unwrap();
    assert_eq!(target.voters, BTreeMap::from([(ReplicaId(1), NodeId(1))]));
    assert!(target.learners.is_empty());
    assert_eq!(Cluster::sized(2).state.founding_target(), None);
}

#[test]
fn a_keyspace_is_dropped_only_if_it_was_there() {
    let mut cluster = Cluster::sized(1);
    cluster.apply(strong("orders", 1)).unwrap();
    assert!(!cluster.state.is_dropped(KeyspaceId(1)));
    cluster.apply(crate::protocol::system::samples::drop_named("orders")).unwrap();
    assert!(cluster.state.is_dropped(KeyspaceId(1)));
    assert!(!cluster.state.is_dropped(KeyspaceId::DEFAULT));
    assert!(!cluster.state.is_dropped(KeyspaceId(2)), "it may come to be");
}
