//! A client that lists the default keyspace over and over, a few rows a page, each page of another
//! node.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use coterie::node::listing::{ListRequest, ListedRow, Listing};
use coterie::node::request::RequestOptions;
use coterie::protocol::quorum::level::Level;

use crate::cluster::{Cluster, PATIENCE};
use crate::dice::Dice;
use crate::history::History;
use crate::workload::Workload;

/// How often a page is asked for before the listing is given up.
const TRIES_MAX: usize = 8;

/// What one listing at a quorum came to, all its pages together.
#[derive(Clone, Debug)]
pub(crate) struct Listed {
    /// Place of the first page's invocation.
    pub(crate) began: u64,
    /// Place of the last page's answer.
    pub(crate) ended: u64,
    /// All rows.
    pub(crate) rows: Vec<ListedRow>,
}

/// How many keys more there are where a client lists them: a few for each partition.
const LISTED_KEYS: usize = 40;

/// Whether a client lists in this run; then there are more keys. Drawn apart from all else, so that
/// the other runs are as they were before there were listings.
pub(crate) fn prepare(workload: &mut Workload, dice: &Dice) -> bool {
    let lists = dice.fork("listings").chance(500);
    workload.keys += if lists { LISTED_KEYS } else { 0 };
    lists
}

/// The client's share of the work.
pub(crate) fn run(
    cluster: Arc<Cluster>,
    history: Arc<History>,
    dice: &Dice,
    workload: Workload,
) -> impl Future<Output = ()> + use<> {
    let dice = dice.fork("lister");
    Lister { cluster, history, dice, workload }.run()
}

struct Lister {
    cluster: Arc<Cluster>,
    history: Arc<History>,
    dice: Dice,
    workload: Workload,
}

impl Lister {
    /// Lists for about as long as the other clients work.
    async fn run(mut self) {
        for _ in 0..self.workload.operations_per_client / 2 {
            let think = self.dice.between(0, 2 * self.workload.think_ms_max);
            self.cluster.agenda.sleep(Duration::from_millis(think)).await;
            if let Some(listed) = self.list().await {
                self.history.listed(listed);
            }
        }
    }

    async fn list(&mut self) -> Option<Listed> {
        let began = self.history.place();
        let (mut rows, mut cursor, mut tries) = (Vec::new(), None, 0);
        loop {
            match self.page(cursor.clone()).await {
                Some(page) => {
                    rows.extend(page.rows);
                    match page.cursor {
                        None => return Some(Listed { began, ended: self.history.place(), rows }),
                        next => cursor = next,
                    }
                }
                None if tries == TRIES_MAX => return None,
                None => {
                    tries += 1;
                    self.cluster.agenda.sleep(Duration::from_millis(300)).await;
                }
            }
        }
    }

    async fn page(&mut self, cursor: Option<String>) -> Option<Listing> {
        let machine = self.dice.index(self.cluster.shape.machines);
        let limit = Some(self.dice.pick(&[1, 1, 2, 5]));
        let request = ListRequest { limit, cursor, prefix: Bytes::new(), keys_only: false };
        let timeout = Some(Duration::from_millis(1000));
        let options = RequestOptions { level: Some(Level::Quorum), timeout, ..Default::default() };
        let mut session = self.cluster.session(machine)?;
        let node = session.clone();
        self.cluster.note(format_args!("listing asks {machine} {request:?}"));
        let answer = tokio::select! {
            biased;
            () = session.ended() => None,
            page = node.node.list(request, options) => Some(page),
            () = self.cluster.agenda.sleep(PATIENCE) => None,
        };
        self.cluster.note(format_args!("listing is told {answer:?}"));
        answer?.ok()
    }
}
