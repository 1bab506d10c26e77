use super::*;
use crate::types::{Key, KeyspaceId};

fn dot(stamp: u64, life: u64) -> Version {
    Version { timestamp: Timestamp(stamp), incarnation: Incarnation(life) }
}

fn written(row: &Siblings, at: (u64, u64), value: &'static str, context: &Context) -> Siblings {
    let value = Some(Bytes::from_static(value.as_bytes()));
    row.written(dot(at.0, at.1), value, context).expect("few siblings")
}

fn texts(row: &Siblings) -> Vec<String> {
    let text = |sibling: Sibling| String::from_utf8_lossy(&sibling.value).into_owned();
    row.values().map(text).collect()
}

#[test]
fn a_blind_write_becomes_a_sibling_and_one_with_all_contexts_replaces_them() {
    let blind = Context::default();
    let one = written(&Siblings::default(), (1, 1), "a", &blind);
    let two = written(&one, (2, 1), "b", &blind);
    assert_eq!(texts(&two), ["a", "b"]);
    let all = written(&two, (3, 2), "c", &two.context());
    assert_eq!(texts(&all), ["c"]);
    let late = written(&all, (4, 2), "d", &one.context());
    assert_eq!(texts(&late), ["c", "d"], "its writer had not seen c");
}

#[test]
fn a_covered_value_does_not_come_back_with_a_replica_that_missed_its_end() {
    let old = written(&Siblings::default(), (1, 1), "a", &Context::default());
    let new = written(&Siblings::default(), (2, 2), "b", &old.context());
    assert_eq!(texts(&new), ["b"], "the taker of the write had not heard of a");
    assert_eq!(texts(&new.joined(&old)), ["b"]);
    assert_eq!(texts(&old.joined(&new)), ["b"]);
}

#[test]
fn a_delete_covers_what_it_has_seen_and_leaves_nothing() {
    let blind = Context::default();
    let one = written(&Siblings::default(), (1, 1), "a", &blind);
    let two = written(&one, (2, 2), "b", &blind);
    let gone = one.written(dot(3, 1), None, &one.context()).expect("few siblings");
    assert_eq!(texts(&gone), [""; 0]);
    assert_eq!(texts(&gone.joined(&two)), ["b"], "nobody who deletes has seen it");
    let record = gone.to_record().expect("a row");
    assert_eq!(record.expires_at, Some(Expiry(Timestamp(3).wall_ms())), "it reads as absent");
    assert_eq!(Siblings::of_record(&record), Ok(gone));
    assert_eq!(two.to_record().expect("a row").expires_at, None);
}

#[test]
fn a_context_is_reached_by_rows_that_have_heard_of_all_of_it() {
    let one = written(&Siblings::default(), (1, 1), "a", &Context::default());
    let two = written(&one, (2, 2), "b", &Context::default());
    assert!(two.context().is_reached_by(&two) && one.context().is_reached_by(&two));
    assert!(!two.context().is_reached_by(&one));
    assert!(two.context().above(Timestamp(2)).is_reached_by(&Siblings::default()));
    let mut many = one.clone();
    for life in 2..60 {
        let context = many.context();
        many = written(&many, (life, life), "b", &context).pruned(&many, LIVES_MAX);
    }
    assert_eq!(many.heard_of(Incarnation(1)), None, "it was forgotten");
    assert!(one.context().is_reached_by(&many), "which is no reason to fail");
}

#[test]
fn siblings_of_many_bytes_are_refused_and_one_value_never() {
    let large = Bytes::from(vec![0; SIBLINGS_BYTES_MAX / 2 + 1]);
    let (nothing, blind) = (Siblings::default(), Context::default());
    let huge = Bytes::from(vec![0; SIBLINGS_BYTES_MAX + 1]);
    assert!(nothing.written(dot(1, 1), Some(huge), &blind).is_ok());
    let one = nothing.written(dot(1, 1), Some(large.clone()), &blind).expect("one");
    assert_eq!(one.written(dot(2, 1), Some(large), &blind), Err(TooManySiblings));
}

#[test]
fn too_many_siblings_are_refused_unless_they_become_fewer() {
    let (mut row, mut other) = (Siblings::default(), Siblings::default());
    for stamp in 1..=SIBLINGS_MAX as u64 {
        row = written(&row, (stamp, 1), "v", &Context::default());
        other = written(&other, (stamp, 2), "v", &Context::default());
    }
    let value = Some(Bytes::from_static(b"v"));
    let blind = Context::default();
    assert_eq!(row.written(dot(99, 1), value.clone(), &blind), Err(TooManySiblings));
    assert!(row.written(dot(99, 1), value.clone(), &row.context()).is_ok());
    let both = row.joined(&other);
    assert_eq!(both.len(), 2 * SIBLINGS_MAX, "joins are never refused");
    assert_eq!(both.written(dot(99, 1), value.clone(), &blind), Err(TooManySiblings));
    let fewer = both.written(dot(99, 1), value, &row.context()).expect("fewer than before");
    assert_eq!(fewer.len(), SIBLINGS_MAX + 1);
}

#[test]
fn a_join_is_above_parts_of_the_same_stamp() {
    let (nothing, blind) = (Siblings::default(), Context::default());
    let (one, two) =
        (written(&nothing, (5, 1), "a", &blind), written(&nothing, (5, 2), "b", &blind));
    let both = one.joined(&two);
    assert!(both.version() > one.version().max(two.version()));
    // A life whose row was reaped in between knows fewer of its own events.
    let (old, new) = (written(&one, (6, 3), "c", &blind), written(&nothing, (7, 1), "d", &blind));
    let joined = old.joined(&new);
    assert!(joined.version() > old.version().max(new.version()));
    assert_eq!(texts(&joined), ["c", "d"], "the later event tells that the earlier is covered");
}

#[test]
fn a_forgotten_life_may_bring_a_covered_value_back() {
    let old = written(&Siblings::default(), (1, 1), "a", &Context::default());
    let new = written(&old, (2, 2), "b", &old.context());
    let next = written(&new, (3, 2), "c", &new.context());
    assert_eq!(texts(&next.joined(&old)), ["c"]);
    assert_eq!(texts(&next.pruned(&new, 1).joined(&old)), ["a", "c"]);
}

#[test]
fn nothing_written_has_no_version_and_adds_nothing() {
    let nothing = Siblings::default();
    assert_eq!((nothing.version(), nothing.is_empty(), nothing.len()), (None, true, 0));
    assert_eq!(nothing.context().latest(), None);
}

#[test]
fn a_context_is_text_for_one_key() {
    let row = written(&Siblings::default(), (1, 1), "a", &Context::default());
    let row = written(&row, (2, 2), "b", &Context::default());
    let (key, other) = (Key::from("k"), Key::from("l"));
    let keyspace = KeyspaceId::DEFAULT;
    let text = row.context().to_text((keyspace, &key));
    assert!(text.bytes().all(|it| it.is_ascii_alphanumeric() || b"-_".contains(&it)), "{text}");
    assert_eq!(Context::from_text(&text, (keyspace, &key)), Ok(row.context()));
    for of in [(keyspace, &other), (KeyspaceId(1), &key)] {
        assert_eq!(Context::from_text(&text, of), Err(SiblingsError::OtherKey));
    }
    for bad in ["", "A", "AQ", "????", &text[1..], &format!("{text}A")] {
        assert!(Context::from_text(bad, (keyspace, &key)).is_err(), "{bad:?}");
    }
    let newer = Context::from_text("AgAAAAAAAAAA", (keyspace, &key));
    assert_eq!(newer, Err(SiblingsError::Version(2)));
}
