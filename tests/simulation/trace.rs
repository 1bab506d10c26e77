//! What happened in a run, line by line: hashed always, printed when asked.
//!
//! Two runs of one seed must give the same hash; a difference means that something in the code
//! under simulation depends on more than the seed.

use std::fmt::{self, Write};

use coterie::types::Moment;
use parking_lot::Mutex;

/// The events of one run.
pub(crate) struct Trace {
    printing: bool,
    state: Mutex<State>,
}

struct State {
    hash: Fnv,
    counts: Counts,
}

/// How much happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Lines of the trace.
    pub(crate) steps: u64,
    /// Messages that nodes gave to the network.
    pub(crate) messages: u64,
    /// Faults that began.
    pub(crate) faults: u64,
    /// Client operations that were answered.
    pub(crate) answers: u64,
}

impl Trace {
    pub(crate) fn new(printing: bool) -> Self {
        let state = State { hash: Fnv::default(), counts: Counts::default() };
        Trace { printing, state: Mutex::new(state) }
    }

    /// Adds a line.
    pub(crate) fn note(&self, now: Moment, line: fmt::Arguments<'_>) {
        self.count(now, line, |_| ());
    }

    /// Adds a line and counts what it stands for.
    pub(crate) fn count(
        &self,
        now: Moment,
        line: fmt::Arguments<'_>,
        count: impl FnOnce(&mut Counts),
    ) {
        let mut state = self.state.lock();
        state.counts.steps += 1;
        count(&mut state.counts);
        writeln!(state.hash, "{} {line}", now.0).expect("hashing never fails");
        if self.printing {
            println!("{:>10.3} {line}", now.0 as f64 / 1e6);
        }
    }

    pub(crate) fn hash(&self) -> u64 {
        self.state.lock().hash.0
    }

    pub(crate) fn counts(&self) -> Counts {
        self.state.lock().counts
    }
}

/// FNV-1a over the text of the trace.
struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Fnv(0xcbf2_9ce4_8422_2325)
    }
}

impl Write for Fnv {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_tells_order_and_time() {
        let hash = |lines: &[(u64, &str)]| {
            let trace = Trace::new(false);
            lines.iter().for_each(|(at, line)| trace.note(Moment(*at), format_args!("{line}")));
            trace.hash()
        };
        assert_eq!(hash(&[(1, "a"), (2, "b")]), hash(&[(1, "a"), (2, "b")]));
        assert_ne!(hash(&[(1, "a"), (2, "b")]), hash(&[(2, "b"), (1, "a")]));
        assert_ne!(hash(&[(1, "a")]), hash(&[(2, "a")]));
    }
}
