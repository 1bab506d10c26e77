//! The progress bar of a load: on stderr, and only when that is a terminal.

use std::sync::atomic::Ordering;

use indicatif::{ProgressBar, ProgressStyle};

use crate::cli::bench::{Monitor, Stage, Stop};

/// A bar that follows a monitor.
pub(super) struct Progress {
    bar: ProgressBar,
    stage: Option<Stage>,
}

impl Progress {
    pub(super) fn new() -> Self {
        Progress { bar: ProgressBar::new(0), stage: None }
    }

    /// Shows what the monitor tells now.
    pub(super) fn update(&mut self, monitor: &Monitor) {
        let stage = *monitor.stage.lock();
        if self.stage != Some(stage) {
            self.begin(stage);
        }
        let ended = monitor.counts.ended.load(Ordering::Relaxed);
        let failed = monitor.counts.failed.load(Ordering::Relaxed);
        let seconds = self.bar.elapsed().as_secs_f64().max(f64::EPSILON);
        self.bar.set_position(match stage.stop {
            Stop::Operations(_) => ended,
            Stop::After(_) => self.bar.elapsed().as_millis() as u64,
        });
        self.bar.set_message(format!("{:.0}/s, {failed} errors", ended as f64 / seconds));
    }

    pub(super) fn finish(&self) {
        self.bar.finish_and_clear();
    }

    fn begin(&mut self, stage: Stage) {
        self.stage = Some(stage);
        self.bar.finish_and_clear();
        self.bar = ProgressBar::new(match stage.stop {
            Stop::Operations(operations) => operations,
            Stop::After(duration) => duration.as_millis() as u64,
        });
        let style = ProgressStyle::with_template("{prefix:>9} {wide_bar} {elapsed} {msg}");
        self.bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        self.bar.set_prefix(stage.name);
    }
}
