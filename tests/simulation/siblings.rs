//! Shoppers: clients of a keyspace that keeps siblings, who write beside each other, merge what
//! they have read, and are told what stands.

use std::time::Duration;

use bytes::Bytes;
use coterie::node::request::{ReadAnswer, RequestError, RequestOptions};
use coterie::node::service::Node;
use coterie::types::{Key, Merge};

use crate::cluster::Cluster;
use crate::dice::Dice;
use crate::keyspaces;
use crate::merging::{Answer, Book, Call, Errand, Finally, Told, Values, read_finally};

const KEYSPACE: &str = "carts";

/// What a shopper asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    /// A value that no other visit writes.
    Put(String),
    Delete,
    Get,
}

impl Errand for Wish {
    const CLIENT: &'static str = "shopper";
    const KEY: &'static str = "cart";
    const KEYS: usize = 3;

    fn draw(dice: &mut Dice, name: String, _known: Option<&Values>) -> Wish {
        match dice.between(0, 99) {
            0..45 => Wish::Put(name),
            45..52 => Wish::Delete,
            _ => Wish::Get,
        }
    }

    fn gives_context(&self, dice: &mut Dice) -> bool {
        dice.chance(if self.is_read() { 400 } else { 700 })
    }

    fn is_read(&self) -> bool {
        *self == Wish::Get
    }

    fn keyspace(&self) -> &'static str {
        KEYSPACE
    }

    async fn ask(
        &self,
        node: &Node,
        key: Key,
        options: RequestOptions,
    ) -> Result<Answer, RequestError> {
        match self {
            Wish::Put(value) => {
                let value = Bytes::from(value.clone());
                node.put(key, value, options).await.map(Answer::Changed)
            }
            Wish::Delete => node.delete(key, options).await.map(Answer::Changed),
            Wish::Get => node.get(key, options).await.map(Answer::Read),
        }
    }

    fn told(&self, read: ReadAnswer) -> Told {
        Told::Values(values(&read), read.receipt)
    }

    fn leaves(&self) -> Option<Values> {
        match self {
            Wish::Put(value) => Some(Values::from([value.clone()])),
            Wish::Delete | Wish::Get => None,
        }
    }
}

/// What shoppers leave to be judged.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shopped {
    pub(crate) visits: Vec<Call<Wish>>,
    pub(crate) finally: Finally<Values>,
}

/// Makes the keyspace and waits until all nodes know it.
pub(crate) async fn create(cluster: &Cluster, at_most: Duration) {
    keyspaces::create_merging(cluster, (KEYSPACE, Merge::Siblings), at_most).await;
}

impl Book<Wish> {
    /// Reads every key at ALL.
    pub(crate) async fn look(&self, cluster: &Cluster, mut dice: Dice) -> Shopped {
        let mut finally = Vec::new();
        for key in 0..Wish::KEYS {
            let read = read_finally(cluster, (key, &Wish::Get), &mut dice).await;
            finally.push((key, read.map(|read| values(&read))));
        }
        Shopped { visits: self.calls(), finally }
    }
}

fn values(read: &ReadAnswer) -> Values {
    let all = if read.siblings.is_empty() { read.value.as_slice() } else { &read.siblings };
    all.iter().map(|value| String::from_utf8_lossy(value).into_owned()).collect()
}
