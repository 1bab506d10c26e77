use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::*;

fn any_result() -> impl Strategy<Value = StepResult> {
    (any::<bool>(), option::of(any::<u64>()), any::<u64>()).prop_map(
        |(existed, created, value_bytes)| StepResult {
            existed,
            created: created.map(Revision),
            value_bytes,
        },
    )
}

fn any_current() -> impl Strategy<Value = Current> {
    (option::of(vec(any::<u8>(), 0..40)), any::<u64>(), any::<u64>()).prop_map(
        |(value, created, modified)| Current {
            value: value.map(Bytes::from),
            created: Revision(created),
            modified: Revision(modified),
        },
    )
}

fn any_refusal() -> impl Strategy<Value = WriteRefusal> {
    let numbers = || any::<(u64, u64)>();
    prop_oneof![
        (0..100_usize, option::of(any_current()))
            .prop_map(|(step, current)| WriteRefusal::ConditionFailed { step, current }),
        (0..100_usize, numbers()).prop_map(|(step, (bytes, bytes_max))| {
            WriteRefusal::ValueTooLarge { step, bytes, bytes_max }
        }),
        (0..100_usize, any::<u32>()).prop_map(|(step, keyspace)| {
            WriteRefusal::KeyspaceDropped { step, keyspace: KeyspaceId(keyspace) }
        }),
        any::<u64>().prop_map(|sequence| SessionError::Unknown { sequence }.into()),
        numbers().prop_map(|(sequence, acknowledged)| {
            SessionError::Acknowledged { sequence, acknowledged }.into()
        }),
        numbers().prop_map(|(sequence, acknowledged)| {
            SessionError::WindowExceeded { sequence, acknowledged }.into()
        }),
        ".{0,20}".prop_map(|detail| WriteRefusal::Malformed { detail }),
    ]
}

/// Any reply at all.
pub(in crate::protocol::group) fn any_reply() -> impl Strategy<Value = Reply> {
    let written = (any::<u64>(), vec(any_result(), 0..5))
        .prop_map(|(revision, results)| Reply::Written { revision: Revision(revision), results });
    prop_oneof![written, any_refusal().prop_map(Reply::Refused)]
}

proptest! {
    #[test]
    fn a_reply_survives_its_bytes(reply in any_reply()) {
        prop_assert_eq!(Reply::decode(&reply.encode()), Ok(reply));
    }

    #[test]
    fn a_reply_cut_short_is_found(reply in any_reply(), cut in any::<prop::sample::Index>()) {
        let bytes = reply.encode();
        let cut = cut.index(bytes.len());
        prop_assert_eq!(Reply::decode(&bytes[..cut]), Err(DecodeError::EndsEarly));
    }

    #[test]
    fn no_bytes_panic(mut bytes in vec(any::<u8>(), 0..80), known in any::<bool>()) {
        if known && !bytes.is_empty() {
            bytes[0] = VERSION;
        }
        if let Ok(reply) = Reply::decode(&bytes) {
            prop_assert_eq!(&reply.encode()[..], &bytes[..]);
        }
    }

    #[test]
    fn a_shortened_reply_is_small_and_of_the_same_outcome(reply in any_reply()) {
        let short = reply.clone().shortened();
        prop_assert!(short.encode().len() <= reply.encode().len());
        prop_assert_eq!(std::mem::discriminant(&short), std::mem::discriminant(&reply));
        prop_assert_eq!(short.clone().shortened(), short);
    }
}

#[test]
fn unknown_versions_and_kinds_are_named() {
    let said = |bytes: &[u8]| Reply::decode(bytes).map_err(|error| error.to_string());
    let expected = "a reply has version 2, which this program does not know";
    assert_eq!(said(&[2, 1]), Err(expected.to_owned()));
    assert_eq!(said(&[1, 99]), Err("a reply has the unknown kind 99".to_owned()));
}

#[test]
fn a_shortened_refusal_keeps_the_revisions_and_says_that_the_value_is_left_out() {
    let current = Current {
        value: Some(Bytes::from_static(b"a long value")),
        created: Revision(3),
        modified: Revision(4),
    };
    let refused = |current| Reply::Refused(WriteRefusal::ConditionFailed { step: 1, current });
    let expected = refused(Some(Current { value: None, ..current.clone() }));
    assert_eq!(refused(Some(current)).shortened(), expected);
    assert_eq!(refused(None).shortened(), refused(None), "no value is not one left out");
}
