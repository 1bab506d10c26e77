//! Shoppers: clients of a keyspace that keeps siblings, who write beside each other, merge what
//! they have read, and are told what stands.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use coterie::node::request::{Outcome, ReadAnswer, Receipt, RequestError, RequestOptions};
use coterie::protocol::quorum::level::Level;
use coterie::protocol::system::SystemCommand;
use coterie::protocol::system::keyspace::Mode;
use coterie::protocol::system::limits::LimitsAsked;
use coterie::types::{Key, Merge};
use parking_lot::Mutex;

use crate::cluster::Cluster;
use crate::dice::Dice;
use crate::run::wait_until;
use crate::workload::Workload;

const KEYSPACE: &str = "carts";
const KEYS: usize = 3;
const SHOPPERS: usize = 3;

/// A node that lives has answered well before this.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Values of a key.
pub(crate) type Values = BTreeSet<String>;

/// What a shopper asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    /// A value that no other visit writes.
    Put(String),
    Delete,
    Get,
}

/// What it was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    Written(Receipt),
    Read(Values, Receipt),
    Failed(Outcome),
    /// The node died, or never answered.
    Nothing,
}

/// One request. Places count invocations and answers in the order of their time.
#[derive(Clone, Debug)]
pub(crate) struct Visit {
    pub(crate) key: usize,
    pub(crate) wish: Wish,
    /// What was to be covered, or heard of: the values that were told with the context it gave.
    pub(crate) seen: Option<Values>,
    pub(crate) invoked: u64,
    /// `u64::MAX` where it never ended.
    pub(crate) answered: u64,
    pub(crate) told: Told,
}

/// What shoppers leave to be judged.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shopped {
    pub(crate) visits: Vec<Visit>,
    /// What was read of each key at ALL in the end, or why it was not.
    pub(crate) finally: Vec<(usize, Result<Values, String>)>,
}

/// Whether there are shoppers in this run. Drawn apart from all else, so that the other runs are as
/// they were before there were any. Where messages arrive twice there are none: a value that is
/// minted twice is its own sibling, and streams repeat nothing.
pub(crate) fn prepare(repeats: bool, dice: &Dice) -> bool {
    !repeats && dice.fork("shoppers").chance(400)
}

/// Makes the keyspace and waits until all nodes know it.
pub(crate) async fn create(cluster: &Cluster, at_most: Duration) {
    create_merging(cluster, (KEYSPACE, Merge::Siblings), at_most).await;
}

/// Makes a keyspace that merges so and waits until all nodes know it.
pub(crate) async fn create_merging(
    cluster: &Cluster,
    (name, merge): (&str, Merge),
    at_most: Duration,
) {
    let command = SystemCommand::CreateKeyspace {
        name: name.to_owned(),
        mode: Mode::Quorum,
        merge,
        replication: Some(cluster.shape.replication.into()),
        limits: LimitsAsked::default(),
    };
    let node = cluster.nodes().into_iter().next().expect("a settled cluster has nodes");
    let created = node.decide(command).await;
    assert!(created.is_ok(), "a cluster without faults made no keyspace: {created:?}");
    let knows = || {
        let nodes = cluster.nodes();
        nodes.iter().all(|it| it.system().is_some_and(|it| it.keyspace_named(name).is_some()))
    };
    assert!(wait_until(cluster, at_most, knows).await, "a node never heard of {name}");
}

/// Who shops, and what came of it.
#[derive(Default)]
pub(crate) struct Shop {
    state: Mutex<(u64, Vec<Visit>)>,
}

impl Shop {
    /// All shoppers' work.
    pub(crate) fn shoppers(
        self: &Arc<Self>,
        cluster: &Arc<Cluster>,
        dice: &Dice,
        workload: Workload,
    ) -> Vec<impl Future<Output = ()> + use<>> {
        let shopper = |number| {
            let dice = dice.fork(&format!("shopper {number}"));
            let (shop, cluster) = (Arc::clone(self), Arc::clone(cluster));
            Shopper { number, shop, cluster, dice, workload, known: BTreeMap::new() }.run()
        };
        (0..SHOPPERS).map(shopper).collect()
    }

    /// Reads every key at ALL.
    pub(crate) async fn look(&self, cluster: &Cluster, mut dice: Dice) -> Shopped {
        const TRIES_MAX: usize = 20;
        let mut finally = Vec::new();
        for key in 0..KEYS {
            let mut last = Err("no node runs".to_owned());
            for _ in 0..TRIES_MAX {
                let machine = dice.index(cluster.shape.machines);
                let timeout = Some(Duration::from_secs(5));
                let level = Some(Level::All);
                let options = RequestOptions { level, timeout, ..RequestOptions::default() };
                match ask(cluster, machine, (key, &Wish::Get), options).await {
                    Some(Ok(Answer::Read(read))) => last = Ok(values(&read)),
                    Some(Err(error)) => last = Err(error.to_string()),
                    _ => {}
                }
                if last.is_ok() {
                    break;
                }
                cluster.agenda.sleep(Duration::from_secs(1)).await;
            }
            finally.push((key, last));
        }
        Shopped { visits: self.state.lock().1.clone(), finally }
    }

    fn place(&self) -> u64 {
        let mut state = self.state.lock();
        state.0 += 1;
        state.0
    }

    fn begin(&self, visit: Visit) -> usize {
        let mut state = self.state.lock();
        state.1.push(visit);
        state.1.len() - 1
    }

    fn end(&self, visit: usize, answered: u64, told: Told) {
        let mut state = self.state.lock();
        state.1[visit].answered = answered;
        state.1[visit].told = told;
    }
}

struct Shopper {
    number: usize,
    shop: Arc<Shop>,
    cluster: Arc<Cluster>,
    dice: Dice,
    workload: Workload,
    /// The last context of each key, and the values that were told with it.
    known: BTreeMap<usize, (Arc<str>, Values)>,
}

impl Shopper {
    async fn run(mut self) {
        for count in 0..self.workload.operations_per_client {
            let think = self.dice.between(0, self.workload.think_ms_max);
            self.cluster.agenda.sleep(Duration::from_millis(think)).await;
            self.visit(count).await;
        }
    }

    async fn visit(&mut self, count: usize) {
        let key = self.dice.index(KEYS);
        let wish = match self.dice.between(0, 99) {
            0..45 => Wish::Put(format!("s{}-{count}", self.number)),
            45..52 => Wish::Delete,
            _ => Wish::Get,
        };
        let gives = self.dice.chance(if wish == Wish::Get { 400 } else { 700 });
        let given = self.known.get(&key).filter(|_| gives).cloned();
        let level = self.dice.pick(&[Level::One, Level::Quorum, Level::Quorum, Level::All]);
        let timeout = Duration::from_millis(self.dice.pick(&[200, 1000, 3000]));
        let options = RequestOptions {
            level: Some(level),
            timeout: Some(timeout),
            sloppy: (wish != Wish::Get).then_some(false),
            seen: given.as_ref().map(|(context, _)| Arc::clone(context)),
            ..RequestOptions::default()
        };
        let machine = self.dice.index(self.cluster.shape.machines);
        let visit = self.shop.begin(Visit {
            key,
            wish: wish.clone(),
            seen: given.map(|(_, values)| values),
            invoked: self.shop.place(),
            answered: u64::MAX,
            told: Told::Nothing,
        });
        let answer = ask(&self.cluster, machine, (key, &wish), options).await;
        let (number, cluster) = (self.number, &self.cluster);
        cluster.note(format_args!("s{number} {visit} asks {machine} {key} {wish:?}: {answer:?}"));
        let told = match answer {
            None => Told::Failed(Outcome::NotAttempted),
            Some(Err(error)) => Told::Failed(error.outcome()),
            Some(Ok(Answer::Written(receipt))) => {
                if let (Some(context), Wish::Put(value)) = (&receipt.context, wish) {
                    let seen = Values::from([value]);
                    self.known.insert(key, (context.as_str().into(), seen));
                }
                Told::Written(receipt)
            }
            Some(Ok(Answer::Read(read))) => {
                let seen = values(&read);
                if let Some(context) = &read.receipt.context {
                    self.known.insert(key, (context.as_str().into(), seen.clone()));
                }
                Told::Read(seen, read.receipt)
            }
            Some(Ok(Answer::Nothing)) => return,
        };
        self.shop.end(visit, self.shop.place(), told);
    }
}

/// What a node answered.
#[derive(Debug)]
enum Answer {
    Written(Receipt),
    Read(ReadAnswer),
    /// It died, or never answered.
    Nothing,
}

/// Asks a machine's node; `None` when none runs there.
async fn ask(
    cluster: &Cluster,
    machine: usize,
    (key, wish): (usize, &Wish),
    options: RequestOptions,
) -> Option<Result<Answer, RequestError>> {
    let mut session = cluster.session(machine)?;
    let node = session.clone().node;
    let key = Key::from(format!("cart-{key}"));
    let options = RequestOptions { keyspace: Some(KEYSPACE.into()), ..options };
    let asked = async {
        match wish {
            Wish::Put(value) => {
                let value = Bytes::from(value.clone());
                node.put(key, value, options).await.map(Answer::Written)
            }
            Wish::Delete => node.delete(key, options).await.map(Answer::Written),
            Wish::Get => node.get(key, options).await.map(Answer::Read),
        }
    };
    Some(tokio::select! {
        biased;
        () = session.ended() => Ok(Answer::Nothing),
        answer = asked => answer,
        () = cluster.agenda.sleep(PATIENCE) => Ok(Answer::Nothing),
    })
}

fn values(read: &ReadAnswer) -> Values {
    let all = if read.siblings.is_empty() { read.value.as_slice() } else { &read.siblings };
    all.iter().map(|value| String::from_utf8_lossy(value).into_owned()).collect()
}
