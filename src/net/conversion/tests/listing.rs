use super::*;
use crate::protocol::message::{List, ListPage, ListRange, ListReply};

pub(super) fn range() -> impl Strategy<Value = ListRange> {
    let bounds = (bytes(), prop::option::of(bytes()));
    (bounds, any::<(u32, u32, bool)>()).prop_map(
        |((prefix, after), (rows_max, bytes_max, keys_only))| ListRange {
            prefix,
            after: after.map(Key),
            rows_max,
            bytes_max,
            keys_only,
        },
    )
}

pub(super) fn page() -> impl Strategy<Value = ListPage> {
    let rows = prop::collection::vec((bytes().prop_map(Key), record()), 0..4);
    (rows, prop::option::of(bytes()))
        .prop_map(|(rows, reached)| ListPage { rows, reached: reached.map(Key) })
}

pub(super) fn list() -> impl Strategy<Value = Message> {
    (any::<(u64, u32, u16, u32)>(), range()).prop_map(
        |((request, keyspace, partition, left), range)| {
            Message::List(List {
                request: RequestId(request),
                keyspace: KeyspaceId(keyspace),
                partition: PartitionId(partition),
                range,
                epoch: Epoch(request ^ 1),
                time_left: Duration::from_micros(u64::from(left)),
            })
        },
    )
}

pub(super) fn list_reply() -> impl Strategy<Value = Message> {
    let outcome = prop_oneof![3 => page().prop_map(Ok), 1 => refusal().prop_map(Err)];
    (any::<u64>(), outcome).prop_map(|(request, outcome)| {
        Message::ListReply(ListReply { request: RequestId(request), outcome })
    })
}

#[test]
fn a_malformed_list_names_the_field_at_fault() {
    let lists = vec![wire::List { partition: 70_000, ..Default::default() }];
    let frame = wire::Frame { lists, ..Default::default() };
    assert_eq!(error_of(frame), "List.partition has the unknown value 70000");
    let frame = wire::Frame { lists: vec![wire::List::default()], ..Default::default() };
    assert_eq!(error_of(frame), "List.range is missing");
    let list_replies = vec![wire::ListReply::default()];
    let frame = wire::Frame { list_replies, ..Default::default() };
    assert_eq!(error_of(frame), "ListReply.outcome is missing");
}
