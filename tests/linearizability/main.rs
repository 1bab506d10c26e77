//! The judges of linearizability, judged: do they agree with each other and with trying every
//! order, do they refuse what is known to be wrong, and accept what is known to be right?
//!
//! `cargo test --test linearizability`. Random histories come from a fixed seed, or from the one
//! in `COTERIE_LINEARIZABILITY_SEED`; every failure prints the seed that replays it.

mod agreement;
mod bulk;
mod cases;
#[allow(dead_code, reason = "the simulation draws in more ways than these tests")]
#[path = "../simulation/dice.rs"]
mod dice;
mod exhaustive;
#[path = "mod.rs"]
mod linearizability;
mod lists;
mod random;
