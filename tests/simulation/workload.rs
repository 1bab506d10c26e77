//! Clients: each asks one thing after another of whatever node it likes, and writes down what it
//! is told.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use coterie::config::Replication;
use coterie::node::request::{Outcome, RequestOptions};
use coterie::protocol::quorum::level::Level;
use coterie::types::{Key, Version};

use crate::cluster::{Cluster, PATIENCE, Session};
use crate::dice::Dice;
use crate::history::{Action, Answer, History};
use crate::keyspaces;

/// What the clients of a run do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Workload {
    pub(crate) clients: usize,
    pub(crate) operations_per_client: usize,
    /// Keys of each keyspace.
    pub(crate) keys: usize,
    /// The replication of the second keyspace, if there is one.
    pub(crate) second: Option<Replication>,
    /// Whether some writes allow fallbacks to count.
    pub(crate) sloppy: bool,
    /// How many values expire, in a thousandth.
    pub(crate) ttl_per_mille: u64,
    /// Longest pause of a client between two operations, in milliseconds.
    pub(crate) think_ms_max: u64,
}

/// One client of a run.
pub(crate) struct Client {
    pub(crate) number: usize,
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) history: Arc<History>,
    pub(crate) dice: Dice,
    pub(crate) workload: Workload,
}

/// The keys of a run.
pub(crate) fn keys(workload: &Workload) -> Vec<Key> {
    let keys = 0..workload.keys;
    let second = workload.second.into_iter();
    let of_second = second.flat_map(|it| keys.clone().map(move |key| keyspaces::key(it, key)));
    keys.clone().map(|key| Key::from(format!("key-{key}"))).chain(of_second).collect()
}

impl Client {
    /// Performs the client's share of the work.
    pub(crate) async fn run(mut self) {
        let keys = keys(&self.workload);
        let mut seen: BTreeMap<Key, Version> = BTreeMap::new();
        for count in 0..self.workload.operations_per_client {
            let think = self.dice.between(0, self.workload.think_ms_max);
            self.cluster.agenda.sleep(Duration::from_millis(think)).await;
            let machine = self.dice.index(self.cluster.shape.machines);
            let key = keys[self.dice.index(keys.len())].clone();
            let action = self.action(count);
            let mut options = self.options(&action, &key);
            if action != Action::Get && self.dice.chance(300) {
                options.context = seen.get(&key).copied();
            }
            if action == Action::Get && self.reads_on(count) {
                options.context = seen.get(&key).copied();
            }
            options.ttl = self.ttl(&action, count);
            let request = Request { machine, key: key.clone(), action, options };
            let answer = ask(&self.cluster, &self.history, self.number, request).await;
            if let Some(version) = answer.and_then(|answer| version_of(&answer)) {
                let known = seen.entry(key).or_insert(version);
                *known = version.max(*known);
            }
        }
    }

    fn action(&mut self, count: usize) -> Action {
        match self.dice.between(0, 99) {
            0..45 => Action::Put(Bytes::from(format!("c{}-{count}", self.number))),
            45..52 => Action::Delete,
            _ => Action::Get,
        }
    }

    /// Whether a read gives back what the client has seen. Drawn apart, as a ttl is.
    fn reads_on(&self, count: usize) -> bool {
        self.dice.fork(&format!("read on {count}")).chance(300)
    }

    /// Drawn apart from all else, so that runs without expiries are as they were before there were
    /// any.
    fn ttl(&self, action: &Action, count: usize) -> Option<Duration> {
        let mut dice = self.dice.fork(&format!("ttl {count}"));
        let expires = matches!(action, Action::Put(_)) && dice.chance(self.workload.ttl_per_mille);
        expires.then(|| Duration::from_millis(dice.pick(&[1, 100, 1_000, 5_000, 30_000])))
    }

    fn options(&mut self, action: &Action, key: &Key) -> RequestOptions {
        let replicas = self.cluster.in_effect(key);
        let levels = [None, Some(Level::One), Some(Level::Quorum), Some(Level::All)];
        let level = self.dice.pick(&[levels[0], levels[1], levels[2], levels[2], levels[3]]);
        let explicit = self.dice.chance(150);
        let quorum = u32::try_from(self.dice.between(1, u64::from(replicas))).ok();
        let writes = *action != Action::Get;
        let sloppy = self.workload.sloppy && writes && self.dice.chance(500);
        let timeout_ms = self.dice.pick(&[200, 1000, 1000, 3000]);
        RequestOptions {
            level,
            quorum: quorum.filter(|_| explicit),
            timeout: Some(Duration::from_millis(timeout_ms)),
            sloppy: writes.then_some(sloppy),
            ..RequestOptions::default()
        }
    }
}

fn version_of(answer: &Answer) -> Option<Version> {
    match answer {
        Answer::Written(receipt) => receipt.version,
        Answer::Read(read) => read.receipt.version,
        Answer::Refused(_) | Answer::NodeDied | Answer::Silence => None,
    }
}

/// One request to one machine's node.
pub(crate) struct Request {
    pub(crate) machine: usize,
    pub(crate) key: Key,
    pub(crate) action: Action,
    pub(crate) options: RequestOptions,
}

/// Asks a machine's node and records it; `None` when no node runs there.
pub(crate) async fn ask(
    cluster: &Cluster,
    history: &History,
    client: usize,
    request: Request,
) -> Option<Answer> {
    let mut session = cluster.session(request.machine)?;
    let mut request = request;
    request.options.keyspace = keyspaces::of_key(&request.key);
    let Request { machine, key, action, options } = &request;
    let clock = cluster.machine(*machine);
    let ticket = history.invoke((client, *machine, clock.wall()), key, action, options);
    cluster.note(format_args!("c{client} asks {machine} {key} {action:?} {options:?}"));
    let node = session.clone();
    let answer = tokio::select! {
        biased;
        () = session.ended() => Answer::NodeDied,
        answer = perform(node, key.clone(), action.clone(), options.clone()) => answer,
        () = cluster.agenda.sleep(PATIENCE) => Answer::Silence,
    };
    cluster.trace.count(
        cluster.agenda.now(),
        format_args!("c{client} is told {}", shortly(&answer)),
        |counts| counts.answers += 1,
    );
    history.answer(ticket, answer.clone(), clock.wall());
    Some(answer)
}

async fn perform(session: Session, key: Key, action: Action, options: RequestOptions) -> Answer {
    let written = match action {
        Action::Get => {
            return match session.node.get(key, options).await {
                Ok(read) => Answer::Read(read),
                Err(error) => Answer::Refused(error),
            };
        }
        Action::Put(value) => session.node.put(key, value, options).await,
        Action::Delete => session.node.delete(key, options).await,
    };
    written.map_or_else(Answer::Refused, Answer::Written)
}

fn shortly(answer: &Answer) -> String {
    match answer {
        Answer::Written(receipt) => format!("written {receipt:?}"),
        Answer::Read(read) => format!("read {:?} {:?}", read.value, read.receipt),
        Answer::Refused(error) => {
            let outcome: Outcome = error.outcome();
            format!("{outcome}: {error}")
        }
        Answer::NodeDied => "nothing: the node died".to_owned(),
        Answer::Silence => "nothing".to_owned(),
    }
}
