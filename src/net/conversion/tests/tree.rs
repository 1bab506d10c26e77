//! Comparisons of hash trees: any of them for the round trip, and what is particular to them.

use super::*;
use crate::protocol::message::tree::{Answer, Question, RowList, TreeAsk, TreeReply};

pub(super) fn ask() -> impl Strategy<Value = Message> {
    let question = prop_oneof![
        Just(Question::Root),
        Just(Question::Branches),
        prop::collection::vec(any::<u8>(), 0..9).prop_map(Question::Buckets),
        (prop::collection::vec(any::<u16>(), 0..9), prop::option::of(bytes()))
            .prop_map(|(buckets, after)| Question::Rows { buckets, after: after.map(Key) }),
    ];
    (any::<(u64, u32, u16)>(), question).prop_map(|((request, keyspace, partition), question)| {
        Message::TreeAsk(TreeAsk {
            request: RequestId(request),
            keyspace: KeyspaceId(keyspace),
            partition: PartitionId(partition),
            epoch: Epoch(request ^ 1),
            question,
        })
    })
}

pub(super) fn reply() -> impl Strategy<Value = Message> {
    let rows = prop::collection::vec((bytes().prop_map(Key), version()), 0..5);
    let list = (rows, prop::option::of(bytes().prop_map(Key)))
        .prop_map(|(rows, complete_to)| Answer::Rows(RowList { rows, complete_to }));
    let hashes = prop::collection::vec(any::<u64>(), 0..40).prop_map(Answer::Hashes);
    let answer = prop_oneof![hashes, list];
    let outcome = prop_oneof![3 => answer.prop_map(Ok), 1 => refusal().prop_map(Err)];
    (any::<(u64, bool)>(), outcome).prop_map(|((request, complete), outcome)| {
        Message::TreeReply(TreeReply {
            request: RequestId(request),
            outcome,
            complete,
            fence: Timestamp(request),
        })
    })
}

#[test]
fn a_malformed_comparison_names_the_field_at_fault() {
    let asked = |ask| error_of(wire::Frame { tree_asks: vec![ask], ..Default::default() });
    let replied = |reply| error_of(wire::Frame { tree_replies: vec![reply], ..Default::default() });
    assert_eq!(asked(wire::TreeAsk::default()), "TreeAsk.question is missing");
    let far = wire::TreeAsk { partition: 70_000, ..Default::default() };
    assert_eq!(asked(far), "TreeAsk.partition has the unknown value 70000");
    let buckets = wire::TreeBuckets { branches: vec![300] };
    let question = Some(wire::tree_ask::Question::Buckets(buckets));
    let wide = wire::TreeAsk { question, ..Default::default() };
    assert_eq!(asked(wide), "TreeBuckets.branches has the unknown value 300");
    assert_eq!(replied(wire::TreeReply::default()), "TreeReply.answer is missing");
    let list = wire::TreeRowList { timestamps: vec![1], ..Default::default() };
    let answer = Some(wire::tree_reply::Answer::Rows(list));
    let uneven = wire::TreeReply { answer, ..Default::default() };
    assert_eq!(replied(uneven), "TreeRowList.timestamps has 1 values, TreeRowList.keys has 0");
}
