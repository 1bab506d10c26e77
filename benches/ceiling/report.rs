//! Medians over rounds, as a table and as JSON.

use std::collections::BTreeMap;
use std::fmt::Write;

use coterie::cli::bench::report::Report;
use serde::Serialize;

use crate::{AnyError, Load, Sample};

/// One measurement.
#[derive(Clone, Debug)]
pub(crate) struct Measured {
    per_second: f64,
    p50_us: f64,
    p99_us: f64,
    server_us_per_operation: f64,
    client_us_per_operation: f64,
    syncs_per_operation: Option<f64>,
}

impl Measured {
    /// From a load's report and what had been used up before and after it.
    pub(crate) fn new(report: &Report, before: &Sample, after: &Sample) -> Self {
        let operations = report.operations as f64;
        let latency = report.put.as_ref().or(report.get.as_ref()).map(|action| action.latency);
        let (p50_us, p99_us) = latency.map_or((0, 0), |latency| (latency.p50_us, latency.p99_us));
        let us = |spent: std::time::Duration| spent.as_secs_f64() * 1e6 / operations;
        let writes = report.put.as_ref().map(|put| put.operations as f64);
        Measured {
            per_second: report.per_second,
            p50_us: p50_us as f64,
            p99_us: p99_us as f64,
            server_us_per_operation: us(after.server.since(before.server)),
            client_us_per_operation: us(after.client.since(before.client)),
            syncs_per_operation: writes.and_then(|writes| syncs_per_write(before, after, writes)),
        }
    }
}

/// `fdatasync` calls per acknowledged write, on the node with the most.
fn syncs_per_write(before: &Sample, after: &Sample, writes: f64) -> Option<f64> {
    let pairs = before.wal_syncs.iter().zip(&after.wal_syncs);
    let each: Option<Vec<f64>> =
        pairs.map(|(before, after)| Some((after.as_ref()? - before.as_ref()?) / writes)).collect();
    each?.into_iter().max_by(f64::total_cmp)
}

/// The nodes without load.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Idle {
    /// Per node, in percent of one core.
    pub(crate) core_percent: Vec<f64>,
    /// Per node, before any load.
    pub(crate) fresh_bytes: Vec<u64>,
    /// Per node, after all load.
    pub(crate) resident_bytes: Vec<u64>,
}

/// One line of the table: medians.
#[derive(Debug, Serialize)]
struct Line {
    load: &'static str,
    per_second: f64,
    /// Against the bare load of the same round; `None` for the bare loads themselves.
    ratio: Option<f64>,
    p50_us: f64,
    p99_us: f64,
    server_us_per_operation: f64,
    client_us_per_operation: f64,
    /// Per acknowledged write, on the node with the most.
    fdatasyncs_per_write: Option<f64>,
}

/// Everything that was found.
#[derive(Debug, Serialize)]
pub(crate) struct Summary {
    loads: Vec<Line>,
    idle: Idle,
}

impl Summary {
    pub(crate) fn new(measured: &BTreeMap<Load, Vec<Measured>>, idle: Idle) -> Self {
        let line = |load: &Load| line(*load, &measured[load], &measured[&load.ceiling()]);
        Summary { loads: Load::ALL.iter().map(line).collect(), idle }
    }

    pub(crate) fn json(&self) -> Result<String, AnyError> {
        Ok(serde_json::to_string_pretty(self)?)
    }

    pub(crate) fn text(&self) -> String {
        let mut page = String::from(
            "load             per second   ratio   p50 ms   p99 ms   server µs   client µs   \
             syncs\n",
        );
        for line in &self.loads {
            let _ = writeln!(
                page,
                "{:<14}   {:>10.0}   {:>5}   {:>6.2}   {:>6.2}   {:>9.1}   {:>9.1}   {:>5}",
                line.load,
                line.per_second,
                or_dash(line.ratio),
                line.p50_us / 1e3,
                line.p99_us / 1e3,
                line.server_us_per_operation,
                line.client_us_per_operation,
                or_dash(line.fdatasyncs_per_write)
            );
        }
        let mib =
            |bytes: &[u64]| list(bytes.iter().map(|bytes| *bytes as f64 / f64::from(1 << 20)));
        let idle = &self.idle;
        let _ = write!(
            page,
            "\nserver and client: CPU time per operation; ratio: against the bare load of the same \
             round;\nsyncs: fdatasync per acknowledged write, on the node with the most\n\
             idle: {} % of a core per node; resident MiB: {} fresh, {} after the load",
            list(idle.core_percent.iter().copied()),
            mib(&idle.fresh_bytes),
            mib(&idle.resident_bytes)
        );
        page
    }
}

fn line(load: Load, measured: &[Measured], ceiling: &[Measured]) -> Line {
    let of = |figure: fn(&Measured) -> f64| median(measured.iter().map(figure).collect());
    let ratios = measured.iter().zip(ceiling).map(|(m, bare)| m.per_second / bare.per_second);
    let ratio = if load.is_bare() { None } else { Some(median(ratios.collect())) };
    let syncs: Option<Vec<f64>> = measured.iter().map(|m| m.syncs_per_operation).collect();
    Line {
        load: load.name(),
        per_second: of(|m| m.per_second),
        ratio,
        p50_us: of(|m| m.p50_us),
        p99_us: of(|m| m.p99_us),
        server_us_per_operation: of(|m| m.server_us_per_operation),
        client_us_per_operation: of(|m| m.client_us_per_operation),
        fdatasyncs_per_write: syncs.map(median),
    }
}

/// The middle value; of an even number of values, the upper of the two in the middle.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn or_dash(value: Option<f64>) -> String {
    value.map_or_else(|| String::from("-"), |value| format!("{value:.3}"))
}

fn list(values: impl Iterator<Item = f64>) -> String {
    values.map(|value| format!("{value:.1}")).collect::<Vec<String>>().join(" ")
}
