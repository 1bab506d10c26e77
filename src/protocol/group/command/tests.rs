use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

fn any_bytes() -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..40).prop_map(Bytes::from)
}

fn any_expect() -> impl Strategy<Value = Expect> {
    prop_oneof![
        Just(Expect::Absent),
        Just(Expect::Present),
        any::<u64>().prop_map(|revision| Expect::Revision(Revision(revision))),
        any_bytes().prop_map(Expect::Value),
    ]
}

fn any_step() -> impl Strategy<Value = Step> {
    let action = prop_oneof![
        any_bytes().prop_map(Action::Put),
        Just(Action::Delete),
        any_bytes().prop_map(Action::Append),
        (any_expect(), proptest::option::of(any_bytes()))
            .prop_map(|(expect, then)| Action::CompareAndSet { expect, then }),
        any_expect().prop_map(Action::Check),
    ];
    (any::<u32>(), any_bytes(), action).prop_map(|(keyspace, key, action)| Step {
        keyspace: KeyspaceId(keyspace),
        key: Key(key),
        action,
    })
}

fn any_command() -> impl Strategy<Value = Command> {
    let session = any::<(u64, u64, u64)>().prop_map(|(client, sequence, acknowledged)| {
        SessionStamp { client: ClientId(client), sequence, acknowledged }
    });
    let operation = prop_oneof![
        4 => vec(any_step(), 0..5).prop_map(Operation::Write),
        1 => any::<u64>()
            .prop_map(|stamp| Operation::ExpireSessions { idle_since: Timestamp(stamp) }),
        1 => any::<u32>()
            .prop_map(|keyspace| Operation::DropKeyspace { keyspace: KeyspaceId(keyspace) }),
    ];
    (any::<u64>(), any::<u32>(), proptest::option::of(session), operation).prop_map(
        |(stamp, value_bytes_max, session, operation)| Command {
            stamp: Timestamp(stamp),
            value_bytes_max,
            session,
            operation,
        },
    )
}

proptest! {
    #[test]
    fn a_command_survives_its_bytes(command in any_command()) {
        prop_assert_eq!(Command::decode(&command.encode()), Ok(command));
    }

    #[test]
    fn a_command_cut_short_is_found(
        command in any_command(),
        cut in any::<prop::sample::Index>(),
    ) {
        let bytes = command.encode();
        let cut = cut.index(bytes.len());
        prop_assert_eq!(Command::decode(&bytes[..cut]), Err(DecodeError::EndsEarly));
    }

    #[test]
    fn bytes_behind_a_command_are_found(command in any_command(), rest in 1..9_usize) {
        let mut bytes = command.encode().to_vec();
        bytes.resize(bytes.len() + rest, 0);
        prop_assert_eq!(Command::decode(&bytes), Err(DecodeError::TooLong { bytes: rest }));
    }

    #[test]
    fn no_bytes_panic(
        mut bytes in vec(any::<u8>(), 0..80),
        known in any::<bool>(),
    ) {
        if known && !bytes.is_empty() {
            bytes[0] = VERSION;
        }
        if let Ok(command) = Command::decode(&bytes) {
            prop_assert_eq!(&command.encode()[..], &bytes[..]);
        }
    }
}

#[test]
fn unknown_versions_and_kinds_are_named() {
    let command = Command {
        stamp: Timestamp(1),
        value_bytes_max: 9,
        session: None,
        operation: Operation::ExpireSessions { idle_since: Timestamp(2) },
    };
    let with = |at: usize, byte: u8| {
        let mut bytes = command.encode().to_vec();
        bytes[at] = byte;
        Command::decode(&bytes).map_err(|error| error.to_string())
    };
    let said = |text: &str| Err(text.to_owned());
    assert_eq!(with(0, 7), said("a command has version 7, which this program does not know"));
    assert_eq!(with(13, 2), said("a command's session has the unknown kind 2"));
    assert_eq!(with(14, 9), said("a command's operation has the unknown kind 9"));
}

#[test]
fn a_count_beyond_the_bytes_sets_no_memory_aside() {
    let mut bytes = vec![VERSION; 1];
    bytes.extend_from_slice(&[0; 13]);
    bytes.push(OPERATION_WRITE);
    bytes.extend_from_slice(&u32::MAX.to_le_bytes());
    assert_eq!(Command::decode(&bytes), Err(DecodeError::EndsEarly));
}
