use super::*;
use crate::types::Key;

fn dot(stamp: u64, life: u64) -> Version {
    Version { timestamp: Timestamp(stamp), incarnation: Incarnation(life) }
}

fn written(row: &Siblings, at: (u64, u64), value: &'static str, context: &Context) -> Siblings {
    let value = Some(Bytes::from_static(value.as_bytes()));
    row.written(dot(at.0, at.1), value, context).expect("few siblings")
}

fn texts(row: &Siblings) -> Vec<String> {
    let text = |value: Option<Bytes>| {
        value.map_or("-".to_owned(), |value| String::from_utf8_lossy(&value).into_owned())
    };
    row.values().map(|sibling| text(sibling.value)).collect()
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
fn a_delete_is_a_sibling_like_any_other() {
    let blind = Context::default();
    let one = written(&Siblings::default(), (1, 1), "a", &blind);
    let gone = one.written(dot(2, 1), None, &one.context()).expect("few siblings");
    assert_eq!(texts(&gone), ["-"]);
    assert_eq!(texts(&written(&gone, (3, 2), "b", &blind)), ["-", "b"]);
}

#[test]
fn too_many_siblings_are_refused_with_both_numbers() {
    let mut row = Siblings::default();
    for stamp in 1..=SIBLINGS_MAX as u64 {
        row = written(&row, (stamp, 1), "v", &Context::default());
    }
    assert_eq!(row.len(), SIBLINGS_MAX);
    let refused = row.written(dot(99, 1), None, &Context::default()).expect_err("too many");
    let text = refused.to_string();
    assert!(text.contains("51 siblings") && text.contains("siblings_max is 50"), "{text}");
    assert!(row.written(dot(99, 1), None, &row.context()).is_ok());
}

#[test]
fn a_forgotten_life_may_bring_a_covered_value_back() {
    let old = written(&Siblings::default(), (1, 1), "a", &Context::default());
    let new = written(&old, (2, 2), "b", &old.context());
    let forgot = written(&new.clone().pruned(1), (3, 2), "c", &new.context());
    assert_eq!(texts(&forgot.joined(&old)), ["c"], "the writer's context covers it all the same");
    let blind = written(&new.pruned(1), (3, 2), "c", &Context::default());
    assert_eq!(texts(&blind.joined(&old)), ["a", "b", "c"]);
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
    let text = row.context().to_text(&key);
    assert!(text.bytes().all(|it| it.is_ascii_alphanumeric() || b"-_".contains(&it)), "{text}");
    assert_eq!(Context::from_text(&text, &key), Ok(row.context()));
    assert_eq!(Context::from_text(&text, &other), Err(SiblingsError::OtherKey));
    for bad in ["", "A", "AQ", "????", &text[1..], &format!("{text}A")] {
        assert!(Context::from_text(bad, &key).is_err(), "{bad:?}");
    }
    assert_eq!(Context::from_text("AgAAAAAAAAAA", &key), Err(SiblingsError::Version(2)));
}
