//! `append` and `cas`: what only strong keyspaces do.

use bytes::Bytes;
use prost::Message;
use tonic::Status;

use crate::cli::connection::Cluster;
use crate::cli::data::{KeyspaceArg, print_receipt, value_or_stdin};
use crate::cli::failure::{Effect, Failure};
use crate::cli::output::Output;
use crate::proto::v1;
use crate::proto::v1::compare_and_set_request::Data;
use crate::proto::v1::condition::Expect;
use crate::proto::v1::kv_client::KvClient;

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
    fn condition(self) -> v1::Condition {
        let ConditionArgs { expect_absent, expect_value, expect_version } = self;
        let value = expect_value.map(|value| Expect::ValueBytes(Bytes::from(value)));
        let absent = expect_absent.then_some(Expect::Absent(true));
        v1::Condition { expect: value.or_else(|| expect_version.map(Expect::Version)).or(absent) }
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
    let message = v1::AppendRequest {
        key: args.key.clone(),
        data: Some(v1::append_request::Data::ValueBytes(value)),
        keyspace: args.keyspace.name,
        ..v1::AppendRequest::default()
    };
    let call = async |channel| {
        let mut client = KvClient::new(channel).max_encoding_message_size(usize::MAX);
        client.append(cluster.request(message.clone())).await
    };
    let answer = cluster.ask(Effect::Writes, call).await?.into_inner();
    let done = format!("appended, {} bytes now", answer.value_bytes);
    print_receipt(out, &done, &args.key, &answer.receipt.unwrap_or_default())
}

/// Changes a key if it is as expected.
///
/// # Errors
/// What the cluster refused, or that no node could be asked; `Exit::Condition` when it is not.
pub(crate) async fn cas(cluster: &Cluster, args: CasArgs, out: Output) -> Result<(), Failure> {
    let data = match (args.delete, &args.new) {
        (false, Some(new)) => Some(Data::ValueBytes(value_or_stdin(Some(new))?)),
        _ => None,
    };
    let done = if data.is_some() { "written" } else { "deleted" };
    let message = v1::CompareAndSetRequest {
        key: args.key.clone(),
        expect: Some(args.condition.condition()),
        data,
        keyspace: args.keyspace.name,
        session: None,
    };
    let call = async |channel| {
        let mut client = KvClient::new(channel).max_encoding_message_size(usize::MAX);
        let answer = client.compare_and_set(cluster.request(message.clone())).await;
        answer.map_err(with_current)
    };
    let answer = cluster.ask(Effect::Writes, call).await?.into_inner();
    print_receipt(out, done, &args.key, &answer.receipt.unwrap_or_default())
}

/// Adds what the key held to a status that tells it only in its details.
fn with_current(status: Status) -> Status {
    let failed = v1::ConditionFailed::decode(status.details()).unwrap_or_default();
    if !failed.found || failed.value.is_empty() {
        return status;
    }
    let message = format!("{}; it holds {}", status.message(), shown(&failed.value));
    Status::with_details_and_metadata(
        status.code(),
        message,
        Bytes::copy_from_slice(status.details()),
        status.metadata().clone(),
    )
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
    use tonic::Code;

    use super::*;

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
        let condition = |line: &str| parse(line).expect("parses").condition.condition().expect;
        assert_eq!(condition("k --expect-absent new"), Some(Expect::Absent(true)));
        let value = Some(Expect::ValueBytes(Bytes::from_static(b"old")));
        assert_eq!(condition("k --expect-value old new"), value);
        let version = Some(Expect::Version("01-02".to_owned()));
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
        let failed = |value: &'static [u8]| {
            let value = Bytes::from_static(value);
            let details =
                v1::ConditionFailed { found: true, value, ..v1::ConditionFailed::default() };
            let details = Bytes::from(details.encode_to_vec());
            with_current(Status::with_details(Code::FailedPrecondition, "no", details))
        };
        assert_eq!(failed(b"old").message(), "no; it holds \"old\"");
        assert_eq!(failed(b"").message(), "no");
        assert_eq!(failed(&[0xff]).message(), "no; it holds 1 bytes that are no text");
        let long: &'static [u8] = &[b'a'; SHOWN_MAX + 1];
        assert!(failed(long).message().ends_with("a\" and more"), "{}", failed(long));
    }
}
