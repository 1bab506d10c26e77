//! Looks on while the groups of all nodes work, and judges every pass over every group.
//!
//! What a node holds durably is told by the mirror of its log, which the committer keeps: what a
//! core or its driver believes to be durable counts for nothing. The mirror of a node that is down
//! stays as its last life left it.

use std::collections::BTreeMap;
use std::sync::Arc;

use coterie::node::groups::observer::{GroupObserver, Sight};
use coterie::protocol::raft::entry::{HardState, LogPosition};
use coterie::storage::group_log::GroupLogs;
use coterie::types::{GroupId, LogIndex, ReplicaId, Term};
use parking_lot::Mutex;

use crate::agenda::Agenda;
use crate::invariants::Violation;
use crate::invariants::replicas_answer_alike::ReplicasAnswerAlike;
use crate::invariants::session_at_most_once::SessionAtMostOnce;
use crate::invariants::steps::ledger::Ledger;
use crate::invariants::steps::{Event, Invariants, Replicas, View};
use crate::strong::watch::{Sighting, Watch};
use crate::strong::watcher::Applied;

/// Everything that was seen of the groups of a cluster.
pub(crate) struct Steps {
    agenda: Arc<Agenda>,
    pub(crate) watch: Arc<Watch>,
    groups: Mutex<BTreeMap<GroupId, Group>>,
    applied: Mutex<Applied>,
}

/// What is remembered of one group, over all its replicas.
struct Group {
    ledger: Ledger,
    replicas: Known,
    invariants: Invariants,
    sessions: SessionAtMostOnce,
    answers: ReplicasAnswerAlike,
    /// What each life of each replica had applied when it was last seen.
    applied: BTreeMap<(ReplicaId, u64), LogIndex>,
    /// The first violation: what follows from it is not worth telling.
    broken: Option<Violation>,
}

/// What the replicas of a group hold, as their nodes' logs say.
struct Known {
    group: GroupId,
    logs: BTreeMap<ReplicaId, Arc<Mutex<GroupLogs>>>,
    votes: BTreeMap<(ReplicaId, Term), ReplicaId>,
    /// The log of each term's leader: the terms of its entries, by index.
    led: BTreeMap<(ReplicaId, Term), BTreeMap<LogIndex, Term>>,
}

impl Steps {
    pub(crate) fn new(agenda: Arc<Agenda>) -> Arc<Steps> {
        Arc::new(Steps {
            agenda,
            watch: Arc::default(),
            groups: Mutex::default(),
            applied: Mutex::default(),
        })
    }

    /// What was violated, by group.
    pub(crate) fn violations(&self) -> Vec<Violation> {
        self.groups.lock().values().filter_map(|group| group.broken.clone()).collect()
    }

    /// What was applied in all groups so far.
    pub(crate) fn applied(&self) -> Applied {
        self.applied.lock().clone()
    }

    fn on_pass(&self, life: u64, sight: &Sight<'_>) {
        let mut applied = self.applied.lock();
        for seen in sight.entries {
            applied.entry((sight.group, seen.entry.index)).or_insert_with(|| seen.clone());
        }
        drop(applied);
        let sighting = Sighting {
            at: self.agenda.now(),
            node: sight.node,
            life,
            group: sight.group,
            replica: sight.replica,
            leads: sight.core.is_leader(),
            term: sight.core.term(),
            commit: sight.core.commit(),
            applied: sight.applied.index,
        };
        self.watch.note(sighting);
        let mut groups = self.groups.lock();
        let group = groups.entry(sight.group).or_insert_with(|| Group::new(sight.group));
        if group.broken.is_none() {
            let broken = group.judge(life, sight);
            group.broken = broken.map(|(invariant, detail)| {
                let (at, node) = (sighting.at, sight.node);
                let detail = format!("group {} on {node} at {at:?}: {detail}", sight.group);
                Violation { invariant, detail }
            });
        }
    }
}

impl Group {
    fn new(group: GroupId) -> Group {
        let (logs, votes, led) = Default::default();
        Group {
            ledger: Ledger::default(),
            replicas: Known { group, logs, votes, led },
            invariants: Invariants::default(),
            sessions: SessionAtMostOnce::default(),
            answers: ReplicasAnswerAlike::default(),
            applied: BTreeMap::new(),
            broken: None,
        }
    }

    fn judge(&mut self, life: u64, sight: &Sight<'_>) -> Option<(&'static str, String)> {
        let events = self.events(life, sight);
        self.replicas.learn(sight);
        self.ledger.note(sight.core);
        let broken = self.invariants.check(View {
            replica: sight.replica,
            life,
            core: sight.core,
            applied: sight.applied.index,
            events: &events,
            ledger: &self.ledger,
            replicas: &self.replicas,
        });
        broken.or_else(|| sight.entries.iter().find_map(|seen| self.sessions.check(seen))).or_else(
            || sight.entries.iter().find_map(|seen| self.answers.check(sight.replica, seen)),
        )
    }

    /// What happened in the pass. A snapshot is in place when the log begins behind what was
    /// applied: compaction never goes so far.
    fn events(&mut self, life: u64, sight: &Sight<'_>) -> Vec<Event> {
        let (start, now) = (sight.core.log().start().index, sight.applied.index);
        let before_these = LogIndex(now.0 - (sight.entries.len() as u64).min(now.0));
        let place = (sight.replica, life);
        let mut events = Vec::new();
        match self.applied.insert(place, now) {
            None => events.push(Event::Started(before_these)),
            Some(last) if start > last && now > last => events.push(Event::Installed(start)),
            Some(_) => {}
        }
        events.extend(sight.entries.iter().map(|seen| Event::Applied(seen.entry.clone())));
        let sent = sight.messages.iter();
        events.extend(sent.map(|(_, message)| Event::Sent(message.message.clone())));
        events
    }
}

impl Known {
    fn learn(&mut self, sight: &Sight<'_>) {
        self.logs.insert(sight.replica, sight.logs.clone());
        let durable = sight.logs.lock().hard_state(sight.group);
        if let Some((replica, HardState { term, voted_for: Some(candidate), .. })) = durable {
            self.votes.insert((replica, term), candidate);
        }
        if sight.core.is_leader() {
            let led = self.led.entry((sight.replica, sight.core.term())).or_default();
            let next = led.last_key_value().map_or(LogIndex(0), |(last, _)| last.next());
            let entries = sight.core.log().entries_from(next).iter();
            led.extend(entries.map(|entry| (entry.index, entry.term)));
        }
    }

    /// What the replica's log says, if it is still there.
    fn log<T>(&self, replica: ReplicaId, ask: impl FnOnce(&GroupLogs) -> Option<T>) -> Option<T> {
        let logs = self.logs.get(&replica)?.lock();
        let (held, _) = logs.hard_state(self.group)?;
        if held == replica { ask(&logs) } else { None }
    }
}

impl Replicas for Known {
    fn hard_state(&self, replica: ReplicaId) -> HardState {
        let hard_state = self.log(replica, |logs| logs.hard_state(self.group));
        hard_state.map(|(_, hard_state)| hard_state).unwrap_or_default()
    }

    fn vote(&self, replica: ReplicaId, term: Term) -> Option<ReplicaId> {
        self.votes.get(&(replica, term)).copied()
    }

    fn last(&self, replica: ReplicaId) -> LogPosition {
        self.log(replica, |logs| logs.ends(self.group)).map(|(_, last)| last).unwrap_or_default()
    }

    fn term_at(&self, replica: ReplicaId, index: LogIndex) -> Option<Term> {
        self.log(replica, |logs| logs.term_at(self.group, index))
    }

    fn holds(&self, replica: ReplicaId, at: LogPosition) -> bool {
        let starts = self.log(replica, |logs| logs.ends(self.group)).map(|(start, _)| start);
        starts.is_some_and(|start| at.index <= start.index)
            || self.term_at(replica, at.index) == Some(at.term)
    }

    fn led_term_at(&self, leader: ReplicaId, term: Term, index: LogIndex) -> Option<Term> {
        self.led.get(&(leader, term))?.get(&index).copied()
    }
}

/// The observer of one life of one node.
pub(crate) struct Eye {
    pub(crate) steps: Arc<Steps>,
    pub(crate) life: u64,
}

impl GroupObserver for Eye {
    fn on_pass(&self, sight: &Sight<'_>) {
        self.steps.on_pass(self.life, sight);
    }
}
