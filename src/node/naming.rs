//! Finds the keyspaces that requests name.
//!
//! A node hears of keyspaces as it applies what the system group has decided, which others may have
//! done a moment before it. So a name that is unknown here is asked for: whoever was told that a
//! keyspace was made can use it on every node. Names that nobody knows cost the leader of the
//! system group one question at a time from each node, however many requests bear them.
//!
//! The wait is part of the time that the client gave its request: what follows has what is left.

use std::borrow::Cow;
use std::time::Duration;

use crate::node::epochs::EpochInUse;
use crate::node::groups::system::QUESTION_TIME;
use crate::node::request::{RequestError, RequestOptions};
use crate::node::service::{Attached, Node};
use crate::node::strong::Target;

/// A request of which it is known what its name stands for. It is to be kept until the request is
/// over: nodes that leave wait for it.
pub(crate) struct Named<'o, T> {
    /// That.
    pub(crate) found: T,
    /// The request's options; of its time, what is left from now on.
    pub(crate) options: Cow<'o, RequestOptions>,
    _epoch: EpochInUse,
}

impl Node {
    /// The keyspace that a request names, as [`Target::of`] has it.
    ///
    /// # Errors
    /// As [`Target::of`] and [`Node::named`].
    pub(crate) async fn target<'o>(
        &self,
        attached: &Attached,
        options: &'o RequestOptions,
    ) -> Result<Named<'o, Target>, RequestError> {
        self.named(attached, options, || Target::of(options, &attached.groups)).await
    }

    /// What a request's name stands for; where it is unknown here, once this node has heard of it.
    ///
    /// # Errors
    /// Those of `find`; [`RequestError::NotServing`] when neither this node knows the name nor the
    /// system group says whether there is such a keyspace.
    pub(crate) async fn named<'o, T>(
        &self,
        attached: &Attached,
        options: &'o RequestOptions,
        find: impl Fn() -> Result<T, RequestError>,
    ) -> Result<Named<'o, T>, RequestError> {
        let epoch = attached.members.epochs.begin();
        let (found, options) = match find() {
            Err(RequestError::UnknownKeyspace { name }) => {
                let timeout = Some(self.hear_of_keyspace(attached, &name, options).await?);
                (find(), Cow::Owned(RequestOptions { timeout, ..options.clone() }))
            }
            found => (found, Cow::Borrowed(options)),
        };
        Ok(Named { found: found?, options, _epoch: epoch })
    }

    /// Waits until this node has heard of a keyspace, or there is none; the time that the request
    /// has left then.
    async fn hear_of_keyspace(
        &self,
        attached: &Attached,
        name: &str,
        options: &RequestOptions,
    ) -> Result<Duration, RequestError> {
        let limits = &self.config.limits;
        let time = options.timeout.unwrap_or(limits.request_timeout);
        let began = self.local.env.now();
        let deadline = began + time.min(limits.request_timeout_max);
        let answered = tokio::select! { biased;
            answered = attached.ask_for_keyspace(name) => answered,
            () = self.local.env.sleep_until(deadline.min(began + QUESTION_TIME)) => None,
        };
        let unknown = || RequestError::NotServing {
            reason: format!(
                "this node has not heard of a keyspace {name:?}, and the system group does not say \
                 whether there is one"
            ),
        };
        answered.ok_or_else(unknown)?;
        Ok(deadline.since(self.local.env.now()))
    }
}

impl Attached {
    /// Returns once this node has heard of a keyspace, or there is none; `None` where nobody says.
    async fn ask_for_keyspace(&self, name: &str) -> Option<()> {
        let decided = self.groups.system.decided().await?;
        if let Some(keyspace) = decided.keyspace_named(name) {
            // The topology follows the state, which says what the name stands for.
            self.topology.until(|topology| topology.has_heard_of(keyspace.id)).await;
        }
        Some(())
    }
}
