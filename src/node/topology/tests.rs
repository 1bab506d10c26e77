//! Placements of keyspaces that differ in their replication.

use super::*;
use crate::protocol::quorum::level::Level;
use crate::protocol::ring::RingMember;
use crate::protocol::system::keyspace::ReplicationAsked;
use crate::protocol::system::limits::LimitsAsked;
use crate::protocol::system::spread::{Before, Spread};
use crate::protocol::system::transfers::due;
use crate::protocol::system::{SystemCommand, samples};
use crate::types::{Epoch, Key, Merge};

const PARTITIONS: u32 = 16;

fn replication(factor: u32, read_quorum: u32, write_quorum: u32) -> Replication {
    Replication { factor, read_quorum, write_quorum }
}

pub(crate) fn asked(factor: u32, read_quorum: u32, write_quorum: u32) -> ReplicationAsked {
    ReplicationAsked::from(replication(factor, read_quorum, write_quorum))
}

pub(crate) fn create(name: &str, mode: Mode, asked: Option<ReplicationAsked>) -> SystemCommand {
    let (name, limits) = (name.to_owned(), LimitsAsked::default());
    let merge = Merge::Lww;
    SystemCommand::CreateKeyspace { name, mode, merge, replication: asked, limits }
}

/// What these commands make of a new cluster.
pub(crate) fn decided(commands: Vec<SystemCommand>) -> Keyspaces {
    Keyspaces::decided(&samples::decided(commands))
}

pub(crate) fn topology(keyspaces: Keyspaces, nodes: u64) -> Topology {
    let members = (1..=nodes).map(|node| RingMember::new(NodeId(node), "", 8)).collect();
    let (placing, reaping) = (Placing::at_rest(members), Reaping::default());
    let placed =
        Placed { epoch: Epoch(1), partitions: PARTITIONS, placing: &placing, reaping: &reaping };
    let nobody = (BTreeSet::new(), BTreeSet::new());
    Topology::new(keyspaces, nobody, true, placed).unwrap()
}

#[test]
fn each_keyspace_has_its_own_replication() {
    let keyspaces = decided(vec![
        create("narrow", Mode::Quorum, Some(asked(1, 1, 1))),
        create("wide", Mode::Quorum, Some(asked(5, 2, 4))),
    ]);
    let topology = topology(keyspaces, 5);
    let defaults = RequestOptions::default();
    let numbers = |keyspace| {
        let placement = topology.placement(KeyspaceId(keyspace)).unwrap();
        let primaries = placement.ring.primaries(placement.ring.partition_of(&Key::from("k")));
        let ring = &placement.ring;
        let r = placement.read_quorum(ring, &defaults).unwrap();
        (primaries.len(), r, placement.write_quorum(ring, &defaults).unwrap())
    };
    assert_eq!([numbers(0), numbers(1), numbers(2)], [(3, 2, 2), (1, 1, 1), (5, 2, 4)]);
}

#[test]
fn levels_count_the_replicas_of_the_keyspace() {
    let keyspaces = decided(vec![create("wide", Mode::Quorum, Some(asked(5, 1, 1)))]);
    let topology = topology(keyspaces, 4);
    let wide = topology.placement(KeyspaceId(1)).unwrap();
    let at = |level| {
        let options = RequestOptions { level: Some(level), ..RequestOptions::default() };
        wide.read_quorum(&wide.ring, &options).unwrap()
    };
    assert_eq!([at(Level::One), at(Level::Quorum), at(Level::All)], [1, 3, 4]);
    assert!(wide.is_under_replicated() && !topology.default_placement().is_under_replicated());
    let options = RequestOptions { quorum: Some(4), ..RequestOptions::default() };
    assert!(wide.write_quorum(&wide.ring, &options).is_ok());
    let default = topology.default_placement();
    assert!(default.write_quorum(&default.ring, &options).is_err());
}

#[test]
fn keyspaces_of_one_factor_share_a_ring_and_all_agree_on_partitions() {
    let keyspaces = decided(vec![
        create("same", Mode::Quorum, Some(asked(3, 1, 1))),
        create("other", Mode::Quorum, Some(asked(2, 1, 2))),
    ]);
    let topology = topology(keyspaces, 4);
    let ring = |keyspace| &topology.placement(KeyspaceId(keyspace)).unwrap().ring;
    assert!(Arc::ptr_eq(ring(0), ring(1)) && Arc::ptr_eq(ring(0), &topology.ring));
    assert!(!Arc::ptr_eq(ring(0), ring(2)));
    for key in (0..50).map(|key| Key::from(key.to_string())) {
        let partition = ring(0).partition_of(&key);
        assert_eq!(ring(2).partition_of(&key), partition);
        assert!(ring(0).primaries(partition).starts_with(ring(2).primaries(partition)));
    }
}

#[test]
fn altered_replication_is_that_of_the_next_topology() {
    let alter = |name: &str, replication| {
        let (name, limits) = (name.to_owned(), LimitsAsked::default());
        SystemCommand::AlterKeyspace { name, replication, limits }
    };
    let keyspaces = decided(vec![
        create("a", Mode::Quorum, Some(asked(3, 2, 2))),
        alter("a", asked(2, 1, 2)),
        alter("default", asked(3, 1, 3)),
    ]);
    let topology = topology(keyspaces, 3);
    let altered = topology.placement(KeyspaceId(1)).unwrap();
    assert_eq!(altered.replication, replication(2, 1, 2));
    assert_eq!(altered.ring.replication_factor(), 2);
    assert_eq!(topology.default_placement().replication, replication(3, 1, 3));
}

#[test]
fn while_a_factor_changes_each_ring_has_the_quorums_that_it_was_written_by() {
    let mut cluster = samples::Cluster::sized(5);
    cluster.settle();
    let (name, limits) = ("default".to_owned(), LimitsAsked::default());
    let alter = SystemCommand::AlterKeyspace { name, replication: asked(5, 2, 4), limits };
    cluster.apply(alter).unwrap();
    let order = due(&cluster.state, &cluster.reports()).unwrap();
    cluster.apply(order).unwrap();
    let state = &cluster.state;
    let placed = Placed {
        epoch: state.epoch(),
        partitions: state.partitions(),
        placing: state.placing(),
        reaping: state.reaping(),
    };
    let nobody = (BTreeSet::new(), BTreeSet::new());
    let topology = Topology::new(Keyspaces::decided(state), nobody, true, placed).unwrap();
    let (placement, moves) = (topology.default_placement(), PartitionId(0));
    let WriteRings { present, coming } = placement.write_rings(moves);
    let coming = coming.expect("it moves");
    assert!(std::ptr::eq(placement.read_ring(moves), present));
    let defaults = RequestOptions::default();
    let numbers = |ring: &Ring| {
        let (r, w) =
            (placement.read_quorum(ring, &defaults), placement.write_quorum(ring, &defaults));
        (ring.primaries(moves).len(), r.unwrap(), w.unwrap(), placement.usual_write_quorum(ring))
    };
    assert_eq!((numbers(present), numbers(coming)), ((3, 2, 2, 2), (5, 2, 4, 4)));
}

#[test]
fn what_is_dropped_unheard_of_or_strong_has_no_placement() {
    let gone = SystemCommand::DropKeyspace { name: "gone".to_owned() };
    let keyspaces = decided(vec![
        create("gone", Mode::Quorum, None),
        gone,
        create("strong", Mode::Strong, None),
    ]);
    let topology = topology(keyspaces, 3);
    let [default, gone, strong, unheard] = [0, 1, 2, 3].map(KeyspaceId);
    assert_eq!(topology.check_keyspace(default), Ok(()));
    assert_eq!(topology.check_keyspace(gone), Err(Refusal::KeyspaceDropped));
    assert_eq!(topology.check_keyspace(strong), Err(Refusal::NotServing));
    assert_eq!(topology.check_keyspace(unheard), Err(Refusal::NotServing));
    assert_eq!(topology.check_keyspace(KeyspaceId::GROUP), Err(Refusal::NotServing));
    let placed: Vec<KeyspaceId> = topology.placements().map(|(keyspace, _)| keyspace).collect();
    assert_eq!(placed, [default]);
}

#[test]
fn before_the_system_group_is_heard_of_nothing_counts_as_dropped() {
    let topology = topology(Keyspaces::founding(replication(2, 1, 2)), 3);
    assert_eq!(topology.default_placement().replication, replication(2, 1, 2));
    assert_eq!(topology.check_keyspace(KeyspaceId(1)), Err(Refusal::NotServing));
}

#[test]
fn a_number_that_the_coming_factor_allows_means_all_where_partitions_have_not_arrived() {
    // N on its way from three, and all partitions still where they were.
    let needed = |factor: u32, nodes: u64, quorum: u32| {
        let before = Before { layout: LayoutId(2), replication: replication(3, 2, 2) };
        let changes = (factor != 3).then_some(before);
        let mut keyspaces = decided(vec![]);
        keyspaces.default = Spread { now: Replication::majority_of(factor), before: changes };
        let topology = topology(keyspaces, nodes);
        let default = topology.default_placement();
        let options = RequestOptions { quorum: Some(quorum), ..RequestOptions::default() };
        let ring = default.read_ring(PartitionId(0));
        assert_eq!(ring.replicas_in_effect(), 3);
        default.write_quorum(ring, &options).ok()
    };
    assert_eq!(needed(3, 5, 4), None);
    assert_eq!([2, 4, 5].map(|w| needed(5, 5, w)), [2, 3, 3].map(Some));
    assert_eq!([0, 6].map(|w| needed(5, 5, w)), [None, None]);
    assert_eq!(needed(5, 4, 5), None, "there will be four");
    assert_eq!([3, 4].map(|w| needed(2, 5, w)), [Some(3), None]);
}
