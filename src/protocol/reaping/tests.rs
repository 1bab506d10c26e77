use bytes::Bytes;

use super::*;
use crate::protocol::version::dvv::Context;
use crate::protocol::version::merging::joined;
use crate::types::{Expiry, KeyspaceId, NodeId};

const AFTER: Duration = Duration::from_secs(1600);

fn stamp(ms: u64) -> Timestamp {
    Timestamp::from_wall_ms(ms)
}

fn record(ms: u64, value: Option<&'static str>, expires_at_ms: Option<u64>) -> Record {
    let version = Version { timestamp: stamp(ms), incarnation: Incarnation(1) };
    let value = value.map(|text| Bytes::from_static(text.as_bytes()));
    Record::new(version, value).expiring(expires_at_ms.map(Expiry))
}

fn floor(ms: u64) -> ReapFloor {
    ReapFloor { at: stamp(ms), epoch: Epoch(7) }
}

fn pair(partition: u16, peer: u64) -> Pair {
    let keyspace = KeyspaceId::DEFAULT;
    Pair { keyspace, partition: PartitionId(partition), peer: NodeId(peer) }
}

#[test]
fn a_floor_reaps_tombstones_and_what_had_expired_below_it() {
    for (reaped, what, record) in [
        (true, "a tombstone below", record(90, None, None)),
        (true, "a tombstone at the floor", record(100, None, None)),
        (false, "a tombstone above", record(101, None, None)),
        (false, "a value", record(90, Some("v"), None)),
        (true, "a value that had expired", record(90, Some("v"), Some(100))),
        (false, "a value that expired since", record(90, Some("v"), Some(101))),
        (false, "a value above that has expired", record(101, Some("v"), Some(99))),
    ] {
        assert_eq!(floor(100).reaps(&record), reaped, "{what}");
        assert!(!ReapFloor::default().reaps(&record), "{what}, and nothing is shared");
    }
}

#[test]
fn a_burial_beats_what_it_hides_and_is_hidden_with_it() {
    let left = record(90, Some("v"), None);
    let buried = burial(Merge::Lww, &left);
    assert!(crate::protocol::version::lww::supersedes(&buried, &left));
    assert!(floor(90).reaps(&buried) && floor(90).covers(&left));
    let dot = Version { timestamp: stamp(90), incarnation: Incarnation(1) };
    let value = Some(Bytes::from_static(b"v"));
    let row = Siblings::default().written(dot, value, &Context::default()).expect("one value");
    let left = row.to_record().expect("a row");
    let buried = burial(Merge::Siblings, &left);
    assert!(floor(90).reaps(&buried) && floor(90).covers(&left));
    assert_eq!(joined(Merge::Siblings, left, buried.clone()), buried);
}

#[test]
fn what_was_read_before_the_floor_was_decided_is_outdated_below_it() {
    let (old, new) = (record(90, Some("v"), None), record(110, Some("v"), None));
    assert!(floor(100).outdates(&old, Epoch(6)));
    assert!(!floor(100).outdates(&old, Epoch(7)), "whoever knows of the floor read what it left");
    assert!(!floor(100).outdates(&new, Epoch(6)));
    assert!(!ReapFloor::default().outdates(&old, Epoch(0)));
}

#[test]
fn a_fence_follows_the_clock_in_steps_and_never_passes_it() {
    let at = |seconds: u64| fence(seconds * 1000, AFTER).wall_ms() / 1000;
    assert_eq!([at(0), at(1599), at(1600), at(1699), at(1700), at(3250)], [0, 0, 0, 0, 100, 1600]);
    assert_eq!(fence(u64::MAX >> 20, Duration::ZERO), Timestamp(0), "it never reaps");
    assert_eq!(fence(5000, Duration::from_nanos(1)), Timestamp(0));
}

#[test]
fn a_partition_is_shared_as_far_as_with_each_replica_it_is_compared_with() {
    let mut shares = Shares::default();
    shares.note(pair(1, 8), Share { at: stamp(50), epoch: Epoch(3) });
    shares.note(pair(1, 9), Share { at: stamp(40), epoch: Epoch(5) });
    shares.note(pair(2, 8), Share { at: stamp(60), epoch: Epoch(5) });
    let own = Share { at: stamp(70), epoch: Epoch(6) };
    let compared = [pair(1, 8), pair(1, 9), pair(2, 8), pair(2, 9)];
    let partitions = (1..=3).map(PartitionId);
    let told = shares.of_partitions(partitions.clone(), compared.into_iter(), own);
    let least = Share { at: stamp(40), epoch: Epoch(3) };
    let wanted = BTreeMap::from([(PartitionId(1), least), (PartitionId(3), own)]);
    assert_eq!(told, wanted, "of the second nothing is known with one of its replicas");

    shares.retain(|pair| pair.peer == NodeId(8));
    let told = shares.of_partitions(partitions, compared.into_iter(), own);
    assert_eq!(told, BTreeMap::from([(PartitionId(3), own)]));
}
