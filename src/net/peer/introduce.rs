//! How a node that joins learns of the cluster, before it can shake hands.

use std::error::Error;
use std::net::SocketAddr;
use std::time::Duration;

use crate::config::{ClusterSettings, Replication};
use crate::net::conversion;
use crate::net::peer::describe;
use crate::net::peer::dialer::endpoint;
use crate::net::peer::handshake::PROTOCOL_VERSION;
use crate::proto::cluster as wire;
use crate::proto::cluster::peer_client::PeerClient;
use crate::protocol::membership::MemberSet;
use crate::types::ClusterId;

/// What a member tells a node that joins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Introduction {
    /// What the founder fixed.
    pub cluster: ClusterSettings,
    /// The members that it knows.
    pub members: MemberSet,
}

/// Why a seed did not introduce.
#[derive(Debug, thiserror::Error)]
pub enum IntroduceError {
    /// No answer came from it.
    #[error("cannot reach seed {seed}: {}", describe(source.as_ref()))]
    Unreachable {
        /// The seed, as it was given.
        seed: String,
        /// What failed.
        source: Box<dyn Error + Send + Sync>,
    },
    /// It answered, but has not joined a cluster itself.
    #[error("seed {seed} has not joined a cluster yet")]
    NotJoined {
        /// The seed, as it was given.
        seed: String,
    },
    /// It runs a program of another protocol version.
    #[error("seed {seed} speaks peer protocol {theirs}, this node speaks {PROTOCOL_VERSION}")]
    Version {
        /// The seed, as it was given.
        seed: String,
        /// Its version.
        theirs: u32,
    },
    /// Its answer cannot be used.
    #[error("the introduction by seed {seed} is malformed: {problem}")]
    Malformed {
        /// The seed, as it was given.
        seed: String,
        /// What is wrong with it.
        problem: String,
    },
}

/// Asks a seed (`host:port`, resolved anew each time) for its cluster and members. Every address
/// that the name resolves to is tried in turn; the timeout covers them all.
///
/// # Errors
/// [`IntroduceError`] tells whether to try again, and of what to complain.
pub async fn introduce(seed: &str, timeout: Duration) -> Result<Introduction, IntroduceError> {
    let asked = tokio::time::timeout(timeout, ask_all(seed)).await;
    let reply = asked.unwrap_or_else(|_| Err(format!("no answer within {timeout:?}").into()));
    let reply =
        reply.map_err(|source| IntroduceError::Unreachable { seed: seed.to_owned(), source })?;
    if reply.protocol_version != PROTOCOL_VERSION {
        let theirs = reply.protocol_version;
        return Err(IntroduceError::Version { seed: seed.to_owned(), theirs });
    }
    let introduction = reply.introduction;
    let introduction =
        introduction.ok_or_else(|| IntroduceError::NotJoined { seed: seed.to_owned() })?;
    decode(&introduction)
        .map_err(|problem| IntroduceError::Malformed { seed: seed.to_owned(), problem })
}

/// The introduction as it travels.
pub(crate) fn encode(introduction: &Introduction) -> wire::Introduction {
    let ClusterSettings { cluster_id, partitions, replication } = &introduction.cluster;
    wire::Introduction {
        cluster_id: cluster_id.0,
        partitions: *partitions,
        replication_factor: replication.factor,
        read_quorum: replication.read_quorum,
        write_quorum: replication.write_quorum,
        members: conversion::encode_members(&introduction.members),
    }
}

fn decode(introduction: &wire::Introduction) -> Result<Introduction, String> {
    if introduction.partitions == 0 || introduction.replication_factor == 0 {
        return Err("it names no partitions or no replicas".to_owned());
    }
    let members = conversion::decode_members(&introduction.members);
    let members = members.map_err(|error| describe(&error))?;
    let replication = Replication {
        factor: introduction.replication_factor,
        read_quorum: introduction.read_quorum,
        write_quorum: introduction.write_quorum,
    };
    let cluster_id = ClusterId(introduction.cluster_id);
    let cluster = ClusterSettings { cluster_id, partitions: introduction.partitions, replication };
    Ok(Introduction { cluster, members })
}

type Unreachable = Box<dyn Error + Send + Sync>;

async fn ask_all(seed: &str) -> Result<wire::IntroduceReply, Unreachable> {
    let mut failure: Unreachable = "the name has no address".into();
    for address in tokio::net::lookup_host(seed).await? {
        match ask(address).await {
            Ok(reply) => return Ok(reply),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

async fn ask(address: SocketAddr) -> Result<wire::IntroduceReply, Unreachable> {
    let channel = endpoint(address).connect().await?;
    let request = wire::IntroduceRequest { protocol_version: PROTOCOL_VERSION };
    Ok(PeerClient::new(channel).introduce(request).await?.into_inner())
}
