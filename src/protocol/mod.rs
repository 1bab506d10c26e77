//! Decisions without effects: every rule that the cluster's safety rests on.
//!
//! Nothing below performs I/O, reads a clock, draws a random number, spawns a task or is `async`,
//! and nothing iterates a `HashMap`. A core takes the present moment as a parameter and answers
//! with values that say what to do; the drivers in `node` do it. So each core is tested as a table
//! and all of them run in a simulation in which a failure is a seed.

pub mod admission;
pub mod consistency;
pub mod digest;
pub mod exchange;
pub mod expiry;
pub mod group;
pub mod hints;
pub mod hot_keys;
pub mod latency;
pub mod listing;
pub mod membership;
pub mod merkle;
pub mod message;
pub mod meter;
pub mod pace;
pub mod planted;
pub mod quorum;
pub mod raft;
pub mod reaping;
pub mod ring;
pub mod system;
pub mod throttle;
pub mod version;
pub mod watch;
