//! Medians over rounds, as a table and as JSON.

use std::fmt::Write;
use std::time::Duration;

use coterie::cli::bench::report::Report;
use serde::Serialize;

use crate::{AnyError, Load, Sample};

/// One measurement.
#[derive(Clone, Debug)]
pub(crate) struct Measured {
    per_second: f64,
    p50_us: f64,
    p99_us: f64,
    server_us: f64,
    client_us: f64,
}

impl Measured {
    /// From a load's report and what had been used up before and after it.
    pub(crate) fn new(report: &Report, before: Sample, after: Sample) -> Self {
        let operations = report.operations as f64;
        let latency = report.put.as_ref().or(report.get.as_ref()).map(|action| action.latency);
        let (p50_us, p99_us) = latency.map_or((0, 0), |latency| (latency.p50_us, latency.p99_us));
        let us = |spent: Duration| spent.as_secs_f64() * 1e6 / operations;
        Measured {
            per_second: report.per_second,
            p50_us: p50_us as f64,
            p99_us: p99_us as f64,
            server_us: us(after.server.since(before.server)),
            client_us: us(after.client.since(before.client)),
        }
    }
}

/// One line of the table: medians.
#[derive(Debug, Serialize)]
struct Line {
    load: &'static str,
    per_second: f64,
    rival: Option<&'static str>,
    /// Throughput against the rival of the same round.
    throughput_ratio: Option<f64>,
    /// The same for the 99th percentile of latency: below 1 is better.
    p99_ratio: Option<f64>,
    p50_us: f64,
    p99_us: f64,
    server_us_per_operation: f64,
    client_us_per_operation: f64,
}

/// Everything that was found.
#[derive(Debug, Serialize)]
pub(crate) struct Summary {
    etcd: String,
    loads: Vec<Line>,
}

impl Summary {
    /// From what was measured of each load, by round.
    pub(crate) fn new(loads: &[&Load], measured: &[Vec<Measured>], etcd: &str) -> Self {
        let rival_of = |load: &Load| {
            let at = loads.iter().position(|other| Some(other.name) == load.rival);
            at.map(|at| &measured[at][..])
        };
        let lines = loads.iter().zip(measured).map(|(load, own)| line(load, own, rival_of(load)));
        Summary { etcd: etcd.to_owned(), loads: lines.collect() }
    }

    pub(crate) fn json(&self) -> Result<String, AnyError> {
        Ok(serde_json::to_string_pretty(self)?)
    }

    pub(crate) fn text(&self) -> String {
        let mut page = String::from(
            "load             per second   p50 ms   p99 ms   server µs   client µs   against       \
             ratio   p99 ratio\n",
        );
        for line in &self.loads {
            let _ = writeln!(
                page,
                "{:<14}   {:>10.0}   {:>6.2}   {:>6.2}   {:>9.1}   {:>9.1}   {:<9}   {:>8}   {:>9}",
                line.load,
                line.per_second,
                line.p50_us / 1e3,
                line.p99_us / 1e3,
                line.server_us_per_operation,
                line.client_us_per_operation,
                line.rival.unwrap_or("-"),
                or_dash(line.throughput_ratio),
                or_dash(line.p99_ratio)
            );
        }
        let _ = write!(page, "\nserver and client: CPU time per operation; {}", self.etcd);
        page
    }
}

fn line(load: &Load, measured: &[Measured], rival: Option<&[Measured]>) -> Line {
    let of = |figure: fn(&Measured) -> f64| median(measured.iter().map(figure).collect());
    let ratio = |figure: fn(&Measured) -> f64| {
        let pairs = measured.iter().zip(rival?);
        Some(median(pairs.map(|(own, other)| figure(own) / figure(other)).collect()))
    };
    Line {
        load: load.name,
        per_second: of(|m| m.per_second),
        rival: rival.and(load.rival),
        throughput_ratio: ratio(|m| m.per_second),
        p99_ratio: ratio(|m| m.p99_us),
        p50_us: of(|m| m.p50_us),
        p99_us: of(|m| m.p99_us),
        server_us_per_operation: of(|m| m.server_us),
        client_us_per_operation: of(|m| m.client_us),
    }
}

/// The middle value; of an even number of values, the upper of the two in the middle.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn or_dash(value: Option<f64>) -> String {
    value.map_or_else(|| String::from("-"), |value| format!("{value:.2}"))
}
