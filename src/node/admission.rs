//! Holds background work back while this node has much to do for clients.
//!
//! What is held back is decided by [`crate::protocol::admission`]; this knows the load. Whoever
//! begins background work asks here first: the replica for hints and repairs that peers send, the
//! coordinator for repairs behind its answers, hinted handoff before it sends, refilling and the
//! listing of rows for others.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::node::committer::Committer;
use crate::node::env::Env;
use crate::node::pacing::Pacing;
use crate::node::request::RequestError;
use crate::node::status::Activity;
use crate::protocol::admission::{Load, Share, admits};
use crate::protocol::message::Class;
use crate::telemetry::{ClassLabels, Metrics};

/// How soon work that waits asks again.
const PAUSE: Duration = Duration::from_millis(100);

/// Lets background work begin, or not.
pub(crate) struct Admission {
    pub(crate) env: Arc<dyn Env>,
    pub(crate) committer: Arc<Committer>,
    pub(crate) metrics: Arc<Metrics>,
    /// Client requests that wait for this node's answer.
    pub(crate) requests: Arc<AtomicUsize>,
    pub(crate) requests_max: usize,
    /// How fast work that was let in goes on.
    pub(crate) pacing: Arc<Pacing>,
}

/// A client's request that was let in: it counts until this goes. That is when the client has its
/// answer; what the request waits for then, from replicas that are late, is counted elsewhere.
pub(crate) struct Ticket(Arc<AtomicUsize>);

impl Drop for Ticket {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Admission {
    /// Whether work of a class may begin; counts it as held back if not.
    pub(crate) fn admits(&self, class: Class) -> bool {
        // Most of what asks is a client's write, which is always let in.
        let admitted = class == Class::Client || admits(class, &self.load());
        if !admitted {
            self.held_back(class).inc();
        }
        admitted
    }

    /// Resolves once work of a class may begin.
    pub(crate) async fn wait(&self, class: Class) {
        while !self.admits(class) {
            self.env.sleep_until(self.env.now() + PAUSE).await;
        }
    }

    /// Lets a client's request in, unless as many as may be wait for their answers.
    ///
    /// # Errors
    /// [`RequestError::Overloaded`] naming the limit.
    pub(crate) fn enter(&self) -> Result<Ticket, RequestError> {
        let (limit, max) = ("requests_in_flight_max", self.requests_max);
        let before = self.requests.fetch_add(1, Ordering::Relaxed);
        // Counted until the ticket goes, which it does at once when this is one too many.
        let ticket = Ticket(Arc::clone(&self.requests));
        if before >= max { Err(RequestError::Overloaded { limit, max }) } else { Ok(ticket) }
    }

    /// Client requests that wait for this node's answer.
    pub(crate) fn requests(&self) -> usize {
        self.requests.load(Ordering::Relaxed)
    }

    /// One line for status.
    pub(crate) fn activity(&self) -> Activity {
        let load = self.load();
        let held: Vec<String> = Class::ALL
            .into_iter()
            .map(|class| (class, self.held_back(class).get()))
            .filter(|(_, count)| *count > 0)
            .map(|(class, count)| format!("{count} {}", class.name()))
            .collect();
        let state = if admits(Class::AntiEntropy, &load) { "idle" } else { "throttled" };
        let pace = self.pacing.shown().map_or_else(
            || "no rows are copied".to_owned(),
            |pace| format!("rows are copied at {} % of their rates", pace.percent()),
        );
        let held = if held.is_empty() { "nothing".to_owned() } else { held.join(", ") };
        let Share { used, max } = load.requests;
        let detail = format!(
            "load {} %, {used} of {max} requests in flight; {pace}; held back: {held}",
            load.percent()
        );
        Activity { name: "admission", state, detail }
    }

    fn load(&self) -> Load {
        let requests = Share { used: self.requests(), max: self.requests_max };
        let (log_queue, tables) = self.committer.fill();
        Load { log_queue, tables, requests }
    }

    fn held_back(&self, class: Class) -> prometheus_client::metrics::counter::Counter {
        let labels = ClassLabels { class: class.name() };
        self.metrics.background_held_back.get_or_create(&labels).clone()
    }
}
