use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::protocol::version::lww::supersedes;
use crate::types::{Incarnation, Timestamp, Version};

const DEADLINE: Moment = Moment(1_000_000);

fn record(stamp: u64) -> Record {
    let version = Version { timestamp: Timestamp(stamp), incarnation: Incarnation(1) };
    let value = (!stamp.is_multiple_of(3)).then(|| Bytes::copy_from_slice(&stamp.to_be_bytes()));
    Record::new(version, value)
}

/// `a1 b2 | b`: two rows with their stamps, complete up to `b`; without a bar, to the end.
fn page(text: &str) -> ListPage {
    let (rows, reached) = match text.split_once('|') {
        Some((rows, reached)) => (rows, Some(Key::from(reached.trim()))),
        None => (text, None),
    };
    let row = |word: &str| {
        let (key, stamp) = word.split_at(1);
        (Key::from(key), record(stamp.parse().expect("a stamp")))
    };
    ListPage { rows: rows.split_whitespace().map(row).collect(), reached }
}

#[test]
fn pages_merge_up_to_the_least_complete_key() {
    let cases: [(&[&str], &str, &str); 8] = [
        (&["a1 b2", "a1 b2"], "a1 b2", ""),
        (&["a1 b2", "a4"], "a4 b2", "a b"),
        (&["a1 b2 | b", "a1 c5 | c"], "a1 b2 | b", "b"),
        (&["a1 b2 | b", "c5"], "a1 b2 | b", "a b"),
        (&["", ""], "", ""),
        (&["| b", "a1 c1"], "a1 | b", "a"),
        (&["a3", "a2"], "a3", "a"),
        (&["a1", "a2", "a2"], "a2", "a"),
    ];
    for (pages, merged, stale) in cases {
        let got = merge(Merge::Lww, pages.iter().map(|text| page(text)).collect());
        let ListPage { rows, reached } = page(merged);
        let stale = stale.split_whitespace().map(Key::from).collect();
        assert_eq!(got, Merged { rows, reached, stale }, "{pages:?}");
    }
}

#[test]
fn merging_beyond_the_least_complete_key_can_be_planted() {
    Planted::set(Some(Planted::ListedBeyondComplete));
    let merged = merge(Merge::Lww, vec![page("a1 b2 | b"), page("a1 c5 | c")]);
    Planted::set(None);
    assert_eq!(merged.reached, Some(Key::from("c")));
}

fn setup(reachable: &[bool], required: u32) -> ListSetup {
    let primary = |(at, reachable): (usize, &bool)| Primary {
        node: NodeId(at as u64 + 1),
        reachable: *reachable,
    };
    ListSetup {
        primaries: reachable.iter().enumerate().map(primary).collect(),
        merge: Merge::Lww,
        required,
        hedge_after: Some(Duration::from_millis(10)),
        deadline: DEADLINE,
    }
}

fn effects(list: &mut ListQuorum) -> Vec<ListEffect> {
    std::iter::from_fn(|| list.poll()).collect()
}

fn ask(node: u64) -> ListEffect {
    ListEffect::Ask(NodeId(node))
}

#[test]
fn as_many_are_asked_as_must_answer() {
    let mut list = ListQuorum::new(setup(&[true; 3], 2), Moment(0));
    assert_eq!(effects(&mut list), [ask(1), ask(2)]);
    list.on_page(NodeId(1), page("a1"), Moment(1));
    list.on_page(NodeId(1), page("a2"), Moment(1));
    list.on_page(NodeId(3), page("a2"), Moment(1));
    assert_eq!(effects(&mut list), [], "neither a second answer nor one that nobody asked for");
    list.on_page(NodeId(2), page("a1"), Moment(2));
    let merged = Merged { rows: page("a1").rows, ..Merged::default() };
    assert_eq!(effects(&mut list), [ListEffect::Answer(Ok(merged))]);
    list.on_tick(DEADLINE);
    assert_eq!(effects(&mut list), [], "it ends with its answer");
}

#[test]
fn whoever_refuses_or_is_lost_or_slow_is_made_up_for() {
    let events: [fn(&mut ListQuorum); 3] = [
        |list| list.on_refusal(NodeId(2), Refusal::Corrupt, Moment(5)),
        |list| list.on_lost(NodeId(2), Moment(5)),
        |list| list.on_tick(Moment(10_000)),
    ];
    for event in events {
        let mut list = ListQuorum::new(setup(&[true; 3], 2), Moment(0));
        list.on_page(NodeId(1), page("a1"), Moment(1));
        effects(&mut list);
        assert_eq!(list.next_deadline(), Moment(10_000));
        event(&mut list);
        assert_eq!(effects(&mut list), [ask(3)]);
        assert_eq!(list.next_deadline(), DEADLINE, "nobody is left to be asked");
        list.on_page(NodeId(3), page("b1"), Moment(6));
        let [ListEffect::Answer(Ok(merged))] = &effects(&mut list)[..] else { panic!("no answer") };
        assert_eq!(merged.rows, page("a1 b1").rows);
    }
}

#[test]
fn a_quorum_that_cannot_be_met_is_an_error() {
    let unavailable = QuorumError::Unavailable { required: 2, reachable: 1 };
    let mut list = ListQuorum::new(setup(&[true, false, false], 2), Moment(0));
    assert_eq!(effects(&mut list), [ListEffect::Answer(Err(unavailable))]);

    let mut list = ListQuorum::new(setup(&[true, true, false], 2), Moment(0));
    effects(&mut list);
    list.on_refusal(NodeId(1), Refusal::StaleRing, Moment(1));
    let refusals = vec![(NodeId(1), Refusal::StaleRing)];
    let (required, received, outcome) = (2, 0, Outcome::NotAttempted);
    let failed = QuorumError::Failed { required, received, refusals, outcome };
    assert!(failed.is_by_stale_ring());
    assert_eq!(effects(&mut list), [ListEffect::Answer(Err(failed))]);

    let mut list = ListQuorum::new(setup(&[true; 2], 2), Moment(0));
    effects(&mut list);
    list.on_page(NodeId(2), page(""), Moment(1));
    list.on_tick(DEADLINE);
    let timeout = QuorumError::Timeout { required, received: 1, outcome };
    assert_eq!(effects(&mut list), [ListEffect::Answer(Err(timeout))]);
}

/// A replica's rows: one key in sixteen, with a stamp.
fn replica() -> impl Strategy<Value = BTreeMap<u8, u64>> {
    proptest::collection::btree_map(0..16_u8, 1..20_u64, 0..16)
}

fn key(number: u8) -> Key {
    Key(Bytes::copy_from_slice(&[number]))
}

/// What a replica lists that ends a page with so many rows.
fn listed(rows: &BTreeMap<u8, u64>, after: Option<&Key>, rows_max: usize) -> ListPage {
    let above = |it: &(&u8, &u64)| after.is_none_or(|after| key(*it.0) > *after);
    let mut rest = rows.iter().filter(above).map(|(at, stamp)| (key(*at), record(*stamp)));
    let rows: Vec<(Key, Record)> = rest.by_ref().take(rows_max).collect();
    let reached = rest.next().and_then(|_| rows.last().map(|(key, _)| key.clone()));
    ListPage { rows, reached }
}

proptest! {
    /// Page by page, with pages of other lengths on each replica, comes out what merging all rows
    /// at once gives: nothing is missed, nothing twice, nothing older than what was heard.
    #[test]
    fn pages_add_up_to_all_that_the_replicas_have(
        replicas in proptest::collection::vec((replica(), 1..5_usize), 1..4),
    ) {
        let mut model: BTreeMap<Key, Record> = BTreeMap::new();
        for (at, stamp) in replicas.iter().flat_map(|(rows, _)| rows) {
            let record = record(*stamp);
            match model.get(&key(*at)) {
                Some(held) if !supersedes(&record, held) => {}
                _ => drop(model.insert(key(*at), record)),
            }
        }
        let (mut after, mut all, mut stale) = (None, Vec::new(), BTreeSet::new());
        loop {
            let pages = replicas.iter().map(|(rows, max)| listed(rows, after.as_ref(), *max));
            let merged = merge(Merge::Lww, pages.collect());
            all.extend(merged.rows);
            stale.extend(merged.stale);
            match merged.reached {
                Some(reached) => {
                    prop_assert!(after.is_none_or(|after| after < reached), "no progress");
                    after = Some(reached);
                }
                None => break,
            }
        }
        prop_assert_eq!(&all, &model.clone().into_iter().collect::<Vec<_>>());
        for (at, newest) in model {
            let holds = |(rows, _): &(BTreeMap<u8, u64>, usize)| {
                rows.get(&at.0[0]).is_some_and(|stamp| record(*stamp) == newest)
            };
            prop_assert_eq!(stale.contains(&at), !replicas.iter().all(holds));
        }
    }
}
