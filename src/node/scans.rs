//! Serves peers that list partitions of this node: off the message path, a few at a time.

use std::sync::Arc;

use tokio::sync::Semaphore;

use crate::net::transport::Transport;
use crate::node::env::{Env, run_blocking};
use crate::node::replica::Replica;
use crate::node::tasks::Tasks;
use crate::protocol::message::{Class, Message, Refusal, Scan, ScanReply};
use crate::types::NodeId;

/// Pages read at once for all peers; a peer that finds no slot is refused and asks again.
const SCANS_AT_ONCE_MAX: usize = 4;

/// Serves pages of partitions.
pub(crate) struct Scans {
    env: Arc<dyn Env>,
    replica: Arc<Replica>,
    transport: Arc<dyn Transport>,
    tasks: Arc<Tasks>,
    slots: Arc<Semaphore>,
}

impl Scans {
    pub(crate) fn new(
        env: Arc<dyn Env>,
        replica: Arc<Replica>,
        transport: Arc<dyn Transport>,
        tasks: Arc<Tasks>,
    ) -> Self {
        let slots = Arc::new(Semaphore::new(SCANS_AT_ONCE_MAX));
        Scans { env, replica, transport, tasks, slots }
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
        let replica = Arc::clone(&self.replica);
        let env = Arc::clone(&self.env);
        self.tasks.spawn(async move {
            let request = scan.request;
            // Asked before the rows are read: what is complete then stays so.
            let complete = replica.is_complete();
            let outcome = run_blocking(&*env, move || replica.scan(&scan)).await;
            send(&*transport, from, ScanReply { request, outcome, complete });
            drop(slot);
        });
    }
}

fn send(transport: &dyn Transport, to: NodeId, reply: ScanReply) {
    // A page that cannot be sent is asked for again.
    if let Err(error) = transport.send(to, Class::Transfer, Message::ScanReply(reply)) {
        tracing::debug!(%error, "a page was not sent");
    }
}
