//! The drivers: they own the tasks, ask the pure cores what to do, and do it.

pub mod assembly;
mod clock;
mod committer;
mod coordinator;
mod dispatcher;
mod early;
pub mod env;
mod feeder;
pub mod groups;
mod health;
mod hinted_handoff;
mod identity_keeper;
mod joining;
mod keyspace_limits;
pub mod launch;
pub mod local;
mod members;
mod refill;
mod replica;
mod report;
pub mod request;
mod scans;
pub mod service;
pub mod status;
mod strong;
mod tasks;
mod topology;
