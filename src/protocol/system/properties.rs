//! What holds of every sequence of commands.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use crate::protocol::reaping::Share;
use crate::protocol::system::keyspace::Mode;
use crate::protocol::system::limits::LimitsAsked;
use crate::protocol::system::samples::{
    Cluster, asked, create, describe, drop_named, nodes, strong,
};
use crate::protocol::system::{
    SystemCommand, SystemRefusal, SystemReply, SystemRequest, SystemState,
};
use crate::types::{
    Epoch, GroupId, Incarnation, KeyspaceId, NodeId, PartitionId, ReplicaId, Timestamp,
};

fn names() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["a", "b", "c", "default", "A!", "system"])
}

fn member_commands() -> impl Strategy<Value = SystemCommand> {
    let described = (1_u64..=7, 1_u64..=6, 0_u64..=2, 0_u32..=2, "[ab]?");
    let described = described.prop_map(|(node, revision, life, vnodes, zone)| {
        describe(node, revision, |member| {
            member.incarnation = Incarnation(life);
            member.vnodes = vnodes;
            member.zone = zone;
        })
    });
    let removed = (1_u64..=7, prop::option::weighted(0.2, 1_u64..=9));
    let removed = removed.prop_map(|(node, epoch)| SystemCommand::Remove {
        node: NodeId(node),
        expected_epoch: epoch.map(Epoch),
    });
    prop_oneof![3 => described, 1 => removed]
}

fn keyspace_commands() -> impl Strategy<Value = SystemCommand> {
    let number = || prop::option::weighted(0.4, 0_u32..=4);
    let asking = (number(), number(), number()).prop_map(|(n, r, w)| asked(n, r, w));
    let mode = prop_oneof![Just(Mode::Quorum), Just(Mode::Strong)];
    prop_oneof![
        3 => (names(), mode, asking.clone()).prop_map(|(name, mode, asking)| {
            create(name, mode, asking)
        }),
        1 => (names(), asking, limits()).prop_map(|(name, replication, limits)| {
            SystemCommand::AlterKeyspace { name: name.to_owned(), replication, limits }
        }),
        2 => names().prop_map(drop_named),
    ]
}

fn limits() -> impl Strategy<Value = LimitsAsked> {
    let number = || prop::option::of(0_u64..=2);
    (number(), number()).prop_map(|(operations_per_second, bytes_per_second)| LimitsAsked {
        operations_per_second,
        bytes_per_second,
    })
}

fn placements() -> impl Strategy<Value = SystemCommand> {
    let on = prop::collection::btree_set(1_u64..=7, 1..=3);
    (0_u16..=8, 1_u64..=40, on).prop_map(|(group, expected_generation, on)| {
        SystemCommand::PlaceGroup { group: GroupId(group), expected_generation, nodes: nodes(on) }
    })
}

/// Owners tell what they share; few partitions and stamps, so that floors rise.
fn shares() -> impl Strategy<Value = SystemCommand> {
    let share = (1_u64..=9, 0_u64..=30);
    let share = share.prop_map(|(at, epoch)| Share { at: Timestamp(at), epoch: Epoch(epoch) });
    let partitions = prop::collection::btree_map((0_u16..=8).prop_map(PartitionId), share, 1..=8);
    (1_u64..=7, 0_u64..=2, partitions).prop_map(|(node, life, partitions)| SystemCommand::Shared {
        node: NodeId(node),
        incarnation: Incarnation(life),
        partitions,
    })
}

/// Requests that join, change, remove, create, drop and move; a few numbers come twice.
fn requests() -> impl Strategy<Value = Vec<SystemRequest>> {
    let command = prop_oneof![
        4 => member_commands(),
        3 => keyspace_commands(),
        2 => placements(),
        4 => shares(),
    ];
    let request = (0_u64..=200, command)
        .prop_map(|(request_id, command)| SystemRequest { request_id, command });
    prop::collection::vec(request, 1..60)
}

/// Every other placement names the generation that holds, or nearly all would be refused.
fn aimed(command: SystemCommand, state: &SystemState) -> SystemCommand {
    match command {
        SystemCommand::PlaceGroup { group, expected_generation, nodes }
            if expected_generation % 2 == 0 && state.groups().contains_key(&group) =>
        {
            let expected_generation = state.groups()[&group].generation;
            SystemCommand::PlaceGroup { group, expected_generation, nodes }
        }
        command => command,
    }
}

/// Who had which replica, over all that was seen.
#[derive(Default)]
struct Seen {
    replicas: BTreeMap<ReplicaId, (GroupId, NodeId)>,
    keyspaces: BTreeMap<KeyspaceId, String>,
    gone: BTreeSet<ReplicaId>,
    /// N of the first strong keyspace, and with whom it founded the groups.
    strong_factor: Option<u32>,
    founders: BTreeMap<GroupId, BTreeMap<ReplicaId, NodeId>>,
}

impl Seen {
    /// Takes note of a state; fails if an id means something else than before, or has returned.
    fn note(&mut self, state: &SystemState) {
        let present = replicas(state);
        for (replica, meaning) in &present {
            assert_eq!(self.replicas.entry(*replica).or_insert(*meaning), meaning);
            assert!(!self.gone.contains(replica), "replica {replica} has returned");
            assert!(*replica < state.next_replica());
        }
        let is_gone = |replica: &&ReplicaId| !present.contains_key(replica);
        self.gone.extend(self.replicas.keys().filter(is_gone));
        for keyspace in state.keyspaces() {
            let name = self.keyspaces.entry(keyspace.id).or_insert(keyspace.name.clone());
            assert_eq!(*name, keyspace.name);
        }
        self.note_groups(state);
    }

    /// What was founded once stays, whichever keyspaces come and go.
    fn note_groups(&mut self, state: &SystemState) {
        self.strong_factor = self.strong_factor.or(strong_factors(state).first().copied());
        assert_eq!(state.strong_factor(), self.strong_factor);
        assert_eq!(state.groups().len(), if self.strong_factor.is_some() { 8 } else { 0 });
        for (group, placement) in state.groups() {
            let founders = self.founders.entry(*group).or_insert(placement.founders.clone());
            assert_eq!(*founders, placement.founders, "group {group} was founded twice");
        }
    }
}

/// N of each strong keyspace.
fn strong_factors(state: &SystemState) -> Vec<u32> {
    let strong = state.keyspaces().filter(|keyspace| keyspace.mode == Mode::Strong);
    strong.map(|keyspace| keyspace.replication.factor).collect()
}

/// Every replica of every group; fails if two share a number.
fn replicas(state: &SystemState) -> BTreeMap<ReplicaId, (GroupId, NodeId)> {
    let members = state.members().iter();
    let system = members.map(|(node, known)| (known.system_replica, (GroupId::SYSTEM, *node)));
    let others = state.groups().iter().flat_map(|(group, placement)| {
        placement.replicas.iter().map(|(replica, node)| (*replica, (*group, *node)))
    });
    let mut all = BTreeMap::new();
    for (replica, meaning) in system.chain(others) {
        assert_eq!(all.insert(replica, meaning), None, "replica {replica} is in two groups");
    }
    all
}

/// What holds of every state.
fn check(state: &SystemState) {
    let names: Vec<&str> = state.keyspaces().map(|keyspace| keyspace.name.as_str()).collect();
    let unique: BTreeSet<&str> = names.iter().copied().collect();
    assert_eq!(unique.len(), names.len(), "{names:?}");
    assert!(state.keyspace_named("default").is_some_and(|k| k.id == KeyspaceId::DEFAULT));
    assert!(!state.members().is_empty());
    assert!(state.members().keys().all(|node| !state.removed().contains(node)));
    assert!(strong_factors(state).iter().all(|factor| Some(*factor) == state.strong_factor()));
    for placement in state.groups().values() {
        let on = placement.nodes();
        assert!(!on.is_empty() && on.len() == placement.replicas.len());
        assert!(Some(on.len() as u32) <= state.strong_factor());
        assert!(on.iter().all(|node| state.members().contains_key(node)));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn every_sequence_keeps_the_invariants(requests in requests()) {
        let mut cluster = Cluster::sized(3);
        let mut other = cluster.state.clone();
        let mut seen = Seen::default();
        seen.note(&cluster.state);
        for SystemRequest { request_id, command } in requests {
            let before = cluster.state.clone();
            let command = aimed(command, &before);
            let outcome = cluster.request(request_id, command.clone());
            // Another node hears the same through the log, and may have come from a snapshot.
            other = SystemState::decode(&other.encode()).unwrap();
            let text = SystemRequest { request_id, command }.encode();
            let heard = SystemRequest::decode(&text).unwrap();
            prop_assert_eq!(&outcome, &other.apply(cluster.index, &heard));
            prop_assert_eq!(&cluster.state, &other);

            if outcome.is_err() {
                prop_assert_eq!(&before, &cluster.state, "a refusal changes nothing");
            }
            let moved = before.placing() != cluster.state.placing();
            let removed = before.removed() != cluster.state.removed();
            let (was, is) = (before.reaping(), cluster.state.reaping());
            let reaped = was.since() != is.since() || !was.floors().eq(is.floors());
            let epochs = cluster.state.epoch().0 - before.epoch().0;
            prop_assert_eq!(epochs > 0, moved || removed || reaped);
            // A node that has lost its rows may have changed its place as well.
            prop_assert!(epochs <= 1 || (reaped && epochs == 2));
            prop_assert!(is.floors().all(|(it, floor)| was.floor(it).at <= floor.at));
            prop_assert!(!moved || cluster.state.ring(3).is_ok());
            check(&cluster.state);
            seen.note(&cluster.state);
        }
    }

    #[test]
    fn a_request_that_is_applied_twice_does_no_more_than_once(requests in requests()) {
        let mut cluster = Cluster::sized(3);
        for (SystemRequest { command, .. }, request_id) in requests.into_iter().zip(1_000..) {
            let command = aimed(command, &cluster.state);
            if cluster.request(request_id, command.clone()).is_ok() {
                let once = cluster.state.clone();
                prop_assert!(cluster.request(request_id, command).is_ok());
                prop_assert_eq!(&cluster.state, &once);
            }
        }
    }
}

/// Strong keyspaces of any factor that come and go, with one name, and members beside them.
fn strong_sequences() -> impl Strategy<Value = Vec<SystemCommand>> {
    let command = prop_oneof![
        2 => (1_u32..=3).prop_map(|factor| strong("a", factor)),
        2 => Just(drop_named("a")),
        1 => member_commands(),
    ];
    prop::collection::vec(command, 1..30)
}

#[test]
fn groups_are_founded_once_however_often_strong_keyspaces_come_and_go() {
    let mut runner = TestRunner::deterministic();
    let (mut revived, mut held) = (0, 0);
    for _ in 0..200 {
        let mut cluster = Cluster::sized(3);
        let mut seen = Seen::default();
        for command in strong_sequences().new_tree(&mut runner).unwrap().current() {
            let before = cluster.state.clone();
            let outcome = cluster.apply(command);
            check(&cluster.state);
            seen.note(&cluster.state);
            if !before.groups().is_empty() && strong_factors(&before).is_empty() {
                revived += usize::from(!strong_factors(&cluster.state).is_empty());
                held += usize::from(matches!(outcome, Err(SystemRefusal::FactorHeld { .. })));
            }
        }
    }
    assert!(revived > 100 && held > 100, "{revived} {held}");
}

/// What a success is counted under.
fn kind(reply: &SystemReply) -> &'static str {
    match reply {
        SystemReply::Described { .. } => "described",
        SystemReply::Reshaped { .. } => "reshaped",
        SystemReply::Removed { .. } => "removed",
        SystemReply::Created { .. } => "created",
        SystemReply::Altered { .. } => "altered",
        SystemReply::Dropped { .. } => "dropped",
        SystemReply::Placed { .. } => "placed",
    }
}

/// How many members have another replica of the system group than before.
fn reborn_between(before: &SystemState, after: &SystemState) -> usize {
    let is_reborn = |node: &NodeId, replica: ReplicaId| {
        before.members().get(node).is_some_and(|known| known.system_replica != replica)
    };
    let members = after.members().iter();
    members.filter(|(node, known)| is_reborn(node, known.system_replica)).count()
}

/// How many groups consist of other replicas than before; new groups do not count.
fn replaced_between(before: &SystemState, after: &SystemState) -> usize {
    let groups = after.groups().iter();
    let placements = groups.map(|(group, placement)| (before.groups().get(group), placement));
    placements.filter(|(was, is)| was.is_some_and(|was| was.replicas != is.replicas)).count()
}

#[test]
fn the_sequences_have_every_command_succeed_and_be_refused() {
    let mut runner = TestRunner::deterministic();
    let mut outcomes: BTreeSet<&'static str> = BTreeSet::new();
    let (mut refused, mut reborn, mut replaced) = (0, 0, 0);
    for _ in 0..100 {
        let mut cluster = Cluster::sized(3);
        for request in requests().new_tree(&mut runner).unwrap().current() {
            let before = cluster.state.clone();
            match cluster.request(request.request_id, aimed(request.command, &before)) {
                Ok(reply) => outcomes.insert(kind(&reply)),
                Err(_) => {
                    refused += 1;
                    false
                }
            };
            reborn += reborn_between(&before, &cluster.state);
            replaced += replaced_between(&before, &cluster.state);
        }
    }
    let expected = ["altered", "created", "described", "dropped", "placed", "removed", "reshaped"];
    assert_eq!(outcomes, BTreeSet::from(expected));
    assert!(refused > 100 && reborn > 20 && replaced > 100, "{refused} {reborn} {replaced}");
}
