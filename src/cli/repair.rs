//! `coterie repair`: has every node compare what it owns with the other owners.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::cli::connection::{Cluster, endpoint};
use crate::cli::failure::{Effect, Exit, Failure};
use crate::cli::output::{self, Output};
use crate::client::root_cause;
use crate::proto::v1;
use crate::proto::v1::admin_client::AdminClient;

/// How often a node is asked how far it is.
const INTERVAL: Duration = Duration::from_millis(250);

/// What to repair.
#[derive(Debug, clap::Args)]
pub(crate) struct RepairArgs {
    /// A partition's number; all of them without.
    #[arg(long, value_name = "PARTITION")]
    partition: Option<u32>,
    /// A quorum keyspace; all of them without.
    #[arg(long, short, value_name = "NAME")]
    keyspace: Option<String>,
}

/// What came of it on one node.
struct Report {
    name: String,
    outcome: Result<v1::RepairResponse, String>,
}

/// Has all members repair, and waits until they have.
///
/// # Errors
/// When the members cannot be asked for, or some replicas could not be compared.
pub(crate) async fn run(cluster: &Cluster, args: RepairArgs, out: Output) -> Result<(), Failure> {
    let call = async |channel| {
        AdminClient::new(channel).status(cluster.request(v1::StatusRequest {})).await
    };
    let status = cluster.ask(Effect::Reads, call).await?.into_inner();
    let repairs = status.members.iter().map(|member| async {
        Report { name: member.name.clone(), outcome: repair(member, &args).await }
    });
    let reports = join_all(repairs).await;
    match out {
        Output::Json => output::json(&json!({
            "nodes": reports.iter().map(report_json).collect::<Vec<Value>>()
        }))?,
        Output::Table => output::line(&table(&reports))?,
    }
    let unfinished: Vec<String> = reports.iter().filter_map(complaint).collect();
    match unfinished.is_empty() {
        true => Ok(()),
        false => Err(Failure::new(Exit::Failed, unfinished.join("; "))),
    }
}

/// Has one member repair what it owns.
async fn repair(member: &v1::Member, args: &RepairArgs) -> Result<v1::RepairResponse, String> {
    let endpoint = endpoint(&member.client_address).map_err(|failure| failure.to_string())?;
    let channel = endpoint.connect().await.map_err(|error| root_cause(&error))?;
    let mut client = AdminClient::new(channel);
    let first =
        v1::RepairRequest { keyspace: args.keyspace.clone(), partition: args.partition, run: None };
    let told = |status: tonic::Status| status.message().to_owned();
    let mut heard = client.repair(first).await.map_err(told)?.into_inner();
    while !heard.done {
        tokio::time::sleep(INTERVAL).await;
        let again = v1::RepairRequest { run: Some(heard.run), ..Default::default() };
        heard = client.repair(again).await.map_err(told)?.into_inner();
    }
    Ok(heard)
}

fn table(reports: &[Report]) -> String {
    let header = ["NODE", "COMPARED", "FAILED", "DIFFERING ROWS", "SENT", "TAKEN"];
    let rows = reports.iter().map(|report| {
        let counts = match &report.outcome {
            Ok(it) => [it.compared, it.failed, it.rows_differing, it.rows_sent, it.rows_fetched]
                .map(|count| count.to_string())
                .to_vec(),
            Err(_) => vec!["-".to_owned(); 5],
        };
        std::iter::once(report.name.clone()).chain(counts).collect()
    });
    output::table(&header, &header[1..], rows.collect())
}

fn report_json(report: &Report) -> Value {
    match &report.outcome {
        Err(reason) => json!({ "name": report.name, "error": reason }),
        Ok(it) => json!({
            "name": report.name,
            "pairs": it.pairs,
            "compared": it.compared,
            "failed": it.failed,
            "rows_differing": it.rows_differing,
            "rows_sent": it.rows_sent,
            "rows_fetched": it.rows_fetched,
            "failures": it.failures.iter()
                .map(|failure| json!({ "reason": failure.reason, "pairs": failure.pairs }))
                .collect::<Vec<Value>>(),
        }),
    }
}

/// What is left to be done, if anything is.
fn complaint(report: &Report) -> Option<String> {
    let name = &report.name;
    match &report.outcome {
        Err(reason) => Some(format!("{name} did not repair: {reason}")),
        Ok(it) if it.failed == 0 => None,
        Ok(it) => {
            let reasons: Vec<&str> =
                it.failures.iter().map(|failure| failure.reason.as_str()).collect();
            let (failed, pairs, reasons) = (it.failed, it.pairs, reasons.join(", "));
            Some(format!("{name} could not compare {failed} of {pairs} replicas: {reasons}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(failed: u64) -> Report {
        let reason = "no connection".to_owned();
        let failures = vec![v1::RepairFailure { reason, pairs: failed }];
        let counts = v1::RepairResponse { pairs: 4, failed, failures, ..Default::default() };
        Report { name: "n1".to_owned(), outcome: Ok(counts) }
    }

    #[test]
    fn what_is_left_is_told() {
        assert_eq!(complaint(&report(0)), None);
        let told = complaint(&report(3)).expect("something is left");
        assert_eq!(told, "n1 could not compare 3 of 4 replicas: no connection");
        let down = Report { name: "n2".to_owned(), outcome: Err("refused".to_owned()) };
        assert_eq!(complaint(&down).as_deref(), Some("n2 did not repair: refused"));
        assert!(table(&[report(3), down]).contains("n2"));
    }
}
