//! Runs the items of a batch, a bounded number at once, until all are done or the time is up.
//!
//! A batch is not atomic: each item has its own outcome, also when the time cuts the batch short.

use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use prost::Message;

use crate::api::convert;
use crate::api::error;
use crate::config::Limits;
use crate::node::request::{Outcome, ReadAnswer, Receipt, RequestError};
use crate::proto::v1;

/// Items of one batch that run at once: enough to keep every replica's group commit busy, few
/// enough that one batch cannot take all of `requests_in_flight_max`.
const CONCURRENCY_MAX: usize = 64;

/// Bytes of one batch message. gRPC's libraries refuse larger ones unless told otherwise.
const BATCH_BYTES_MAX: usize = 4 << 20;

/// Bytes that the fields of a Put other than its key and value take at most.
const MESSAGE_OVERHEAD_BYTES: usize = 1024;

/// Bytes of a request message that the service decodes: a batch, or one value where that is more.
pub(crate) fn request_bytes_max(limits: &Limits) -> usize {
    let one = limits.key_bytes_max + limits.value_bytes_max + MESSAGE_OVERHEAD_BYTES;
    // A value somewhat above its limit must still be decoded, for the node to name that limit.
    BATCH_BYTES_MAX.max(one * 2)
}

/// How far one item came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Slot<T> {
    /// It finished.
    Done(T),
    /// It ran when the time was up.
    CutOff,
    /// It had not begun when the time was up.
    NotStarted,
}

impl<T> Slot<T> {
    /// The item's output, or the error of one that the time has cut off; `when_cut_off` says what
    /// is known of the effect of an item that ran.
    ///
    /// # Errors
    /// The item's `timeout`.
    pub(crate) fn finished(self, when_cut_off: Outcome) -> Result<T, v1::Error> {
        match self {
            Slot::Done(output) => Ok(output),
            Slot::CutOff => Err(late("during", when_cut_off)),
            Slot::NotStarted => Err(late("before", Outcome::NotAttempted)),
        }
    }
}

fn late(when: &str, outcome: Outcome) -> v1::Error {
    v1::Error {
        code: "timeout".to_owned(),
        message: format!("the batch's time ran out {when} this item"),
        outcome: outcome.name().to_owned(),
        retry_after_ms: None,
    }
}

/// Runs one future per item; the slots are in the order of the items.
pub(crate) async fn run<I, F: Future>(
    items: Vec<I>,
    time: Duration,
    start: impl Fn(I) -> F,
) -> Vec<Slot<F::Output>> {
    let mut slots: Vec<_> = items.iter().map(|_| Slot::NotStarted).collect();
    let mut waiting = items.into_iter().enumerate();
    let mut running = FuturesUnordered::new();
    let deadline = tokio::time::sleep(time);
    tokio::pin!(deadline);
    loop {
        let free = CONCURRENCY_MAX - running.len();
        for (index, item) in waiting.by_ref().take(free) {
            slots[index] = Slot::CutOff;
            let work = start(item);
            running.push(async move { (index, work.await) });
        }
        tokio::select! { biased;
            finished = running.next() => match finished {
                Some((index, output)) => slots[index] = Slot::Done(output),
                None => return slots,
            },
            () = &mut deadline => return slots,
        }
    }
}

/// Refuses a batch of too many items.
///
/// # Errors
/// [`RequestError::Invalid`] naming the limit and the count.
pub(crate) fn admit(
    field: &'static str,
    count: usize,
    limits: &Limits,
) -> Result<(), RequestError> {
    let max = limits.batch_keys_max;
    if count <= max {
        return Ok(());
    }
    Err(convert::invalid(
        field,
        format!("batch_keys_max is {max}; got {count}; send fewer at once"),
    ))
}

/// The bytes that a batch's reply may still take; shared by its running reads.
#[derive(Debug)]
pub(crate) struct ReplyBudget {
    spent_bytes: AtomicUsize,
    max_bytes: usize,
}

impl ReplyBudget {
    /// The budget of one reply, which always has room for one value.
    pub(crate) fn new(limits: &Limits) -> Self {
        let one = limits.key_bytes_max + limits.value_bytes_max + MESSAGE_OVERHEAD_BYTES;
        ReplyBudget { spent_bytes: AtomicUsize::new(0), max_bytes: BATCH_BYTES_MAX.max(one) }
    }

    /// Fails once the reply is full.
    ///
    /// # Errors
    /// [`RequestError::TooLarge`] naming the limit.
    pub(crate) fn check(&self) -> Result<(), RequestError> {
        self.within(self.spent_bytes.load(Ordering::Relaxed))
    }

    /// Admits a result to the reply, or replaces it by an error that names the limit.
    pub(crate) fn admit(&self, result: v1::BatchGetResult) -> v1::BatchGetResult {
        let bytes = result.encoded_len();
        let spent = self.spent_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        match self.within(spent) {
            Ok(()) => result,
            Err(error) => get_result(result.key, Err(error::batch_error(&error))),
        }
    }

    fn within(&self, got: usize) -> Result<(), RequestError> {
        let (limit, max) = ("batch_bytes_max", self.max_bytes);
        if got > max { Err(RequestError::TooLarge { limit, max, got }) } else { Ok(()) }
    }
}

/// The reply to one read of a batch.
pub(crate) fn get_result(
    key: String,
    outcome: Result<ReadAnswer, v1::Error>,
) -> v1::BatchGetResult {
    let mut result = v1::BatchGetResult { key, ..v1::BatchGetResult::default() };
    match outcome {
        Ok(answer) => {
            result.found = answer.value.is_some();
            result.data = answer.value.map(convert::batch_data);
            result.siblings = answer.siblings.into_iter().map(convert::sibling).collect();
            result.receipt = Some(convert::receipt(&answer.receipt));
        }
        Err(error) => result.error = Some(error),
    }
    result
}

/// The reply to one write of a batch.
pub(crate) fn put_result(key: String, outcome: Result<Receipt, v1::Error>) -> v1::BatchPutResult {
    match outcome {
        Ok(receipt) => {
            v1::BatchPutResult { key, receipt: Some(convert::receipt(&receipt)), error: None }
        }
        Err(error) => v1::BatchPutResult { key, receipt: None, error: Some(error) },
    }
}

#[cfg(test)]
mod tests;
