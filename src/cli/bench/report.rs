//! What a load has shown: counts and latencies, gathered per caller and merged at the end.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::cli::bench::{Action, Done, Failed};
use crate::cli::output::table;
use crate::config::units::about_size;
use crate::types::Moment;

/// Significant digits of a latency: three are an error of at most 0.1 %.
const SIGNIFICANT_DIGITS: u8 = 3;
/// The longest latency told apart from longer ones: ten minutes.
const LATENCY_US_MAX: u64 = 600 * 1_000_000;

/// What a load has shown.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Length of the measurement.
    pub seconds: f64,
    /// Operations that succeeded.
    pub operations: u64,
    /// Operations that succeeded, per second.
    pub per_second: f64,
    /// The writes among them; `None` when there were none.
    pub put: Option<ActionReport>,
    /// The reads among them; `None` when there were none.
    pub get: Option<ActionReport>,
    /// Reads that found nothing; they count as successes.
    pub missing: u64,
    /// Operations that took a second attempt on another node.
    pub retried: u64,
    /// Operations of an open loop that were due but never sent, since all callers were busy.
    pub dropped: u64,
    /// Operations that failed, by kind.
    pub errors: BTreeMap<String, Errors>,
    /// Bytes of values written.
    pub bytes_written: u64,
    /// Bytes of values read.
    pub bytes_read: u64,
}

/// Failures of one kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Errors {
    /// How many.
    pub count: u64,
    /// What was said of one of them.
    pub example: String,
}

/// One kind of operation.
#[derive(Clone, Debug, Serialize)]
pub struct ActionReport {
    /// Operations that succeeded.
    pub operations: u64,
    /// Their latencies.
    pub latency: Latency,
}

/// Latencies in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Latency {
    /// The mean.
    pub mean_us: f64,
    /// Half were faster.
    pub p50_us: u64,
    /// 90 % were faster.
    pub p90_us: u64,
    /// 99 % were faster.
    pub p99_us: u64,
    /// 99.9 % were faster.
    pub p999_us: u64,
    /// The slowest.
    pub max_us: u64,
}

impl Report {
    /// Operations that failed.
    pub fn failed(&self) -> u64 {
        self.errors.values().map(|errors| errors.count).sum()
    }

    /// The report as people read it.
    pub(crate) fn text(&self) -> String {
        let mut page = format!(
            "{} operations in {:.1} s: {:.0} per second\n\n",
            self.operations, self.seconds, self.per_second
        );
        let rows = [("put", &self.put), ("get", &self.get)];
        let rows = rows.iter().filter_map(|(name, action)| Some(row(name, action.as_ref()?)));
        let header = ["", "COUNT", "MEAN", "P50", "P90", "P99", "P99.9", "MAX"];
        page.push_str(&table(&header, &header[1..], rows.collect()));
        let _ = writeln!(
            page,
            "\n\nvalues: {} written, {} read, {} reads found nothing",
            about_size(self.bytes_written),
            about_size(self.bytes_read),
            self.missing
        );
        if self.retried + self.dropped > 0 {
            let _ = writeln!(page, "{} retried elsewhere, {} dropped", self.retried, self.dropped);
        }
        let _ = writeln!(page, "errors: {}", self.failed());
        for (kind, Errors { count, example }) in &self.errors {
            let _ = writeln!(page, "  {count:>8}  {kind}: {example}");
        }
        page
    }
}

fn row(name: &str, action: &ActionReport) -> Vec<String> {
    let latency = &action.latency;
    let mut row = vec![name.to_owned(), action.operations.to_string()];
    let mean_us = latency.mean_us as u64;
    let times = [mean_us, latency.p50_us, latency.p90_us, latency.p99_us, latency.p999_us];
    row.extend(times.into_iter().chain([latency.max_us]).map(show_us));
    row
}

/// A latency with three digits or so.
fn show_us(us: u64) -> String {
    match us {
        0..1000 => format!("{us} µs"),
        1000..10_000 => format!("{:.2} ms", us as f64 / 1e3),
        10_000..1_000_000 => format!("{:.1} ms", us as f64 / 1e3),
        _ => format!("{:.2} s", us as f64 / 1e6),
    }
}

/// What callers have counted.
#[derive(Clone, Debug)]
pub(super) struct Tally {
    put: Latencies,
    get: Latencies,
    errors: BTreeMap<String, Errors>,
    missing: u64,
    retried: u64,
    pub(super) dropped: u64,
    bytes_written: u64,
    bytes_read: u64,
    last_end: Moment,
    within: u64,
}

/// The latencies of one kind of operation. Counters of 32 bits and a range that grows on demand
/// keep hundreds of callers small.
#[derive(Clone, Debug)]
struct Latencies(Histogram<u32>);

impl Latencies {
    fn new() -> Self {
        let histogram = Histogram::new(SIGNIFICANT_DIGITS);
        Latencies(histogram.expect("invariant: a histogram may have three significant digits"))
    }

    fn record(&mut self, latency: Duration) {
        let us = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX).clamp(1, LATENCY_US_MAX);
        self.0.record(us).expect("invariant: the histogram resizes itself");
    }

    fn merge(&mut self, other: &Latencies) {
        self.0.add(&other.0).expect("invariant: the histogram resizes itself");
    }

    fn report(&self) -> Option<ActionReport> {
        let histogram = &self.0;
        let latency = Latency {
            mean_us: histogram.mean(),
            p50_us: histogram.value_at_quantile(0.5),
            p90_us: histogram.value_at_quantile(0.9),
            p99_us: histogram.value_at_quantile(0.99),
            p999_us: histogram.value_at_quantile(0.999),
            max_us: histogram.max(),
        };
        let operations = histogram.len();
        (operations > 0).then_some(ActionReport { operations, latency })
    }
}

impl Tally {
    pub(super) fn new() -> Self {
        Tally {
            put: Latencies::new(),
            get: Latencies::new(),
            errors: BTreeMap::new(),
            missing: 0,
            retried: 0,
            dropped: 0,
            bytes_written: 0,
            bytes_read: 0,
            last_end: Moment::default(),
            within: 0,
        }
    }

    /// Counts an operation that began at one moment and ended at another; `until` is when the
    /// measurement ends.
    pub(super) fn record(
        &mut self,
        action: Action,
        (begin, end): (Moment, Moment),
        until: Option<Moment>,
        answer: Result<Done, Failed>,
    ) {
        self.last_end = self.last_end.max(end);
        let done = match answer {
            Ok(done) => done,
            Err(failed) => {
                self.count(failed.kind, Errors { count: 1, example: failed.message });
                return;
            }
        };
        self.within += u64::from(until.is_none_or(|until| end <= until));
        self.missing += u64::from(done.missing);
        self.retried += u64::from(done.retried);
        let latency = end.since(begin);
        match action {
            Action::Put => {
                self.put.record(latency);
                self.bytes_written += done.value_bytes;
            }
            Action::Get => {
                self.get.record(latency);
                self.bytes_read += done.value_bytes;
            }
        }
    }

    fn count(&mut self, kind: String, errors: Errors) {
        let more = errors.count;
        let known = self.errors.entry(kind).or_insert(Errors { count: 0, ..errors });
        known.count += more;
    }

    /// Adds what another caller has counted.
    pub(super) fn merge(&mut self, other: Tally) {
        self.put.merge(&other.put);
        self.get.merge(&other.get);
        for (kind, errors) in other.errors {
            self.count(kind, errors);
        }
        self.missing += other.missing;
        self.retried += other.retried;
        self.dropped += other.dropped;
        self.bytes_written += other.bytes_written;
        self.bytes_read += other.bytes_read;
        self.last_end = self.last_end.max(other.last_end);
        self.within += other.within;
    }

    /// The report of a measurement that began at `start`. One that ran its time counts towards
    /// throughput what ended in that time; one that did not, all up to its last operation.
    pub(super) fn report(self, start: Moment, until: Option<Moment>) -> Report {
        let (put, get) = (self.put.report(), self.get.report());
        let count = |action: &Option<ActionReport>| action.as_ref().map_or(0, |a| a.operations);
        let operations = count(&put) + count(&get);
        let end = until.unwrap_or(self.last_end);
        let counted = if until.is_some() { self.within } else { operations };
        let seconds = end.since(start).as_secs_f64();
        Report {
            seconds,
            operations,
            per_second: if seconds > 0.0 { counted as f64 / seconds } else { 0.0 },
            put,
            get,
            missing: self.missing,
            retried: self.retried,
            dropped: self.dropped,
            errors: self.errors,
            bytes_written: self.bytes_written,
            bytes_read: self.bytes_read,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Moment {
        Moment(ms * 1000)
    }

    fn done(bytes: u64) -> Result<Done, Failed> {
        Ok(Done { value_bytes: bytes, ..Done::default() })
    }

    #[test]
    fn merged_histograms_are_those_of_all_operations() {
        let mut merged = Tally::new();
        let mut single = Tally::new();
        for caller in 0..10u64 {
            let mut tally = Tally::new();
            for i in 0..100u64 {
                let times = (ms(0), ms(1 + caller * 100 + i));
                tally.record(Action::Put, times, None, done(1));
                single.record(Action::Put, times, None, done(1));
            }
            merged.merge(tally);
        }
        let (merged, single) = (merged.report(ms(0), None), single.report(ms(0), None));
        let latency = merged.put.as_ref().expect("puts").latency;
        assert_eq!(latency, single.put.as_ref().expect("puts").latency);
        let near = |found: u64, ms: f64| (found as f64 / 1000.0 - ms).abs() < ms * 0.002;
        assert!(near(latency.p50_us, 500.0) && near(latency.p999_us, 999.0), "{latency:?}");
        assert!(near(latency.max_us, 1000.0), "{latency:?}");
        assert_eq!((merged.operations, merged.bytes_written), (1000, 1000));
        assert!((merged.per_second - 1000.0).abs() < 1.0, "{}", merged.per_second);
    }

    #[test]
    fn throughput_counts_what_ended_in_time() {
        let mut tally = Tally::new();
        let until = Some(ms(1000));
        tally.record(Action::Get, (ms(0), ms(900)), until, done(5));
        tally.record(Action::Get, (ms(900), ms(1900)), until, done(5));
        let report = tally.report(ms(0), until);
        assert_eq!((report.operations, report.seconds, report.per_second), (2, 1.0, 1.0));
        assert_eq!(report.get.expect("gets").latency.max_us / 10_000, 100);
    }

    #[test]
    fn failures_are_counted_by_kind_and_have_no_latency() {
        let mut tally = Tally::new();
        for kind in ["UNAVAILABLE", "UNKNOWN", "UNAVAILABLE"] {
            let failed = Err(Failed { kind: kind.into(), message: "why".into() });
            tally.record(Action::Put, (ms(0), ms(1)), None, failed);
        }
        let report = tally.report(ms(0), None);
        let unavailable = Errors { count: 2, example: "why".into() };
        assert_eq!((report.failed(), &report.errors["UNAVAILABLE"]), (3, &unavailable));
        assert!(report.put.is_none() && report.operations == 0);
        assert!(report.text().contains("errors: 3"), "{}", report.text());
    }

    #[test]
    fn latencies_are_shown_with_about_three_digits() {
        let shown: Vec<String> = [7, 1234, 56_789, 1_234_567].into_iter().map(show_us).collect();
        assert_eq!(shown, ["7 µs", "1.23 ms", "56.8 ms", "1.23 s"]);
    }
}
