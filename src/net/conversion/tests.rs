use std::collections::BTreeMap;
use std::mem::discriminant;

use proptest::prelude::*;
use prost::Message as _;

use super::*;
use crate::protocol::message::{
    Class, Compare, Found, Holding, Mint, MintReply, Read, ReadReply, Refusal, Scan, ScanPage,
    ScanReply, Want, Write,
};
use crate::protocol::raft::message::Body;
use crate::protocol::version::dvv::Siblings;
use crate::protocol::version::merging::Change;
use crate::types::{Epoch, Expiry, Key, KeyspaceId, NodeId, PartitionId, Record, Row};

mod groups;
mod listing;
mod tree;
mod watch;

fn bytes() -> impl Strategy<Value = Bytes> {
    prop::collection::vec(any::<u8>(), 0..40).prop_map(Bytes::from)
}

fn version() -> impl Strategy<Value = Version> {
    any::<(u64, u64)>().prop_map(|(stamp, life)| Version {
        timestamp: Timestamp(stamp),
        incarnation: Incarnation(life),
    })
}

fn record() -> impl Strategy<Value = Record> {
    let expires_at = prop::option::of(any::<u64>().prop_map(Expiry));
    (version(), prop::option::of(bytes()), expires_at)
        .prop_map(|(version, value, expires_at)| Record { version, value, expires_at })
}

fn refusal() -> impl Strategy<Value = Refusal> {
    prop::sample::select(Refusal::ALL.to_vec())
}

fn write() -> impl Strategy<Value = Message> {
    let ids = any::<(u64, u32, Option<u64>, u32, u64)>();
    let class = prop::sample::select(Class::ALL.to_vec());
    let seen = prop::option::of(version());
    (ids, bytes(), record(), class, seen).prop_map(|(ids, key, record, class, seen)| {
        let (request, keyspace, hint_for, left, epoch) = ids;
        let row = Row { keyspace: KeyspaceId(keyspace), key: Key(key), record };
        Message::Write(Write {
            request: RequestId(request),
            row,
            epoch: Epoch(epoch),
            hint_for: hint_for.map(NodeId),
            seen,
            class,
            time_left: Duration::from_micros(u64::from(left)),
        })
    })
}

fn write_reply() -> impl Strategy<Value = Message> {
    let outcome = prop_oneof![prop::option::of(version()).prop_map(Ok), refusal().prop_map(Err)];
    (any::<u64>(), outcome).prop_map(|(request, outcome)| {
        Message::WriteReply(WriteReply { request: RequestId(request), outcome })
    })
}

fn change() -> impl Strategy<Value = Change> {
    let set = || prop::collection::btree_set(bytes(), 0..3);
    prop_oneof![
        Just(Change::Delete),
        bytes().prop_map(Change::Put),
        any::<i64>().prop_map(Change::Add),
        (set(), set()).prop_map(|(added, removed)| Change::Elements { added, removed }),
    ]
}

fn mint() -> impl Strategy<Value = Message> {
    let dots = prop::collection::vec(any::<(u32, u8)>(), 0..4);
    let context = dots.prop_map(|dots| {
        let mut row = Siblings::default();
        for (at, (stamp, life)) in dots.into_iter().enumerate() {
            let timestamp = Timestamp((at as u64 + 1) << 32 | u64::from(stamp));
            let dot = Version { timestamp, incarnation: Incarnation(u64::from(life)) };
            row = row.written(dot, None, &row.context()).unwrap();
        }
        row.context()
    });
    let what = (change(), prop::option::of(context));
    (any::<(u64, u32, u32)>(), bytes(), what).prop_map(|(ids, key, (change, context))| {
        let (request, keyspace, left) = ids;
        Message::Mint(Mint {
            request: RequestId(request),
            keyspace: KeyspaceId(keyspace),
            key: Key(key),
            change,
            context,
            epoch: Epoch(request ^ 1),
            time_left: Duration::from_micros(u64::from(left)),
        })
    })
}

fn mint_reply() -> impl Strategy<Value = Message> {
    let outcome = prop_oneof![record().prop_map(Ok), refusal().prop_map(Err)];
    (any::<u64>(), outcome).prop_map(|(request, outcome)| {
        Message::MintReply(MintReply { request: RequestId(request), outcome })
    })
}

fn read() -> impl Strategy<Value = Message> {
    (any::<(u64, u32, bool, u32)>(), bytes()).prop_map(|((request, keyspace, value, left), key)| {
        Message::Read(Read {
            request: RequestId(request),
            keyspace: KeyspaceId(keyspace),
            key: Key(key),
            want: if value { Want::Value } else { Want::Version },
            epoch: Epoch(u64::from(left) + 1),
            time_left: Duration::from_micros(u64::from(left)),
        })
    })
}

fn holding() -> impl Strategy<Value = Holding> {
    prop_oneof![record().prop_map(Holding::Record), version().prop_map(Holding::Version)]
}

fn read_reply() -> impl Strategy<Value = Message> {
    let found = (prop::option::of(holding()), any::<bool>())
        .prop_map(|(holding, complete)| Found { holding, complete });
    let outcome = prop_oneof![3 => found.prop_map(Ok), 1 => refusal().prop_map(Err)];
    (any::<u64>(), outcome).prop_map(|(request, outcome)| {
        Message::ReadReply(ReadReply { request: RequestId(request), outcome })
    })
}

fn scan() -> impl Strategy<Value = Message> {
    let up_to = prop::option::of(bytes().prop_map(Key));
    let compare = (up_to, any::<u64>()).prop_map(|(up_to, digest)| Compare { up_to, digest });
    let bounds = (prop::option::of(bytes()), prop::option::of(compare));
    (any::<(u64, u32, u16, u32)>(), bounds).prop_map(
        |((request, keyspace, partition, page_bytes_max), (after, compare))| {
            Message::Scan(Scan {
                request: RequestId(request),
                keyspace: KeyspaceId(keyspace),
                partition: PartitionId(partition),
                after: after.map(Key),
                page_bytes_max,
                epoch: Epoch(request ^ 1),
                compare,
            })
        },
    )
}

fn scan_reply() -> impl Strategy<Value = Message> {
    let rows = prop::collection::vec((bytes().prop_map(Key), record()), 0..4);
    let damaged = prop::collection::vec(bytes().prop_map(Key), 0..3);
    let page = (rows, damaged, any::<(bool, bool)>())
        .prop_map(|(rows, damaged, (done, same))| ScanPage { rows, done, same, damaged });
    let outcome = prop_oneof![3 => page.prop_map(Ok), 1 => refusal().prop_map(Err)];
    (any::<u64>(), outcome).prop_map(|(request, outcome)| {
        let (request, complete) = (RequestId(request), request % 2 == 0);
        Message::ScanReply(ScanReply { request, outcome, complete })
    })
}

fn message() -> impl Strategy<Value = Message> {
    prop_oneof![
        write(),
        write_reply(),
        mint(),
        mint_reply(),
        read(),
        read_reply(),
        scan(),
        scan_reply(),
        listing::list(),
        listing::list_reply(),
        groups::group(),
        groups::forward(),
        groups::forward_reply(),
        groups::snapshot(),
        groups::snapshot_reply(),
        tree::ask(),
        tree::reply(),
    ]
}

/// What else than the variant tells kinds apart: acknowledgements and heartbeats are packed.
fn packed(message: &Message) -> &'static str {
    match message {
        Message::WriteReply(WriteReply { outcome: Ok(None), .. }) => "acknowledgement",
        Message::WriteReply(WriteReply { outcome: Ok(Some(_)), .. }) => "version met",
        Message::Group(group) => match group.message.body {
            Body::Heartbeat(_) => "heartbeat",
            Body::HeartbeatReply { .. } => "heartbeat reply",
            _ => "",
        },
        _ => "",
    }
}

/// Messages by kind, in order; what a frame keeps.
fn by_kind(messages: &[Message]) -> BTreeMap<String, Vec<Message>> {
    let mut kinds: BTreeMap<String, Vec<Message>> = BTreeMap::new();
    for message in messages {
        let kind = format!("{:?} {}", discriminant(message), packed(message));
        kinds.entry(kind).or_default().push(message.clone());
    }
    kinds
}

fn travel(messages: Vec<Message>) -> Vec<Message> {
    let bytes = encode(messages.into_iter()).encode_to_vec();
    decode(wire::Frame::decode(bytes.as_slice()).unwrap()).unwrap()
}

proptest! {
    #[test]
    fn what_is_packed_comes_out_in_order_of_its_kind(
        messages in prop::collection::vec(message(), 0..24),
    ) {
        let arrived = travel(messages.clone());
        prop_assert_eq!(by_kind(&arrived), by_kind(&messages));
        prop_assert_eq!(arrived.len(), messages.len());
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(frame) = wire::Frame::decode(bytes.as_slice()) {
            let _ = decode(frame);
        }
    }
}

#[test]
fn every_refusal_survives_the_way() {
    for refusal in Refusal::ALL {
        let reply = WriteReply { request: RequestId(7), outcome: Err(refusal) };
        assert_eq!(travel(vec![Message::WriteReply(reply.clone())]), [Message::WriteReply(reply)]);
    }
}

#[test]
fn an_acknowledgement_takes_eight_bytes() {
    let acknowledgement = |request| {
        Message::WriteReply(WriteReply { request: RequestId(request), outcome: Ok(None) })
    };
    let length = |count: u64| encode((0..count).map(acknowledgement)).encoded_len();
    assert_eq!(length(15) - length(5), 80);
}

fn error_of(frame: wire::Frame) -> String {
    decode(frame).unwrap_err().to_string()
}

#[test]
fn a_malformed_frame_names_the_field_at_fault() {
    let write = wire::Frame { writes: vec![wire::Write::default()], ..Default::default() };
    assert_eq!(error_of(write), "Write.version is missing");

    let refusal = wire::WriteRefusal { request: 1, refusal: 99 };
    let refused = wire::Frame { write_refusals: vec![refusal], ..Default::default() };
    assert_eq!(error_of(refused), "WriteRefusal.refusal has the unknown value 99");

    let unsaid = wire::WriteRefusal { request: 1, refusal: 0 };
    let refused = wire::Frame { write_refusals: vec![unsaid], ..Default::default() };
    assert_eq!(error_of(refused), "WriteRefusal.refusal is missing");

    let reply = wire::ReadReply { holding: 9, ..Default::default() };
    let replied = wire::Frame { read_replies: vec![reply], ..Default::default() };
    assert_eq!(error_of(replied), "ReadReply.holding has the unknown value 9");

    let unversioned = wire::ReadReply { holding: 2, ..Default::default() };
    let replied = wire::Frame { read_replies: vec![unversioned], ..Default::default() };
    assert_eq!(error_of(replied), "ReadReply.version is missing");

    let hurried = wire::Write { version: Some(wire::Version::default()), ..Default::default() };
    let hurried = wire::Write { class: 9, ..hurried };
    let write = wire::Frame { writes: vec![hurried], ..Default::default() };
    assert_eq!(error_of(write), "Write.class has the unknown value 9");

    let scan = wire::Scan { partition: 70_000, ..Default::default() };
    let scanned = wire::Frame { scans: vec![scan], ..Default::default() };
    assert_eq!(error_of(scanned), "Scan.partition has the unknown value 70000");
}

#[test]
fn a_second_hello_is_refused() {
    let greeted = wire::Frame { hello: Some(wire::Hello::default()), ..Default::default() };
    assert_eq!(error_of(greeted), "a Hello after the handshake");
}
