//! Coterie: a leaderless, replicated key-value store in one binary.
//!
//! The layers, each importing only those to its left:
//! `types → protocol → {storage, net} → node → {api, cli} → main`. For programs that use a cluster
//! there is [`Client`]; it stands beside them on `types` and `protocol` alone.
//! `docs/ARCHITECTURE.md` tells what each is for and what is deliberately absent.

pub mod api;
pub mod cli;
pub mod client;
pub mod config;
pub mod net;
pub mod node;
pub mod proto;
pub mod protocol;
pub mod storage;
pub mod telemetry;
pub mod types;

pub use client::Client;
