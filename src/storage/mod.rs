//! What a node keeps: the write-ahead log, the engine behind it, and the files of both.
//!
//! This layer knows nothing of the network. It reaches the disk through [`files::Files`] (log,
//! hints, identity) and through [`engine::Engine`] (the table of rows), which a simulation
//! replaces.

pub mod disk;
pub mod engine;
pub mod files;
pub mod group_log;
pub mod hint_log;
pub mod identity;
pub mod memory;
pub mod memtable;
pub mod record_codec;
pub mod sled;
pub mod store;
pub mod wal;
