//! `increment` and `update-set`: what only counters and sets do.

use crate::cli::connection::Cluster;
use crate::cli::data::{KeyspaceArg, WriteArgs, answer_json, print_receipt, written};
use crate::cli::failure::Failure;
use crate::cli::output::{self, Output};

/// `coterie increment KEY [BY]`
#[derive(Debug, clap::Args)]
pub(crate) struct IncrementArgs {
    /// The key, UTF-8.
    key: String,
    /// So much is added; below 0, taken away.
    #[arg(default_value_t = 1, allow_negative_numbers = true)]
    by: i64,
    #[command(flatten)]
    keyspace: KeyspaceArg,
    #[command(flatten)]
    write: WriteArgs,
}

/// `coterie update-set KEY`
#[derive(Debug, clap::Args)]
pub(crate) struct UpdateSetArgs {
    /// The key, UTF-8.
    key: String,
    /// An element that is in the set afterwards; may be repeated.
    #[arg(short, long, value_name = "ELEMENT", required_unless_present = "remove")]
    #[arg(allow_hyphen_values = true)]
    add: Vec<String>,
    /// An element that is taken out, as far as it had been seen; may be repeated.
    #[arg(short, long, value_name = "ELEMENT", allow_hyphen_values = true)]
    remove: Vec<String>,
    #[command(flatten)]
    keyspace: KeyspaceArg,
    #[command(flatten)]
    write: WriteArgs,
}

/// Adds to a counter.
///
/// # Errors
/// What the cluster refused, or that no node could be asked.
pub(crate) async fn increment(
    cluster: &Cluster,
    args: IncrementArgs,
    out: Output,
) -> Result<(), Failure> {
    let WriteArgs { level, w, sloppy, context } = args.write;
    let adding = cluster.client()?.keyspace(args.keyspace.name).increment(&args.key, args.by);
    let done = adding.level(level).w(w).sloppy(sloppy).context(context).await.map_err(written)?;
    match out {
        Output::Json => {
            let value = Some(("value", done.total.to_string()));
            output::json(&answer_json(&args.key, value, &done.receipt))
        }
        Output::Table => {
            let told = format!("counted, {} now", done.total);
            print_receipt(out, &told, &args.key, &done.receipt)
        }
    }
}

/// Changes a set.
///
/// # Errors
/// What the cluster refused, or that no node could be asked.
pub(crate) async fn update_set(
    cluster: &Cluster,
    args: UpdateSetArgs,
    out: Output,
) -> Result<(), Failure> {
    let WriteArgs { level, w, sloppy, context } = args.write;
    let update = cluster.client()?.keyspace(args.keyspace.name).update_set(&args.key);
    let update = update.insert(args.add).remove(args.remove);
    let done = update.level(level).w(w).sloppy(sloppy).context(context).await.map_err(written)?;
    match out {
        Output::Json => {
            let mut body = answer_json(&args.key, None, &done.receipt);
            body["size"] = done.size.into();
            output::json(&body)
        }
        Output::Table => {
            let told = format!("changed, {} elements now", done.size);
            print_receipt(out, &told, &args.key, &done.receipt)
        }
    }
}
