//! Judges of histories: whether what clients asked and were told can be explained by one copy of
//! the data on which each operation took effect at one moment between its call and its answer
//! (Herlihy and Wing 1990, "Linearizability: A Correctness Condition for Concurrent Objects").
//!
//! * [`search`] judges any history of registers, by trying orders. It may give up, and says so.
//! * [`zones`] judges registers whose written values all differ, in n log n: for bulk histories.
//! * [`appends`] judges append lists whose elements all differ, in n log n.
//!
//! All three are validated against each other and against trying every order
//! (`cargo test --test linearizability`). A test includes them by
//! `#[path = "../linearizability/mod.rs"] mod linearizability;`.

#![allow(dead_code, reason = "each test that includes these uses the judges that it needs")]

pub(crate) mod appends;
pub(crate) mod history;
pub(crate) mod search;
pub(crate) mod zones;
