//! Clients of keyspaces that join copies: each asks one thing after another of whatever node it
//! likes, gives back the contexts that it was told, and writes down what came of it.
//!
//! What they ask for is an [`Errand`]: `siblings` has those of shoppers, `mergeable` those of
//! clerks. How what they were told is judged stands in `looks`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use coterie::node::request::{Outcome, ReadAnswer, Receipt, RequestError, RequestOptions};
use coterie::node::service::Node;
use coterie::protocol::quorum::level::Level;
use coterie::types::Key;
use parking_lot::Mutex;

use crate::cluster::{Cluster, PATIENCE};
use crate::dice::Dice;
use crate::history::Sight;
use crate::workload::Workload;

/// Clients of one kind.
const CLIENTS: usize = 3;

/// Values of a key, or elements of a set.
pub(crate) type Values = BTreeSet<String>;

/// What was read of each key at ALL in the end, or why it was not.
pub(crate) type Finally<T> = Vec<(usize, Result<T, String>)>;

/// What clients of one kind ask for.
pub(crate) trait Errand: Clone + Debug + Send + Sync + 'static {
    /// What such a client is called.
    const CLIENT: &'static str;
    /// What the names of its keys begin with.
    const KEY: &'static str;
    const KEYS: usize;

    /// Draws one on a key of which a client knows that. Where it puts a value there, it is `name`,
    /// which no other errand puts anywhere.
    fn draw(dice: &mut Dice, name: String, known: Option<&Values>) -> Self;

    /// Draws whether it is given the last context, if there is one.
    fn gives_context(&self, dice: &mut Dice) -> bool;

    fn is_read(&self) -> bool;

    /// The keyspace of its key.
    fn keyspace(&self) -> &'static str;

    /// Asks a node.
    fn ask(
        &self,
        node: &Node,
        key: Key,
        options: RequestOptions,
    ) -> impl Future<Output = Result<Answer, RequestError>> + Send;

    /// What a read tells who asked for this.
    fn told(&self, read: ReadAnswer) -> Told;

    /// What has been seen by who gives back the context of this change, where it has one.
    fn leaves(&self) -> Option<Values>;
}

/// What a node answered.
#[derive(Debug)]
pub(crate) enum Answer {
    Changed(Receipt),
    Read(ReadAnswer),
    /// It died, or never answered.
    Nothing,
}

/// What a client was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    Changed(Receipt),
    Values(Values, Receipt),
    Total(i128, Receipt),
    Failed(Outcome),
    /// The node died, or never answered.
    Nothing,
}

impl Told {
    pub(crate) fn values(&self) -> Option<(&Values, &Receipt)> {
        match self {
            Told::Values(values, receipt) => Some((values, receipt)),
            _ => None,
        }
    }

    pub(crate) fn total(&self) -> Option<(&i128, &Receipt)> {
        match self {
            Told::Total(total, receipt) => Some((total, receipt)),
            _ => None,
        }
    }
}

/// One request. Places count invocations and answers in the order of their time.
#[derive(Clone, Debug)]
pub(crate) struct Call<E> {
    pub(crate) key: usize,
    pub(crate) errand: E,
    /// What was to be covered, or heard of: the values that were told with the context it gave.
    pub(crate) seen: Option<Values>,
    pub(crate) invoked: u64,
    /// `u64::MAX` where it never ended.
    pub(crate) answered: u64,
    pub(crate) told: Told,
}

impl<E> Call<E> {
    /// Whether it may have changed something.
    pub(crate) fn may_exist(&self) -> bool {
        match &self.told {
            Told::Failed(outcome) => *outcome == Outcome::Unknown,
            _ => true,
        }
    }

    /// Whether it is a change that cannot have been missed.
    pub(crate) fn is_seen(&self, sight: Sight<'_>) -> bool {
        matches!(&self.told, Told::Changed(receipt) if sight.sees(self.answered, receipt))
    }
}

/// Whether there are such clients in this run. Drawn apart from all else, so that the other runs
/// are as they were before there were any. Where messages arrive twice there are none, and streams
/// repeat nothing: a value that is minted twice is its own sibling, and what is added twice counts
/// twice.
pub(crate) fn prepare<E: Errand>(repeats: bool, dice: &Dice) -> bool {
    !repeats && dice.fork(&format!("{}s", E::CLIENT)).chance(400)
}

/// Where clients of one kind leave what they did.
pub(crate) struct Book<E> {
    state: Mutex<(u64, Vec<Call<E>>)>,
}

impl<E> Default for Book<E> {
    fn default() -> Self {
        Book { state: Mutex::default() }
    }
}

impl<E: Errand> Book<E> {
    /// All clients' work.
    pub(crate) fn clients(
        self: &Arc<Self>,
        cluster: &Arc<Cluster>,
        dice: &Dice,
        workload: Workload,
    ) -> Vec<impl Future<Output = ()> + use<E>> {
        let client = |number| {
            let dice = dice.fork(&format!("{} {number}", E::CLIENT));
            let (book, cluster) = (Arc::clone(self), Arc::clone(cluster));
            let name = format!("{}{number}", &E::CLIENT[..1]);
            Client { name, book, cluster, dice, workload, known: BTreeMap::new() }.run()
        };
        (0..CLIENTS).map(client).collect()
    }

    pub(crate) fn calls(&self) -> Vec<Call<E>> {
        self.state.lock().1.clone()
    }

    fn place(&self) -> u64 {
        let mut state = self.state.lock();
        state.0 += 1;
        state.0
    }

    fn begin(&self, call: Call<E>) -> usize {
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

struct Client<E> {
    /// The first letter of what it is called, and its number.
    name: String,
    book: Arc<Book<E>>,
    cluster: Arc<Cluster>,
    dice: Dice,
    workload: Workload,
    /// The last context of each key, and the values that were told with it.
    known: BTreeMap<usize, (Arc<str>, Values)>,
}

impl<E: Errand> Client<E> {
    async fn run(mut self) {
        for count in 0..self.workload.operations_per_client {
            let think = self.dice.between(0, self.workload.think_ms_max);
            self.cluster.agenda.sleep(Duration::from_millis(think)).await;
            self.call(count).await;
        }
    }

    async fn call(&mut self, count: usize) {
        let key = self.dice.index(E::KEYS);
        let known = self.known.get(&key).map(|(_, values)| values);
        let errand = E::draw(&mut self.dice, format!("{}-{count}", self.name), known);
        let gives = errand.gives_context(&mut self.dice);
        let given = self.known.get(&key).filter(|_| gives).cloned();
        let options = self.options(&errand, given.as_ref().map(|(context, _)| Arc::clone(context)));
        let machine = self.dice.index(self.cluster.shape.machines);
        let call = self.book.begin(Call {
            key,
            errand: errand.clone(),
            seen: given.map(|(_, values)| values),
            invoked: self.book.place(),
            answered: u64::MAX,
            told: Told::Nothing,
        });
        let answer = ask(&self.cluster, machine, (key, &errand), options).await;
        let (name, cluster) = (&self.name, &self.cluster);
        cluster.note(format_args!("{name} {call} asks {machine} {key} {errand:?}: {answer:?}"));
        let told = match answer {
            None => Told::Failed(Outcome::NotAttempted),
            Some(Err(error)) => Told::Failed(error.outcome()),
            Some(Ok(Answer::Changed(receipt))) => Told::Changed(receipt),
            Some(Ok(Answer::Read(read))) => errand.told(read),
            Some(Ok(Answer::Nothing)) => return,
        };
        self.learn(key, &errand, &told);
        self.book.end(call, self.book.place(), told);
    }

    fn options(&mut self, errand: &E, seen: Option<Arc<str>>) -> RequestOptions {
        let level = self.dice.pick(&[Level::One, Level::Quorum, Level::Quorum, Level::All]);
        let timeout = Duration::from_millis(self.dice.pick(&[200, 1000, 3000]));
        RequestOptions {
            level: Some(level),
            timeout: Some(timeout),
            sloppy: (!errand.is_read()).then_some(false),
            seen,
            ..RequestOptions::default()
        }
    }

    /// Keeps the context of an answer, and what has been seen by who gives it back.
    fn learn(&mut self, key: usize, errand: &E, told: &Told) {
        let (values, receipt) = match told {
            Told::Changed(receipt) => (errand.leaves(), receipt),
            Told::Values(values, receipt) => (Some(values.clone()), receipt),
            Told::Total(..) | Told::Failed(_) | Told::Nothing => return,
        };
        if let (Some(context), Some(values)) = (&receipt.context, values) {
            self.known.insert(key, (context.as_str().into(), values));
        }
    }
}

/// Reads a key at ALL, again and again until all replicas have answered.
pub(crate) async fn read_finally<E: Errand>(
    cluster: &Cluster,
    asked: (usize, &E),
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

/// Asks a machine's node; `None` when none runs there.
async fn ask<E: Errand>(
    cluster: &Cluster,
    machine: usize,
    (key, errand): (usize, &E),
    options: RequestOptions,
) -> Option<Result<Answer, RequestError>> {
    let mut session = cluster.session(machine)?;
    let node = Arc::clone(&session.node);
    let key = Key::from(format!("{}-{key}", E::KEY));
    let options = RequestOptions { keyspace: Some(errand.keyspace().into()), ..options };
    Some(tokio::select! {
        biased;
        () = session.ended() => Ok(Answer::Nothing),
        answer = errand.ask(&node, key, options) => answer,
        () = cluster.agenda.sleep(PATIENCE) => Ok(Answer::Nothing),
    })
}
