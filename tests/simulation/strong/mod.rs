//! Strong keyspaces under simulation: clients, what they saw, what became of every group, and what
//! is left of it once all faults have stopped.

pub(crate) mod client;
pub(crate) mod history;
mod judge;
pub(crate) mod keys;
pub(crate) mod linear;
mod moves;
#[cfg(test)]
pub(crate) mod story;
pub(crate) mod watch;
pub(crate) mod watcher;

use std::sync::Arc;
use std::time::Duration;

use coterie::protocol::system::SystemCommand;
use coterie::protocol::system::keyspace::Mode;
use coterie::protocol::system::limits::LimitsAsked;
use coterie::types::{GroupId, LogIndex, Merge, NodeId, ReplicaId, Row};

use crate::cluster::Cluster;
use crate::dice::Dice;
use crate::scenario::StrongPart;
use client::{StrongClient, StrongWorkload};
use history::{Command, StrongHistory};
use watch::{Sighting, Watch};
use watcher::{Applied, Followed, Stretch, Watcher};

pub(crate) use judge::{look, settle};
pub(crate) use moves::{hand_over, place};

/// The keyspace that clients work on.
pub(crate) const KEYSPACE: &str = "ledger";

/// How long the creation of a keyspace may take while nothing is wrong.
const CREATION_MAX: Duration = Duration::from_secs(60);

/// What a run leaves of its strong keyspace.
#[derive(Clone, Debug, Default)]
pub(crate) struct StrongEvidence {
    /// All commands, in the order in which they were first sent.
    pub(crate) commands: Vec<Command>,
    /// Every replica whenever something about it had changed.
    pub(crate) sightings: Vec<Sighting>,
    /// Groups that are not whole after healing, in words.
    pub(crate) unsettled: Vec<String>,
    /// Partitions that took no write after healing, in words.
    pub(crate) unserved: Vec<String>,
    /// What every replica holds in the end.
    pub(crate) copies: Vec<Copy>,
    /// What was applied in all groups.
    pub(crate) applied: Applied,
    /// What a client that watches was told; none where nobody watches.
    pub(crate) stretches: Vec<Stretch>,
    /// Partitions of which it had not heard everything after healing, in words.
    pub(crate) unfollowed: Vec<String>,
}

/// What one replica of a group holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Copy {
    pub(crate) group: GroupId,
    pub(crate) replica: ReplicaId,
    pub(crate) node: NodeId,
    pub(crate) applied: LogIndex,
    pub(crate) rows: Vec<Row>,
}

/// Creates the keyspace and waits until every group has a leader.
pub(crate) async fn create(cluster: &Cluster, dice: &mut Dice) {
    let machine = dice.index(cluster.nodes().len());
    let node = cluster.nodes()[machine].clone();
    let (name, mode) = (KEYSPACE.to_owned(), Mode::Strong);
    let command = SystemCommand::CreateKeyspace {
        name,
        mode,
        merge: Merge::Lww,
        replication: None,
        limits: LimitsAsked::default(),
    };
    let created = node.decide(command).await;
    assert!(created.is_ok(), "a keyspace could not be created: {created:?}");
    let told = judge::wait_for_groups(cluster, CREATION_MAX).await;
    assert!(told.is_empty(), "the groups of a new keyspace did not come up: {told:?}");
    cluster.note(format_args!("{KEYSPACE} was created by {machine}"));
}

/// Everything that works on the keyspace while faults happen.
pub(crate) struct Crew {
    pub(crate) history: Arc<StrongHistory>,
    pub(crate) watch: Arc<Watch>,
    /// What a client that watches was told, where there is one.
    pub(crate) followed: Option<Arc<Followed>>,
}

impl Crew {
    /// The watch of a run; in some runs a client watches. Drawn apart from all else, so that the
    /// other runs are as they were before there were watches.
    pub(crate) fn new(watch: Arc<Watch>, part: Option<StrongPart>, dice: &Dice) -> Crew {
        let watches = part.is_some() && dice.fork("watcher").chance(500);
        Crew { history: Arc::default(), watch, followed: watches.then(Arc::default) }
    }

    /// Starts the client that watches, if there is one, among tasks that last until the end.
    pub(crate) fn start_watcher(
        &self,
        cluster: &Arc<Cluster>,
        dice: &Dice,
        tasks: &mut tokio::task::JoinSet<()>,
    ) {
        if let Some(followed) = &self.followed {
            let (cluster, followed) = (cluster.clone(), followed.clone());
            let dice = dice.fork("watcher at work");
            tasks.spawn(Watcher { cluster, followed, dice, token: None }.run());
        }
    }

    /// Starts the clients among the run's tasks.
    pub(crate) fn start(
        &self,
        cluster: &Arc<Cluster>,
        workload: StrongWorkload,
        dice: &Dice,
        tasks: &mut tokio::task::JoinSet<()>,
    ) {
        for number in 0..workload.clients {
            let client = StrongClient {
                number,
                cluster: cluster.clone(),
                history: self.history.clone(),
                dice: dice.fork(&format!("strong client {number}")),
                workload,
                sessions: Default::default(),
                seen: Default::default(),
            };
            tasks.spawn(client.run());
        }
    }
}
