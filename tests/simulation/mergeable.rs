//! Clerks: clients of a keyspace of counters and of one of sets, who add, take out, and look.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use coterie::node::request::{
    Outcome, ReadAnswer, Receipt, RequestError, RequestOptions, SetUpdate,
};
use coterie::protocol::quorum::level::Level;
use coterie::types::{Key, Merge};
use parking_lot::Mutex;

use crate::cluster::Cluster;
use crate::dice::Dice;
use crate::siblings::{self, PATIENCE, Values};
use crate::workload::Workload;

const COUNTERS: &str = "hits";
const SETS: &str = "tags";
const KEYS: usize = 2;
const CLERKS: usize = 3;

/// What a clerk asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Errand {
    /// Adds to a counter.
    Add(i64),
    Count,
    /// Puts an element into a set that no other errand puts there.
    Insert(String),
    /// Takes one out.
    Remove(String),
    Look,
}

impl Errand {
    /// Whether it is about a counter.
    pub(crate) fn counts(&self) -> bool {
        matches!(self, Errand::Add(_) | Errand::Count)
    }
}

/// What it was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    Changed(Receipt),
    Total(i128, Receipt),
    Elements(Values, Receipt),
    Failed(Outcome),
    /// The node died, or never answered.
    Nothing,
}

/// One request. Places count invocations and answers in the order of their time.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) key: usize,
    pub(crate) errand: Errand,
    /// The elements that were told with the context it gave, if it gave one.
    pub(crate) seen: Option<Values>,
    pub(crate) invoked: u64,
    /// `u64::MAX` where it never ended.
    pub(crate) answered: u64,
    pub(crate) told: Told,
}

impl Call {
    /// Whether it may have changed something.
    pub(crate) fn may_exist(&self) -> bool {
        match &self.told {
            Told::Failed(outcome) => *outcome == Outcome::Unknown,
            _ => true,
        }
    }
}

/// What clerks leave to be judged.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tallied {
    pub(crate) calls: Vec<Call>,
    /// What was read of each counter, and of each set, at ALL in the end, or why it was not.
    pub(crate) totals: Vec<(usize, Result<i128, String>)>,
    pub(crate) elements: Vec<(usize, Result<Values, String>)>,
    /// How many replicas are read by who removes and has not looked.
    pub(crate) read_quorum: u32,
}

/// Whether there are clerks in this run, as with shoppers: where messages arrive twice there are
/// none, for what is added twice counts twice.
pub(crate) fn prepare(repeats: bool, dice: &Dice) -> bool {
    !repeats && dice.fork("clerks").chance(400)
}

/// Makes the keyspaces and waits until all nodes know them.
pub(crate) async fn create(cluster: &Cluster, at_most: Duration) {
    siblings::create_merging(cluster, (COUNTERS, Merge::Counter), at_most).await;
    siblings::create_merging(cluster, (SETS, Merge::Set), at_most).await;
}

/// Who works there, and what came of it.
#[derive(Default)]
pub(crate) struct Office {
    state: Mutex<(u64, Vec<Call>)>,
}

impl Office {
    /// All clerks' work.
    pub(crate) fn clerks(
        self: &Arc<Self>,
        cluster: &Arc<Cluster>,
        dice: &Dice,
        workload: Workload,
    ) -> Vec<impl Future<Output = ()> + use<>> {
        let clerk = |number| {
            let dice = dice.fork(&format!("clerk {number}"));
            let (office, cluster) = (Arc::clone(self), Arc::clone(cluster));
            Clerk { number, office, cluster, dice, workload, known: BTreeMap::new() }.run()
        };
        (0..CLERKS).map(clerk).collect()
    }

    /// Reads every key at ALL.
    pub(crate) async fn look(&self, cluster: &Cluster, mut dice: Dice) -> Tallied {
        let mut tallied = Tallied { calls: self.state.lock().1.clone(), ..Tallied::default() };
        tallied.read_quorum = cluster.shape.replication.read_quorum;
        for key in 0..KEYS {
            let read = last(cluster, (key, &Errand::Count), &mut dice).await;
            tallied.totals.push((key, read.map(|read| total(&read))));
            let read = last(cluster, (key, &Errand::Look), &mut dice).await;
            tallied.elements.push((key, read.map(|read| elements(&read))));
        }
        tallied
    }

    fn place(&self) -> u64 {
        let mut state = self.state.lock();
        state.0 += 1;
        state.0
    }

    fn begin(&self, call: Call) -> usize {
        let mut state = self.state.lock();
        state.1.push(call);
        state.1.len() - 1
    }

    fn end(&self, call: usize, answered: u64, told: Told) {
        let mut state = self.state.lock();
        state.1[call].answered = answered;
        state.1[call].told = told;
    }
}

/// Asks until all replicas have answered.
async fn last(
    cluster: &Cluster,
    asked: (usize, &Errand),
    dice: &mut Dice,
) -> Result<ReadAnswer, String> {
    const TRIES_MAX: usize = 20;
    let mut why = "no node runs".to_owned();
    for _ in 0..TRIES_MAX {
        let machine = dice.index(cluster.shape.machines);
        let (level, timeout) = (Some(Level::All), Some(Duration::from_secs(5)));
        let options = RequestOptions { level, timeout, ..RequestOptions::default() };
        match ask(cluster, machine, asked, options).await {
            Some(Ok(Answer::Read(read))) => return Ok(read),
            Some(Err(error)) => why = error.to_string(),
            _ => {}
        }
        cluster.agenda.sleep(Duration::from_secs(1)).await;
    }
    Err(why)
}

struct Clerk {
    number: usize,
    office: Arc<Office>,
    cluster: Arc<Cluster>,
    dice: Dice,
    workload: Workload,
    /// Of each set, the last context and the elements that were told with it.
    known: BTreeMap<usize, (Arc<str>, Values)>,
}

impl Clerk {
    async fn run(mut self) {
        for count in 0..self.workload.operations_per_client {
            let think = self.dice.between(0, self.workload.think_ms_max);
            self.cluster.agenda.sleep(Duration::from_millis(think)).await;
            self.call(count).await;
        }
    }

    fn errand(&mut self, key: usize, count: usize) -> Errand {
        match self.dice.between(0, 99) {
            0..30 => Errand::Add(self.dice.between(0, 12).cast_signed() - 3),
            30..48 => Errand::Count,
            48..70 => Errand::Insert(format!("c{}-{count}", self.number)),
            70..85 => {
                let known: Vec<String> =
                    self.known.get(&key).iter().flat_map(|(_, known)| known.clone()).collect();
                match known.is_empty() {
                    true => Errand::Look,
                    false => Errand::Remove(known[self.dice.index(known.len())].clone()),
                }
            }
            _ => Errand::Look,
        }
    }

    async fn call(&mut self, count: usize) {
        let key = self.dice.index(KEYS);
        let errand = self.errand(key, count);
        let gives = !errand.counts() && self.dice.chance(500);
        let given = self.known.get(&key).filter(|_| gives).cloned();
        let level = self.dice.pick(&[Level::One, Level::Quorum, Level::Quorum, Level::All]);
        let timeout = Duration::from_millis(self.dice.pick(&[200, 1000, 3000]));
        let is_read = matches!(errand, Errand::Count | Errand::Look);
        let options = RequestOptions {
            level: Some(level),
            timeout: Some(timeout),
            sloppy: (!is_read).then_some(false),
            seen: given.as_ref().map(|(context, _)| Arc::clone(context)),
            ..RequestOptions::default()
        };
        let machine = self.dice.index(self.cluster.shape.machines);
        let call = self.office.begin(Call {
            key,
            errand: errand.clone(),
            seen: given.map(|(_, elements)| elements),
            invoked: self.office.place(),
            answered: u64::MAX,
            told: Told::Nothing,
        });
        let answer = ask(&self.cluster, machine, (key, &errand), options).await;
        let (number, cluster) = (self.number, &self.cluster);
        cluster.note(format_args!("c{number} {call} asks {machine} {key} {errand:?}: {answer:?}"));
        let told = match answer {
            None => Told::Failed(Outcome::NotAttempted),
            Some(Err(error)) => Told::Failed(error.outcome()),
            Some(Ok(Answer::Changed(receipt))) => Told::Changed(receipt),
            Some(Ok(Answer::Read(read))) if errand.counts() => {
                Told::Total(total(&read), read.receipt)
            }
            Some(Ok(Answer::Read(read))) => {
                let elements = elements(&read);
                if let Some(context) = &read.receipt.context {
                    self.known.insert(key, (context.as_str().into(), elements.clone()));
                }
                Told::Elements(elements, read.receipt)
            }
            Some(Ok(Answer::Nothing)) => return,
        };
        self.office.end(call, self.office.place(), told);
    }
}

/// What a node answered.
#[derive(Debug)]
enum Answer {
    Changed(Receipt),
    Read(ReadAnswer),
    /// It died, or never answered.
    Nothing,
}

/// Asks a machine's node; `None` when none runs there.
async fn ask(
    cluster: &Cluster,
    machine: usize,
    (key, errand): (usize, &Errand),
    options: RequestOptions,
) -> Option<Result<Answer, RequestError>> {
    let mut session = cluster.session(machine)?;
    let node = session.clone().node;
    let key = Key::from(format!("page-{key}"));
    let keyspace = if errand.counts() { COUNTERS } else { SETS };
    let options = RequestOptions { keyspace: Some(keyspace.into()), ..options };
    let element = |it: &String| BTreeSet::from([Bytes::from(it.clone())]);
    let update = |update: SetUpdate| async {
        node.update_set(key.clone(), update, options.clone()).await.map(|done| done.receipt)
    };
    let asked = async {
        match errand {
            Errand::Add(by) => {
                let done = node.increment(key.clone(), *by, options.clone()).await;
                done.map(|done| Answer::Changed(done.receipt))
            }
            Errand::Insert(it) => {
                let done = update(SetUpdate { add: element(it), ..SetUpdate::default() }).await;
                done.map(Answer::Changed)
            }
            Errand::Remove(it) => {
                let done = update(SetUpdate { remove: element(it), ..SetUpdate::default() }).await;
                done.map(Answer::Changed)
            }
            Errand::Count | Errand::Look => {
                node.get(key.clone(), options.clone()).await.map(Answer::Read)
            }
        }
    };
    Some(tokio::select! {
        biased;
        () = session.ended() => Ok(Answer::Nothing),
        answer = asked => answer,
        () = cluster.agenda.sleep(PATIENCE) => Ok(Answer::Nothing),
    })
}

fn total(read: &ReadAnswer) -> i128 {
    let digits = read.value.as_ref().map_or("0".into(), |value| String::from_utf8_lossy(value));
    digits.parse().unwrap_or_else(|_| panic!("a counter reads {digits:?}"))
}

fn elements(read: &ReadAnswer) -> Values {
    read.elements.iter().cloned().collect()
}
