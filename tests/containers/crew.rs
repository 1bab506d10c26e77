//! Writers that keep the nodes busy, know what was acknowledged, and judge every answer by what
//! may be expected of the node that gave it.
//!
//! Every key has one writer, which writes one thing at a time. A key on which an attempt's fate is
//! unknown is written no more: a frozen node may find the request in its socket when it wakes, and
//! stamp it later than what was written meanwhile.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use coterie::proto::v1::Level;
use coterie::proto::v1::kv_client::KvClient;
use futures_util::{StreamExt, stream};
use parking_lot::Mutex;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

use crate::dice::Dice;
use crate::harness::{NodeProcess, PATIENCE, wait_until};
use crate::judgement::{Fate, Judge};
use crate::ledger::{Attempt, check_none};
use crate::load;

/// Writers at work at once.
const WRITERS: usize = 4;
/// How long an answer is waited for: longer than the nodes themselves wait.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(8);
/// How long a request is made again while the ring changes.
const MOVING_PATIENCE: Duration = Duration::from_secs(15);
/// How long a writer rests when it was refused.
const REST: Duration = Duration::from_millis(10);
/// Reads that are under way at once when everything is read back.
const READS_AT_ONCE: usize = 16;

/// What may be expected of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Footing {
    /// Every request succeeds.
    Sound,
    /// Quorums may be out of reach: a request succeeds, or its error tells the truth.
    Short,
    /// The ring changes: a request succeeds, or did nothing and succeeds when it is made again.
    Moving,
    /// Nothing; no new request goes there.
    Affected,
}

/// A node as the writers see it.
struct Gate {
    address: SocketAddr,
    client: Mutex<KvClient<Channel>>,
    footing: Mutex<Footing>,
}

/// What writers and the test share.
struct Shared {
    gates: Vec<Gate>,
    stop: AtomicBool,
    acknowledged: AtomicU64,
    answered: AtomicU64,
    complaints: Mutex<Vec<String>>,
}

/// The writers, at work or resting.
pub(crate) struct Crew {
    runtime: Runtime,
    shared: Arc<Shared>,
    resting: Vec<Writer>,
    working: Vec<JoinHandle<Writer>>,
}

impl Crew {
    /// Writers for these nodes, resting.
    pub(crate) fn hire(nodes: &[NodeProcess], dice: &Dice) -> Self {
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime.worker_threads(1).enable_all().build().expect("a runtime");
        let inside = runtime.enter();
        let gate = |node: &NodeProcess| Gate {
            address: node.spec.client_address,
            client: Mutex::new(client(node.spec.client_address)),
            footing: Mutex::new(Footing::Sound),
        };
        let shared = Arc::new(Shared {
            gates: nodes.iter().map(gate).collect(),
            stop: AtomicBool::new(false),
            acknowledged: AtomicU64::new(0),
            answered: AtomicU64::new(0),
            complaints: Mutex::new(Vec::new()),
        });
        drop(inside);
        let hire = |number| Writer::new(&format!("w{number}"), dice, &shared);
        let resting = (0..WRITERS).map(hire).collect();
        Crew { runtime, shared, resting, working: Vec::new() }
    }

    /// Sets all to work.
    pub(crate) fn start(&mut self) {
        self.shared.stop.store(false, Ordering::SeqCst);
        let runtime = &self.runtime;
        self.working.extend(self.resting.drain(..).map(|writer| runtime.spawn(writer.work())));
    }

    /// Lets all finish what they have under way, and rest.
    pub(crate) fn stop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        for task in self.working.drain(..) {
            self.resting.push(self.runtime.block_on(task).expect("a writer"));
        }
    }

    /// Says what may be expected of a node from now on.
    pub(crate) fn expect(&self, node: usize, footing: Footing) {
        *self.shared.gates[node].footing.lock() = footing;
    }

    /// Gives the writers new connections to a node: the old ones may have died without a word.
    pub(crate) fn reconnect_to(&self, node: usize) {
        let _inside = self.runtime.enter();
        let gate = &self.shared.gates[node];
        *gate.client.lock() = client(gate.address);
    }

    /// Gives the writers new connections to all nodes.
    pub(crate) fn reconnect(&self) {
        (0..self.shared.gates.len()).for_each(|node| self.reconnect_to(node));
    }

    /// Writes that were acknowledged so far.
    pub(crate) fn acknowledged(&self) -> u64 {
        self.shared.acknowledged.load(Ordering::SeqCst)
    }

    /// Waits until that many more writes were acknowledged.
    pub(crate) fn wait_acknowledged(&self, writes: u64, when: &str) {
        self.wait_more(&self.shared.acknowledged, writes, &format!("acknowledged {when}"));
    }

    /// Waits until that many more attempts were answered, be it by an error.
    pub(crate) fn wait_answered(&self, attempts: u64, when: &str) {
        self.wait_more(&self.shared.answered, attempts, &format!("answered {when}"));
    }

    fn wait_more(&self, count: &AtomicU64, more: u64, what: &str) {
        let goal = count.load(Ordering::SeqCst) + more;
        wait_until(&format!("{more} more writes are {what}"), PATIENCE * 2, || {
            self.check(what);
            let reached = count.load(Ordering::SeqCst);
            if reached >= goal { Ok(()) } else { Err(format!("{reached} of {goal}")) }
        });
    }

    /// Fails if an answer was not as it may be expected.
    #[track_caller]
    pub(crate) fn check(&self, when: &str) {
        check_none(when, &self.shared.complaints.lock());
    }

    /// Reads every key that was ever written from one node and judges what it holds.
    #[track_caller]
    pub(crate) fn read_back(&mut self, node: usize, level: Level, when: &str) {
        let mut complaints = Vec::new();
        for writer in &mut self.resting {
            let client = self.shared.gates[node].client.lock().clone();
            let reads = writer.judge.keys().into_iter().map(|key| {
                let client = client.clone();
                async move { (load::read(client, &key, level).await, key) }
            });
            let reads = stream::iter(reads).buffer_unordered(READS_AT_ONCE).collect::<Vec<_>>();
            for (answer, key) in self.runtime.block_on(reads) {
                let judged = match answer {
                    Ok(value) => writer.judge.judge(&key, value.as_deref()),
                    Err(status) => Err(format!("{key} cannot be read: {status:?}")),
                };
                complaints.extend(judged.err());
            }
        }
        check_none(&format!("{when}, read at {level:?}"), &complaints);
    }
}

struct Writer {
    judge: Judge,
    dice: Dice,
    shared: Arc<Shared>,
    /// The version last acknowledged: what the next write has seen.
    context: String,
}

impl Writer {
    fn new(name: &str, dice: &Dice, shared: &Arc<Shared>) -> Self {
        let (dice, shared) = (dice.fork(name), Arc::clone(shared));
        Writer { judge: Judge::new(name), dice, shared, context: String::new() }
    }

    async fn work(mut self) -> Self {
        while !self.shared.stop.load(Ordering::SeqCst) {
            match self.choose(None) {
                Some(gate) if self.dice.chance(200) => self.read(gate).await,
                Some(gate) => self.write(gate).await,
                None => tokio::time::sleep(REST).await,
            }
        }
        self
    }

    /// A node that is not affected, other than that one.
    fn choose(&mut self, besides: Option<usize>) -> Option<usize> {
        let gates = 0..self.shared.gates.len();
        let usable = gates.filter(|&gate| self.footing(gate) != Footing::Affected);
        let usable: Vec<usize> = usable.filter(|&gate| Some(gate) != besides).collect();
        (!usable.is_empty()).then(|| self.dice.pick(&usable))
    }

    fn footing(&self, gate: usize) -> Footing {
        *self.shared.gates[gate].footing.lock()
    }

    async fn read(&mut self, mut gate: usize) {
        let key = self.judge.choose_key(&mut self.dice);
        let began = Instant::now();
        loop {
            let before = self.footing(gate);
            match within_time(load::read(self.client(gate), &key, Level::Quorum)).await {
                Ok(value) => {
                    if let Err(wrong) = self.judge.judge(&key, value.as_deref()) {
                        self.complain(gate, &wrong);
                    }
                    return;
                }
                Err(status) if self.is_passing(gate, &status, began) => {
                    gate = self.rest(gate).await;
                }
                Err(status) => {
                    return self.note(gate, before, &format!("reading {key}"), &status);
                }
            }
        }
    }

    /// One thing to write, on one node, and if that fails once more on another.
    async fn write(&mut self, gate: usize) {
        let (key, attempt) = self.judge.attempt(&mut self.dice);
        let first = self.try_on(gate, &key, attempt).await;
        let mut fates = vec![first];
        if first != Fate::Acknowledged {
            tokio::time::sleep(REST).await;
            if let Some(other) = self.choose(Some(gate)) {
                fates.push(self.try_on(other, &key, attempt).await);
            }
        }
        self.judge.conclude(&key, attempt.number, &fates);
        self.shared.answered.fetch_add(1, Ordering::SeqCst);
    }

    /// Whether an error may only be of the moment: nothing was attempted while the ring changes.
    fn is_passing(&self, gate: usize, status: &Status, began: Instant) -> bool {
        let moves = self.footing(gate) == Footing::Moving && began.elapsed() < MOVING_PATIENCE;
        moves && status.code() == Code::Unavailable && Fate::of(status) == Fate::Refused
    }

    /// Rests, and chooses another node than that one if there is another.
    async fn rest(&mut self, gate: usize) -> usize {
        tokio::time::sleep(REST).await;
        self.choose(Some(gate)).unwrap_or(gate)
    }

    async fn try_on(&mut self, mut gate: usize, key: &str, attempt: Attempt) -> Fate {
        let began = Instant::now();
        loop {
            let (before, context) = (self.footing(gate), self.context.clone());
            let call = load::write(self.client(gate), key, attempt, Level::Quorum, context);
            match within_time(call).await {
                Ok(version) => {
                    self.context = version;
                    self.shared.acknowledged.fetch_add(1, Ordering::SeqCst);
                    return Fate::Acknowledged;
                }
                Err(status) if self.is_passing(gate, &status, began) => {
                    gate = self.rest(gate).await;
                }
                Err(status) => {
                    self.note(gate, before, &format!("writing {key}"), &status);
                    return Fate::of(&status);
                }
            }
        }
    }

    fn client(&self, gate: usize) -> KvClient<Channel> {
        self.shared.gates[gate].client.lock().clone()
    }

    /// Complains of an error unless the node's footing, before or after, excuses it.
    fn note(&self, gate: usize, before: Footing, what: &str, status: &Status) {
        let footings = [before, self.footing(gate)];
        let excused = footings.contains(&Footing::Affected)
            || footings.contains(&Footing::Short) && Fate::is_told_truly(status);
        if !excused {
            self.complain(gate, &format!("{what}: {status:?} while {footings:?}"));
        }
    }

    fn complain(&self, gate: usize, what: &str) {
        self.shared.complaints.lock().push(format!("n{}: {what}", gate + 1));
    }
}

async fn within_time<T>(call: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
    let late = |_| Status::internal(format!("no answer within {ANSWER_TIMEOUT:?}"));
    tokio::time::timeout(ANSWER_TIMEOUT, call).await.map_err(late)?
}

fn client(address: SocketAddr) -> KvClient<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("a URI");
    KvClient::new(endpoint.connect_lazy())
}
