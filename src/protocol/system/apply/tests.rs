//! Every command: what it does, and what it refuses.

mod groups;
mod keyspaces;
mod members;
mod reaping;
