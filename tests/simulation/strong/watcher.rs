//! A client that watches all keys of the strong keyspace, at one node after another, and goes on
//! where it was; and what it was told.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use coterie::node::groups::observer::Observed;
use coterie::node::request::RequestOptions;
use coterie::node::watch::{Changes, News, Watch, WatchRequest};
use coterie::protocol::watch::Selection;
use coterie::protocol::watch::token::Positions;
use coterie::types::{GroupId, LogIndex};
use parking_lot::Mutex;

use super::KEYSPACE;
use crate::cluster::{Cluster, Session};
use crate::dice::Dice;
use crate::run::has_panicked;

/// Every entry that a group has applied, as the first replica to apply it did.
pub(crate) type Applied = BTreeMap<(GroupId, LogIndex), Observed>;

/// How often it is looked at whether the watch has come to the end.
const POLL: Duration = Duration::from_millis(500);

/// How long a watch may take to come to the end, once the groups are whole: an end that changes no
/// key is told after ten seconds, and a client may well go elsewhere before that, again and again.
const FOLLOWED_MAX: Duration = Duration::from_secs(300);

/// What a client was told without a gap: by watches of which each went on where the one before had
/// come to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stretch {
    /// Where the first of them began.
    pub(crate) began: Positions,
    /// Where the last has come to.
    pub(crate) reached: Positions,
    /// What they told, in that order.
    pub(crate) changes: Vec<Changes>,
}

/// What a client that watches was told so far; whenever a watch was lost, a stretch begins.
#[derive(Default)]
pub(crate) struct Followed {
    stretches: Mutex<Vec<Stretch>>,
}

impl Followed {
    pub(crate) fn stretches(&self) -> Vec<Stretch> {
        self.stretches.lock().clone()
    }

    fn begin(&self, watch: &Watch) {
        let began = watch.positions().clone();
        let stretch = Stretch { reached: began.clone(), began, changes: Vec::new() };
        self.stretches.lock().push(stretch);
    }

    fn hear(&self, changes: Vec<Changes>, watch: &Watch) {
        if let Some(stretch) = self.stretches.lock().last_mut() {
            stretch.changes.extend(changes);
            stretch.reached.clone_from(watch.positions());
        }
    }

    /// Waits until the watch has come to the last entry that was applied by now; says of which
    /// partitions it has not.
    pub(crate) async fn catch_up(&self, cluster: &Cluster) -> Vec<String> {
        let applied = cluster.steps.applied();
        let deadline = cluster.agenda.now() + FOLLOWED_MAX;
        loop {
            let behind = self.behind(&applied);
            if behind.is_empty() || cluster.agenda.now() >= deadline || has_panicked() {
                return behind;
            }
            cluster.agenda.sleep(POLL).await;
        }
    }

    fn behind(&self, applied: &Applied) -> Vec<String> {
        let stretches = self.stretches.lock();
        let Some(last) = stretches.last() else { return vec!["it never began".to_owned()] };
        let ends = applied.keys().filter(|(group, _)| *group != GroupId::SYSTEM);
        let ends: BTreeMap<GroupId, LogIndex> = ends.copied().collect();
        let reached = |group: GroupId| last.reached.get(&group.partition()).copied();
        let is_behind = |(group, end): &(GroupId, LogIndex)| reached(*group) < Some(*end);
        let told = |(group, end)| {
            format!("partition {group} is watched up to {:?} of {end}", reached(group))
        };
        ends.into_iter().filter(is_behind).map(told).collect()
    }
}

/// The client.
pub(crate) struct Watcher {
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) followed: Arc<Followed>,
    pub(crate) dice: Dice,
    /// Where to go on; `None` to begin now.
    pub(crate) token: Option<String>,
}

impl Watcher {
    /// Watches for ever.
    pub(crate) async fn run(mut self) {
        loop {
            let machine = self.dice.index(self.cluster.shape.machines);
            if let Some(session) = self.cluster.session(machine) {
                self.watch(session, machine).await;
            }
            // Now and then it is away for so long that nobody may have what came meanwhile.
            let pause_ms_max = self.dice.pick(&[500, 500, 500, 10_000]);
            let pause = Duration::from_millis(self.dice.between(10, pause_ms_max));
            self.cluster.agenda.sleep(pause).await;
        }
    }

    /// Watches at one node until that dies, or for some time.
    async fn watch(&mut self, mut session: Session, machine: usize) {
        let options = RequestOptions { keyspace: Some(KEYSPACE.into()), ..Default::default() };
        let selection = Selection::Prefix(Bytes::new());
        let request = WatchRequest { selection, from: self.token.clone() };
        let node = session.node.clone();
        let begun = tokio::select! { biased;
            () = session.ended() => return,
            begun = node.watch(request, options) => begun,
        };
        let mut watch = match begun {
            Ok(watch) => watch,
            Err(error) => return self.note(machine, format_args!("does not watch: {error}")),
        };
        if self.token.is_none() {
            self.followed.begin(&watch);
        }
        self.token = Some(watch.token());
        let stay = Duration::from_millis(self.dice.between(500, 30_000));
        let stay = self.cluster.agenda.sleep(stay);
        tokio::pin!(stay);
        loop {
            let message = tokio::select! { biased;
                () = session.ended() => return,
                () = &mut stay => return,
                message = watch.next() => message,
            };
            let Some(message) = message else { return };
            match message.news {
                News::Changes(changes) => self.followed.hear(changes, &watch),
                News::Progress => self.followed.hear(Vec::new(), &watch),
                News::Ended(error) => return self.note(machine, format_args!("ends it: {error}")),
                News::Lost(lost) => {
                    self.note(machine, format_args!("has lost it: {lost:?}"));
                    self.token = None;
                    return;
                }
            }
            self.token = Some(message.token);
        }
    }

    fn note(&self, machine: usize, what: std::fmt::Arguments<'_>) {
        self.cluster.note(format_args!("the watch at {machine} {what}"));
    }
}
