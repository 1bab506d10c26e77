//! `append` and `cas`: what only strong keyspaces do.

use bytes::Bytes;

use crate::cli::connection::Cluster;
use crate::cli::data::{KeyspaceArg, print_receipt, value_or_stdin, written};
use crate::cli::failure::Failure;
use crate::cli::output::Output;
use crate::client::{ClientError, Condition};

/// Characters of a value that a failure shows.
const SHOWN_MAX: usize = 64;

/// `coterie append KEY [VALUE]`
#[derive(Debug, clap::Args)]
pub(crate) struct AppendArgs {
    /// The key, UTF-8.
    key: String,
    /// What is added; `-`, or nothing, reads it from stdin, byte by byte as it is.
    #[arg(allow_hyphen_values = true)]
    value: Option<String>,
    #[command(flatten)]
    keyspace: KeyspaceArg,
}

/// `coterie cas KEY CONDITION [NEW]`
#[derive(Debug, clap::Args)]
pub(crate) struct CasArgs {
    /// The key, UTF-8.
    key: String,
    #[command(flatten)]
    condition: ConditionArgs,
    /// The new value; `-` reads it from stdin.
    #[arg(allow_hyphen_values = true, required_unless_present = "delete")]
    new: Option<String>,
    /// Delete the key instead.
    #[arg(long, conflicts_with = "new")]
    delete: bool,
    #[command(flatten)]
    keyspace: KeyspaceArg,
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct ConditionArgs {
    /// The key has no value.
    #[arg(long)]
    expect_absent: bool,
    /// The key has this value.
    #[arg(long, value_name = "VALUE", allow_hyphen_values = true)]
    expect_value: Option<String>,
    /// The key was last changed at this version (of a receipt).
    #[arg(long, value_name = "VERSION")]
    expect_version: Option<String>,
}

impl ConditionArgs {
    /// Without a value or a version the group's third, absence, was given.
    fn condition(self) -> Condition {
        let value = self.expect_value.map(|value| Condition::Value(Bytes::from(value)));
        let version = self.expect_version.map(Condition::Version);
        value.or(version).unwrap_or(Condition::Absent)
    }
}

/// Adds to the end of a value.
///
/// # Errors
/// What the cluster refused, or that no node could be asked.
pub(crate) async fn append(
    cluster: &Cluster,
    args: AppendArgs,
    out: Output,
) -> Result<(), Failure> {
    let value = value_or_stdin(args.value.as_deref())?;
    let appending = cluster.client()?.keyspace(args.keyspace.name).append(&args.key, value);
    let appended = appending.await.map_err(written)?;
    let done = format!("appended, {} bytes now", appended.value_bytes);
    print_receipt(out, &done, &args.key, &appended.receipt)
}

/// Changes a key if it is as expected.
///
/// # Errors
/// What the cluster refused, or that no node could be asked; `Exit::Condition` when it is not.
pub(crate) async fn cas(cluster: &Cluster, args: CasArgs, out: Output) -> Result<(), Failure> {
    let key = cluster.client()?.keyspace(args.keyspace.name).compare_and_set(&args.key);
    let expecting = key.expect(args.condition.condition());
    let (change, done) = match (args.delete, &args.new) {
        (false, Some(new)) => (expecting.put(value_or_stdin(Some(new))?), "written"),
        _ => (expecting.delete(), "deleted"),
    };
    let receipt = change.await.map_err(|error| written(with_current(error)))?;
    print_receipt(out, done, &args.key, &receipt)
}

/// Adds what the key held to what the node said.
fn with_current(error: ClientError) -> ClientError {
    match error {
        ClientError::ConditionFailed { step, current: Some(current), message } => {
            let holds = current.value.as_ref().map(|value| format!("; it holds {}", shown(value)));
            let message = message + &holds.unwrap_or_default();
            ClientError::ConditionFailed { step, current: Some(current), message }
        }
        other => other,
    }
}

/// A value in one short line.
fn shown(value: &[u8]) -> String {
    match std::str::from_utf8(value) {
        Ok(text) if text.chars().count() <= SHOWN_MAX => format!("{text:?}"),
        Ok(text) => format!("{:?} and more", text.chars().take(SHOWN_MAX).collect::<String>()),
        Err(_) => format!("{} bytes that are no text", value.len()),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::client::Current;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        args: CasArgs,
    }

    fn parse(line: &str) -> Result<CasArgs, clap::Error> {
        Ok(Line::try_parse_from(std::iter::once("cas").chain(line.split(' ')))?.args)
    }

    #[test]
    fn a_condition_is_one_of_three() {
        let condition = |line: &str| parse(line).expect("parses").condition.condition();
        assert_eq!(condition("k --expect-absent new"), Condition::Absent);
        let value = Condition::Value(Bytes::from_static(b"old"));
        assert_eq!(condition("k --expect-value old new"), value);
        let version = Condition::Version("01-02".to_owned());
        assert_eq!(condition("k --expect-version 01-02 --delete"), version);
    }

    #[test]
    fn what_is_missing_or_contradicts_itself_is_refused() {
        for line in [
            "k new",
            "k --expect-absent",
            "k --expect-absent --expect-value v new",
            "k --expect-value v --delete new",
        ] {
            assert!(parse(line).is_err(), "{line} was accepted");
        }
    }

    #[test]
    fn a_failed_condition_tells_what_the_key_holds() {
        let failed = |value: Option<&'static [u8]>| {
            let current = Current { value: value.map(Bytes::from_static), version: "1".into() };
            let (current, message) = (Some(current), "no".to_owned());
            with_current(ClientError::ConditionFailed { step: 0, current, message }).to_string()
        };
        assert_eq!(failed(Some(b"old")), "no; it holds \"old\"");
        assert_eq!(failed(None), "no");
        assert_eq!(failed(Some(&[0xff])), "no; it holds 1 bytes that are no text");
        let long = failed(Some(&[b'a'; SHOWN_MAX + 1]));
        assert!(long.ends_with("a\" and more"), "{long}");
    }
}
