//! Where logs go: to stderr, as lines or as JSON, filtered.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::cli::failure::Failure;
use crate::config::settings::{LogFormat, LogOptions};

/// What is logged unless said otherwise: libraries only when something is wrong.
const DEFAULT_FILTER: &str = "warn,coterie=info";

/// Starts logging for the whole process.
///
/// # Errors
/// When the level is none.
pub(crate) fn start(options: &LogOptions) -> Result<(), Failure> {
    let filter = filter(options, std::env::var("RUST_LOG").ok())?;
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let started = match options.format {
        LogFormat::Text => logs.with_ansi(std::io::stderr().is_terminal()).try_init(),
        LogFormat::Json => logs.json().flatten_event(true).try_init(),
    };
    started.map_err(|error| Failure::failed(format!("cannot start logging: {error}")))
}

/// The setting wins over `RUST_LOG`, and that over the default. A bare level is about our own logs.
fn filter(options: &LogOptions, rust_log: Option<String>) -> Result<EnvFilter, Failure> {
    let directives = match (&options.level, rust_log) {
        (Some(level), _) if is_bare_level(level) => format!("warn,coterie={level}"),
        (Some(directives), _) => directives.clone(),
        (None, Some(directives)) if !directives.trim().is_empty() => directives,
        (None, _) => DEFAULT_FILTER.to_owned(),
    };
    EnvFilter::try_new(&directives).map_err(|error| {
        let right = "give error, warn, info, debug or trace, or directives as in coterie=debug";
        Failure::usage(format!("log-level is {directives:?}: {error}; {right}"))
    })
}

fn is_bare_level(text: &str) -> bool {
    ["error", "warn", "info", "debug", "trace"].contains(&text.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(level: Option<&str>, rust_log: Option<&str>) -> Option<String> {
        let options = LogOptions { level: level.map(str::to_owned), ..LogOptions::default() };
        filter(&options, rust_log.map(str::to_owned)).ok().map(|filter| filter.to_string())
    }

    #[test]
    fn the_setting_wins_over_the_variable() {
        assert_eq!(chosen(Some("h2=trace"), Some("error")).as_deref(), Some("h2=trace"));
        assert_eq!(chosen(None, Some("error")).as_deref(), Some("error"));
        let default = chosen(None, None).expect("a filter");
        assert!(default.contains("coterie=info") && default.contains("warn"), "{default}");
        let debug = chosen(Some("debug"), None).expect("a filter");
        assert!(debug.contains("coterie=debug") && debug.contains("warn"), "{debug}");
    }

    #[test]
    fn nonsense_is_refused() {
        assert_eq!(chosen(Some("coterie=loud"), None), None);
    }
}
