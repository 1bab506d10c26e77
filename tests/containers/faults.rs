//! What is done to containers, and the plan of a run.

use crate::compose::{Compose, NODES};
use crate::dice::Dice;

/// What can happen to one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// SIGKILL, and started again later.
    Kill,
    /// Frozen for a while.
    Pause,
    /// Cut off from the network for a while.
    Disconnect,
}

impl Fault {
    const ALL: [Fault; 3] = [Fault::Kill, Fault::Pause, Fault::Disconnect];

    /// Lets it happen.
    pub(crate) fn strike(self, compose: &Compose, node: usize) {
        match self {
            Fault::Kill => compose.kill(node),
            Fault::Pause => compose.pause(node),
            Fault::Disconnect => compose.disconnect(node),
        }
    }

    /// Undoes it.
    pub(crate) fn heal(self, compose: &Compose, node: usize) {
        match self {
            Fault::Kill => compose.start_again(node),
            Fault::Pause => compose.resume(node),
            Fault::Disconnect => compose.reconnect(node),
        }
    }
}

/// Nodes that are struck at once, each in its way.
pub(crate) type Event = Vec<(usize, Fault)>;

/// Every fault on one node and on two from different zones, one loss of a whole zone, and random
/// ones up to that many, in random order.
pub(crate) fn plan(dice: &mut Dice, events: usize) -> Vec<Event> {
    let mut planned: Vec<Event> = Vec::new();
    for fault in Fault::ALL {
        planned.push(vec![(dice.index(NODES), fault)]);
        let (one, other) = pair(dice, false);
        planned.push(vec![(one, fault), (other, fault)]);
    }
    let (one, other) = pair(dice, true);
    planned.push(vec![(one, dice.pick(&Fault::ALL)), (other, dice.pick(&Fault::ALL))]);
    while planned.len() < events {
        planned.push(random(dice));
    }
    shuffle(dice, &mut planned);
    planned.truncate(events);
    planned
}

fn random(dice: &mut Dice) -> Event {
    let (one, other) = pair(dice, false);
    let mut event = vec![(one, dice.pick(&Fault::ALL))];
    if dice.chance(400) {
        event.push((other, dice.pick(&Fault::ALL)));
    }
    event
}

/// Two nodes, of one zone or of two.
fn pair(dice: &mut Dice, of_one_zone: bool) -> (usize, usize) {
    loop {
        let (one, other) = (dice.index(NODES), dice.index(NODES));
        if one != other && Compose::spares_quorums(&[one, other]) == of_one_zone {
            return (one, other);
        }
    }
}

fn shuffle(dice: &mut Dice, events: &mut [Event]) {
    for last in (1..events.len()).rev() {
        events.swap(last, dice.index(last + 1));
    }
}

#[test]
fn a_plan_follows_from_its_seed_and_has_every_kind() {
    for seed in 0..50 {
        let planned = plan(&mut Dice::new(seed), 10);
        assert_eq!(planned, plan(&mut Dice::new(seed), 10));
        assert_eq!(planned.len(), 10);
        for fault in Fault::ALL {
            for victims in [1, 2] {
                let fits = |event: &&Event| {
                    event.len() == victims && event.iter().all(|(_, it)| *it == fault)
                };
                assert!(planned.iter().any(|event| fits(&event)), "{victims} × {fault:?}");
            }
        }
        assert!(planned.iter().all(|event| event.len() == 1 || event[0].0 != event[1].0));
    }
}
