//! The commands' text: what it looks like, what comes back from it, what is not read.

use super::*;
use crate::protocol::system::limits::LimitsAsked;
use crate::protocol::system::samples::{asked, create, describe, drop_named, nodes};
use crate::types::{NodeId, Timestamp};

fn every_command() -> Vec<SystemCommand> {
    let name = "orders".to_owned();
    let share = Share { at: Timestamp(7), epoch: Epoch(6) };
    let limits = LimitsAsked { operations_per_second: Some(9), bytes_per_second: None };
    vec![
        describe(u64::MAX, u64::MAX, |member| member.zone = "a".to_owned()),
        SystemCommand::Reshape {
            join: nodes([4]),
            leave: nodes([5]),
            replace: BTreeMap::from([(NodeId(6), NodeId(7))]),
            expected_epoch: Some(Epoch(8)),
        },
        SystemCommand::Advance {
            prepare: BTreeSet::from([PartitionId(1)]),
            settle: BTreeSet::from([PartitionId(2)]),
            expected_epoch: Epoch(3),
        },
        SystemCommand::Synced {
            node: NodeId(2),
            incarnation: Incarnation(9),
            partitions: BTreeMap::from([(PartitionId(5), Epoch(6))]),
        },
        SystemCommand::Shared {
            node: NodeId(2),
            incarnation: Incarnation(9),
            partitions: BTreeMap::from([(PartitionId(5), share)]),
        },
        SystemCommand::Retire { node: NodeId(3) },
        SystemCommand::Remove { node: NodeId(3), expected_epoch: Some(Epoch(4)) },
        create("orders", Mode::Strong, asked(Some(3), None, Some(2))),
        SystemCommand::AlterKeyspace { name, replication: asked(None, Some(1), None), limits },
        drop_named("orders"),
        SystemCommand::Followed { groups: BTreeMap::from([(GroupId(7), 12)]) },
        SystemCommand::PlaceGroup {
            group: GroupId(7),
            expected_generation: 12,
            nodes: nodes([1, 2]),
        },
    ]
}

#[test]
fn every_command_comes_back_from_its_text() {
    for command in every_command() {
        let request = SystemRequest { request_id: u64::MAX, command };
        let text = request.encode();
        assert_eq!(SystemRequest::decode(&text).unwrap(), request);
    }
}

#[test]
fn every_name_is_known_and_used() {
    let used: BTreeSet<String> = (every_command().into_iter())
        .map(|command| serde_json::to_value(command).unwrap())
        .flat_map(|text| text.as_object().unwrap().keys().cloned().collect::<Vec<_>>())
        .collect();
    assert_eq!(used, NAMES.iter().map(|name| name.to_string()).collect());
}

#[test]
fn the_text_is_stable() {
    let request = SystemRequest { request_id: 9, command: drop_named("orders") };
    let text = r#"{"version":1,"request_id":9,"command":{"drop_keyspace":{"name":"orders"}}}"#;
    assert_eq!(String::from_utf8(request.encode()).unwrap(), text);
    // Of before there were limits, and the same as ever without one.
    let request = SystemRequest {
        request_id: 9,
        command: SystemCommand::AlterKeyspace {
            name: "orders".to_owned(),
            replication: asked(Some(3), None, None),
            limits: LimitsAsked::default(),
        },
    };
    let text = concat!(
        r#"{"version":1,"request_id":9,"command":{"alter_keyspace":{"name":"orders","#,
        r#""replication":{"factor":3,"read_quorum":null,"write_quorum":null}}}}"#
    );
    assert_eq!(String::from_utf8(request.encode()).unwrap(), text);
    assert_eq!(SystemRequest::decode(text.as_bytes()).unwrap(), request);
}

#[test]
fn what_is_not_understood_is_named() {
    let cases = [
        (r#"{"version":2,"body":0}"#, "version 2, this program knows version 1"),
        (r#"{"version":1,"request_id":9,"command":{"split":{}}}"#, "\"split\" is unknown"),
        (r#"{"version":1,"request_id":9,"command":{"remove":{}}}"#, "missing field `node`"),
        (
            r#"{"version":1,"request_id":9,"command":{"drop_keyspace":{"name":"a","when":1}}}"#,
            "unknown field `when`",
        ),
        (r#"{"version":1,"request_id":9,"command":"remove"}"#, "cannot be read"),
        (r#"{"request_id":9}"#, "missing field `version`"),
        ("", "cannot be read"),
    ];
    for (text, expected) in cases {
        let error = SystemRequest::decode(text.as_bytes()).unwrap_err().to_string();
        assert!(error.contains(expected), "{text}: {error}");
    }
}
