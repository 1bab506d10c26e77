//! Versions: how writes are stamped, and which of two records stands.

pub mod counter;
pub mod dvv;
pub mod hlc;
pub mod lww;
pub mod merging;
pub mod set;
pub mod unseen;
