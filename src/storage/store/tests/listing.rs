//! Pages as clients want them listed.

use super::*;

const PARTITION: PartitionId = PartitionId(1);

fn range(prefix: &'static str, rows_max: u32) -> ListRange {
    let prefix = Bytes::from_static(prefix.as_bytes());
    ListRange { prefix, rows_max, bytes_max: 1 << 20, ..ListRange::default() }
}

/// The keys of a page, a `|` and the key that it reached, if that is not the end.
fn page(store: &Store, range: &ListRange) -> String {
    let ListPage { rows, reached } = store.list(KEYSPACE, PARTITION, range).unwrap();
    let keys: Vec<String> = rows.iter().map(|(key, _)| key.to_string()).collect();
    let reached = reached.map(|key| format!(" | {key}"));
    keys.join(" ") + &reached.unwrap_or_default()
}

/// Half of the rows lie in the engine, the others in the table.
fn filled() -> (Arc<Probe>, Store) {
    let (engine, store) = probed();
    let of = |key: &str, value| {
        let record = record(5, 1, value);
        (PARTITION, Row { keyspace: KEYSPACE, key: Key::from(key), record })
    };
    publish(&store, 1, &["a", "b", "b/2", "c"].map(|key| of(key, Some("value"))));
    store.freeze();
    feed_all(&store);
    publish(&store, 2, &[of("b/1", Some("value")), of("b/3", None), of("bc", Some("value"))]);
    (engine, store)
}

#[test]
fn a_page_has_what_begins_with_the_prefix_and_tells_where_it_ended() {
    let (_engine, store) = filled();
    let cases = [
        ("", None, 10, "a b b/1 b/2 b/3 bc c"),
        ("", None, 3, "a b b/1 | b/1"),
        ("", Some("b/1"), 3, "b/2 b/3 bc | bc"),
        ("", Some("bc"), 3, "c"),
        ("b", None, 10, "b b/1 b/2 b/3 bc"),
        ("b/", None, 10, "b/1 b/2 b/3"),
        ("b/", None, 2, "b/1 b/2 | b/2"),
        ("b/", Some("b/2"), 2, "b/3"),
        ("b/", Some("a"), 1, "b/1 | b/1"),
        ("d", None, 10, ""),
    ];
    for (prefix, after, rows_max, expected) in cases {
        let range = ListRange { after: after.map(Key::from), ..range(prefix, rows_max) };
        assert_eq!(page(&store, &range), expected, "{range:?}");
    }
}

#[test]
fn a_page_ends_at_its_bytes_and_values_that_are_left_out_do_not_count() {
    let (_engine, store) = filled();
    let small = ListRange { bytes_max: 8, ..range("", 10) };
    assert_eq!(page(&store, &small), "a b | b");
    let keys_only = ListRange { keys_only: true, ..small };
    assert_eq!(page(&store, &keys_only), "a b b/1 b/2 | b/2");
    let listed = store.list(KEYSPACE, PARTITION, &ListRange { keys_only: true, ..range("b/", 9) });
    let values: Vec<_> = listed.unwrap().rows.into_iter().map(|(_, it)| it.value).collect();
    assert_eq!(values, [Some(Bytes::new()), Some(Bytes::new()), None], "a tombstone stays one");
}

#[test]
fn a_damaged_row_is_not_passed_over() {
    let (engine, store) = filled();
    engine.corrupt(KEYSPACE, PARTITION, &Key::from("b/2"));
    let listed = store.list(KEYSPACE, PARTITION, &range("b", 10));
    assert!(matches!(listed, Err(StoreError::Corrupt { .. })), "{listed:?}");
    assert_eq!(page(&store, &range("bc", 10)), "bc", "it is of another range");
    assert_eq!(
        page(&store, &ListRange { after: Some(Key::from("b/2")), ..range("", 9) }),
        "b/3 bc c"
    );
}
