//! Keyspaces: shown, created, altered and dropped.
//!
//! What the system group has decided is answered once this node has applied it too, so that whoever
//! asked can use it here at once.

use std::time::Duration;

use crate::api::convert;
use crate::node::request::RequestError;
use crate::node::service::Node;
use crate::proto::v1;
use crate::protocol::system::keyspace::{Keyspace, Mode, ReplicationAsked};
use crate::protocol::system::limits::LimitsAsked;
use crate::protocol::system::settings::Replication;
use crate::protocol::system::{SystemCommand, SystemReply, SystemState};
use crate::types::Merge;

/// The keyspaces, by name.
///
/// # Errors
/// [`RequestError::NotServing`] while the node has not heard of the system group.
pub(super) fn list(node: &Node) -> Result<v1::ListKeyspacesResponse, RequestError> {
    let state = node.system().ok_or_else(|| RequestError::NotServing {
        reason: "what the system group has decided is not known here yet".to_owned(),
    })?;
    let mut keyspaces: Vec<v1::Keyspace> = state.keyspaces().map(Into::into).collect();
    keyspaces.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(v1::ListKeyspacesResponse { keyspaces })
}

/// Creates a keyspace.
///
/// # Errors
/// [`RequestError`]; with an unknown outcome when it is not seen here in time.
pub(super) async fn create(
    node: &Node,
    asked: v1::CreateKeyspaceRequest,
    timeout: Option<Duration>,
) -> Result<v1::Keyspace, RequestError> {
    let v1::CreateKeyspaceRequest { replication_factor, read_quorum, write_quorum, .. } = asked;
    let limits = limits(asked.limit_operations_per_second, asked.limit_bytes_per_second);
    let (mode, merge) = (mode_named(&asked.mode)?, merge_named(&asked.merge)?);
    let replication = Some(replication(replication_factor, read_quorum, write_quorum));
    let name = asked.name;
    let command = SystemCommand::CreateKeyspace { name, mode, merge, replication, limits };
    node.decide_here(command, timeout, |reply, state| keyspace(reply, state).map(Into::into)).await
}

/// Changes N, R or W of a quorum keyspace, or the limits of any.
///
/// # Errors
/// [`RequestError`]; with an unknown outcome when it is not seen here in time.
pub(super) async fn alter(
    node: &Node,
    asked: v1::AlterKeyspaceRequest,
    timeout: Option<Duration>,
) -> Result<v1::Keyspace, RequestError> {
    let replication = replication(asked.replication_factor, asked.read_quorum, asked.write_quorum);
    let limits = limits(asked.limit_operations_per_second, asked.limit_bytes_per_second);
    if replication == ReplicationAsked::default() && limits.is_nothing() {
        let problem = "nothing is to be changed; give n, r, w or a limit";
        return Err(convert::invalid("replication_factor", problem));
    }
    let command = SystemCommand::AlterKeyspace { name: asked.name, replication, limits };
    let altered = |keyspace: &&Keyspace| {
        holds(keyspace.replication, replication) && limits.over(keyspace.limits) == keyspace.limits
    };
    let seen = |reply: &SystemReply, state: &SystemState| {
        keyspace(reply, state).filter(altered).map(Into::into)
    };
    node.decide_here(command, timeout, seen).await
}

/// Drops a keyspace with all its keys.
///
/// # Errors
/// [`RequestError`]; with an unknown outcome when it is not seen here in time.
pub(super) async fn drop(
    node: &Node,
    name: String,
    timeout: Option<Duration>,
) -> Result<(), RequestError> {
    let gone = |reply: &SystemReply, state: &SystemState| match reply {
        SystemReply::Dropped { keyspace } => state.is_dropped(*keyspace).then_some(()),
        _ => None,
    };
    node.decide_here(SystemCommand::DropKeyspace { name }, timeout, gone).await
}

/// The keyspace that a reply is about.
fn keyspace<'a>(reply: &SystemReply, state: &'a SystemState) -> Option<&'a Keyspace> {
    match reply {
        SystemReply::Created { keyspace } | SystemReply::Altered { keyspace } => {
            state.keyspace(*keyspace)
        }
        _ => None,
    }
}

fn mode_named(name: &str) -> Result<Mode, RequestError> {
    match name {
        "" | "quorum" => Ok(Mode::Quorum),
        "strong" => Ok(Mode::Strong),
        other => {
            let problem = format!("{other:?} is not a mode; use \"quorum\" or \"strong\"");
            Err(convert::invalid("mode", problem))
        }
    }
}

fn merge_named(name: &str) -> Result<Merge, RequestError> {
    let found = Merge::ALL.into_iter().find(|merge| merge.name() == name);
    found.or(name.is_empty().then_some(Merge::Lww)).ok_or_else(|| {
        let right = Merge::ALL.map(|merge| format!("{:?}", merge.name())).join(", ");
        let problem = format!("{name:?} is not a way of merging; use one of {right}");
        convert::invalid("merge", problem)
    })
}

/// N, R and W as asked for; 0 asks for nothing.
fn replication(n: u32, r: u32, w: u32) -> ReplicationAsked {
    let asked = |number: u32| Some(number).filter(|number| *number > 0);
    ReplicationAsked { factor: asked(n), read_quorum: asked(r), write_quorum: asked(w) }
}

/// Limits as asked for; 0 lifts one.
fn limits(operations_per_second: Option<u64>, bytes_per_second: Option<u64>) -> LimitsAsked {
    LimitsAsked { operations_per_second, bytes_per_second }
}

/// Whether a keyspace has what was asked for.
fn holds(held: Replication, asked: ReplicationAsked) -> bool {
    let same = |asked: Option<u32>, held: u32| asked.is_none_or(|asked| asked == held);
    same(asked.factor, held.factor)
        && same(asked.read_quorum, held.read_quorum)
        && same(asked.write_quorum, held.write_quorum)
}

impl From<&Keyspace> for v1::Keyspace {
    fn from(keyspace: &Keyspace) -> Self {
        v1::Keyspace {
            name: keyspace.name.clone(),
            id: keyspace.id.number(),
            mode: keyspace.mode.name().to_owned(),
            replication_factor: keyspace.replication.factor,
            read_quorum: keyspace.replication.read_quorum,
            write_quorum: keyspace.replication.write_quorum,
            weak: keyspace.is_weak(),
            limit_operations_per_second: keyspace.limits.operations_per_second,
            limit_bytes_per_second: keyspace.limits.bytes_per_second,
            merge: keyspace.id.merge().name().to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::system::keyspace::Marker;
    use crate::protocol::system::limits::KeyspaceLimits;
    use crate::types::{KeyspaceId, LogIndex};

    #[test]
    fn every_field_of_a_keyspace_arrives() {
        let replication = Replication { factor: 5, read_quorum: 1, write_quorum: 3 };
        let sent = v1::Keyspace::from(&Keyspace {
            id: KeyspaceId::numbered(7, Merge::Siblings),
            name: "orders".to_owned(),
            mode: Mode::Quorum,
            replication,
            before: None,
            created: Marker { index: LogIndex(1), request_id: 2 },
            dropped: None,
            altered_by: Vec::new(),
            limits: KeyspaceLimits { operations_per_second: Some(9), bytes_per_second: Some(10) },
        });
        let expected = v1::Keyspace {
            name: "orders".to_owned(),
            id: 7,
            mode: "quorum".to_owned(),
            replication_factor: 5,
            read_quorum: 1,
            write_quorum: 3,
            weak: true,
            limit_operations_per_second: Some(9),
            limit_bytes_per_second: Some(10),
            merge: "siblings".to_owned(),
        };
        assert_eq!(sent, expected);
    }

    #[test]
    fn a_mode_that_does_not_exist_is_named_with_those_that_do() {
        assert_eq!((mode_named(""), mode_named("strong")), (Ok(Mode::Quorum), Ok(Mode::Strong)));
        let refused = mode_named("Strong").expect_err("no such mode").to_string();
        assert_eq!(refused, "mode: \"Strong\" is not a mode; use \"quorum\" or \"strong\"");
    }

    #[test]
    fn a_way_of_merging_that_does_not_exist_is_named_with_those_that_do() {
        let (lww, siblings) = (Ok(Merge::Lww), Ok(Merge::Siblings));
        assert_eq!((merge_named(""), merge_named("siblings")), (lww, siblings));
        let refused = merge_named("newest").expect_err("no such way").to_string();
        assert!(
            refused.ends_with("use one of \"lww\", \"siblings\", \"counter\", \"set\""),
            "{refused}"
        );
    }

    #[test]
    fn zero_asks_for_nothing() {
        let held = Replication { factor: 3, read_quorum: 2, write_quorum: 2 };
        assert_eq!(replication(0, 0, 0), ReplicationAsked::default());
        assert!(holds(held, replication(0, 0, 0)) && holds(held, replication(3, 2, 0)));
        assert!(!holds(held, replication(0, 1, 0)) && !holds(held, replication(5, 2, 2)));
        assert!(!holds(held, replication(3, 2, 3)));
    }
}
