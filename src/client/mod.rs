//! A client of a cluster: finds its nodes, follows the leaders of strong keyspaces, and repeats
//! what may be repeated.
//!
//! ```no_run
//! # async fn example() -> Result<(), coterie::client::ClientError> {
//! let client = coterie::Client::builder().nodes(["127.0.0.1:7400"]).connect()?;
//! let accounts = client.keyspace("accounts");
//! accounts.put("alice", "100").await?;
//! if let Some(value) = accounts.get("alice").await? {
//!     let change = accounts.compare_and_set("alice").expect_version(value.version).put("90");
//!     change.await?;
//! }
//! # Ok(())
//! # }
//! ```
//!
//! How it is made: `routing` (which node), `retry` (whether again, and when) and the numbers of
//! `session` decide and do no I/O; `journey` does what they say. One budget of time covers a call
//! with all its attempts and rests, and each attempt tells the node what is left of it.
//!
//! What is repeated, and what is not:
//! * what was certainly not begun, always;
//! * reads, always;
//! * writes of strong keyspaces under the session and number that they had: they are applied once;
//! * writes of quorum keyspaces whose outcome is unknown, only when the caller says that they are
//!   idempotent.
//!
//! Caveat: a session ends when it was long unused. A write that finds it ended is made under a new
//! one if no earlier attempt of it can have been executed; else the error's outcome is `unknown`.

mod admin;
mod calls;
mod catalogue;
mod compare_and_set;
mod condition;
mod connections;
mod deadline;
mod error;
mod heard;
mod journey;
mod keyspace;
mod listing;
mod mergeable;
mod read;
mod receipt;
mod retry;
mod routing;
#[cfg(test)]
pub(crate) mod scripted;
mod session;
mod surroundings;
mod transaction;
mod watch;
mod write;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

pub use self::admin::{Admin, AlterKeyspace, CreateKeyspace, KeyspaceInfo, NodeInfo};
pub(crate) use self::calls::ANSWER_BYTES_MAX;
pub use self::compare_and_set::{CompareAndSet, ConditionalWrite, Expecting};
pub use self::condition::Condition;
pub(crate) use self::deadline::NODE_TIME_MAX;
pub use self::error::{ClientError, Current, Outcome};
#[cfg(test)]
pub(crate) use self::heard::{CODE_TRAILER, OUTCOME_TRAILER};
pub(crate) use self::heard::{Heard, Witness, root_cause};
use self::journey::Core;
pub use self::keyspace::Keyspace;
pub use self::listing::{List, Page, Pages, Row};
pub use self::mergeable::{Increment, UpdateSet};
pub use self::read::Get;
pub use self::receipt::{
    Appended, Incremented, Receipt, SetUpdated, StepResult, Transacted, Value,
};
use self::retry::Patience;
pub use self::transaction::Transaction;
pub use self::watch::{Changes, Event, Watch, Watching};
pub(crate) use self::write::level_number;
pub use self::write::{Append, Delete, Put};
pub use crate::protocol::consistency::Consistency;
pub use crate::protocol::quorum::level::Level;
pub use crate::protocol::system::keyspace::Mode;

/// A client of a cluster. Cheap to clone, and good for any number of tasks at once.
#[derive(Clone, Debug)]
pub struct Client {
    core: Arc<Core>,
}

impl Client {
    /// Begins with the nodes to ask first.
    pub fn builder() -> Builder {
        Builder { nodes: Vec::new(), timeout: None, patience: Patience::Lasting }
    }

    /// A keyspace by its name; `default` is always there. Nothing is asked yet.
    pub fn keyspace(&self, name: impl Into<String>) -> Keyspace {
        Keyspace::new(self.core.clone(), name.into())
    }

    /// Operators' requests.
    pub fn admin(&self) -> Admin {
        Admin::new(self.core.clone())
    }
}

/// Makes a [`Client`].
#[derive(Clone, Debug)]
pub struct Builder {
    nodes: Vec<String>,
    timeout: Option<Duration>,
    patience: Patience,
}

impl Builder {
    /// Nodes to ask first, as `host:port`. The others are learnt from them, so that the client
    /// outlives those that it was given.
    #[must_use]
    pub fn nodes(mut self, nodes: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.nodes.extend(nodes.into_iter().map(Into::into));
        self
    }

    /// How long each call may take, all attempts and rests included; 5 s unless it is said.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Asks only the nodes that are named, in their order and each once (a second time what was
    /// lost on the way and may be repeated), instead of any node until the call's time is up; and
    /// where no time is said, the asked node's own limit holds. For tools, whose users say which
    /// node is to answer and would hear at once why it does not.
    #[must_use]
    pub fn strict(mut self) -> Self {
        self.patience = Patience::Strict;
        self
    }

    /// The client. Connections are made when they are first needed.
    ///
    /// # Errors
    /// [`ClientError::Invalid`] when there is no node, or one is no `host:port`.
    pub fn connect(self) -> Result<Client, ClientError> {
        let nodes: Result<Vec<String>, _> = self.nodes.iter().map(|node| checked(node)).collect();
        let nodes = nodes?;
        if nodes.is_empty() {
            return Err(ClientError::invalid("nodes", "none is given; name at least one"));
        }
        Ok(Client { core: Arc::new(Core::new(nodes, self.timeout, self.patience)) })
    }
}

/// `host:port` of a node, if it is that.
pub(crate) fn checked(node: &str) -> Result<String, ClientError> {
    let bare = node.trim().trim_start_matches("http://").trim_end_matches('/');
    let port = bare.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
    let authority: Option<http::uri::Authority> = bare.parse().ok();
    match (port, authority) {
        (Some(_), Some(_)) => Ok(bare.to_owned()),
        _ => Err(ClientError::invalid(
            "nodes",
            format!("{node:?} is no node; give host:port, as in 127.0.0.1:7400"),
        )),
    }
}
