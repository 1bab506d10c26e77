//! What operators ask of the cluster: its keyspaces and nodes.

use std::sync::Arc;
use std::time::Duration;

use crate::client::error::ClientError;
use crate::client::journey::{Core, Route};
use crate::client::keyspace::awaitable;
use crate::client::retry::Effect;
use crate::proto::v1;
use crate::protocol::system::keyspace::Mode;

/// Operators' requests. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Admin {
    core: Arc<Core>,
}

/// A keyspace, as a node tells of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyspaceInfo {
    /// Its name.
    pub name: String,
    /// Never used by another keyspace.
    pub id: u32,
    /// `quorum` or `strong`.
    pub mode: String,
    /// How copies of a key that differ become one: `lww` or `siblings`.
    pub merge: String,
    /// N.
    pub replication_factor: u32,
    /// R; of a strong keyspace the majority of N.
    pub read_quorum: u32,
    /// W; of a strong keyspace the majority of N.
    pub write_quorum: u32,
    /// Whether a read may miss the newest acknowledged write, because R + W does not exceed N.
    pub weak: bool,
    /// Operations that clients may do with it in a second through each node, if that is limited.
    pub limit_operations_per_second: Option<u64>,
    /// Bytes of keys and values likewise.
    pub limit_bytes_per_second: Option<u64>,
}

/// A node, as another tells of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeInfo {
    /// Its id.
    pub id: String,
    /// Its human name.
    pub name: String,
    /// `up`, `down` or `unseen`.
    pub state: String,
    /// Where clients reach it, `ip:port`.
    pub client_address: String,
    /// Its failure domain; empty for none.
    pub zone: String,
}

impl Admin {
    pub(crate) fn new(core: Arc<Core>) -> Admin {
        Admin { core }
    }

    /// Creates a keyspace of this mode, by default with the cluster's N, R and W.
    pub fn create_keyspace(&self, name: impl Into<String>, mode: Mode) -> CreateKeyspace {
        let mode = mode.name().to_owned();
        let request = v1::CreateKeyspaceRequest { name: name.into(), mode, ..Default::default() };
        CreateKeyspace { core: self.core.clone(), request, timeout: None }
    }

    /// Changes N, R or W of a quorum keyspace, or the limits of any.
    pub fn alter_keyspace(&self, name: impl Into<String>) -> AlterKeyspace {
        let request = v1::AlterKeyspaceRequest { name: name.into(), ..Default::default() };
        AlterKeyspace { core: self.core.clone(), request, timeout: None }
    }

    /// Drops a keyspace with all its keys.
    ///
    /// # Errors
    /// [`ClientError`]; its outcome says what is known of the effect.
    pub async fn drop_keyspace(&self, name: &str) -> Result<(), ClientError> {
        let request = v1::DropKeyspaceRequest { name: name.to_owned() };
        let route = Route::anywhere(Effect::Once);
        let dropped = self.core.call(request, route, self.core.deadline(None)).await;
        self.core.catalogue.forget(name);
        dropped.map(|_| ())
    }

    /// The keyspaces, by name.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn list_keyspaces(&self) -> Result<Vec<KeyspaceInfo>, ClientError> {
        let route = Route::anywhere(Effect::Read);
        let deadline = self.core.deadline(None);
        let listed = self.core.call(v1::ListKeyspacesRequest {}, route, deadline).await?;
        Ok(listed.keyspaces.into_iter().map(Into::into).collect())
    }

    /// The cluster's nodes, as one of them sees them.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn nodes(&self) -> Result<Vec<NodeInfo>, ClientError> {
        let route = Route::anywhere(Effect::Read);
        let deadline = self.core.deadline(None);
        let status = self.core.call(v1::StatusRequest {}, route, deadline).await?;
        Ok(status.members.into_iter().map(Into::into).collect())
    }
}

macro_rules! replication_options {
    () => {
        /// N: how many replicas keep each key.
        pub fn replication_factor(mut self, n: u32) -> Self {
            self.request.replication_factor = n;
            self
        }

        /// R: how many replicas a read of a quorum keyspace waits for.
        pub fn read_quorum(mut self, r: u32) -> Self {
            self.request.read_quorum = r;
            self
        }

        /// W: how many replicas a write of a quorum keyspace waits for.
        pub fn write_quorum(mut self, w: u32) -> Self {
            self.request.write_quorum = w;
            self
        }

        /// Reads and writes that clients may do with it in a second through each node; 0 for no
        /// limit.
        pub fn limit_operations_per_second(mut self, operations: u64) -> Self {
            self.request.limit_operations_per_second = Some(operations);
            self
        }

        /// Bytes of keys and values likewise.
        pub fn limit_bytes_per_second(mut self, bytes: u64) -> Self {
            self.request.limit_bytes_per_second = Some(bytes);
            self
        }

        /// How long the call may take, all attempts and rests included.
        pub fn timeout(mut self, timeout: Duration) -> Self {
            self.timeout = Some(timeout);
            self
        }

        /// Sends it.
        ///
        /// # Errors
        /// [`ClientError`]; its outcome says what is known of the effect.
        pub async fn send(self) -> Result<KeyspaceInfo, ClientError> {
            let deadline = self.core.deadline(self.timeout);
            let route = Route::anywhere(Effect::Once);
            let answer = self.core.call(self.request, route, deadline).await?;
            let keyspace = answer.keyspace.unwrap_or_default();
            self.core.catalogue.note(&keyspace);
            Ok(keyspace.into())
        }
    };
}

/// The creation of a keyspace; see [`Admin::create_keyspace`].
#[derive(Clone, Debug)]
#[must_use = "nothing is sent until it is awaited"]
pub struct CreateKeyspace {
    core: Arc<Core>,
    request: v1::CreateKeyspaceRequest,
    timeout: Option<Duration>,
}

impl CreateKeyspace {
    replication_options!();

    /// Has it keep all values that are written concurrently, rather than the last writer's; see
    /// [`Value::siblings`](crate::client::Value::siblings).
    pub fn siblings(mut self) -> Self {
        self.request.merge = "siblings".to_owned();
        self
    }
}

/// A change of a keyspace; see [`Admin::alter_keyspace`].
#[derive(Clone, Debug)]
#[must_use = "nothing is sent until it is awaited"]
pub struct AlterKeyspace {
    core: Arc<Core>,
    request: v1::AlterKeyspaceRequest,
    timeout: Option<Duration>,
}

impl AlterKeyspace {
    replication_options!();
}

awaitable! {
    CreateKeyspace => KeyspaceInfo;
    AlterKeyspace => KeyspaceInfo;
}

impl From<v1::Keyspace> for KeyspaceInfo {
    fn from(keyspace: v1::Keyspace) -> Self {
        KeyspaceInfo {
            name: keyspace.name,
            id: keyspace.id,
            mode: keyspace.mode,
            merge: keyspace.merge,
            replication_factor: keyspace.replication_factor,
            read_quorum: keyspace.read_quorum,
            write_quorum: keyspace.write_quorum,
            weak: keyspace.weak,
            limit_operations_per_second: keyspace.limit_operations_per_second,
            limit_bytes_per_second: keyspace.limit_bytes_per_second,
        }
    }
}

impl From<v1::Member> for NodeInfo {
    fn from(member: v1::Member) -> Self {
        NodeInfo {
            id: member.node_id,
            name: member.name,
            state: member.state,
            client_address: member.client_address,
            zone: member.zone,
        }
    }
}
