//! Histories of replicas that write and hear of each other, against the causes that are written
//! down.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::types::{Key, KeyspaceId};

const REPLICAS: usize = 3;

/// One step: what, at which replica, with or by which other thing.
type Step = (u8, usize, usize);

/// What really happened: every event knows which ones its writer had seen.
#[derive(Default)]
struct World {
    rows: Vec<Siblings>,
    /// The events that each replica has heard of.
    heard: Vec<BTreeSet<Version>>,
    /// What each event covers.
    covers: BTreeMap<Version, BTreeSet<Version>>,
    /// The events that are deletes.
    deletes: BTreeSet<Version>,
    /// Contexts that clients hold, and the events that they stand for.
    contexts: Vec<(Context, BTreeSet<Version>)>,
    stamps: u64,
}

impl World {
    fn new() -> World {
        World {
            rows: vec![Siblings::default(); REPLICAS],
            heard: vec![BTreeSet::new(); REPLICAS],
            contexts: vec![(Context::default(), BTreeSet::new())],
            ..World::default()
        }
    }

    fn step(&mut self, (kind, at, other): Step) {
        let at = at % REPLICAS;
        match kind {
            0..=2 => self.write(at, other, true),
            6 => self.write(at, other, false),
            3 => self.contexts.push((self.rows[at].context(), self.heard[at].clone())),
            _ => self.hear(at, other % REPLICAS),
        }
        self.check(at);
    }

    /// A client writes with one of the contexts that there are; the first is none.
    fn write(&mut self, at: usize, context: usize, is_put: bool) {
        let (context, seen) = self.contexts[context % self.contexts.len()].clone();
        self.stamps += 1;
        let life = Incarnation(at as u64 + 1);
        let dot = Version { timestamp: Timestamp(self.stamps), incarnation: life };
        let before = self.rows[at].version();
        let value = is_put.then(|| Bytes::copy_from_slice(&self.stamps.to_be_bytes()));
        if !is_put {
            self.deletes.insert(dot);
        }
        self.rows[at] = self.rows[at].written(dot, value, &context).expect("few siblings");
        assert!(self.rows[at].version() > before, "a write is above what it was written into");
        self.heard[at].extend(seen.iter().copied());
        self.heard[at].insert(dot);
        self.covers.insert(dot, seen);
    }

    /// One replica hears all that another holds.
    fn hear(&mut self, at: usize, from: usize) {
        let joined = self.rows[at].joined(&self.rows[from]);
        for row in [&self.rows[at], &self.rows[from]] {
            assert!(
                joined == *row || joined.version() > row.version(),
                "a join is above its parts"
            );
        }
        self.rows[at] = joined;
        let heard = self.heard[from].clone();
        self.heard[at].extend(heard);
    }

    /// The values of a row are those that no event it has heard of covers.
    fn check(&self, at: usize) {
        let heard = &self.heard[at];
        let covered: BTreeSet<Version> =
            heard.iter().filter_map(|dot| self.covers.get(dot)).flatten().copied().collect();
        let stands = |dot: &&Version| !covered.contains(*dot) && !self.deletes.contains(*dot);
        let expected: BTreeSet<Version> = heard.iter().filter(stands).copied().collect();
        let held: BTreeSet<Version> = self.rows[at].values().map(|sibling| sibling.dot).collect();
        assert_eq!(held, expected, "replica {at}");
        let context = self.rows[at].context();
        for dot in self.covers.keys() {
            assert_eq!(context.covers(*dot), heard.contains(dot), "{dot}");
        }
    }
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec((0u8..7, any::<usize>(), any::<usize>()), 0..40)
}

fn world(steps: Vec<Step>) -> World {
    let mut world = World::new();
    steps.into_iter().for_each(|step| world.step(step));
    world
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn rows_hold_what_no_event_that_they_heard_of_covers(steps in steps()) {
        world(steps);
    }

    #[test]
    fn joining_is_a_lattice(steps in steps()) {
        let World { rows, .. } = world(steps);
        let [a, b, c] = <[Siblings; REPLICAS]>::try_from(rows).expect("three rows");
        prop_assert_eq!(a.joined(&b), b.joined(&a));
        let (left, right) = (a.joined(&b).joined(&c), a.joined(&b.joined(&c)));
        prop_assert!(left.says_the_same_as(&right), "whatever its height");
        prop_assert_eq!(a.joined(&a), a.clone());
        prop_assert_eq!(a.joined(&b).joined(&a), a.joined(&b));
        prop_assert_eq!(a.joined(&Siblings::default()), a.clone());
        prop_assert_eq!(a.version() == b.version(), a == b);
    }

    /// Whatever the order in which replicas hear of each other, they end with the same row.
    #[test]
    fn replicas_that_hear_of_each_other_end_alike(
        steps in steps(),
        order in prop::collection::vec((0..REPLICAS, 0..REPLICAS), 0..12),
    ) {
        let mut world = world(steps);
        order.into_iter().for_each(|(at, from)| world.hear(at, from));
        for _ in 0..REPLICAS {
            (0..REPLICAS).for_each(|at| (0..REPLICAS).for_each(|from| world.hear(at, from)));
        }
        prop_assert!(world.rows.iter().all(|row| *row == world.rows[0]));
    }

    #[test]
    fn an_emptied_row_covers_what_it_was_made_of(steps in steps()) {
        let World { rows, .. } = world(steps);
        let left = rows[0].emptied();
        prop_assert!(left == rows[0] || left.version() > rows[0].version());
        prop_assert_eq!((left.len(), left.context()), (0, rows[0].context()));
        prop_assert_eq!(rows[0].joined(&left), left);
    }

    /// Forgetting lives loses no value, wherever the row goes; what it may do is bring back.
    #[test]
    fn pruning_loses_no_value(steps in steps(), lives_max in 0usize..3) {
        let World { rows, stamps, .. } = world(steps);
        let dot = Version { timestamp: Timestamp(stamps + 1), incarnation: Incarnation(1) };
        let context = Context::default();
        let whole = rows[0].written(dot, None, &context).expect("few siblings");
        let pruned = whole.clone().pruned(&rows[0], lives_max);
        prop_assert!(pruned.version() > rows[0].version(), "it is above what it was made of");
        for other in &rows {
            let joined = pruned.joined(other);
            prop_assert_eq!(&joined, &other.joined(&pruned));
            prop_assert_eq!(&joined.joined(&pruned), &joined);
            prop_assert_eq!(&joined.joined(other), &joined);
            prop_assert!(joined == pruned || joined.version() > pruned.version());
            prop_assert!(joined == *other || joined.version() > other.version());
            let held: BTreeSet<Version> = joined.values().map(|sibling| sibling.dot).collect();
            let kept = whole.joined(other);
            prop_assert!(kept.values().all(|sibling| held.contains(&sibling.dot)));
            // One that knows what was forgotten meets one to which it has come back.
            let informed = rows[0].joined(&pruned);
            let both = informed.joined(&joined);
            prop_assert!(both == informed || both.version() > informed.version());
            prop_assert!(both == joined || both.version() > joined.version());
        }
    }

    /// What a write covers stays covered, however many lives it silences.
    #[test]
    fn pruning_forgets_nothing_that_was_just_covered(steps in steps(), lives_max in 0usize..3) {
        let World { rows, stamps, .. } = world(steps);
        let dot = Version { timestamp: Timestamp(stamps + 1), incarnation: Incarnation(99) };
        let known = rows[0].joined(&rows[1]);
        let gone = known.written(dot, None, &known.context()).expect("a delete");
        let pruned = gone.pruned(&known, lives_max);
        prop_assert_eq!(known.joined(&pruned).len(), 0);
    }

    #[test]
    fn rows_and_contexts_survive_their_bytes(steps in steps(), cut in any::<usize>()) {
        let World { rows, .. } = world(steps);
        let key = Key::from("k");
        for row in rows {
            let bytes = row.encode();
            prop_assert_eq!(Siblings::decode(bytes.clone()), Ok(row.clone()));
            prop_assert!(Siblings::decode(bytes.slice(..cut % bytes.len())).is_err());
            let of = (KeyspaceId::DEFAULT, &key);
            let text = row.context().to_text(of);
            prop_assert_eq!(Context::from_text(&text, of), Ok(row.context()));
            prop_assert!(Context::from_text(&text[..cut % text.len()], of).is_err());
        }
    }

    #[test]
    fn any_bytes_are_siblings_or_refused(bytes in prop::collection::vec(0u8..3, 0..64)) {
        if let Ok(row) = Siblings::decode(Bytes::from(bytes.clone())) {
            prop_assert_eq!(row.encode(), Bytes::from(bytes));
        }
    }
}
