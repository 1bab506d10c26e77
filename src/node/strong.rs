//! Requests of strong keyspaces: from keys to a command, through the partition's group, and back to
//! a receipt.

mod list;
mod position;

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::config::Limits;
use crate::node::clock::Clock;
use crate::node::groups::begin::GroupHandles;
use crate::node::groups::client::{Answered, AskError, GroupClient, not_begun};
use crate::node::request::{
    ReadAnswer, Receipt, RequestError, RequestOptions, Transacted, Transaction,
};
use crate::protocol::consistency::Consistency;
use crate::protocol::group::command::{Action, Command, Operation, Step};
use crate::protocol::group::reply::{Reply, StepResult, WriteRefusal};
use crate::protocol::group::stored::Stored;
use crate::protocol::message::{Ask, Told};
use crate::protocol::ring::Ring;
use crate::protocol::system::keyspace::{DEFAULT_NAME, Keyspace, Mode};
use crate::types::{GroupId, Key, KeyspaceId, Moment, Revision};

/// Where a request goes.
pub(crate) enum Target {
    /// To the replicas of a leaderless keyspace, as many as it asks for; without a number, as many
    /// as the default keyspace.
    Quorum(KeyspaceId),
    /// To the groups of a strong one.
    Strong(Keyspace),
}

impl Target {
    /// The keyspace that a request names, if its mode offers what the request asks for.
    ///
    /// # Errors
    /// [`RequestError::UnknownKeyspace`]; [`RequestError::NotAvailable`].
    pub(crate) fn of(
        options: &RequestOptions,
        groups: &GroupHandles,
    ) -> Result<Target, RequestError> {
        let Some(name) = options.keyspace.as_deref().filter(|name| *name != DEFAULT_NAME) else {
            check_quorum_request(options, DEFAULT_NAME)?;
            return Ok(Target::Quorum(KeyspaceId::DEFAULT));
        };
        let keyspace = find(name, groups)?;
        match keyspace.mode {
            Mode::Strong if options.ttl.is_some() => Err(not_available("ttl", name, Mode::Strong)),
            Mode::Strong => Ok(Target::Strong(keyspace)),
            Mode::Quorum => {
                check_quorum_request(options, name)?;
                Ok(Target::Quorum(keyspace.id))
            }
        }
    }

    /// The keyspace.
    pub(crate) fn keyspace(&self) -> KeyspaceId {
        match self {
            Target::Quorum(keyspace) => *keyspace,
            Target::Strong(keyspace) => keyspace.id,
        }
    }

    /// The leaderless keyspace that a request names which strong ones do not know.
    ///
    /// # Errors
    /// As [`Target::of`].
    pub(crate) fn leaderless(
        what: &'static str,
        options: &RequestOptions,
        groups: &GroupHandles,
    ) -> Result<KeyspaceId, RequestError> {
        match Target::of(options, groups)? {
            Target::Quorum(keyspace) => Ok(keyspace),
            Target::Strong(keyspace) => Err(not_available(what, &keyspace.name, Mode::Strong)),
        }
    }

    /// The strong keyspace that the request for these steps names.
    ///
    /// # Errors
    /// As [`Target::of`].
    pub(crate) fn strong(
        steps: &[(Key, Action)],
        options: &RequestOptions,
        groups: &GroupHandles,
    ) -> Result<Keyspace, RequestError> {
        if options.ttl.is_some() {
            return Err(RequestError::no_ttl("a step of a transaction"));
        }
        let what = match steps {
            [(_, Action::Append(_))] => "an append",
            [(_, Action::CompareAndSet { .. })] => "compare-and-set",
            _ => "a transaction",
        };
        let Some(name) = options.keyspace.as_deref().filter(|name| *name != DEFAULT_NAME) else {
            return Err(not_available(what, DEFAULT_NAME, Mode::Quorum));
        };
        let keyspace = find(name, groups)?;
        match keyspace.mode {
            Mode::Strong => Ok(keyspace),
            Mode::Quorum => Err(not_available(what, &keyspace.name, Mode::Quorum)),
        }
    }
}

fn find(name: &str, groups: &GroupHandles) -> Result<Keyspace, RequestError> {
    let Some(state) = groups.gateway.system() else {
        let reason = "this node has not heard of the keyspaces yet".to_owned();
        return Err(RequestError::NotServing { reason });
    };
    let found = state.keyspace_named(name).cloned();
    found.ok_or_else(|| RequestError::UnknownKeyspace { name: name.to_owned() })
}

/// The outcome of a transaction is one record of the log, and may take half of a segment.
const TRANSACTIONS_PER_SEGMENT: u64 = 2;

/// Refuses a transaction whose outcome could be too large to be logged: each key that it appends to
/// counts as the largest value.
///
/// # Errors
/// [`RequestError::TooLarge`] naming `transaction_bytes_max`, which is half of a log segment.
pub(crate) fn check_outcome(
    steps: &[(Key, Action)],
    value_bytes_max: usize,
    segment_bytes: u64,
) -> Result<(), RequestError> {
    let mut outcome: BTreeMap<&Key, usize> = BTreeMap::new();
    for (key, action) in steps {
        let value_bytes = match action {
            Action::Put(value) | Action::CompareAndSet { then: Some(value), .. } => value.len(),
            Action::Append(_) => value_bytes_max,
            Action::Delete | Action::CompareAndSet { then: None, .. } | Action::Check(_) => 0,
        };
        let most = outcome.entry(key).or_default();
        *most = value_bytes.max(*most);
    }
    let got = outcome.iter().map(|(key, value_bytes)| key.0.len() + value_bytes).sum();
    let max = usize::try_from(segment_bytes / TRANSACTIONS_PER_SEGMENT).unwrap_or(usize::MAX);
    let limit = "transaction_bytes_max";
    if got > max { Err(RequestError::TooLarge { limit, max, got }) } else { Ok(()) }
}

/// A leaderless keyspace cannot hold a condition, and does not pretend to.
fn check_quorum_request(options: &RequestOptions, name: &str) -> Result<(), RequestError> {
    let RequestOptions { consistency, expect, session, .. } = options;
    match (consistency, expect, session) {
        (None, None, None) => Ok(()),
        (Some(_), ..) => Err(not_available("a read consistency", name, Mode::Quorum)),
        (None, Some(_), _) => Err(not_available("a condition", name, Mode::Quorum)),
        (None, None, Some(_)) => Err(not_available("a session", name, Mode::Quorum)),
    }
}

fn not_available(what: &'static str, keyspace: &str, mode: Mode) -> RequestError {
    RequestError::NotAvailable { what, keyspace: keyspace.to_owned(), mode: mode.name() }
}

/// Serves strong keyspaces.
pub(crate) struct Strong<'a> {
    pub(crate) client: &'a GroupClient,
    pub(crate) clock: &'a Clock,
    pub(crate) limits: &'a Limits,
    pub(crate) ring: &'a Ring,
    pub(crate) keyspace: &'a Keyspace,
}

impl Strong<'_> {
    /// Does all steps or none.
    ///
    /// # Errors
    /// Any [`RequestError`]; its outcome says what is known of the effect.
    pub(crate) async fn transact(
        &self,
        transaction: Transaction,
        options: &RequestOptions,
    ) -> Result<Transacted, RequestError> {
        self.check_write(options)?;
        let group = self.group_of(transaction.steps.iter().map(|(key, _)| key))?;
        let keyspace = self.keyspace.id;
        let step = |(key, action)| Step { keyspace, key, action };
        let operation = Operation::Write(transaction.steps.into_iter().map(step).collect());
        let command = Command {
            stamp: self.stamp(options)?,
            value_bytes_max: u32::try_from(self.limits.value_bytes_max).unwrap_or(u32::MAX),
            session: options.session,
            operation,
        };
        let ask = Ask::Propose(command.encode());
        let began = self.client.env.now();
        let answered = self.ask(group, ask, options, options.session.is_some()).await?;
        let (revision, results) = written(group, &answered, self.waited_ms(began))?;
        let receipt = self.receipt(group, Some(revision), Consistency::Linearizable);
        Ok(Transacted { results, receipt })
    }

    /// One step, under the request's condition if it has one.
    ///
    /// # Errors
    /// As [`Strong::transact`].
    pub(crate) async fn write(
        &self,
        key: Key,
        action: Action,
        options: &RequestOptions,
    ) -> Result<Transacted, RequestError> {
        let condition = options.expect.clone();
        let condition = condition.map(|expect| (key.clone(), Action::Check(expect)));
        let steps = condition.into_iter().chain([(key, action)]).collect();
        self.transact(Transaction { steps }, options).await
    }

    /// Reads a key as consistently as was asked.
    ///
    /// # Errors
    /// Any [`RequestError`].
    pub(crate) async fn read(
        &self,
        key: Key,
        options: &RequestOptions,
    ) -> Result<ReadAnswer, RequestError> {
        self.check_read(options)?;
        let consistency = options.consistency.unwrap_or(Consistency::Linearizable);
        let group = self.group_of(std::iter::once(&key))?;
        let ask = Ask::Read { keyspace: self.keyspace.id, key, consistency };
        let answered = self.ask(group, ask, options, true).await?;
        let Told::Read { record, .. } = answered.told else { return Err(foreign(group)) };
        let stored = record.as_ref().map(Stored::from_record).transpose();
        let stored = stored.map_err(|_| foreign(group))?;
        let revision = stored.as_ref().map(|stored| stored.modified);
        let value: Option<Bytes> = stored.and_then(|stored| stored.value);
        let receipt = self.receipt(group, revision, consistency);
        Ok(ReadAnswer { value, receipt, ..ReadAnswer::default() })
    }

    async fn ask(
        &self,
        group: GroupId,
        ask: Ask,
        options: &RequestOptions,
        repeatable: bool,
    ) -> Result<Answered, RequestError> {
        let began = self.client.env.now();
        let timeout = options.timeout.unwrap_or(self.limits.request_timeout);
        let deadline: Moment = began + timeout.min(self.limits.request_timeout_max);
        let answered = self.client.ask(group, ask, deadline, repeatable).await;
        answered.map_err(|error| match error {
            AskError::NotBegun(refusal) => not_begun(group, refusal),
            AskError::Unknown => {
                RequestError::OutcomeUnknown { group, waited_ms: self.waited_ms(began) }
            }
        })
    }

    fn waited_ms(&self, began: Moment) -> u64 {
        let waited = self.client.env.now().since(began).as_millis();
        u64::try_from(waited).unwrap_or(u64::MAX)
    }

    /// The group of all these keys.
    fn group_of<'k>(&self, keys: impl Iterator<Item = &'k Key>) -> Result<GroupId, RequestError> {
        let mut group = None;
        for key in keys {
            let of_key = GroupId::of(self.ring.partition_of_tagged(key));
            let known = *group.get_or_insert(of_key);
            if known != of_key {
                let problem = format!(
                    "the keys of a transaction must lie in one partition; {key} lies in partition \
                     {of_key}, the first key in {known}. Give them one tag, as in \
                     \"cart:{{42}}:items\" and \"cart:{{42}}:total\""
                );
                return Err(RequestError::Invalid { field: "key", problem });
            }
        }
        let empty = || "a transaction has at least one step".to_owned();
        group.ok_or_else(|| RequestError::Invalid { field: "steps", problem: empty() })
    }

    fn stamp(&self, options: &RequestOptions) -> Result<crate::types::Timestamp, RequestError> {
        let above = options.context.map(|context| context.timestamp);
        self.clock
            .stamp(above)
            .map_err(|error| RequestError::Invalid { field: "context", problem: error.to_string() })
    }

    fn check_write(&self, options: &RequestOptions) -> Result<(), RequestError> {
        self.check_quorum_options(options)?;
        options.check_context_is_version()?;
        match options.consistency {
            Some(_) => Err(self.not_available("a read consistency on a write")),
            None => Ok(()),
        }
    }

    fn check_read(&self, options: &RequestOptions) -> Result<(), RequestError> {
        self.check_quorum_options(options)?;
        options.check_context_is_version()?;
        if let (Some(Consistency::Stale { .. }), Some(_)) = (options.consistency, options.context) {
            let problem = "cannot be joined with a stale read, which promises its bound alone; \
                           leave one of the two out";
            return Err(RequestError::Invalid { field: "context", problem: problem.to_owned() });
        }
        match (&options.expect, &options.session) {
            (None, None) => Ok(()),
            (Some(_), _) => Err(self.not_available("a condition on a read")),
            (None, Some(_)) => Err(self.not_available("a session on a read")),
        }
    }

    /// A strong keyspace always uses its majority.
    fn check_quorum_options(&self, options: &RequestOptions) -> Result<(), RequestError> {
        match (options.level, options.quorum, options.sloppy) {
            (None, None, None | Some(false)) => Ok(()),
            (Some(_), ..) => Err(self.not_available("a consistency level")),
            (None, Some(_), _) => Err(self.not_available("an explicit r or w")),
            (None, None, Some(true)) => Err(self.not_available("a sloppy quorum")),
        }
    }

    fn not_available(&self, what: &'static str) -> RequestError {
        not_available(what, &self.keyspace.name, self.keyspace.mode)
    }

    fn receipt(
        &self,
        group: GroupId,
        revision: Option<Revision>,
        consistency: Consistency,
    ) -> Receipt {
        let factor = self.keyspace.replication.factor;
        let replicas = self.client.replicas_of(group).unwrap_or(factor);
        Receipt {
            version: revision.map(Into::into),
            required: replicas / 2 + 1,
            replicas,
            under_replicated: replicas < factor,
            consistency: Some(consistency.name()),
            leader: self.client.gateway.leader(group),
            ..Receipt::default()
        }
    }
}

/// What a write came to by the group's answer.
fn written(
    group: GroupId,
    answered: &Answered,
    waited_ms: u64,
) -> Result<(Revision, Vec<StepResult>), RequestError> {
    let unknown = || RequestError::OutcomeUnknown { group, waited_ms };
    // An answer in a form that this node does not know tells nothing of the effect.
    let Told::Proposed(reply) = &answered.told else { return Err(unknown()) };
    match Reply::decode(reply).map_err(|_| unknown())? {
        Reply::Written { revision, results } => Ok((revision, results)),
        // The session may have ended between two attempts, of which the first may have counted.
        Reply::Refused(WriteRefusal::Session(_)) if answered.may_have_begun_before => {
            Err(unknown())
        }
        Reply::Refused(refusal) => Err(refused(refusal)),
    }
}

fn refused(refusal: WriteRefusal) -> RequestError {
    match refusal {
        WriteRefusal::ConditionFailed { step, current } => {
            RequestError::ConditionFailed { step, current }
        }
        WriteRefusal::ValueTooLarge { bytes, bytes_max, .. } => RequestError::TooLarge {
            limit: "value_bytes_max",
            max: usize::try_from(bytes_max).unwrap_or(usize::MAX),
            got: usize::try_from(bytes).unwrap_or(usize::MAX),
        },
        WriteRefusal::Session(error) => RequestError::Session(error),
        other => RequestError::Invalid { field: "keyspace", problem: other.to_string() },
    }
}

/// The group answered in a way that this program does not know.
fn foreign(group: GroupId) -> RequestError {
    let reason = "its leader answers in a form that this node does not know".to_owned();
    RequestError::NoLeader { group, reason }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::group::sessions::SessionError;
    use crate::protocol::quorum::Outcome;

    fn step(key: &str, action: Action) -> (Key, Action) {
        (Key::from(key), action)
    }

    /// A client that is told that its session is unknown begins another and sends the command anew.
    #[test]
    fn a_refused_session_says_nothing_of_an_attempt_before() {
        let told = |reply: &Reply| Told::Proposed(reply.encode());
        let outcome = |told: Told, may_have_begun_before: bool| {
            let answered = Answered { told, may_have_begun_before };
            written(GroupId(1), &answered, 5).map_err(|error| error.outcome())
        };
        let session = SessionError::Unknown { sequence: 3 };
        let refused = Reply::Refused(WriteRefusal::Session(session));
        assert_eq!(outcome(told(&refused), false), Err(Outcome::Failed));
        assert_eq!(outcome(told(&refused), true), Err(Outcome::Unknown));
        let done = Reply::Written { revision: Revision(7), results: Vec::new() };
        assert_eq!(outcome(told(&done), true), Ok((Revision(7), Vec::new())));
        let garbled = Told::Proposed(Bytes::from_static(b"?"));
        assert_eq!(outcome(garbled, false), Err(Outcome::Unknown));
    }

    #[test]
    fn appends_count_as_the_largest_value_once_for_each_key() {
        let append = |key| step(key, Action::Append(Bytes::from_static(b"x")));
        let put = |key| step(key, Action::Put(Bytes::from_static(b"12345")));
        let many_of_one: Vec<_> = (0..1000).map(|_| append("k")).collect();
        assert_eq!(check_outcome(&many_of_one, 100, 202), Ok(()));
        let puts_and_deletes = [put("a"), put("b"), step("c", Action::Delete)];
        assert_eq!(check_outcome(&puts_and_deletes, 100, 26), Ok(()));
        let two = [append("a"), put("a"), append("b")];
        let refused = RequestError::TooLarge { limit: "transaction_bytes_max", max: 201, got: 202 };
        assert_eq!(check_outcome(&two, 100, 402), Err(refused));
        assert_eq!(check_outcome(&two, 100, 404), Ok(()));
    }
}
