use super::*;
use DeliveryEffect::{Acknowledge, Fetch, Send};

const SETUP: DeliverySetup = DeliverySetup {
    bytes_per_second: 1 << 30,
    in_flight_max: 4,
    window_bytes_max: 10_000,
    resend_after: Duration::from_secs(5),
    backoff_min: Duration::from_millis(100),
    backoff_max: Duration::from_secs(10),
};

const START: Moment = Moment(0);

fn ms(ms: u64) -> Moment {
    Moment(ms * 1_000)
}

fn hint(id: u64) -> FetchedHint {
    FetchedHint { id, bytes: 100, time_left: Some(Duration::from_secs(3_600)) }
}

fn drain(delivery: &mut Delivery) -> Vec<DeliveryEffect> {
    std::iter::from_fn(|| delivery.poll()).collect()
}

/// A delivery to a target that is up, with these hints fetched and the first window sent.
fn sent(setup: DeliverySetup, hints: &[FetchedHint]) -> (Delivery, Vec<DeliveryEffect>) {
    let mut delivery = Delivery::new(setup, 1, START);
    delivery.on_queued(START);
    delivery.on_target_up(START);
    assert!(matches!(drain(&mut delivery)[..], [Fetch { after: 0, .. }]));
    delivery.on_fetched(hints, true, START);
    let effects = drain(&mut delivery);
    (delivery, effects)
}

fn sends(ids: &[u64]) -> Vec<DeliveryEffect> {
    ids.iter().map(|&id| Send { id }).collect()
}

#[test]
fn nothing_is_fetched_for_a_target_that_is_down_or_an_empty_log() {
    let mut delivery = Delivery::new(SETUP, 1, START);
    assert!(delivery.is_idle());
    delivery.on_queued(START);
    assert_eq!((drain(&mut delivery), delivery.next_deadline()), (vec![], None));
    assert!(!delivery.is_idle());
    let mut delivery = Delivery::new(SETUP, 1, START);
    delivery.on_target_up(START);
    assert_eq!((drain(&mut delivery), delivery.next_deadline()), (vec![], None));
}

/// It once waited for the next new hint, or a restart.
#[test]
fn a_fetch_that_failed_is_tried_again() {
    let mut delivery = Delivery::new(SETUP, 1, START);
    delivery.on_queued(START);
    delivery.on_target_up(START);
    assert!(matches!(drain(&mut delivery)[..], [Fetch { after: 0, .. }]));
    delivery.on_fetch_failed(ms(1));
    assert_eq!(drain(&mut delivery), []);
    let again = delivery.next_deadline().expect("a moment");
    assert!(again > ms(1), "at once is too soon");
    delivery.on_tick(again);
    assert!(matches!(drain(&mut delivery)[..], [Fetch { after: 0, .. }]));
}

#[test]
fn a_fetch_asks_for_no_more_than_the_window_holds() {
    let mut delivery = Delivery::new(SETUP, 1, START);
    delivery.on_queued(START);
    delivery.on_target_up(START);
    assert_eq!(delivery.next_deadline(), Some(START));
    let fetch = Fetch { after: 0, hints_max: 4, bytes_max: 10_000 };
    assert_eq!(drain(&mut delivery), [fetch]);
    delivery.on_queued(START);
    assert_eq!(drain(&mut delivery), [], "one fetch at a time");
}

#[test]
fn hints_are_sent_in_log_order_and_acknowledged_as_a_prefix() {
    let (mut delivery, effects) = sent(SETUP, &[hint(3), hint(5), hint(6)]);
    assert_eq!(effects, sends(&[3, 5, 6]));
    delivery.on_ack(6, START);
    delivery.on_ack(5, START);
    assert_eq!(drain(&mut delivery), [], "the first is still missing");
    delivery.on_ack(3, START);
    assert_eq!(drain(&mut delivery), [Acknowledge { up_to: 6 }]);
    assert!(delivery.is_idle());
    assert_eq!(delivery.counts(), DeliveryCounts { delivered: 3, ..Default::default() });
}

#[test]
fn a_prefix_of_half_a_window_is_reported_early() {
    let (mut delivery, _) = sent(SETUP, &[hint(1), hint(2), hint(3)]);
    delivery.on_ack(1, START);
    assert_eq!(drain(&mut delivery), []);
    delivery.on_ack(2, START);
    assert_eq!(drain(&mut delivery), [Acknowledge { up_to: 2 }]);
}

#[test]
fn a_smaller_prefix_is_reported_when_the_target_goes() {
    let (mut delivery, _) = sent(SETUP, &[hint(1), hint(2)]);
    delivery.on_ack(1, START);
    delivery.on_target_down(START);
    assert_eq!(drain(&mut delivery), [Acknowledge { up_to: 1 }]);
    assert_eq!(delivery.next_deadline(), None);
}

#[test]
fn more_is_fetched_behind_the_last_once_half_the_window_is_free() {
    let mut delivery = Delivery::new(SETUP, 1, START);
    delivery.on_queued(START);
    delivery.on_target_up(START);
    drain(&mut delivery);
    delivery.on_fetched(&[hint(1), hint(2), hint(3), hint(4)], false, START);
    assert_eq!(drain(&mut delivery), sends(&[1, 2, 3, 4]));
    delivery.on_ack(4, START);
    assert_eq!(drain(&mut delivery), []);
    delivery.on_ack(2, START);
    assert_eq!(drain(&mut delivery), [Fetch { after: 4, hints_max: 2, bytes_max: 9_800 }]);
    delivery.on_fetched(&[hint(4), hint(7)], true, START);
    assert_eq!(drain(&mut delivery), sends(&[7]), "what was fetched before is not taken again");
}

#[test]
fn the_window_is_bounded_in_bytes_too() {
    let large = FetchedHint { bytes: 9_000, ..hint(1) };
    let (mut delivery, effects) = sent(SETUP, &[large]);
    assert_eq!(effects, sends(&[1]));
    delivery.on_queued(START);
    assert_eq!(drain(&mut delivery), []);
    delivery.on_ack(1, START);
    let fetch = Fetch { after: 1, hints_max: 4, bytes_max: 10_000 };
    assert_eq!(drain(&mut delivery), [Acknowledge { up_to: 1 }, fetch]);
}

#[test]
fn a_log_that_reads_as_empty_is_not_read_again_until_something_is_queued() {
    let mut delivery = Delivery::new(SETUP, 1, START);
    delivery.on_queued(START);
    delivery.on_target_up(START);
    drain(&mut delivery);
    delivery.on_fetched(&[], false, START);
    assert_eq!(drain(&mut delivery), []);
    assert!(delivery.is_idle());
    delivery.on_queued(START);
    assert!(matches!(drain(&mut delivery)[..], [Fetch { .. }]));
}

#[test]
fn the_byte_rate_is_kept() {
    let slow = DeliverySetup { bytes_per_second: 1_000, ..SETUP };
    let (mut delivery, effects) = sent(slow, &[hint(1), hint(2), hint(3)]);
    assert_eq!(effects, sends(&[1]), "a burst of 50 bytes, overdrawn by the first");
    assert_eq!(delivery.next_deadline(), Some(ms(50)));
    delivery.on_tick(ms(49));
    assert_eq!(drain(&mut delivery), []);
    delivery.on_tick(ms(50));
    assert_eq!(drain(&mut delivery), sends(&[2]));
    assert_eq!(delivery.next_deadline(), Some(ms(150)));
}

#[test]
fn at_half_the_pace_hints_wait_twice_as_long() {
    let slow = DeliverySetup { bytes_per_second: 1_000, ..SETUP };
    let mut delivery = Delivery::new(slow, 1, START);
    delivery.on_queued(START);
    delivery.on_target_up(START);
    assert!(matches!(drain(&mut delivery)[..], [Fetch { .. }]));
    delivery.on_pace(Pace::of(1, 2));
    delivery.on_fetched(&[hint(1), hint(2)], true, START);
    assert_eq!(drain(&mut delivery), sends(&[1]));
    assert_eq!(delivery.next_deadline(), Some(ms(150)));
}

#[test]
fn refusals_of_one_burst_pause_once_and_grow_from_burst_to_burst() {
    let (mut delivery, _) = sent(SETUP, &[hint(1), hint(2)]);
    let mut now = START;
    for whole_ms in [100, 200, 400] {
        delivery.on_refusal(1, Refusal::Overloaded, now);
        delivery.on_refusal(2, Refusal::DiskFull, now);
        assert_eq!(drain(&mut delivery), []);
        let retry_at = delivery.next_deadline().expect("a retry");
        let pause = retry_at.since(now);
        assert!(pause >= Duration::from_millis(whole_ms / 2), "{pause:?}");
        assert!(pause <= Duration::from_millis(whole_ms), "{pause:?}");
        now = retry_at;
        delivery.on_tick(now);
        assert_eq!(drain(&mut delivery), sends(&[1, 2]));
    }
    assert_eq!((delivery.counts().refused, delivery.counts().resent), (6, 6));
}

#[test]
fn an_acknowledgement_ends_the_growth_of_pauses() {
    let (mut delivery, _) = sent(SETUP, &[hint(1), hint(2)]);
    delivery.on_refusal(1, Refusal::Overloaded, START);
    delivery.on_ack(2, START);
    let retry_at = delivery.next_deadline().expect("a retry");
    delivery.on_tick(retry_at);
    assert_eq!(drain(&mut delivery), sends(&[1]));
    delivery.on_refusal(1, Refusal::Overloaded, retry_at);
    let pause = delivery.next_deadline().expect("a retry").since(retry_at);
    assert!(pause <= SETUP.backoff_min);
}

#[test]
fn what_a_lost_stream_carried_is_sent_again() {
    let (mut delivery, _) = sent(SETUP, &[hint(1), hint(2)]);
    delivery.on_ack(2, START);
    delivery.on_lost(START);
    delivery.on_target_down(START);
    assert_eq!(drain(&mut delivery), []);
    delivery.on_target_up(ms(1));
    assert_eq!(drain(&mut delivery), sends(&[1]), "a return ends the pause");
}

#[test]
fn an_unsent_hint_is_tried_again_after_a_pause() {
    let (mut delivery, _) = sent(SETUP, &[hint(1)]);
    delivery.on_unsent(1, START);
    assert_eq!(drain(&mut delivery), []);
    delivery.on_tick(delivery.next_deadline().expect("a retry"));
    assert_eq!(drain(&mut delivery), sends(&[1]));
}

#[test]
fn a_hint_that_is_never_answered_is_sent_again() {
    let (mut delivery, _) = sent(SETUP, &[hint(1)]);
    assert_eq!(delivery.next_deadline(), Some(ms(5_000)));
    delivery.on_tick(ms(4_999));
    assert_eq!(drain(&mut delivery), []);
    delivery.on_tick(ms(5_000));
    assert_eq!(drain(&mut delivery), sends(&[1]));
}

#[test]
fn an_acknowledgement_counts_even_of_a_hint_that_waits_to_be_sent_again() {
    let (mut delivery, _) = sent(SETUP, &[hint(1)]);
    delivery.on_lost(START);
    delivery.on_ack(1, START);
    delivery.on_ack(1, START);
    delivery.on_ack(77, START);
    assert_eq!(drain(&mut delivery), [Acknowledge { up_to: 1 }]);
    assert_eq!(delivery.counts().delivered, 1);
}

#[test]
fn a_hint_ahead_of_the_targets_clock_is_set_aside_and_others_pass() {
    let (mut delivery, _) = sent(SETUP, &[hint(1), hint(2)]);
    delivery.on_refusal(1, Refusal::ClockOffset, START);
    delivery.on_ack(2, START);
    delivery.on_queued(START);
    assert_eq!(drain(&mut delivery), [Fetch { after: 2, hints_max: 4, bytes_max: 10_000 }]);
    delivery.on_fetched(&[hint(3)], true, START);
    assert_eq!(drain(&mut delivery), sends(&[3]));
    delivery.on_ack(3, START);
    assert_eq!(drain(&mut delivery), [], "the log keeps what was set aside");
    assert_eq!(delivery.next_deadline(), Some(ms(10_000)));
    delivery.on_tick(ms(10_000));
    assert_eq!(drain(&mut delivery), sends(&[1]));
    delivery.on_ack(1, ms(10_001));
    assert_eq!(drain(&mut delivery), [Acknowledge { up_to: 3 }]);
    assert!(delivery.is_idle());
}

#[test]
fn no_more_than_a_window_is_set_aside() {
    let all: Vec<FetchedHint> = (1..=4).map(hint).collect();
    let (mut delivery, _) = sent(SETUP, &all);
    delivery.on_queued(START);
    (1..=3).for_each(|id| delivery.on_refusal(id, Refusal::ClockOffset, START));
    assert_eq!(drain(&mut delivery), [Fetch { after: 4, hints_max: 3, bytes_max: 9_900 }]);
    delivery.on_fetched(&[], true, START);
    delivery.on_queued(START);
    delivery.on_refusal(4, Refusal::ClockOffset, START);
    assert_eq!(drain(&mut delivery), []);
}

#[test]
fn expired_hints_are_given_up_and_counted() {
    let expired = FetchedHint { time_left: None, ..hint(1) };
    let (mut delivery, effects) = sent(SETUP, &[expired, hint(2)]);
    assert_eq!(effects, sends(&[2]));
    delivery.on_ack(2, START);
    assert_eq!(drain(&mut delivery), [Acknowledge { up_to: 2 }]);
    let counts = DeliveryCounts { delivered: 1, expired: 1, ..Default::default() };
    assert_eq!(delivery.counts(), counts);
}

#[test]
fn a_hint_may_expire_while_it_waits() {
    let brief = FetchedHint { time_left: Some(Duration::from_secs(1)), ..hint(1) };
    let (mut delivery, _) = sent(SETUP, &[brief]);
    delivery.on_target_down(START);
    delivery.on_target_up(ms(1_001));
    assert_eq!(drain(&mut delivery), [Acknowledge { up_to: 1 }]);
    assert_eq!(delivery.counts().expired, 1);
}
