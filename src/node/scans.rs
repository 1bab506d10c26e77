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
use crate::node::pages::LISTED_PER_READ;
use crate::node::replica::Replica;
use crate::node::tasks::Tasks;
use crate::node::topology::TopologyCell;
use crate::protocol::digest::Digest;
use crate::protocol::message::{Class, Message, Refusal, Scan, ScanPage, ScanReply};
use crate::protocol::planted::{Planted, planted};
use crate::types::{Epoch, Key, NodeId};

/// Pages read at once for all peers.
const SCANS_AT_ONCE_MAX: usize = 4;

/// Pages that wait for their turn; further ones are refused, and asked for again.
const SCANS_WAITING_MAX: usize = 64;

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
    queue: Arc<Semaphore>,
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
        let queue = Arc::new(Semaphore::new(SCANS_AT_ONCE_MAX + SCANS_WAITING_MAX));
        Scans { env, replica, topology, transport, tasks, slots, queue, rate: Arc::new(rate) }
    }

    /// Reads one page and sends it, or refuses when too many are being read, or clients have more
    /// than enough for this node to do.
    pub(crate) fn serve(&self, from: NodeId, scan: Scan) {
        let transport = Arc::clone(&self.transport);
        let has_time = self.replica.admission.admits(Class::Transfer);
        let place = Arc::clone(&self.queue).try_acquire_owned().ok().filter(|_| has_time);
        let Some(place) = place else {
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
        let (slots, mut stop) = (Arc::clone(&self.slots), self.tasks.stop_signal());
        self.tasks.spawn(async move {
            let request = scan.request;
            let longest = env.now() + WAIT_MAX;
            let Ok(_slot) = slots.acquire().await else { return drop(place) };
            // In its slot, or all that wait would take the rate for theirs at once.
            tokio::select! { biased;
                () = stop.requested() => return drop(place),
                () = rate.ready() => {}
                () = env.sleep_until(longest) => {}
            }
            let page_bytes_max = rate.part_of(scan.page_bytes_max).max(PAGE_BYTES_MIN);
            let scan = Scan { page_bytes_max: page_bytes_max.min(scan.page_bytes_max), ..scan };
            if begins && let Err(refusal) = replica.settle().await {
                let reply = ScanReply { request, outcome: Err(refusal), complete: false };
                send(&*transport, from, reply);
                return drop(place);
            }
            // Asked before the rows are read: what is complete then stays so.
            let complete = replica.is_complete();
            let found = run_blocking(&*env, move || page(&replica, &scan)).await;
            let outcome = found.map(|(page, read)| {
                rate.pay(page.cost_bytes().max(read / LISTED_PER_READ));
                page
            });
            send(&*transport, from, ScanReply { request, outcome, complete });
            drop(place);
        });
    }
}

/// A page, or that the asker has the same; and how many bytes were read for it.
fn page(replica: &Replica, scan: &Scan) -> Result<(ScanPage, u64), Refusal> {
    let Some(theirs) = &scan.compare else {
        return replica.scan(scan).map(|page| {
            let read = page.cost_bytes();
            (page, read)
        });
    };
    let mut read = 0;
    let mut digest = Digest::default();
    let mut after = scan.after.clone();
    let (mut first, mut damaged) = (None, Vec::new());
    loop {
        let page = replica.scan(&Scan { after, ..scan.clone() })?;
        read += page.cost_bytes();
        damaged.extend(page.damaged.iter().cloned());
        let is_within = |key: &Key| theirs.up_to.as_ref().is_none_or(|last| key <= last);
        let within = page.rows.iter().take_while(|(key, _)| is_within(key));
        within.for_each(|(key, record)| digest.add(key, record.version));
        after = page.rows.last().map(|(key, _)| key.clone());
        let ends = page.done || after.as_ref().is_none_or(|last| !is_within(last));
        let page = first.get_or_insert(page);
        if ends {
            let same = digest.value() == theirs.digest;
            let listed = std::mem::take(page);
            let of_same = || ScanPage { same, damaged, ..ScanPage::default() };
            let told = if same { of_same() } else { listed };
            return Ok((told, read));
        }
    }
}

fn send(transport: &dyn Transport, to: NodeId, reply: ScanReply) {
    // A page that cannot be sent is asked for again.
    if let Err(error) = transport.send(to, Class::Transfer, Message::ScanReply(reply)) {
        tracing::debug!(%error, "a page was not sent");
    }
}
