//! The member set as a lattice, its text, and its digest.

use proptest::prelude::*;

use super::*;

/// A member of a revision, told from others by nothing else.
pub(super) fn member(revision: u64) -> Member {
    Member {
        incarnation: Incarnation(7),
        revision,
        name: "n1".to_owned(),
        zone: "a".to_owned(),
        vnodes: 128,
        peer_address: SocketAddr::from(([127, 0, 0, 1], 7401)),
        client_address: SocketAddr::from(([127, 0, 0, 1], 7400)),
    }
}

/// A set with one member of each kind of fact.
fn sample() -> MemberSet {
    let mut set = MemberSet::new();
    set.describe(NodeId(1), member(1));
    set.describe(NodeId(2), member(5));
    set.forget(NodeId(3));
    set
}

#[test]
fn the_higher_revision_describes_a_node() {
    let mut set = MemberSet::new();
    assert!(set.describe(NodeId(1), member(2)));
    assert!(!set.describe(NodeId(1), member(2)));
    assert!(!set.describe(NodeId(1), member(1)));
    assert!(set.describe(NodeId(1), Member { vnodes: 64, ..member(3) }));
    assert_eq!(set.get(NodeId(1)).map(|member| member.vnodes), Some(64));
    assert_eq!((set.len(), set.is_empty()), (1, false));
}

#[test]
fn a_forgotten_node_never_returns() {
    let mut set = sample();
    assert_eq!(set.forget(NodeId(1)), Some(member(1)));
    assert_eq!(set.forget(NodeId(1)), None);
    let reborn = Member { incarnation: Incarnation(8), ..member(9) };
    assert!(!set.describe(NodeId(1), reborn));
    assert!(set.is_forgotten(NodeId(1)) && set.get(NodeId(1)).is_none());
    assert!(!set.merge(&sample()));
    assert_eq!(set.forgotten().iter().copied().collect::<Vec<_>>(), [NodeId(1), NodeId(3)]);
}

#[test]
fn forgetting_travels_with_a_merge() {
    let (mut one, mut other) = (sample(), sample());
    other.forget(NodeId(2));
    assert!(one.merge(&other));
    assert_eq!(one, other);
    assert!(!one.merge(&other));
}

#[test]
fn a_set_survives_its_json() {
    let text = serde_json::to_string(&sample()).unwrap();
    assert!(text.contains("\"0000000000000001\""), "{text}");
    assert_eq!(serde_json::from_str::<MemberSet>(&text).unwrap(), sample());
    let without_forgotten: MemberSet = serde_json::from_str(r#"{"members":{}}"#).unwrap();
    assert!(without_forgotten.is_empty());
}

/// Two versions of the program in one cluster must agree, so the value is fixed for good.
#[test]
fn the_digest_is_the_same_in_every_build() {
    assert_eq!(format!("{:016x}", sample().digest()), "68536ed292d208e0");
}

#[test]
fn the_digest_depends_on_every_fact() {
    let other_peer = SocketAddr::from(([127, 0, 0, 1], 1));
    let variants = [
        member(1),
        member(2),
        Member { incarnation: Incarnation(8), ..member(1) },
        Member { name: "n1a".to_owned(), zone: String::new(), ..member(1) },
        Member { zone: "b".to_owned(), ..member(1) },
        Member { vnodes: 64, ..member(1) },
        Member { peer_address: other_peer, ..member(1) },
        Member { client_address: other_peer, ..member(1) },
    ];
    let mut digests: BTreeSet<u64> = variants
        .map(|variant| {
            let mut set = MemberSet::new();
            set.describe(NodeId(1), variant);
            set.digest()
        })
        .into();
    digests.extend([MemberSet::new().digest(), sample().digest()]);
    let mut forgetting = MemberSet::new();
    forgetting.forget(NodeId(1));
    digests.insert(forgetting.digest());
    assert_eq!(digests.len(), 11);
}

/// What may happen to a set.
#[derive(Clone, Debug)]
enum Fact {
    Described(NodeId, Member),
    Forgotten(NodeId),
}

/// Few nodes, revisions and names, so that facts about one node collide often.
fn any_fact() -> impl Strategy<Value = Fact> {
    let described =
        (0u64..4, 0u64..3, 0u64..2, 0u32..2).prop_map(|(node, revision, life, vnodes)| {
            let member = Member { incarnation: Incarnation(life), vnodes, ..member(revision) };
            Fact::Described(NodeId(node), member)
        });
    prop_oneof![
        4 => described,
        1 => (0u64..4).prop_map(|node| Fact::Forgotten(NodeId(node))),
    ]
}

fn set_of(facts: &[Fact]) -> MemberSet {
    let mut set = MemberSet::new();
    for fact in facts {
        match fact.clone() {
            Fact::Described(node, member) => drop(set.describe(node, member)),
            Fact::Forgotten(node) => drop(set.forget(node)),
        }
    }
    set
}

fn joined(a: &MemberSet, b: &MemberSet) -> MemberSet {
    let mut result = a.clone();
    let changed = result.merge(b);
    assert_eq!(changed, result != *a);
    result
}

proptest! {
    #[test]
    fn merge_is_a_lattice(
        facts in proptest::collection::vec((any_fact(), 0usize..3), 0..24),
    ) {
        let part = |which: usize| -> Vec<Fact> {
            facts.iter().filter(|(_, of)| *of == which).map(|(fact, _)| fact.clone()).collect()
        };
        let (a, b, c) = (set_of(&part(0)), set_of(&part(1)), set_of(&part(2)));
        prop_assert_eq!(joined(&a, &b), joined(&b, &a));
        prop_assert_eq!(joined(&joined(&a, &b), &c), joined(&a, &joined(&b, &c)));
        prop_assert_eq!(joined(&a, &a), a.clone());
        let all: Vec<Fact> = facts.iter().map(|(fact, _)| fact.clone()).collect();
        prop_assert_eq!(joined(&joined(&a, &b), &c), set_of(&all));
    }

    #[test]
    fn the_order_of_facts_does_not_matter(
        (facts, shuffled) in proptest::collection::vec(any_fact(), 0..24)
            .prop_flat_map(|facts| (Just(facts.clone()), Just(facts).prop_shuffle())),
    ) {
        let (left, right) = (set_of(&facts), set_of(&shuffled));
        prop_assert_eq!(left.digest(), right.digest());
        prop_assert_eq!(left, right);
    }
}
