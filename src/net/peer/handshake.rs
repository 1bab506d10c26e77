//! What two nodes compare before they talk. Pure.

use crate::net::peer::LocalPeer;
use crate::proto::cluster::Hello;
use crate::types::{ClusterId, Incarnation, NodeId};

/// Version of `cluster.proto` that this program speaks. 1 had no groups; 2 had no expiries, and
/// would have kept for ever what was to end; 4 had no siblings, and would have kept one of them;
/// 5 had no counters and no sets.
pub(crate) const PROTOCOL_VERSION: u32 = 7;

/// Why two nodes do not talk. Both read the same words, so they name both.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HandshakeError {
    /// The programs are too far apart.
    #[error("node {theirs} speaks peer protocol {their_version}, node {ours} speaks {our_version}")]
    Version { theirs: NodeId, their_version: u32, ours: NodeId, our_version: u32 },
    /// They belong to different clusters.
    #[error(
        "node {theirs} belongs to cluster {their_cluster}, node {ours} to cluster {our_cluster}"
    )]
    Cluster { theirs: NodeId, their_cluster: ClusterId, ours: NodeId, our_cluster: ClusterId },
    /// They have the same id.
    #[error("both nodes have the id {node}: was a data directory copied?")]
    SameId { node: NodeId },
    /// The address belongs to another node than the dialer thinks.
    #[error("node {expected} was expected at this address, but node {found} is there")]
    WrongNode { expected: NodeId, found: NodeId },
    /// They cut the ring into different numbers of partitions.
    #[error("node {theirs} has {their_count} partitions, node {ours} has {our_count}")]
    Partitions { theirs: NodeId, their_count: u32, ours: NodeId, our_count: u32 },
    /// The wrong one dialled.
    #[error("of two nodes the one with the lower id dials; node {dialer} dialled node {acceptor}")]
    Direction { dialer: NodeId, acceptor: NodeId },
    /// The member set no longer has it.
    #[error("node {node} was forgotten by this cluster; it needs a new data directory to join")]
    Forgotten { node: NodeId },
}

/// This node's Hello to `addressee`.
pub(crate) fn hello(local: &LocalPeer, addressee: NodeId) -> Hello {
    Hello {
        protocol_version: PROTOCOL_VERSION,
        cluster_id: local.cluster_id.0,
        node_id: local.node_id.0,
        incarnation: local.incarnation.0,
        name: local.name.clone(),
        partitions: local.partitions,
        addressee: addressee.0,
    }
}

/// Checks the Hello of a node that dialled this one.
pub(crate) fn check_dialer(local: &LocalPeer, hello: &Hello) -> Result<LocalPeer, HandshakeError> {
    let peer = check_common(local, hello)?;
    let expected = NodeId(hello.addressee);
    if expected != local.node_id {
        return Err(HandshakeError::WrongNode { expected, found: local.node_id });
    }
    if peer.node_id > local.node_id {
        return Err(HandshakeError::Direction { dialer: peer.node_id, acceptor: local.node_id });
    }
    Ok(peer)
}

/// Checks the Hello of the node that this one dialled, expecting `expected`.
pub(crate) fn check_acceptor(
    local: &LocalPeer,
    expected: NodeId,
    hello: &Hello,
) -> Result<LocalPeer, HandshakeError> {
    let peer = check_common(local, hello)?;
    if peer.node_id != expected {
        return Err(HandshakeError::WrongNode { expected, found: peer.node_id });
    }
    Ok(peer)
}

/// The version comes first: of another one, no field is certain.
fn check_common(local: &LocalPeer, hello: &Hello) -> Result<LocalPeer, HandshakeError> {
    let (ours, theirs) = (local.node_id, NodeId(hello.node_id));
    if hello.protocol_version != PROTOCOL_VERSION {
        let (their_version, our_version) = (hello.protocol_version, PROTOCOL_VERSION);
        return Err(HandshakeError::Version { theirs, their_version, ours, our_version });
    }
    let (their_cluster, our_cluster) = (ClusterId(hello.cluster_id), local.cluster_id);
    if their_cluster != our_cluster {
        return Err(HandshakeError::Cluster { theirs, their_cluster, ours, our_cluster });
    }
    if theirs == ours {
        return Err(HandshakeError::SameId { node: ours });
    }
    let (their_count, our_count) = (hello.partitions, local.partitions);
    if their_count != our_count {
        return Err(HandshakeError::Partitions { theirs, their_count, ours, our_count });
    }
    Ok(LocalPeer {
        cluster_id: their_cluster,
        node_id: theirs,
        incarnation: Incarnation(hello.incarnation),
        name: hello.name.clone(),
        partitions: their_count,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(node_id: u64) -> LocalPeer {
        LocalPeer {
            cluster_id: ClusterId(0xc1),
            node_id: NodeId(node_id),
            incarnation: Incarnation(9),
            name: format!("node-{node_id}"),
            partitions: 256,
        }
    }

    #[test]
    fn equals_shake_hands_both_ways() {
        let (low, high) = (peer(1), peer(2));
        assert_eq!(check_dialer(&high, &hello(&low, NodeId(2))), Ok(low.clone()));
        assert_eq!(check_acceptor(&low, NodeId(2), &hello(&high, NodeId(1))), Ok(high));
    }

    fn refusal(change: impl FnOnce(&mut Hello)) -> String {
        let mut said = hello(&peer(1), NodeId(2));
        change(&mut said);
        check_dialer(&peer(2), &said).unwrap_err().to_string()
    }

    #[test]
    fn every_mismatch_is_refused_in_words_that_name_both_sides() {
        let (one, two) = ("0000000000000001", "0000000000000002");
        assert_eq!(
            refusal(|hello| hello.cluster_id = 0xc2),
            format!(
                "node {one} belongs to cluster 00000000000000c2, \
                 node {two} to cluster 00000000000000c1"
            )
        );
        assert_eq!(
            refusal(|hello| hello.protocol_version = 1),
            format!("node {one} speaks peer protocol 1, node {two} speaks {PROTOCOL_VERSION}")
        );
        assert_eq!(
            refusal(|hello| hello.partitions = 64),
            format!("node {one} has 64 partitions, node {two} has 256")
        );
        assert!(refusal(|hello| hello.node_id = 2).contains("data directory copied"));
        assert!(refusal(|hello| hello.node_id = 3).contains("lower id dials"));
        assert!(refusal(|hello| hello.addressee = 4).contains("was expected at this address"));
    }

    #[test]
    fn a_dialer_refuses_another_node_than_it_meant() {
        let said = hello(&peer(3), NodeId(1));
        let refused = check_acceptor(&peer(1), NodeId(2), &said);
        let expected = HandshakeError::WrongNode { expected: NodeId(2), found: NodeId(3) };
        assert_eq!(refused, Err(expected));
    }
}
