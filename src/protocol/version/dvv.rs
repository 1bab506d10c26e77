//! Dotted version vectors: the siblings of one key, and what its writers had seen.
//!
//! Every write is an *event*: a dot `(life of a pen, stamp)`, which the replica that takes the
//! write mints. [`Siblings`] hold, for each life, the latest stamp that is known and those of its
//! values that no later write has covered (Almeida, Baquero, Gonçalves, Preguiça et al., "Scalable
//! and Accurate Causality Tracking for Eventually Consistent Stores", 2014, section 5: `dvvset`).
//! A [`Context`] is the vector of these stamps: what a reader has seen. A write with a context
//! covers exactly the values whose dots lie within it; all others become its siblings. A delete
//! is an event without a value: it covers, and leaves nothing. What was written concurrently stays.
//!
//! Where this differs from the paper: stamps of the hybrid logical clock take the place of
//! counters. A life never uses one twice, also after [`Siblings::pruned`] has forgotten the life,
//! so no dot ever names two events.
//!
//! Invariant: whoever knows the dot `(life, stamp)` of a key knows all earlier ones of that life,
//! or knows that they are covered. It holds because a replica mints into its own joined row, one
//! write after the other, sends the whole, and begins a new life whenever its rows may no longer
//! have all that the old one wrote.
//!
//! **Order.** [`Siblings::version`] makes a [`Version`] of the whole: the latest stamp, then the
//! row's *height*, then a digest. A write is above all that it was made of by its stamp, and begins
//! at height 0; a join is as high as it takes to be above its parts, but for one that it equals.
//! This is what lets stores, hash trees and transfers that keep the greater of two versions carry
//! rows of siblings unchanged, as long as a replica joins what arrives with what it holds. Replicas
//! that join the same parts in different order may come to different heights over the same content;
//! the join of these is the higher one, so they still end with the same row. Nothing of the order
//! comes from clients: contexts carry no heights.
//!
//! Caveat: forgetting a life (`pruned`) may bring a covered value back as a sibling, where a
//! replica that still holds it meets one that has forgotten that it was covered. No value is ever
//! lost by it.

mod codec;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

pub use self::codec::SiblingsError;
use crate::protocol::digest::hash_of;
use crate::types::{Expiry, Incarnation, Record, Timestamp, Version};

/// From this many siblings on a key is warned about.
pub const SIBLINGS_WARN: usize = 10;

/// A write that would leave more siblings than this is refused.
pub const SIBLINGS_MAX: usize = 50;

/// A write that would leave several siblings of more bytes than this is refused: they are one row.
pub const SIBLINGS_BYTES_MAX: usize = 4 << 20;

/// A row that is written to keeps the clocks of so many lives; of more, those are forgotten that
/// wrote none of its values, the longest silent ones first.
pub const LIVES_MAX: usize = 32;

/// So many bits of a version's incarnation are the digest; the height takes those above.
const DIGEST_BITS: u32 = 48;

/// What a reader has seen of a key: of each life, the latest stamp.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Context(BTreeMap<Incarnation, Timestamp>);

/// A value that no later write has covered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sibling {
    /// The event that wrote it.
    pub dot: Version,
    /// What it wrote.
    pub value: Bytes,
}

/// All siblings of a key, and what is known to be covered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Siblings {
    clock: BTreeMap<Incarnation, Timestamp>,
    /// By dot; each lies within the clock.
    values: BTreeMap<(Timestamp, Incarnation), Bytes>,
    /// How many joins it is above the write of its latest stamp, at least.
    height: u16,
}

/// A write that would leave more siblings, or more bytes of them, than a row may be written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there would be too many siblings, or too many bytes of them")]
pub struct TooManySiblings;

impl Context {
    /// Whether an event lies within what was seen.
    pub fn covers(&self, dot: Version) -> bool {
        self.0.get(&dot.incarnation).is_some_and(|seen| dot.timestamp <= *seen)
    }

    /// The latest stamp in it: a write is stamped above.
    pub fn latest(&self) -> Option<Timestamp> {
        self.0.values().copied().max()
    }

    /// Whether nothing was seen.
    pub fn is_nothing(&self) -> bool {
        self.0.is_empty()
    }

    /// About how many bytes it takes.
    pub fn size_bytes(&self) -> usize {
        self.0.len() * size_of::<(Incarnation, Timestamp)>()
    }

    /// What of it lies within what a row has heard of.
    #[must_use]
    pub fn within(&self, row: &Siblings) -> Context {
        let common = |(life, seen): (&Incarnation, &Timestamp)| {
            row.clock.get(life).map(|known| (*life, *known.min(seen)))
        };
        Context(self.0.iter().filter_map(common).collect())
    }

    /// Whether a row has itself heard of all that was seen, not merely forgotten.
    pub fn is_within(&self, row: &Siblings) -> bool {
        self.within(row) == *self
    }

    /// What of it lies above a stamp.
    #[must_use]
    pub fn above(mut self, stamp: Timestamp) -> Context {
        self.0.retain(|_, seen| *seen > stamp);
        self
    }

    /// Whether a row has heard of all that was seen. Of a life that the row does not know it may
    /// have [forgotten](Siblings::pruned) it, if it knows so many that it may have been pruned.
    pub fn is_reached_by(&self, row: &Siblings) -> bool {
        let may_forget = row.clock.len() >= LIVES_MAX;
        let heard = |(life, seen): (&Incarnation, &Timestamp)| {
            row.clock.get(life).map_or(may_forget, |known| known >= seen)
        };
        self.0.iter().all(heard)
    }
}

impl Siblings {
    /// The values that nobody has covered, by their stamps.
    pub fn values(&self) -> impl Iterator<Item = Sibling> + '_ {
        self.values.iter().map(|((timestamp, incarnation), value)| Sibling {
            dot: Version { timestamp: *timestamp, incarnation: *incarnation },
            value: value.clone(),
        })
    }

    /// How many siblings there are.
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

    /// How far this row has heard of a life.
    pub fn heard_of(&self, life: Incarnation) -> Option<Timestamp> {
        self.clock.get(&life).copied()
    }

    /// This with a write, or a delete: what its context covers is replaced, everything else becomes
    /// its sibling. The dot must be newly minted by the replica whose row this is, above all stamps
    /// of the row and of the context.
    ///
    /// # Errors
    /// [`TooManySiblings`], of a put that leaves more of them than there were.
    pub fn written(
        &self,
        dot: Version,
        value: Option<Bytes>,
        context: &Context,
    ) -> Result<Siblings, TooManySiblings> {
        debug_assert!(self.latest() < Some(dot.timestamp), "a dot is minted above its row");
        let mut after = Siblings { height: 0, ..self.clone() };
        after.values.retain(|(timestamp, incarnation), _| {
            !context.covers(Version { timestamp: *timestamp, incarnation: *incarnation })
        });
        let seen = context.0.iter().map(|(life, seen)| (*life, *seen));
        for (life, stamp) in seen.chain([(dot.incarnation, dot.timestamp)]) {
            raise(&mut after.clock, life, stamp);
        }
        let Some(value) = value else { return Ok(after) };
        after.values.insert((dot.timestamp, dot.incarnation), value);
        let (count, bytes) = (after.len(), after.value_bytes());
        let is_beyond = |now: usize, max: usize, before: usize| now > max && now > before;
        let too_many = is_beyond(count, SIBLINGS_MAX, self.len())
            || (count > 1 && is_beyond(bytes, SIBLINGS_BYTES_MAX, self.value_bytes()));
        if too_many { Err(TooManySiblings) } else { Ok(after) }
    }

    /// This with events that cover some of its values and may leave values of their own: how the
    /// mergeable types are written. The dots must be minted as for [`Siblings::written`], each
    /// above the one before.
    #[must_use]
    pub fn replaced(
        &self,
        events: impl IntoIterator<Item = (Version, Option<Bytes>)>,
        covers: impl Fn(Version, &Bytes) -> bool,
    ) -> Siblings {
        let mut after = Siblings { height: 0, ..self.clone() };
        after.values.retain(|(timestamp, incarnation), value| {
            !covers(Version { timestamp: *timestamp, incarnation: *incarnation }, value)
        });
        for (dot, value) in events {
            debug_assert!(after.latest() < Some(dot.timestamp), "a dot is minted above its row");
            raise(&mut after.clock, dot.incarnation, dot.timestamp);
            after.values.extend(value.map(|value| ((dot.timestamp, dot.incarnation), value)));
        }
        after
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
            let heard = elsewhere.clock.get(life).is_some_and(|seen| at <= seen);
            !heard || elsewhere.values.contains_key(&(*at, *life))
        };
        let ours = self.values.iter().filter(|(dot, _)| survives(dot, other));
        let theirs = other.values.iter().filter(|(dot, _)| survives(dot, self));
        let values = ours.chain(theirs).map(|(dot, value)| (*dot, value.clone())).collect();
        let joined = Siblings { clock, values, height: 0 };
        let height = joined.height_above(self).max(joined.height_above(other));
        Siblings { height, ..joined }
    }

    /// The same without its values: they are covered, by nobody knows what.
    #[must_use]
    pub fn emptied(&self) -> Siblings {
        let left = Siblings { clock: self.clock.clone(), ..Siblings::default() };
        Siblings { height: left.height_above(self), ..left }
    }

    /// How high this must be to be above a part of it, or equal to it.
    fn height_above(&self, part: &Siblings) -> u16 {
        match (self.latest() > part.latest(), self.says_the_same_as(part)) {
            (true, _) => 0,
            (false, true) => part.height,
            (false, false) => part.height.saturating_add(1),
        }
    }

    fn says_the_same_as(&self, other: &Siblings) -> bool {
        self.clock == other.clock && self.values.keys().eq(other.values.keys())
    }

    fn latest(&self) -> Option<Timestamp> {
        self.clock.values().copied().max()
    }

    /// The bytes of all values.
    pub fn value_bytes(&self) -> usize {
        self.values.values().map(Bytes::len).sum()
    }

    /// The same without lives that wrote none of its siblings, of which it forgets the longest
    /// silent ones until no more than `lives_max` are left. Only for a row that has just been
    /// written to: the new stamp, whose life always stays, puts what was forgotten above what still
    /// knows it. What that write has covered of the row before is not forgotten with it, or other
    /// replicas would never hear that it was covered.
    #[must_use]
    pub fn pruned(mut self, before: &Siblings, lives_max: usize) -> Siblings {
        let values = self.values.keys().chain(before.values.keys());
        let speaking: BTreeSet<Incarnation> = values.map(|(_, life)| *life).collect();
        let latest = self.latest();
        let may_go = |(life, seen): &(&Incarnation, &Timestamp)| {
            !speaking.contains(life) && Some(**seen) < latest
        };
        let silent = self.clock.iter().filter(may_go);
        let mut silent: Vec<(Timestamp, Incarnation)> =
            silent.map(|(life, seen)| (*seen, *life)).collect();
        silent.sort_unstable();
        let too_many = self.clock.len().saturating_sub(lives_max);
        for (_, life) in silent.into_iter().take(too_many) {
            self.clock.remove(&life);
        }
        self
    }

    /// This as a row. One without values ends at its latest stamp, so that it reads as absent and
    /// is reaped like any other value that has ended. `None` when nothing was ever written.
    pub fn to_record(&self) -> Option<Record> {
        let version = self.version()?;
        let ended = self.values.is_empty().then(|| Expiry(version.timestamp.wall_ms()));
        Some(Record::new(version, Some(self.encode())).expiring(ended))
    }

    /// The siblings in a row.
    ///
    /// # Errors
    /// [`SiblingsError`].
    pub fn of_record(record: &Record) -> Result<Siblings, SiblingsError> {
        Siblings::decode(record.value.clone().ok_or(SiblingsError::Malformed)?)
    }

    /// What orders this among all states of the key: see the module's words. `None` when nothing
    /// was written.
    pub fn version(&self) -> Option<Version> {
        let timestamp = self.latest()?;
        let height = u64::from(self.height) << DIGEST_BITS;
        Some(Version { timestamp, incarnation: Incarnation(height | self.digest()) })
    }

    /// Tells apart states of one latest stamp and one height.
    fn digest(&self) -> u64 {
        let lives = self.clock.iter().flat_map(|(life, seen)| [1, life.0, seen.0]);
        let dots = self.values.keys().flat_map(|(at, life)| [2, life.0, at.0]);
        let bytes: Vec<u8> = lives.chain(dots).flat_map(u64::to_be_bytes).collect();
        hash_of(&bytes) >> (u64::BITS - DIGEST_BITS)
    }
}

fn raise(clock: &mut BTreeMap<Incarnation, Timestamp>, life: Incarnation, stamp: Timestamp) {
    let known = clock.entry(life).or_insert(stamp);
    *known = stamp.max(*known);
}
