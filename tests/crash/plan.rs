//! Seed and rounds of a test, and the command that replays it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::dice::Dice;
use crate::harness::NodeProcess;

/// How long and from which seed a test runs.
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) rounds: usize,
}

impl Plan {
    /// The plan of the test of that full name: `fast` rounds, or `full` ones if the environment
    /// asks for them. Prints how to run it again.
    pub(crate) fn of(test: &str, fast: usize, full: usize) -> Self {
        let rounds = match std::env::var("COTERIE_CRASH_ROUNDS").as_deref() {
            Err(_) => fast,
            Ok("full") => full,
            Ok(text) => text.parse().expect("COTERIE_CRASH_ROUNDS is `full` or a number"),
        };
        let seed = match std::env::var("COTERIE_CRASH_SEED") {
            Err(_) => seed_of_the_moment(),
            Ok(text) => text.parse().expect("COTERIE_CRASH_SEED is a number"),
        };
        eprintln!(
            "{test}: {rounds} rounds; to replay: COTERIE_CRASH_SEED={seed} \
             COTERIE_CRASH_ROUNDS={rounds} cargo test --test crash {test} -- --exact --nocapture"
        );
        Plan { seed, rounds }
    }

    /// The dice of the test.
    pub(crate) fn dice(&self) -> Dice {
        Dice::new(self.seed)
    }
}

/// Lets real time pass, so that something happens at a random moment.
pub(crate) fn pass(dice: &mut Dice, ms_min: u64, ms_max: u64) {
    std::thread::sleep(Duration::from_millis(dice.between(ms_min, ms_max)));
}

/// Ends a node in good order or by a kill.
pub(crate) fn end(node: &mut NodeProcess, dice: &mut Dice) {
    if dice.chance(500) {
        node.kill();
    } else {
        stop(node);
    }
}

/// Ends a node in good order.
pub(crate) fn stop(node: &mut NodeProcess) {
    let status = node.terminate();
    assert!(status.success(), "{} ended with {status}", node.spec.name);
}

fn seed_of_the_moment() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    u64::from(since.subsec_nanos()) ^ u64::from(std::process::id()) << 32
}
