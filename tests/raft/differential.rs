//! Our core against the `raft` crate (a port of etcd's core): the same schedule must have the same
//! outcome wherever a schedule determines one, and single replicas must answer alike.

mod answers;
mod group;
mod ours;
mod schedule;
mod theirs;

use group::{Group, Outcome, Replica};
use ours::Ours;
use schedule::{Step, schedule};
use theirs::Theirs;

use crate::dice::Dice;

/// How many random schedules are compared.
const SCHEDULES: u64 = 60;

#[test]
fn random_schedules_have_the_same_outcome() {
    let mut commands = 0;
    for seed in 0..SCHEDULES {
        let mut dice = Dice::new(seed).fork("differential");
        let voters = dice.pick(&[1, 3, 3, 5]);
        let steps = schedule(&mut dice, voters);
        let ours = outcomes::<Ours>(voters, seed, &steps);
        let theirs = outcomes::<Theirs>(voters, seed, &steps);
        for (at, (our, their)) in ours.iter().zip(&theirs).enumerate() {
            assert_eq!(our, their, "seed {seed}, quiet point {at} of {steps:?}");
            assert_eq!(our.leaders, 1, "seed {seed}, quiet point {at}: {our:?}");
        }
        commands += ours.last().map_or(0, |last| last.applied.len());
    }
    println!("{SCHEDULES} schedules, {commands} commands committed alike");
    assert_ne!(commands, 0, "no schedule committed anything");
}

/// What a kind of replica makes of a schedule, at each point where nothing is left to do.
fn outcomes<R: Replica>(voters: u64, seed: u64, steps: &[Step]) -> Vec<Outcome> {
    let mut group: Group<R> = Group::new(voters, seed);
    steps.iter().filter_map(|step| group.play(step)).collect()
}
