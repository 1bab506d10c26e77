use proptest::prelude::*;
use tonic::metadata::MetadataValue;

use super::*;
use crate::types::{Expiry, Incarnation, Timestamp};

fn message(result: Result<impl std::fmt::Debug, RequestError>) -> String {
    result.expect_err("an error was due").to_string()
}

fn header(text: &str) -> MetadataMap {
    let mut metadata = MetadataMap::new();
    metadata.insert(TIMEOUT_HEADER, MetadataValue::try_from(text).expect("ascii"));
    metadata
}

#[test]
fn keys_are_taken_as_they_are_but_not_empty() {
    assert_eq!(key("a/b c ö".to_owned()), Ok(Key::from("a/b c ö")));
    assert_eq!(message(key(String::new())), "key: is empty; a key has at least one byte");
}

#[test]
fn a_key_is_not_copied() {
    let text = String::from("a key of some length");
    let address = text.as_ptr();
    assert_eq!(key(text).expect("valid").0.as_ptr(), address);
}

#[test]
fn values_come_as_text_or_bytes_and_may_be_empty() {
    let text = v1::put_request::Data::Value("héllo".to_owned());
    assert_eq!(value(Some(text)), Ok(Bytes::from("héllo")));
    let bytes = v1::put_request::Data::ValueBytes(Bytes::from_static(&[0xff, 0]));
    assert_eq!(value(Some(bytes)), Ok(Bytes::from_static(&[0xff, 0])));
    let empty = v1::batch_put_item::Data::Value(String::new());
    assert_eq!(value(Some(empty)), Ok(Bytes::new()));
}

#[test]
fn an_absent_value_names_both_ways_to_send_one() {
    let text = message(value(None::<v1::put_request::Data>));
    assert!(text.contains("value (text)") && text.contains("value_bytes"), "{text}");
}

#[test]
fn levels_and_numbers_become_options() {
    let cases = [
        (0, 0, None, None),
        (1, 0, Some(Level::One), None),
        (2, 0, Some(Level::Quorum), None),
        (3, 0, Some(Level::All), None),
        (0, 2, None, Some(2)),
        (3, 1, None, Some(1)),
    ];
    for (level, number, expected_level, expected_number) in cases {
        let read = read_options(level, number, "", None).expect("valid");
        assert_eq!((read.level, read.quorum), (expected_level, expected_number));
        let write = write_options(level, number, Some(true), "", None).expect("valid");
        assert_eq!((write.level, write.quorum), (expected_level, expected_number));
        assert_eq!((write.sloppy, write.context), (Some(true), None));
    }
}

#[test]
fn a_level_that_does_not_exist_is_named() {
    let text = message(read_options(9, 2, "", None));
    assert!(text.starts_with("level: 9 is not a level; use LEVEL_ONE"), "{text}");
}

#[test]
fn a_context_is_a_version() {
    let version = Version { timestamp: Timestamp(5), incarnation: Incarnation(6) };
    let options = write_options(0, 0, None, &version.to_string(), None).expect("valid");
    assert_eq!(options.context, Some(version));
    let read = read_options(0, 0, &version.to_string(), None).expect("valid");
    assert_eq!(read.context, Some(version));
    let text = message(read_options(0, 0, "yesterday", None));
    assert!(text.starts_with("context: "), "{text}");
    let text = message(write_options(0, 0, None, "yesterday", None));
    assert!(text.starts_with("context: ") && text.contains("\"yesterday\""), "{text}");
}

#[test]
fn timeouts_have_every_unit_and_are_cut_at_the_limit() {
    let limits = Limits::default();
    let cases = [
        ("1S", Duration::from_secs(1)),
        ("500m", Duration::from_millis(500)),
        ("250000u", Duration::from_micros(250_000)),
        ("99999999n", Duration::from_nanos(99_999_999)),
        ("1M", limits.request_timeout_max),
        ("99999999H", limits.request_timeout_max),
    ];
    for (text, expected) in cases {
        assert_eq!(timeout(&header(text), &limits), Ok(Some(expected)), "{text}");
    }
    assert_eq!(timeout(&MetadataMap::new(), &limits), Ok(None));
}

#[test]
fn malformed_timeouts_are_refused() {
    for text in ["", "S", "5", "5s", "-5S", "+5S", "1.5S", "123456789S", "0S", "5 S", "five"] {
        let error = message(timeout(&header(text), &Limits::default()));
        assert!(error.starts_with("grpc-timeout: "), "{text}: {error}");
        assert!(error.contains(&format!("{text:?}")), "{text}: {error}");
    }
}

#[test]
fn receipts_carry_everything() {
    let version = Version { timestamp: Timestamp(1), incarnation: Incarnation(2) };
    let sent = receipt(&Receipt {
        version: Some(version),
        required: 2,
        replicas: 3,
        acknowledged: vec![NodeId(1), NodeId(2)],
        hinted: vec![NodeId(3)],
        fallbacks: vec![NodeId(2)],
        repaired: vec![NodeId(4)],
        under_replicated: true,
        consistency: Some("lease"),
        leader: Some(NodeId(5)),
        expires_at: Some(Expiry(6)),
        unseen: vec![version],
        siblings: Some(7),
        context: Some("seen".to_owned()),
    });
    assert_eq!((sent.siblings, sent.context.as_deref()), (Some(7), Some("seen")));
    assert_eq!(sent.unseen, ["0000000000000001-0000000000000002"]);
    assert_eq!(sent.version, "0000000000000001-0000000000000002");
    assert_eq!((sent.required, sent.replicas, sent.under_replicated), (2, 3, true));
    assert_eq!(sent.acknowledged, ["0000000000000001", "0000000000000002"]);
    assert_eq!(sent.hinted, ["0000000000000003"]);
    assert_eq!(sent.fallbacks, ["0000000000000002"]);
    assert_eq!(sent.repaired, ["0000000000000004"]);
    assert_eq!((sent.consistency.as_str(), sent.leader.as_str()), ("lease", "0000000000000005"));
    assert_eq!(sent.expires_at_ms, Some(6));
    let none = receipt(&Receipt::default());
    assert_eq!(none.expires_at_ms, None);
    assert_eq!((none.version, none.consistency, none.leader), Default::default());
}

proptest! {
    #[test]
    fn any_value_comes_back_as_it_was(raw: Vec<u8>) {
        let bytes = Bytes::from(raw.clone());
        let back = match get_data(bytes.clone()) {
            v1::get_response::Data::Value(text) => text.into_bytes(),
            v1::get_response::Data::ValueBytes(bytes) => {
                prop_assert!(std::str::from_utf8(&bytes).is_err());
                bytes.to_vec()
            }
        };
        prop_assert_eq!(&back, &raw);
        let batched = match batch_data(bytes) {
            v1::batch_get_result::Data::Value(text) => text.into_bytes(),
            v1::batch_get_result::Data::ValueBytes(bytes) => bytes.to_vec(),
        };
        prop_assert_eq!(&batched, &raw);
    }

    #[test]
    fn no_timeout_header_panics(text in "[ -~]{0,12}") {
        let _ = timeout(&header(&text), &Limits::default());
    }
}
