//! A disk that fails: the node stops acknowledging, says why, answers no read wrongly, and a
//! restart on a sound disk finds everything that was acknowledged. With a failed log every read
//! goes on. A failed engine refuses what is held only in pages that it no longer has in memory:
//! sled makes its own log durable before it reads such a page back, and can't.

use coterie::proto::v1::Level;
use tonic::{Code, Status};

use crate::disk::Disk;
use crate::harness::{NodeProcess, NodeSpec, PATIENCE, wait_until};
use crate::ledger::check_none;
use crate::load::{Load, Shape, acknowledged, read_back, read_back_unless, writers};
use crate::plan::{Plan, pass};
use crate::power_loss::SMALL_TABLES;

const WRITERS: usize = 4;
/// Writes that are tried once the node has said that it takes none.
const REFUSALS: usize = 20;

#[test]
fn a_log_that_cannot_be_synced_ends_acknowledgements() {
    check_fault("faults::a_log_that_cannot_be_synced_ends_acknowledgements", "sync wal/", |_| {
        false
    });
}

#[test]
fn a_log_that_cannot_be_written_ends_acknowledgements() {
    check_fault("faults::a_log_that_cannot_be_written_ends_acknowledgements", "write wal/", |_| {
        false
    });
}

#[test]
fn an_engine_that_cannot_be_synced_ends_acknowledgements() {
    let test = "faults::an_engine_that_cannot_be_synced_ends_acknowledgements";
    check_fault(test, "sync engine/", is_of_failed_storage);
}

#[test]
fn an_engine_that_cannot_be_written_ends_acknowledgements() {
    let test = "faults::an_engine_that_cannot_be_written_ends_acknowledgements";
    check_fault(test, "write engine/", is_of_failed_storage);
}

fn is_of_failed_storage(status: &Status) -> bool {
    status.code() == Code::Aborted && status.message().contains("its storage failed")
}

fn check_fault(test: &str, fault: &str, may_refuse: fn(&Status) -> bool) {
    let plan = Plan::of(test, 1, 3);
    let mut dice = plan.dice();
    let root = tempfile::tempdir().expect("a temporary directory");
    let mut spec = NodeSpec::new(root.path(), "n1", &[]);
    spec.arguments = SMALL_TABLES.map(str::to_owned).to_vec();
    let disk = Disk::under(&mut spec, false);
    let mut node = NodeProcess::new(spec);
    let mut crew = writers(WRITERS, &dice);
    for round in 0..plan.rounds {
        let when = format!("{fault}, round {round}");
        node.start();
        node.wait_ready();
        let load = Load::start(std::slice::from_ref(&node), crew, Shape::MIXED, false);
        pass(&mut dice, 100, 800);
        disk.order("eio", fault);
        wait_until("the node says that it is not ready", PATIENCE, || is_unready(&node));
        let (returned, complaints) = load.finish();
        crew = returned;
        check_none(&when, &complaints);
        check_refusals(&node);
        check_none(&when, &read_back_unless(&node, &mut crew, Level::Quorum, may_refuse));
        disk.rescind("eio");
        check_refusals(&node);
        node.kill();
        node.start();
        node.wait_ready();
        check_none(&when, &read_back(&node, &mut crew, Level::Quorum));
        node.put("/kv/after", "the fault").expect(200);
        node.kill();
    }
    assert!(acknowledged(&crew) > 0, "nothing was written");
}

fn is_unready(node: &NodeProcess) -> Result<(), String> {
    let reply = node.try_http("GET", "/readyz", &[], b"").map_err(|error| error.to_string())?;
    if reply.status != 503 {
        return Err(reply.text());
    }
    let status = node.status()?;
    let warnings = status["warnings"].to_string();
    // The cause is told in the system's own words.
    assert!(reply.text().contains("nput/output error"), "{}", reply.text());
    assert!(warnings.contains("nput/output error"), "{warnings}");
    Ok(())
}

/// Nothing is acknowledged any more, even once the disk works again.
fn check_refusals(node: &NodeProcess) {
    for number in 0..REFUSALS {
        let reply = node.put(&format!("/kv/refused-{number}"), "v");
        assert!(reply.status >= 500, "{}: {}", reply.status, reply.text());
        let outcome = reply.json()["outcome"].as_str().unwrap_or_default().to_owned();
        assert!(["failed", "unknown"].contains(&outcome.as_str()), "{}", reply.text());
    }
}
