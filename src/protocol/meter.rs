//! What a node lets through of one keyspace: the limits that the system group decided, each kept
//! by a [`Throttle`].
//!
//! A request passes when neither limit is used up, and is paid for then: a large one may overdraw,
//! and those after it wait until that is paid off. What a read brings is known, and paid, when it
//! is there. So the rates hold in the long run, and no request is too large for ever.

use std::time::Duration;

use crate::protocol::system::limits::KeyspaceLimits;
use crate::protocol::throttle::Throttle;
use crate::types::Moment;

/// After a pause, as much passes at once as the rate allows in this time: limits are told in
/// seconds, and so somebody who sends a second's worth at once is within them.
const BURST: Duration = Duration::from_secs(1);

/// The name of the limit on operations, in requests and errors.
pub const OPERATIONS: &str = "limit_operations_per_second";

/// The name of the limit on bytes.
pub const BYTES: &str = "limit_bytes_per_second";

/// What a request costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cost {
    /// Keys that are read or written.
    pub operations: u64,
    /// Bytes of keys and values.
    pub bytes: u64,
}

/// A limit that is used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UsedUp {
    /// [`OPERATIONS`] or [`BYTES`].
    pub limit: &'static str,
    /// Its value.
    pub max: u64,
    /// What was to be let through, in the limit's unit.
    pub sent: u64,
    /// When there is something left again.
    pub retry_after: Duration,
}

/// The meter of one keyspace on one node.
#[derive(Clone, Debug)]
pub struct Meter {
    limits: KeyspaceLimits,
    operations: Option<Throttle>,
    bytes: Option<Throttle>,
}

impl Meter {
    /// A meter of which nothing is used up.
    pub fn new(limits: KeyspaceLimits) -> Meter {
        let throttle = |rate: u64| Throttle::new(rate, BURST);
        Meter {
            limits,
            operations: limits.operations_per_second.map(throttle),
            bytes: limits.bytes_per_second.map(throttle),
        }
    }

    /// The limits that it keeps.
    pub fn limits(&self) -> KeyspaceLimits {
        self.limits
    }

    /// Lets a request through and has it pay, or does neither.
    ///
    /// # Errors
    /// [`UsedUp`] naming the limit; of two, the one that is used up for longer.
    pub fn admit(&mut self, cost: Cost, now: Moment) -> Result<(), UsedUp> {
        let KeyspaceLimits { operations_per_second, bytes_per_second } = self.limits;
        let operations = (OPERATIONS, operations_per_second, cost.operations);
        let bytes = (BYTES, bytes_per_second, cost.bytes);
        let refused =
            [used_up(&self.operations, operations, now), used_up(&self.bytes, bytes, now)];
        if let Some(refused) = refused.into_iter().flatten().max_by_key(|it| it.retry_after) {
            return Err(refused);
        }
        self.charge(cost, now);
        Ok(())
    }

    /// Has a request pay for what it came to.
    pub fn charge(&mut self, cost: Cost, now: Moment) {
        let pay = |throttle: &mut Option<Throttle>, amount| {
            if let Some(throttle) = throttle {
                throttle.take(amount, now);
            }
        };
        pay(&mut self.operations, cost.operations);
        pay(&mut self.bytes, cost.bytes);
    }
}

/// The refusal by a limit of that name and value, for so much that was sent, if it is used up.
fn used_up(
    throttle: &Option<Throttle>,
    (limit, max, sent): (&'static str, Option<u64>, u64),
    now: Moment,
) -> Option<UsedUp> {
    let (throttle, max) = throttle.as_ref().zip(max)?;
    let retry_after = throttle.ready_at().since(now);
    (!throttle.is_ready(now)).then_some(UsedUp { limit, max, sent, retry_after })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn meter(operations: Option<u64>, bytes: Option<u64>) -> Meter {
        Meter::new(KeyspaceLimits { operations_per_second: operations, bytes_per_second: bytes })
    }

    fn cost(operations: u64, bytes: u64) -> Cost {
        Cost { operations, bytes }
    }

    fn ms(ms: u64) -> Moment {
        Moment(ms * 1000)
    }

    /// Long enough after the beginning for a burst to have gathered.
    const START: Moment = Moment(10_000_000);

    #[test]
    fn a_second_of_operations_passes_at_once_and_the_next_is_told_when_to_come() {
        let mut meter = meter(Some(10), None);
        let passed = (0..50).take_while(|_| meter.admit(cost(1, 999), START).is_ok()).count();
        assert!((10..=11).contains(&passed), "{passed}");
        let refused = meter.admit(cost(1, 999), START).expect_err("used up");
        assert_eq!((refused.limit, refused.max, refused.sent), (OPERATIONS, 10, 1));
        assert!(refused.retry_after <= Duration::from_millis(100), "{refused:?}");
        let then = START + refused.retry_after;
        assert_eq!(meter.admit(cost(1, 999), then), Ok(()), "the wait was long enough");
    }

    #[test]
    fn what_is_refused_does_not_pay() {
        let mut meter = meter(Some(1), Some(100));
        assert_eq!(meter.admit(cost(1, 1000), START), Ok(()), "more than a second of bytes");
        let first = meter.admit(cost(1, 1), START).expect_err("overdrawn");
        assert_eq!((first.limit, first.max, first.sent), (BYTES, 100, 1));
        for _ in 0..100 {
            assert_eq!(meter.admit(cost(1, 1), START), Err(first));
        }
        assert_eq!(meter.admit(cost(1, 1), START + first.retry_after), Ok(()));
    }

    #[test]
    fn what_a_read_brings_is_paid_afterwards() {
        let mut meter = meter(None, Some(1000));
        assert_eq!(meter.admit(cost(1, 3), START), Ok(()));
        meter.charge(cost(0, 5000), START);
        let refused = meter.admit(cost(1, 3), START).expect_err("overdrawn");
        assert!(refused.retry_after >= Duration::from_secs(4), "{refused:?}");
    }

    #[test]
    fn without_limits_everything_passes() {
        let mut meter = meter(None, None);
        assert!((0..1000).all(|_| meter.admit(cost(u64::MAX, u64::MAX), START).is_ok()));
    }

    proptest! {
        /// The rate holds from any moment on, but for one burst and one last overdraft.
        #[test]
        fn no_more_passes_than_the_limit(
            rate in 1_u64..2_000,
            steps in proptest::collection::vec((0_u64..200, 1_u64..5), 1..200),
        ) {
            let mut meter = meter(Some(rate), None);
            let (mut now_ms, mut passed) = (10_000, 0);
            for (after_ms, operations) in steps {
                now_ms += after_ms;
                if meter.admit(cost(operations, 0), ms(now_ms)).is_ok() {
                    passed += operations;
                }
            }
            let seconds = (now_ms - 10_000) as f64 / 1000.0 + BURST.as_secs_f64();
            prop_assert!(passed as f64 <= rate as f64 * seconds + 5.0 + 1.0);
        }
    }
}
