//! What the log of a strong partition means: a key-value machine that every replica of the group
//! runs over the same entries, with the same outcome.
//!
//! * [`command`]: what an entry says. [`reply`]: what the client hears.
//! * [`machine`]: applies entries, one after another, and answers with the rows that follow.
//! * [`sessions`]: which commands were executed already (Ongaro 2014, section 6.3).
//! * [`stored`], [`applied`]: what the rows hold. [`pass`]: the rows of several entries at once.
//!
//! The machine decides; rows live in the storage of the node. `docs/decisions/0005` tells how its
//! outcome becomes durable.

pub mod applied;
mod batch;
mod codec;
pub mod command;
pub mod machine;
pub mod pass;
pub mod reply;
pub mod sessions;
pub mod stored;

pub use codec::DecodeError;
