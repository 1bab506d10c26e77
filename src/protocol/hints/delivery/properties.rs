//! Random targets, logs and networks against what must always hold.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

/// One random event: which kind, and to which of the hints in flight.
type Step = (u8, usize);

const RATE: u64 = 100_000;

fn setup() -> DeliverySetup {
    DeliverySetup { in_flight_max: 8, window_bytes_max: 2_000, ..DeliverySetup::at_rate(RATE) }
}

/// The log, the network and the target of one delivery.
struct World {
    delivery: Delivery,
    now: Moment,
    /// Hints of the log: id and bytes; those up to `acknowledged` were dropped.
    log: BTreeMap<u64, u64>,
    acknowledged: u64,
    in_flight: BTreeSet<u64>,
    taken: BTreeSet<u64>,
    sent_bytes: u64,
    up: bool,
}

impl World {
    fn new(sizes: &[u64]) -> Self {
        let log = sizes.iter().enumerate().map(|(at, bytes)| (at as u64 * 2 + 1, *bytes)).collect();
        let mut delivery = Delivery::new(setup(), 7, Moment(0));
        delivery.on_queued(Moment(0));
        World {
            delivery,
            now: Moment(0),
            log,
            acknowledged: 0,
            in_flight: BTreeSet::new(),
            taken: BTreeSet::new(),
            sent_bytes: 0,
            up: false,
        }
    }

    fn drain(&mut self) {
        while let Some(effect) = self.delivery.poll() {
            match effect {
                DeliveryEffect::Fetch { after, hints_max, bytes_max } => {
                    self.fetch(after, hints_max, bytes_max);
                }
                DeliveryEffect::Send { id } => self.send(id),
                DeliveryEffect::Acknowledge { up_to } => self.acknowledge(up_to),
            }
        }
    }

    fn fetch(&mut self, after: u64, hints_max: usize, bytes_max: u64) {
        assert!(self.up && hints_max > 0 && hints_max <= setup().in_flight_max);
        let mut hints = Vec::new();
        let mut bytes_read = 0;
        for (&id, &bytes) in self.log.range(after + 1..) {
            if hints.len() == hints_max || (bytes_read > 0 && bytes_read >= bytes_max) {
                break;
            }
            bytes_read += bytes;
            hints.push(FetchedHint { id, bytes, time_left: Some(Duration::from_secs(3_600)) });
        }
        let last = hints.last().map(|hint| hint.id);
        self.delivery.on_fetched(&hints, last == self.log.keys().last().copied(), self.now);
    }

    fn send(&mut self, id: u64) {
        assert!(self.up, "the target is down");
        assert!(self.log.contains_key(&id) && id > self.acknowledged);
        assert!(self.in_flight.insert(id), "{id} is in flight already");
        assert!(self.in_flight.len() <= setup().in_flight_max);
        let allowed = RATE * (self.now.0 + BURST.as_micros() as u64) / 1_000_000;
        assert!(self.sent_bytes <= allowed + 1, "{} sent of {allowed}", self.sent_bytes);
        self.sent_bytes += self.log[&id];
    }

    fn acknowledge(&mut self, up_to: u64) {
        assert!(up_to > self.acknowledged);
        let dropped: BTreeSet<u64> = self.log.range(..=up_to).map(|(id, _)| *id).collect();
        assert!(dropped.is_subset(&self.taken), "a hint is dropped that the target lacks");
        self.acknowledged = up_to;
    }

    fn step(&mut self, (kind, index): Step) {
        match kind {
            0 => self.set_up(true),
            1 => self.set_up(false),
            2 => self.now = self.now + Duration::from_millis(index as u64 % 200),
            3 => self.now = self.delivery.next_deadline().unwrap_or(self.now).max(self.now),
            _ => self.arrive(kind, index),
        }
        self.delivery.on_tick(self.now);
        self.forget_resent();
        self.drain();
    }

    fn set_up(&mut self, up: bool) {
        if up && !self.up {
            self.delivery.on_target_up(self.now);
        } else if self.up && !up {
            self.in_flight.clear();
            self.delivery.on_target_down(self.now);
        }
        self.up = up;
    }

    /// What has been unanswered for too long is due to be sent again.
    fn forget_resent(&mut self) {
        let delivery = &self.delivery;
        self.in_flight.retain(|id| delivery.window.is_in_flight(*id));
    }

    fn arrive(&mut self, kind: u8, index: usize) {
        let Some(&id) = self.in_flight.iter().nth(index % self.in_flight.len().max(1)) else {
            return;
        };
        self.in_flight.remove(&id);
        match kind {
            4 => self.delivery.on_refusal(id, Refusal::Overloaded, self.now),
            5 => self.delivery.on_refusal(id, Refusal::ClockOffset, self.now),
            6 => self.delivery.on_unsent(id, self.now),
            7 => {
                self.in_flight.clear();
                self.delivery.on_lost(self.now);
            }
            _ => {
                self.taken.insert(id);
                (7..kind).for_each(|_| self.delivery.on_ack(id, self.now));
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn whatever_happens_every_hint_arrives_once_faults_stop(
        sizes in prop::collection::vec(1u64..1_500, 0..60),
        steps in prop::collection::vec((0u8..12, any::<usize>()), 0..150),
    ) {
        let mut world = World::new(&sizes);
        steps.into_iter().for_each(|step| world.step(step));
        world.step((0, 0));
        // Each round delivers something or waits for the next deadline; the slowest hint may be
        // set aside or unanswered for as long as a pause, and all may have been.
        for _ in 0..sizes.len() * 8 + 20 {
            world.step((8, 0));
            world.step((3, 0));
        }
        prop_assert!(world.delivery.is_idle());
        prop_assert_eq!(world.taken.len(), sizes.len());
        prop_assert_eq!(world.delivery.counts().delivered, sizes.len() as u64);
        prop_assert_eq!(world.delivery.next_deadline(), None);
        let last = world.log.keys().last().copied().unwrap_or(0);
        prop_assert_eq!(world.acknowledged, last, "the log is empty");
    }
}
