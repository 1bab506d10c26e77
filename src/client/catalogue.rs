//! Which keyspaces there are, as far as it was asked: their mode decides how a call is routed and
//! whether a write has a session.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tonic::Code;

use crate::client::deadline::Deadline;
use crate::client::error::{ClientError, Outcome};
use crate::client::heard::UNKNOWN_KEYSPACE;
use crate::client::journey::{Core, Route, before_the_call};
use crate::client::retry::Effect;
use crate::client::surroundings::now;
use crate::proto::v1;
use crate::protocol::system::keyspace::{DEFAULT_NAME, Mode};

/// How long after a keyspace was seen all nodes should have heard of it.
const SPREAD_TIME: Duration = Duration::from_secs(5);
/// How many nodes are asked before a keyspace is said not to exist.
const LISTINGS_MAX: usize = 3;
/// Keyspaces whose mode is remembered.
const KEYSPACES_MAX: usize = 4096;

/// A keyspace that was seen.
#[derive(Clone, Copy, Debug)]
struct Known {
    mode: Mode,
    seen: Instant,
}

/// The keyspaces that were seen, by name.
#[derive(Debug, Default)]
pub(crate) struct Catalogue {
    known: Mutex<BTreeMap<String, Known>>,
}

/// What routing has to know of a keyspace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sight {
    pub(crate) mode: Mode,
    /// Whether it is so new that some nodes may not have heard of it.
    pub(crate) is_new: bool,
}

impl Catalogue {
    /// Takes a keyspace that a node told of.
    pub(crate) fn note(&self, keyspace: &v1::Keyspace) {
        let Some(mode) = mode_named(&keyspace.mode) else { return };
        let mut known = self.known.lock();
        if known.len() >= KEYSPACES_MAX {
            known.clear();
        }
        known.insert(keyspace.name.clone(), Known { mode, seen: now() });
    }

    /// The keyspace may be gone, or another of its name may be there.
    pub(crate) fn forget(&self, name: &str) {
        self.known.lock().remove(name);
    }

    fn find(&self, name: &str) -> Option<Sight> {
        if name.is_empty() || name == DEFAULT_NAME {
            return Some(Sight { mode: Mode::Quorum, is_new: false });
        }
        let known = *self.known.lock().get(name)?;
        Some(Sight { mode: known.mode, is_new: now().duration_since(known.seen) < SPREAD_TIME })
    }
}

impl Core {
    /// A keyspace, asked for unless it was seen before.
    ///
    /// # Errors
    /// `unknown_keyspace` when no node that was asked has heard of it, and any failure to ask.
    pub(crate) async fn keyspace(
        &self,
        name: &str,
        deadline: Deadline,
    ) -> Result<Sight, ClientError> {
        if let Some(sight) = self.catalogue.find(name) {
            return Ok(sight);
        }
        let listings = self.routing.lock().nodes().min(LISTINGS_MAX);
        for _ in 0..listings {
            let route = Route::anywhere(Effect::Read);
            let listed = self.call(v1::ListKeyspacesRequest {}, route, deadline).await;
            let listed = listed.map_err(before_the_call)?;
            listed.keyspaces.iter().for_each(|keyspace| self.catalogue.note(keyspace));
            if let Some(sight) = self.catalogue.find(name) {
                return Ok(sight);
            }
        }
        Err(ClientError::Refused {
            status: Code::NotFound,
            code: UNKNOWN_KEYSPACE.to_owned(),
            message: format!("there is no keyspace {name:?}"),
            outcome: Outcome::NotAttempted,
            attempts: u32::try_from(listings).unwrap_or(u32::MAX),
        })
    }
}

/// `None` for a mode that this program does not know.
fn mode_named(name: &str) -> Option<Mode> {
    [Mode::Quorum, Mode::Strong].into_iter().find(|mode| mode.name() == name)
}
