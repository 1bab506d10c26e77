//! Versions: how writes are stamped, and which of two records stands.

pub mod hlc;
pub mod lww;
pub mod unseen;
