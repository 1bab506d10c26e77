//! How messages and facts travel between nodes.
//!
//! Nothing here decides anything: the transport carries [`crate::protocol::message::Message`]s in
//! order of class, and gossip reports who is there. Protobuf types of the peer protocol stop here.

mod conversion;
pub mod gossip;
mod outbox;
pub mod peer;
pub mod transport;
