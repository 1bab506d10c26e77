//! The two judges of registers agree on random small histories.

use crate::dice::Dice;
use crate::linearizability::history::{Call, Operation, Verdict};
use crate::linearizability::search::{STATES_MAX, check_register, decide};
use crate::linearizability::zones;
use crate::random::{Shape, history, seed, shown};

const HISTORIES: u64 = 200_000;

const SHAPE: Shape = Shape { operations_max: 9, time_max: 16, unknown_per_mille: 100, plain: true };

/// One in so many is judged in full, with its witness.
const FULL_EVERY: u64 = 500;

#[test]
fn the_search_and_the_zones_agree_on_random_histories() {
    let seed = seed();
    // Each half has its own dice, so that the halves can run side by side.
    let halves = ["first half", "second half"];
    let linearizable: u64 = std::thread::scope(|scope| {
        let half = |name| scope.spawn(move || agreements(&mut Dice::new(seed).fork(name)));
        let running = halves.map(half);
        running.into_iter().map(|half| half.join().expect("the judges agree")).sum()
    });
    println!("seed {seed}: {linearizable} of {HISTORIES} histories are linearizable");
    let share = HISTORIES / 5;
    assert!((share..HISTORIES - share).contains(&linearizable), "both kinds must be common");
}

/// Judges half of the histories, and says how many are linearizable.
fn agreements(dice: &mut Dice) -> u64 {
    let mut linearizable = 0;
    for number in 0..HISTORIES / 2 {
        let history = history(dice, SHAPE);
        let references: Vec<&Operation<Call>> = history.iter().collect();
        let searched = decide(&references, STATES_MAX);
        let zoned = match zones::check_register(&references) {
            Verdict::Linearizable => true,
            Verdict::NotLinearizable { .. } => false,
            Verdict::GaveUp { reason } => panic!("the zones give up: {reason}"),
        };
        assert_eq!(searched, Some(zoned), "search and zones on{}", shown(&history));
        if number % FULL_EVERY == 0 {
            verdict_is(&references, zoned);
        }
        linearizable += u64::from(zoned);
    }
    linearizable
}

fn verdict_is(history: &[&Operation<Call>], linearizable: bool) {
    match check_register(history, STATES_MAX) {
        Verdict::Linearizable => assert!(linearizable),
        Verdict::NotLinearizable { witness } => assert!(!linearizable && witness.contains("\n>")),
        Verdict::GaveUp { reason } => panic!("the search gives up: {reason}"),
    }
}
