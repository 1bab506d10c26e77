//! Clerks: clients of a keyspace of counters and of one of sets, who add, take out, and look.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use coterie::node::request::{ReadAnswer, RequestError, RequestOptions, SetUpdate};
use coterie::node::service::Node;
use coterie::types::{Key, Merge};

use crate::cluster::Cluster;
use crate::dice::Dice;
use crate::keyspaces;
use crate::merging::{Answer, Book, Call, Errand, Finally, Told, Values, read_finally};

const COUNTERS: &str = "hits";
const SETS: &str = "tags";

/// What a clerk asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Chore {
    /// Adds to a counter.
    Add(i64),
    Count,
    /// Puts an element into a set that no other chore puts there.
    Insert(String),
    /// Takes one out.
    Remove(String),
    Look,
}

impl Chore {
    /// Whether it is about a counter.
    fn counts(&self) -> bool {
        matches!(self, Chore::Add(_) | Chore::Count)
    }
}

impl Errand for Chore {
    const CLIENT: &'static str = "clerk";
    const KEY: &'static str = "page";
    const KEYS: usize = 2;

    fn draw(dice: &mut Dice, name: String, known: Option<&Values>) -> Chore {
        match dice.between(0, 99) {
            0..30 => Chore::Add(dice.between(0, 12).cast_signed() - 3),
            30..48 => Chore::Count,
            48..70 => Chore::Insert(name),
            70..85 => {
                let known: Vec<&String> = known.into_iter().flatten().collect();
                match known.is_empty() {
                    true => Chore::Look,
                    false => Chore::Remove(known[dice.index(known.len())].clone()),
                }
            }
            _ => Chore::Look,
        }
    }

    fn gives_context(&self, dice: &mut Dice) -> bool {
        !self.counts() && dice.chance(500)
    }

    fn is_read(&self) -> bool {
        matches!(self, Chore::Count | Chore::Look)
    }

    fn keyspace(&self) -> &'static str {
        if self.counts() { COUNTERS } else { SETS }
    }

    async fn ask(
        &self,
        node: &Node,
        key: Key,
        options: RequestOptions,
    ) -> Result<Answer, RequestError> {
        let element = |it: &String| BTreeSet::from([Bytes::from(it.clone())]);
        let update = match self {
            Chore::Add(by) => {
                let done = node.increment(key, *by, options).await;
                return done.map(|done| Answer::Changed(done.receipt));
            }
            Chore::Count | Chore::Look => return node.get(key, options).await.map(Answer::Read),
            Chore::Insert(it) => SetUpdate { add: element(it), ..SetUpdate::default() },
            Chore::Remove(it) => SetUpdate { remove: element(it), ..SetUpdate::default() },
        };
        let done = node.update_set(key, update, options).await;
        done.map(|done| Answer::Changed(done.receipt))
    }

    fn told(&self, read: ReadAnswer) -> Told {
        match self.counts() {
            true => Told::Total(total(&read), read.receipt),
            false => Told::Values(elements(&read), read.receipt),
        }
    }

    /// Its context is known only from a look at what then is in the set.
    fn leaves(&self) -> Option<Values> {
        None
    }
}

/// What clerks leave to be judged.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tallied {
    pub(crate) calls: Vec<Call<Chore>>,
    pub(crate) totals: Finally<i128>,
    pub(crate) elements: Finally<Values>,
    /// How many replicas are read by who removes and has not looked.
    pub(crate) read_quorum: u32,
}

/// Makes the keyspaces and waits until all nodes know them.
pub(crate) async fn create(cluster: &Cluster, at_most: Duration) {
    keyspaces::create_merging(cluster, (COUNTERS, Merge::Counter), at_most).await;
    keyspaces::create_merging(cluster, (SETS, Merge::Set), at_most).await;
}

impl Book<Chore> {
    /// Reads every key at ALL.
    pub(crate) async fn look(&self, cluster: &Cluster, mut dice: Dice) -> Tallied {
        let mut tallied = Tallied { calls: self.calls(), ..Tallied::default() };
        tallied.read_quorum = cluster.shape.replication.read_quorum;
        for key in 0..Chore::KEYS {
            let read = read_finally(cluster, (key, &Chore::Count), &mut dice).await;
            tallied.totals.push((key, read.map(|read| total(&read))));
            let read = read_finally(cluster, (key, &Chore::Look), &mut dice).await;
            tallied.elements.push((key, read.map(|read| elements(&read))));
        }
        tallied
    }
}

fn total(read: &ReadAnswer) -> i128 {
    let digits = read.value.as_ref().map_or("0".into(), |value| String::from_utf8_lossy(value));
    digits.parse().unwrap_or_else(|_| panic!("a counter reads {digits:?}"))
}

fn elements(read: &ReadAnswer) -> Values {
    read.elements.iter().cloned().collect()
}
