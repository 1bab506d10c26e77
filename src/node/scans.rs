//! Serves peers that list partitions of this node: off the message path, a few at a time.
//!
//! Who takes a partition over names the version of the ring by which it moves. This node lists
//! nothing before it serves by that ring, and then not before all that it took in by then is
//! visible: from there on it takes no write that the new owners do not get too.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

use crate::net::transport::Transport;
use crate::node::env::{Env, run_blocking};
use crate::node::pacing::PacedRate;
use crate::node::replica::Replica;
use crate::node::tasks::Tasks;
use crate::node::topology::TopologyCell;
use crate::protocol::digest::Digest;
use crate::protocol::message::{Class, Message, Refusal, Scan, ScanPage, ScanReply};
use crate::protocol::planted::{Planted, planted};
use crate::types::{Epoch, Key, NodeId};

/// Pages read at once for all peers; a peer that finds no slot is refused and asks again.
const SCANS_AT_ONCE_MAX: usize = 4;

/// How long a page may wait for the rate: who asked waits longer than that, and asks for less often
/// than it is answered.
const WAIT_MAX: Duration = Duration::from_secs(2);

/// Bytes of a page when the node is slowest: a smaller one costs more to ask for than to read.
const PAGE_BYTES_MIN: u32 = 32 << 10;

/// Serves pages of partitions.
pub(crate) struct Scans {
    env: Arc<dyn Env>,
    replica: Arc<Replica>,
    topology: Arc<TopologyCell>,
    transport: Arc<dyn Transport>,
    tasks: Arc<Tasks>,
    slots: Arc<Semaphore>,
    rate: Arc<PacedRate>,
}

impl Scans {
    pub(crate) fn new(
        env: Arc<dyn Env>,
        replica: Arc<Replica>,
        topology: Arc<TopologyCell>,
        transport: Arc<dyn Transport>,
        tasks: Arc<Tasks>,
        rate: PacedRate,
    ) -> Self {
        let slots = Arc::new(Semaphore::new(SCANS_AT_ONCE_MAX));
        Scans { env, replica, topology, transport, tasks, slots, rate: Arc::new(rate) }
    }

    /// Reads one page and sends it, or refuses when too many are being read, or clients have more
    /// than enough for this node to do.
    pub(crate) fn serve(&self, from: NodeId, scan: Scan) {
        let transport = Arc::clone(&self.transport);
        let has_time = self.replica.admission.admits(Class::Transfer);
        let slot = Arc::clone(&self.slots).try_acquire_owned().ok().filter(|_| has_time);
        let Some(slot) = slot else {
            let outcome = Err(Refusal::Overloaded);
            let reply = ScanReply { request: scan.request, outcome, complete: false };
            send(&*transport, from, reply);
            return;
        };
        if self.topology.load().epoch < scan.epoch && !planted(Planted::UnfencedSource) {
            let outcome = Err(Refusal::NotServing);
            let reply = ScanReply { request: scan.request, outcome, complete: false };
            send(&*transport, from, reply);
            return;
        }
        let begins = scan.epoch > Epoch(0) && scan.after.is_none();
        let replica = Arc::clone(&self.replica);
        let (env, rate) = (Arc::clone(&self.env), Arc::clone(&self.rate));
        self.tasks.spawn(async move {
            let request = scan.request;
            let longest = env.now() + WAIT_MAX;
            tokio::select! { biased;
                () = rate.ready() => {}
                () = env.sleep_until(longest) => {}
            }
            let page_bytes_max = rate.part_of(scan.page_bytes_max).max(PAGE_BYTES_MIN);
            let scan = Scan { page_bytes_max: page_bytes_max.min(scan.page_bytes_max), ..scan };
            if begins && let Err(refusal) = replica.settle().await {
                let reply = ScanReply { request, outcome: Err(refusal), complete: false };
                send(&*transport, from, reply);
                return drop(slot);
            }
            // Asked before the rows are read: what is complete then stays so.
            let complete = replica.is_complete();
            let outcome = run_blocking(&*env, move || page(&replica, &scan)).await;
            rate.pay(outcome.as_ref().map_or(0, ScanPage::cost_bytes));
            send(&*transport, from, ScanReply { request, outcome, complete });
            drop(slot);
        });
    }
}

/// A page, or that the asker has the same.
fn page(replica: &Replica, scan: &Scan) -> Result<ScanPage, Refusal> {
    let Some(theirs) = &scan.compare else { return replica.scan(scan) };
    let mut digest = Digest::default();
    let mut after = scan.after.clone();
    let mut first = None;
    loop {
        let page = replica.scan(&Scan { after, ..scan.clone() })?;
        let is_within = |key: &Key| theirs.up_to.as_ref().is_none_or(|last| key <= last);
        let within = page.rows.iter().take_while(|(key, _)| is_within(key));
        within.for_each(|(key, record)| digest.add(key, record.version));
        after = page.rows.last().map(|(key, _)| key.clone());
        let ends = page.done || after.as_ref().is_none_or(|last| !is_within(last));
        let page = first.get_or_insert(page);
        if ends {
            let same = digest.value() == theirs.digest;
            let listed = std::mem::take(page);
            return Ok(if same { ScanPage { same, ..ScanPage::default() } } else { listed });
        }
    }
}

fn send(transport: &dyn Transport, to: NodeId, reply: ScanReply) {
    // A page that cannot be sent is asked for again.
    if let Err(error) = transport.send(to, Class::Transfer, Message::ScanReply(reply)) {
        tracing::debug!(%error, "a page was not sent");
    }
}
