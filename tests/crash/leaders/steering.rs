//! The operator's side: which node leads what, and changes of that.

use std::collections::BTreeMap;

use coterie::proto::v1;

use crate::harness::{Cluster, Grpc, PATIENCE, coterie, wait_for, wait_until};
use crate::leaders::crew::{KEYSPACE, PARTITIONS};

/// Connections to the operators' service of every node.
pub(crate) struct Steering {
    nodes: Vec<Grpc>,
    ids: Vec<String>,
    tags: Vec<String>,
}

impl Steering {
    /// Creates the keyspace and waits until all its partitions have leaders.
    pub(crate) fn begin(cluster: &Cluster) -> Self {
        let founder = &cluster.nodes[0];
        let (code, _, error) =
            coterie(founder, &["keyspace", "create", KEYSPACE, "--mode", "strong"]);
        assert_eq!(code, 0, "{error}");
        let nodes: Vec<Grpc> = cluster.nodes.iter().map(|node| node.grpc()).collect();
        let ids = cluster.nodes.iter().map(|node| node.node_id()).collect();
        let tags = tags(&nodes[0]);
        let steering = Steering { nodes, ids, tags };
        steering.await_leaders();
        steering
    }

    /// A tag for each partition: keys that bear it lie there.
    pub(crate) fn tags(&self) -> Vec<String> {
        self.tags.clone()
    }

    fn groups(&self, node: usize) -> Result<Vec<v1::Group>, String> {
        let grpc = &self.nodes[node];
        let answer = grpc.wait(grpc.admin().groups(v1::GroupsRequest { group: None }));
        answer.map(|groups| groups.into_inner().groups).map_err(|status| status.to_string())
    }

    /// The node that every node takes for the leader of a group.
    fn agreed(&self, group: u32) -> Result<usize, String> {
        let leader = |node: usize| -> Result<String, String> {
            let groups = self.groups(node)?;
            let found = groups.into_iter().find(|view| view.group == group);
            found.map(|view| view.leader).ok_or_else(|| format!("node {node} has no {group}"))
        };
        let leaders = (0..self.nodes.len()).map(leader).collect::<Result<Vec<_>, _>>()?;
        let leads = |id: &String| leaders.iter().all(|leader| leader == id);
        self.ids.iter().position(leads).ok_or_else(|| format!("group {group}: {leaders:?}"))
    }

    pub(crate) fn leader_of(&self, group: u32) -> usize {
        wait_for("all agree on the leader", PATIENCE, || self.agreed(group))
    }

    /// The partitions that a node leads by its own word.
    pub(crate) fn led_by(&self, node: usize) -> Vec<u32> {
        let groups = self.groups(node).expect("the node runs");
        let led = groups.iter().filter(|view| view.role == "leader" && view.group < PARTITIONS);
        led.map(|view| view.group).collect()
    }

    /// Waits until all agree on the leader of every partition.
    pub(crate) fn await_leaders(&self) {
        wait_until("every partition has a leader", PATIENCE, || {
            (0..PARTITIONS).try_for_each(|group| self.agreed(group).map(drop))
        });
    }

    /// Asks a leader to hand on; false if it leads no longer.
    pub(crate) fn transfer(&self, group: u32, from: usize, to: usize) -> bool {
        let grpc = &self.nodes[from];
        let request = v1::TransferLeaderRequest { group, node: self.ids[to].clone() };
        grpc.wait(grpc.admin().transfer_leader(request)).is_ok()
    }
}

/// Draws tags until there is one for each partition.
fn tags(grpc: &Grpc) -> Vec<String> {
    const DRAWS_MAX: u32 = 1000;
    let mut found: BTreeMap<u32, String> = BTreeMap::new();
    for tag in (0..DRAWS_MAX).map(|number| number.to_string()) {
        let request = v1::OwnersRequest { key: tag.clone() };
        let owners = grpc.wait(grpc.admin().owners(request)).expect("a formed cluster");
        found.entry(owners.into_inner().partition).or_insert(tag);
        if found.len() == PARTITIONS as usize {
            return found.into_values().collect();
        }
    }
    panic!("{DRAWS_MAX} tags reach only {found:?}");
}
