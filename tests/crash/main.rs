//! What real nodes on real files keep when they are killed, lose power, meet disks that fail or
//! fill up, or find their files damaged; and what clients see of that in strong keyspaces.
//!
//! The rule behind all of it: whatever was acknowledged is read back, nothing else is, and when a
//! node cannot keep to that, it says so and stops serving what it would get wrong.
//!
//! Every test prints its seed and the command that runs it again. `COTERIE_CRASH_ROUNDS` says how
//! many rounds each takes (`full`, or a number); without it they take few. Preloading a library
//! ([`disk`]) needs Linux and a C compiler, `cc`.
#![cfg(target_os = "linux")]
#![allow(clippy::disallowed_methods, reason = "real processes live by the real clock")]

mod damage_engine;
mod damage_wal;
#[allow(dead_code, reason = "the simulation uses all of it")]
#[path = "../simulation/dice.rs"]
mod dice;
mod disk;
mod faults;
mod full_disk;
#[path = "../cluster/harness.rs"]
mod harness;
mod kill;
mod leaders;
mod ledger;
#[path = "../linearizability/mod.rs"]
mod linearizability;
mod load;
mod plan;
mod power_loss;
