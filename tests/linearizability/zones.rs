//! Registers whose written values all differ, judged in n log n (Gibbons and Korach 1997,
//! "Testing Shared Memories", section 4).
//!
//! A write and the reads of its value form a *cluster*. Let its *end* be the smallest return
//! and its *start* the largest invocation among its operations. In every legal order a cluster
//! stands together, so cluster A must stand before cluster B as soon as one operation of A
//! returned before one of B was invoked, that is, when A's end lies before B's start. When its
//! own end lies before its own start, the value was certainly there in between, a *forward zone*;
//! otherwise it need have been there but for a moment in its *backward zone*, from start to end.
//! The history is linearizable unless two clusters must each stand before the other, and that is
//! so exactly when two forward zones overlap or a backward zone lies within a forward one.
//!
//! Only reads and writes are judged here, and absence only as what was there at first.

use std::collections::HashMap;

use super::history::{Call, Operation, Shown, Value, Verdict, worst};

/// Judges each key by itself.
pub(crate) fn check(history: &[Operation<Call>]) -> Verdict {
    worst(history, check_register)
}

/// Judges the operations of one key.
pub(crate) fn check_register(history: &[&Operation<Call>]) -> Verdict {
    let witness = match clusters(history) {
        Ok(clusters) => match conflict(&clusters) {
            Some(witness) => witness,
            None => return Verdict::Linearizable,
        },
        Err(Fault::Broken(witness)) => witness,
        Err(Fault::Unsuitable(reason)) => return Verdict::GaveUp { reason },
    };
    Verdict::NotLinearizable { witness }
}

/// Why there are no clusters.
enum Fault {
    /// No order can be legal.
    Broken(String),
    /// Not a history of reads and of writes that differ.
    Unsuitable(String),
}

/// A write and the reads of its value.
///
/// Times are one larger than in the history, so that what was there at first is "written" at 0.
struct Cluster<'a> {
    /// `None` for what was there at first.
    write: Option<&'a Operation<Call>>,
    /// The smallest return and whose it is.
    end: u64,
    ended: Option<&'a Operation<Call>>,
    /// The largest invocation and whose it is.
    start: u64,
    started: Option<&'a Operation<Call>>,
}

impl<'a> Cluster<'a> {
    fn initial() -> Self {
        Cluster { write: None, end: 0, ended: None, start: 0, started: None }
    }

    fn of(write: &'a Operation<Call>) -> Self {
        let mut cluster = Cluster { write: Some(write), end: u64::MAX, ..Cluster::initial() };
        cluster.add(write);
        cluster
    }

    fn add(&mut self, operation: &'a Operation<Call>) {
        let (start, end) = (operation.invoked + 1, operation.returned_or_never().saturating_add(1));
        if start > self.start {
            (self.start, self.started) = (start, Some(operation));
        }
        if end < self.end {
            (self.end, self.ended) = (end, Some(operation));
        }
    }

    fn is_forward(&self) -> bool {
        self.end < self.start
    }
}

/// The clusters of values that matter, by their ends: a write of unknown outcome that nobody read
/// may as well never have taken effect, and so is left out.
fn clusters<'a>(history: &[&'a Operation<Call>]) -> Result<Vec<Cluster<'a>>, Fault> {
    let mut found: HashMap<Option<&Value>, Cluster<'a>> = HashMap::new();
    found.insert(None, Cluster::initial());
    for operation in history {
        if let Some(value) = written(operation)?
            && found.insert(Some(value), Cluster::of(operation)).is_some()
        {
            return Err(Fault::Unsuitable(format!("{value:?} was written twice")));
        }
    }
    for operation in history {
        let (Call::Read(value), Some(returned)) = (&operation.call, operation.returned) else {
            continue;
        };
        let cluster = found
            .get_mut(&value.as_ref())
            .filter(|cluster| cluster.write.is_none_or(|write| returned >= write.invoked));
        cluster.ok_or_else(|| unwritten(value, operation))?.add(operation);
    }
    let mut clusters: Vec<_> = found.into_values().filter(|c| c.end != u64::MAX).collect();
    clusters.sort_unstable_by_key(|cluster| (cluster.end, cluster.start));
    Ok(clusters)
}

fn unwritten(value: &Option<Value>, read: &Operation<Call>) -> Fault {
    Fault::Broken(format!("nobody had written {} yet:{}", Shown(value), line(read)))
}

fn written(operation: &Operation<Call>) -> Result<Option<&Value>, Fault> {
    match &operation.call {
        Call::Write(value) => Ok(Some(value)),
        Call::Read(_) => Ok(None),
        other => Err(Fault::Unsuitable(format!("only reads and writes are judged, not {other}"))),
    }
}

/// Two clusters that must each stand before the other.
fn conflict(clusters: &[Cluster<'_>]) -> Option<String> {
    let (forward, backward): (Vec<_>, Vec<_>) =
        clusters.iter().partition(|cluster| cluster.is_forward());
    let overlap = forward.windows(2).find(|pair| pair[1].end < pair[0].start);
    if let Some(pair) = overlap {
        return Some(entangled(pair[0], pair[1]));
    }
    // Forward zones that do not overlap are ordered by their starts as by their ends: the last
    // one that could reach around a backward zone is the one that reaches furthest.
    let around = |inner: &Cluster<'_>| {
        let before = forward.partition_point(|outer| outer.end < inner.start);
        forward[..before].last().filter(|outer| inner.end < outer.start).copied()
    };
    backward.iter().find_map(|inner| Some(entangled(around(inner)?, inner)))
}

fn entangled(first: &Cluster<'_>, second: &Cluster<'_>) -> String {
    let mut text = format!("{} and {} each had to be there first:", name(first), name(second));
    let mut shown: Vec<&Operation<Call>> = [first, second]
        .iter()
        .flat_map(|cluster| [cluster.write, cluster.ended, cluster.started])
        .flatten()
        .collect();
    shown.sort_by_key(|operation| (operation.invoked, operation.returned, operation.client));
    shown.dedup_by(|a, b| std::ptr::eq(*a, *b));
    shown.iter().for_each(|operation| text += &line(operation));
    text
}

fn name(cluster: &Cluster<'_>) -> String {
    match cluster.write.map(|write| &write.call) {
        Some(Call::Write(value)) => format!("{value:?}"),
        _ => "nothing".to_owned(),
    }
}

fn line(operation: &Operation<Call>) -> String {
    format!("\n  {operation}")
}
