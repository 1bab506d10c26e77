//! Whom a node hears before it has taken a partition over.

use super::*;

/// Three owners, of whom one goes, and any two of whom have every write between them.
fn satisfied(heard: &[(u64, Heard)], connected: &[u64]) -> bool {
    let node = NodeId;
    let sources = [node(1), node(2), node(3)].into();
    let wanted = Wanted { sources, enough: 2, leaving: [node(3)].into() };
    let heard: BTreeMap<NodeId, Heard> = heard.iter().map(|(n, it)| (node(*n), *it)).collect();
    wanted.is_satisfied(|n| heard.get(&n).copied(), |n| connected.contains(&n.0))
}

#[test]
fn enough_owners_are_heard_and_none_that_goes_is_left_out() {
    let sound = |node: u64| (node, Heard::Sound);
    assert!(satisfied(&[sound(1), sound(3)], &[1, 3]));
    assert!(!satisfied(&[sound(1), sound(3)], &[1, 2, 3]), "one that is there is asked as well");
    assert!(!satisfied(&[sound(1), sound(2)], &[1, 2]), "one that goes is waited for");
    assert!(!satisfied(&[sound(1), (3, Heard::Refilling)], &[1]));
    assert!(!satisfied(&[sound(3)], &[3]));
}

#[test]
fn a_source_with_damaged_rows_counts_only_once_nobody_else_is_left() {
    let (sound, damaged) = (|node| (node, Heard::Sound), |node| (node, Heard::Damaged));
    assert!(!satisfied(&[sound(1), damaged(3)], &[1, 3]), "what 3 cannot tell, 2 may know alone");
    assert!(satisfied(&[sound(1), sound(2), damaged(3)], &[1, 2, 3]));
    assert!(satisfied(&[sound(1), damaged(2), damaged(3)], &[]), "nobody knows more");
    assert!(!satisfied(&[sound(1), damaged(2), (3, Heard::Refilling)], &[1, 2, 3]));
}
