//! Hinted handoff: which writes are kept for an absent primary, and how they are delivered.
//!
//! DeCandia et al., "Dynamo", 2007, section 4.6. [`HintPolicy`] bounds what is kept, so that one
//! absent node costs the others a known amount (scylladb#7976); [`Delivery`] decides for one
//! returned target what to read from the hint log, what to send, and what to drop from the log.

pub mod backoff;
pub mod delivery;
pub mod policy;

pub use self::delivery::{Delivery, DeliveryEffect, DeliverySetup};
pub use self::policy::{HintPolicy, NotAdmitted};
