//! Five nodes in containers, from the Compose file that users get, on an image that is built here
//! without pulling anything; containers are killed, frozen and cut off under load.
//!
//! The nodes stand on a bridge network of their own; clients reach them only through the ports
//! that Compose publishes on loopback. `COTERIE_CHAOS_SEED` replays the faults of a run, and
//! `COTERIE_CHAOS_EVENTS` says how many there are. Whatever is started here is removed again: its
//! project is called `coterie-test-` and a number.
#![cfg(target_os = "linux")]
#![allow(clippy::disallowed_methods, reason = "real containers live by the real clock")]

mod chaos;
mod compose;
mod crew;
#[allow(dead_code, reason = "the simulation uses all of it")]
#[path = "../simulation/dice.rs"]
mod dice;
mod docker;
mod faults;
mod growth;
#[path = "../cluster/harness.rs"]
mod harness;
mod image;
mod judgement;
#[allow(dead_code, reason = "the crash tests use all of it")]
#[path = "../crash/ledger.rs"]
mod ledger;
#[allow(dead_code, reason = "the crash tests use all of it")]
#[path = "../crash/load.rs"]
mod load;
mod restart;
