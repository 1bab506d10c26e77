//! Clients of a strong keyspace: they remember what they saw, set on condition, send commands
//! again whose outcome they were not told, and some that they were told as well.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use coterie::node::request::{RequestOptions, Transaction};
use coterie::protocol::consistency::Consistency;
use coterie::protocol::group::command::{Action, Expect, SessionStamp};
use coterie::types::{ClientId, Key};

use super::KEYSPACE;
use super::history::{Asked, Fate, StrongHistory, Told};
use super::keys::{Keys, Place};
use crate::cluster::{Cluster, PATIENCE, Session};
use crate::dice::Dice;
use crate::linearizability::appends;

/// How often a command is sent before its client gives it up.
const ATTEMPTS_MAX: usize = 6;

/// What the clients of a strong keyspace do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StrongWorkload {
    pub(crate) clients: usize,
    pub(crate) commands_per_client: usize,
    pub(crate) keys: Keys,
    pub(crate) think_ms_max: u64,
    /// How many writes bear a session, in a thousandth.
    pub(crate) sessions_per_mille: u64,
}

/// One client.
pub(crate) struct StrongClient {
    pub(crate) number: usize,
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) history: Arc<StrongHistory>,
    pub(crate) dice: Dice,
    pub(crate) workload: StrongWorkload,
    pub(crate) sessions: BTreeMap<Place, OwnSession>,
    pub(crate) seen: BTreeMap<Key, Option<Bytes>>,
}

/// A session as its client knows it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OwnSession {
    client: ClientId,
    next: u64,
}

impl StrongClient {
    /// Performs the client's share of the work.
    pub(crate) async fn run(mut self) {
        let places = self.workload.keys.places();
        for count in 0..self.workload.commands_per_client {
            let think = self.dice.between(0, self.workload.think_ms_max);
            self.cluster.agenda.sleep(Duration::from_millis(think)).await;
            let place = places[self.dice.index(places.len())].clone();
            match self.dice.between(0, 99) {
                0..55 => self.write(&place, count).await,
                55..90 => self.read(&place, Consistency::Linearizable).await,
                90..93 => self.read(&place, Consistency::Lease).await,
                _ => {
                    let staleness_ms = self.dice.pick(&[100, 1000, 5000]);
                    let max_staleness = Duration::from_millis(staleness_ms);
                    self.read(&place, Consistency::Stale { max_staleness }).await;
                }
            }
        }
    }

    async fn read(&mut self, place: &Place, consistency: Consistency) {
        let keys = place.keys();
        let key = keys[self.dice.index(keys.len())].clone();
        let command = self.history.begin(self.number, None, Asked::Read(key.clone(), consistency));
        if let Some(Told::Read(value)) = self.send(command).await {
            self.seen.insert(key, value);
        }
    }

    async fn write(&mut self, place: &Place, count: usize) {
        let steps = self.steps(place, count);
        if !self.dice.chance(self.workload.sessions_per_mille) {
            let command = self.history.begin(self.number, None, Asked::Write(steps));
            self.send(command).await;
            return;
        }
        let fresh = OwnSession { client: ClientId(self.dice.next()), next: 1 };
        let session = *self.sessions.entry(place.clone()).or_insert(fresh);
        let lag = self.dice.between(1, 3);
        let acknowledged = session.next.saturating_sub(lag);
        let stamp = SessionStamp { client: session.client, sequence: session.next, acknowledged };
        let command = self.history.begin(self.number, Some(stamp), Asked::Write(steps));
        match self.pursue(command).await {
            Fate::Answered(..) => {
                let session = OwnSession { next: session.next + 1, ..session };
                self.sessions.insert(place.clone(), session);
            }
            Fate::Nothing if !self.history.lost_its_session(command) => {}
            // Whether it happened is not known, so neither is which number comes next.
            Fate::Unknown | Fate::Nothing => drop(self.sessions.remove(place)),
        }
    }

    /// Sends a command that its session tells from its repetition until its fate is known, and
    /// now and then once more, or to two nodes at once.
    async fn pursue(&mut self, command: usize) -> Fate {
        for _ in 0..ATTEMPTS_MAX {
            if self.dice.chance(100) {
                let (one, other) = (self.attempt(command), self.attempt(command));
                tokio::join!(one, other);
            } else {
                self.send(command).await;
            }
            if matches!(self.history.fate(command), Fate::Answered(..)) {
                break;
            }
            let pause = Duration::from_millis(self.dice.between(10, 500));
            self.cluster.agenda.sleep(pause).await;
        }
        if self.dice.chance(150) {
            self.send(command).await;
        }
        self.history.fate(command)
    }

    async fn send(&mut self, command: usize) -> Option<Told> {
        self.attempt(command).await
    }

    /// One attempt, on any node.
    fn attempt(&mut self, command: usize) -> impl Future<Output = Option<Told>> + Send + use<> {
        let machine = self.dice.index(self.cluster.shape.machines);
        let timeout = Duration::from_millis(self.dice.pick(&[300, 1000, 3000]));
        let (cluster, history) = (self.cluster.clone(), self.history.clone());
        async move { ask(&cluster, &history, command, machine, timeout).await }
    }

    fn steps(&mut self, place: &Place, count: usize) -> Vec<(Key, Action)> {
        let unique = self.number as u64 * 1_000_000 + count as u64;
        let value = Bytes::from(format!("c{}-{count}", self.number));
        match place {
            Place::List(key) => {
                vec![(key.clone(), Action::Append(Bytes::from(appends::encoded(unique))))]
            }
            Place::Register(key) => {
                let action = match self.dice.between(0, 99) {
                    0..45 => Action::Put(value),
                    45..55 => Action::Delete,
                    55..60 => Action::CompareAndSet { expect: self.expect(key), then: None },
                    _ => Action::CompareAndSet { expect: self.expect(key), then: Some(value) },
                };
                vec![(key.clone(), action)]
            }
            Place::Pair(left, right) => self.pair_steps(left, right, value),
        }
    }

    fn pair_steps(&mut self, left: &Key, right: &Key, value: Bytes) -> Vec<(Key, Action)> {
        let put = |key: &Key| (key.clone(), Action::Put(value.clone()));
        match self.dice.between(0, 99) {
            0..40 => vec![put(left), put(right)],
            40..75 => {
                let expect = self.expect(left);
                let set = Action::CompareAndSet { expect, then: Some(value.clone()) };
                // The condition stands last, so that what came before it has to be undone.
                vec![put(right), (left.clone(), set)]
            }
            _ => {
                let expect = self.expect(left);
                let check = |key: &Key| (key.clone(), Action::Check(expect.clone()));
                vec![check(left), check(right)]
            }
        }
    }

    /// What the client last saw of a key.
    fn expect(&self, key: &Key) -> Expect {
        match self.seen.get(key) {
            Some(Some(value)) => Expect::Value(value.clone()),
            Some(None) | None => Expect::Absent,
        }
    }
}

/// Sends a command to a machine's node and records what it is told; `None` when no node runs there.
pub(crate) async fn ask(
    cluster: &Cluster,
    history: &StrongHistory,
    command: usize,
    machine: usize,
    timeout: Duration,
) -> Option<Told> {
    let mut session = cluster.session(machine)?;
    let (asked, stamp) = history.asked(command);
    let sent = history.send(command, machine, cluster.agenda.now());
    cluster.note(format_args!("#{command} asks {machine} {asked:?} {stamp:?} {timeout:?}"));
    let node = session.clone();
    let told = tokio::select! {
        biased;
        () = session.ended() => Told::NodeDied,
        told = perform(node, asked, stamp, timeout) => told,
        () = cluster.agenda.sleep(PATIENCE) => Told::Silence,
    };
    let now = cluster.agenda.now();
    cluster.trace.count(now, format_args!("#{command} is told {told:?}"), |counts| {
        counts.answers += 1;
    });
    history.answer(sent, now, told.clone());
    Some(told)
}

async fn perform(
    session: Session,
    asked: Asked,
    stamp: Option<SessionStamp>,
    timeout: Duration,
) -> Told {
    let options = RequestOptions {
        keyspace: Some(KEYSPACE.into()),
        timeout: Some(timeout),
        session: stamp,
        ..RequestOptions::default()
    };
    match asked {
        Asked::Read(key, consistency) => {
            let options = RequestOptions { consistency: Some(consistency), ..options };
            match session.node.get(key, options).await {
                Ok(read) => Told::Read(read.value),
                Err(error) => Told::Refused(error),
            }
        }
        Asked::Write(steps) => match session.node.transact(Transaction { steps }, options).await {
            Ok(done) => Told::Written(done.receipt.version, done.results),
            Err(error) => Told::Refused(error),
        },
    }
}
