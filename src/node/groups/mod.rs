//! The Raft groups of this node: one task drives them all.
//!
//! `driver` takes what comes in and has done what the cores want; `host` keeps the groups and
//! touches those that something happened to; `group` is one replica of one group. All share one
//! batch for the log, one connection per peer, and one clock of ticks.

pub(crate) mod batch;
pub(crate) mod begin;
pub(crate) mod census;
pub(crate) mod client;
pub(crate) mod driver;
pub(crate) mod fetching;
pub(crate) mod gateway;
pub(crate) mod group;
mod handed_over;
pub(crate) mod host;
mod housekeeping;
pub(crate) mod inbox;
mod incoming;
mod keyspaces;
mod listing;
pub(crate) mod machine;
pub mod observer;
pub(crate) mod open;
mod outgoing;
mod overlay;
pub mod report;
mod snapshots;
pub(crate) mod system;
mod timers;
pub(crate) mod waiting;
pub(crate) mod watches;
