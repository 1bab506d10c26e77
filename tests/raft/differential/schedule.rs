//! Schedules in terms of roles, as the two implementations elect different leaders: what happens to
//! the leader and so many followers, whoever they are.
//!
//! Only schedules whose outcome is determined: a group is cut into two sides at most, so that one
//! of them has a majority; what the other side's leader is given meanwhile is lost in the end.

use crate::dice::Dice;

/// One step of a schedule.
#[derive(Clone, Copy, Debug)]
pub(super) enum Step {
    /// Commands for whoever leads the side with the majority.
    Propose { count: u64 },
    /// Commands for a leader that has lost its majority but does not know yet.
    ProposeInVain { count: u64 },
    /// The leader and so many of the others are cut off from the rest.
    CutLeaderWith { others: usize },
    /// So many followers are cut off.
    CutFollowers { count: usize },
    /// All that is on its way is lost.
    Drop,
    /// Messages are repeated and overtake each other, or do no longer.
    Disorder(bool),
    /// Time passes until each side has settled.
    Settle,
    /// All cuts are mended and time passes: a quiet point.
    Mend,
}

/// A random schedule for a group of so many voters.
pub(super) fn schedule(dice: &mut Dice, voters: u64) -> Vec<Step> {
    let minority = usize::try_from((voters - 1) / 2).expect("a small number");
    let mut steps = vec![Step::Mend];
    for _ in 0..dice.between(2, 6) {
        steps.push(Step::Disorder(dice.chance(400)));
        steps.push(Step::Propose { count: dice.between(0, 4) });
        match dice.between(0, 3) {
            0 if minority > 0 => lose_the_leader(dice, minority, &mut steps),
            1 if minority > 0 => {
                let count = usize::try_from(dice.between(1, minority as u64)).expect("small");
                steps.push(Step::CutFollowers { count });
                steps.push(Step::Propose { count: dice.between(1, 4) });
            }
            2 => steps.extend([Step::Drop, Step::Propose { count: 1 }, Step::Drop]),
            _ => steps.push(Step::Settle),
        }
        steps.push(Step::Mend);
    }
    steps
}

fn lose_the_leader(dice: &mut Dice, minority: usize, steps: &mut Vec<Step>) {
    // Everything before is committed everywhere, or which of it survives would be left open.
    steps.push(Step::Settle);
    steps.push(Step::CutLeaderWith { others: dice.index(minority) });
    steps.push(Step::ProposeInVain { count: dice.between(0, 3) });
    steps.push(Step::Settle);
    steps.push(Step::Propose { count: dice.between(1, 3) });
}
