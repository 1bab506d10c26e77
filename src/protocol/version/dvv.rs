//! Dotted version vectors: the siblings of one key, and what its writers had seen.
//!
//! Every write is an *event*: a dot `(life of a replica, stamp)`, which the replica that takes the
//! write mints. [`Siblings`] hold, for each life, the latest stamp that is known and those of its
//! values that no later write has covered (Almeida, Baquero, Gonçalves, Preguiça et al., "Scalable
//! and Accurate Causality Tracking for Eventually Consistent Stores", 2014, section 5: `dvvset`).
//! A [`Context`] is the vector of these stamps: what a reader has seen. A write with a context
//! covers exactly the values whose dots lie within it; all others become its siblings.
//!
//! Where this differs from the paper: stamps of the hybrid logical clock take the place of
//! counters. A life never uses one twice, also after [`Siblings::pruned`] has forgotten the life,
//! so no dot ever names two events; and each life's *number* of events goes along, for the order.
//!
//! Invariant: whoever knows the dot `(life, stamp)` of a key knows all earlier ones of that life.
//! It holds because a replica mints into its own merged row, under a lock, and sends the whole.
//!
//! **Order.** [`Siblings::version`] makes a [`Version`] of the whole: the latest stamp, then how
//! much is known, then a digest. Joining anything adds to what is known, so a join is above
//! everything that went into it, or equal to it. This is what lets stores, hash trees and transfers
//! that keep the greater of two versions carry rows of siblings unchanged, as long as a
//! replica joins what arrives with what it holds.
//!
//! Caveat: forgetting a life (`pruned`) may bring a covered value back as a sibling, where a
//! replica that still holds it meets one that has forgotten that it was covered. No value is ever
//! lost by it.

mod codec;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use bytes::Bytes;

pub use self::codec::SiblingsError;
use crate::types::{Incarnation, Timestamp, Version};

/// From this many siblings on a key is warned about.
pub const SIBLINGS_WARN: usize = 10;

/// A write that would leave more siblings than this is refused.
pub const SIBLINGS_MAX: usize = 50;

/// What a reader has seen of a key: of each life, the latest stamp.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Context(BTreeMap<Incarnation, Seen>);

/// How far something is known of one life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Seen {
    stamp: Timestamp,
    /// The life's events up to that stamp.
    events: u64,
}

/// A value that no later write has covered; `None` is a delete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sibling {
    /// The event that wrote it.
    pub dot: Version,
    /// What it wrote.
    pub value: Option<Bytes>,
}

/// All siblings of a key, and what is known to be covered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Siblings {
    clock: BTreeMap<Incarnation, Seen>,
    /// By dot; each lies within the clock.
    values: BTreeMap<(Timestamp, Incarnation), Option<Bytes>>,
}

/// A write that would leave too many siblings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the key would have {siblings} siblings, and siblings_max is {SIBLINGS_MAX}; read it, merge \
     its values, and write the result with the context of that read"
)]
pub struct TooManySiblings {
    /// How many there would be.
    pub siblings: usize,
}

impl Context {
    /// Whether an event lies within what was seen.
    pub fn covers(&self, dot: Version) -> bool {
        self.0.get(&dot.incarnation).is_some_and(|seen| dot.timestamp <= seen.stamp)
    }

    /// The latest stamp in it: a write is stamped above.
    pub fn latest(&self) -> Option<Timestamp> {
        self.0.values().map(|seen| seen.stamp).max()
    }
}

impl Siblings {
    /// The values that nobody has covered, by their stamps; deletes among them.
    pub fn values(&self) -> impl Iterator<Item = Sibling> + '_ {
        self.values.iter().map(|((timestamp, incarnation), value)| Sibling {
            dot: Version { timestamp: *timestamp, incarnation: *incarnation },
            value: value.clone(),
        })
    }

    /// How many siblings there are, deletes included.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether nothing was ever written.
    pub fn is_empty(&self) -> bool {
        self.clock.is_empty()
    }

    /// What a reader of all this has seen.
    pub fn context(&self) -> Context {
        Context(self.clock.clone())
    }

    /// This with a write: what its context covers is replaced, everything else becomes its sibling.
    /// The dot must be newly minted by the replica whose row this is.
    ///
    /// # Errors
    /// [`TooManySiblings`].
    pub fn written(
        &self,
        dot: Version,
        value: Option<Bytes>,
        context: &Context,
    ) -> Result<Siblings, TooManySiblings> {
        let mut after = self.clone();
        after.values.retain(|(timestamp, incarnation), _| {
            !context.covers(Version { timestamp: *timestamp, incarnation: *incarnation })
        });
        for (life, seen) in &context.0 {
            raise(&mut after.clock, *life, *seen);
        }
        let known = after.clock.get(&dot.incarnation).copied();
        debug_assert!(known.is_none_or(|seen| seen.stamp < dot.timestamp), "a dot is minted once");
        let events = known.map_or(0, |seen| seen.events).saturating_add(1);
        raise(&mut after.clock, dot.incarnation, Seen { stamp: dot.timestamp, events });
        after.values.insert((dot.timestamp, dot.incarnation), value);
        match after.values.len() {
            siblings if siblings > SIBLINGS_MAX => Err(TooManySiblings { siblings }),
            _ => Ok(after),
        }
    }

    /// What is known when both are: a value stays if both have it, or if the one that lacks it has
    /// not heard of it either.
    #[must_use]
    pub fn joined(&self, other: &Siblings) -> Siblings {
        let mut clock = self.clock.clone();
        for (life, seen) in &other.clock {
            raise(&mut clock, *life, *seen);
        }
        let survives = |(at, life): &(Timestamp, Incarnation), elsewhere: &Siblings| {
            let heard = elsewhere.clock.get(life).is_some_and(|seen| *at <= seen.stamp);
            !heard || elsewhere.values.contains_key(&(*at, *life))
        };
        let ours = self.values.iter().filter(|(dot, _)| survives(dot, other));
        let theirs = other.values.iter().filter(|(dot, _)| survives(dot, self));
        let values = ours.chain(theirs).map(|(dot, value)| (*dot, value.clone())).collect();
        Siblings { clock, values }
    }

    /// The same without lives that wrote none of its siblings, of which it forgets the longest
    /// silent ones until no more than `lives_max` are left. Only for a row that is about to be
    /// written to: the new stamp puts what was forgotten above what still knows it.
    #[must_use]
    pub fn pruned(mut self, lives_max: usize) -> Siblings {
        let speaks = |life: &Incarnation| self.values.keys().any(|(_, it)| it == life);
        let silent = self.clock.iter().filter(|(life, _)| !speaks(life));
        let mut silent: Vec<(Timestamp, Incarnation)> =
            silent.map(|(life, seen)| (seen.stamp, *life)).collect();
        silent.sort_unstable();
        let too_many = self.clock.len().saturating_sub(lives_max);
        for (_, life) in silent.into_iter().take(too_many) {
            self.clock.remove(&life);
        }
        self
    }

    /// What orders this among all states of the key: see the module's words. `None` when nothing
    /// was written.
    pub fn version(&self) -> Option<Version> {
        let timestamp = self.clock.values().map(|seen| seen.stamp).max()?;
        let events = self.clock.values().fold(0u64, |sum, it| sum.saturating_add(it.events));
        // Each event adds two, and takes back one while its value stands: hearing of events and
        // hearing that values are covered both add.
        let known = events.saturating_mul(2).saturating_sub(self.values.len() as u64);
        let known = known.min(u64::from(u32::MAX));
        let incarnation = Incarnation((known << 32) | u64::from(self.digest()));
        Some(Version { timestamp, incarnation })
    }

    /// Tells apart states that know of equally much.
    fn digest(&self) -> u32 {
        let lives = self.clock.iter().flat_map(|(life, seen)| [1, life.0, seen.stamp.0]);
        let dots = self.values.keys().flat_map(|(at, life)| [2, life.0, at.0]);
        let bytes: Vec<u8> = lives.chain(dots).flat_map(u64::to_be_bytes).collect();
        crc32c::crc32c(&bytes)
    }
}

fn raise(clock: &mut BTreeMap<Incarnation, Seen>, life: Incarnation, seen: Seen) {
    let known = clock.entry(life).or_insert(seen);
    *known = seen.max(*known);
}
