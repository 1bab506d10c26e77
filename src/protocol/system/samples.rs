//! States and requests that tests begin with.

use std::collections::{BTreeMap, BTreeSet};

use crate::protocol::membership::Member;
use crate::protocol::system::keyspace::{Mode, ReplicationAsked};
use crate::protocol::system::limits::LimitsAsked;
use crate::protocol::system::placing::Step;
use crate::protocol::system::settings::{ClusterSettings, Replication};
use crate::protocol::system::transfers::{Report, due};
use crate::protocol::system::{
    SystemCommand, SystemRefusal, SystemReply, SystemRequest, SystemState,
};
use crate::types::{ClusterId, Epoch, Incarnation, LogIndex, Merge, NodeId, PartitionId};

/// The first description of a node that is in this zone.
pub(super) fn member(zone: &str) -> Member {
    Member {
        incarnation: Incarnation(7),
        revision: 1,
        name: "n".to_owned(),
        zone: zone.to_owned(),
        vnodes: 8,
        peer_address: ([127, 0, 0, 1], 7401).into(),
        client_address: ([127, 0, 0, 1], 7400).into(),
    }
}

/// Eight partitions, N = 3.
pub(super) fn settings() -> ClusterSettings {
    let replication = Replication::default();
    ClusterSettings { cluster_id: ClusterId(1), partitions: 8, replication }
}

/// A new cluster of one node, after these commands and all that follows from them.
pub(crate) fn decided(commands: impl IntoIterator<Item = SystemCommand>) -> SystemState {
    let mut cluster = Cluster::sized(1);
    for command in commands {
        cluster.apply(command).unwrap();
        cluster.settle();
    }
    cluster.state
}

/// A state and how many entries it has applied.
pub(crate) struct Cluster {
    pub(crate) state: SystemState,
    pub(super) index: LogIndex,
}

impl Cluster {
    /// Nodes 1, 2, … in these zones.
    pub(super) fn of(zones: &[&str]) -> Cluster {
        let state = SystemState::found(&settings(), NodeId(1), member(zones[0])).unwrap();
        let mut cluster = Cluster { state, index: LogIndex(0) };
        for (zone, node) in zones.iter().zip(1..).skip(1) {
            let member = member(zone);
            let (node, joins) = (NodeId(node), true);
            cluster.apply(SystemCommand::Describe { node, member, joins }).unwrap();
        }
        cluster
    }

    /// So many nodes without zones.
    pub(crate) fn sized(nodes: usize) -> Cluster {
        Cluster::of(&vec![""; nodes])
    }

    /// Has every partition arrive where it is to lie, as if everybody were up and quick; how many
    /// orders that took.
    pub(crate) fn settle(&mut self) -> usize {
        let mut orders = 0;
        loop {
            self.sync();
            let Some(command) = due(&self.state, &self.reports()) else { return orders };
            self.apply(command).unwrap();
            orders += 1;
        }
    }

    /// Every node has heard of everything.
    pub(crate) fn reports(&self) -> BTreeMap<NodeId, Report> {
        let report = Report { epoch: self.state.epoch(), up: true };
        self.state.members().keys().map(|node| (*node, report)).collect()
    }

    /// Every node that takes partitions over has done so.
    fn sync(&mut self) {
        let mut synced: BTreeMap<NodeId, BTreeMap<PartitionId, Epoch>> = BTreeMap::new();
        for (partition, _, moving) in self.state.placing().moving() {
            if let Step::Copying { waiting } = &moving.step {
                for node in waiting {
                    synced.entry(*node).or_default().insert(partition, moving.since);
                }
            }
        }
        for (node, partitions) in synced {
            let incarnation = self.state.members()[&node].member.incarnation;
            self.apply(SystemCommand::Synced { node, incarnation, partitions }).unwrap();
        }
    }

    /// The next entry; its request's number is its index.
    pub(crate) fn apply(&mut self, command: SystemCommand) -> Result<SystemReply, SystemRefusal> {
        self.request(self.index.0 + 1, command)
    }

    pub(super) fn request(
        &mut self,
        request_id: u64,
        command: SystemCommand,
    ) -> Result<SystemReply, SystemRefusal> {
        self.index = self.index.next();
        self.state.apply(self.index, &SystemRequest { request_id, command })
    }

    /// The refusal's text; fails if the command is done, or if it changed anything.
    pub(super) fn refused(&mut self, command: SystemCommand) -> String {
        let before = self.state.clone();
        let refusal = self.apply(command.clone()).expect_err(&format!("{command:?}"));
        assert_eq!(self.state, before, "a refusal changes nothing");
        refusal.to_string()
    }
}

pub(super) fn create(name: &str, mode: Mode, asked: ReplicationAsked) -> SystemCommand {
    let (name, limits) = (name.to_owned(), LimitsAsked::default());
    let merge = Merge::Lww;
    SystemCommand::CreateKeyspace { name, mode, merge, replication: Some(asked), limits }
}

/// A strong keyspace of this factor.
pub(super) fn strong(name: &str, factor: u32) -> SystemCommand {
    create(name, Mode::Strong, asked(Some(factor), None, None))
}

pub(super) fn drop_named(name: &str) -> SystemCommand {
    SystemCommand::DropKeyspace { name: name.to_owned() }
}

pub(super) fn remove(node: u64) -> SystemCommand {
    SystemCommand::Remove { node: NodeId(node), expected_epoch: None }
}

/// A later description of a node, changed in one respect.
pub(super) fn describe(
    node: u64,
    revision: u64,
    change: impl FnOnce(&mut Member),
) -> SystemCommand {
    let mut member = Member { revision, ..member("") };
    change(&mut member);
    SystemCommand::Describe { node: NodeId(node), member, joins: true }
}

pub(super) fn asked(n: Option<u32>, r: Option<u32>, w: Option<u32>) -> ReplicationAsked {
    ReplicationAsked { factor: n, read_quorum: r, write_quorum: w }
}

pub(super) fn nodes(numbers: impl IntoIterator<Item = u64>) -> BTreeSet<NodeId> {
    numbers.into_iter().map(NodeId).collect()
}
