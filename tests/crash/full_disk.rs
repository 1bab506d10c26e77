//! A disk that fills up: writes are refused in plain words, reads go on, nothing acknowledged is
//! lost, and once there is room again writes go on without a restart.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use coterie::proto::v1::Level;
use tonic::Code;

use crate::disk::Disk;
use crate::harness::{NodeProcess, NodeSpec, PATIENCE, wait_until};
use crate::ledger::{Ledger, check_none};
use crate::load::{Load, Shape, acknowledged, read_back, writers};
use crate::plan::Plan;
use crate::power_loss::SMALL_TABLES;

const MIB: usize = 1 << 20;
const DISK_BYTES: usize = 96 * MIB;
/// What stands in the way, and goes when there is to be room again.
const BALLAST_BYTES: usize = 40 * MIB;
const RESERVE: &str = "--disk-reserve-bytes=12MiB";
const WRITERS: usize = 3;

/// So many keys that the disk is full before all are written.
const FILLING: Shape =
    Shape { keys: 10_000, large_per_mille: 700, deletes_per_mille: 0, ..Shape::MIXED };

#[test]
fn a_full_disk_refuses_writes_until_there_is_room() {
    let plan = Plan::of("full_disk::a_full_disk_refuses_writes_until_there_is_room", 1, 3);
    for _ in 0..plan.rounds {
        let root = tempfile::tempdir().expect("a temporary directory");
        let mut spec = small_node(root.path());
        let disk = Disk::under(&mut spec, false);
        disk.order("size", &DISK_BYTES.to_string());
        check_full_disk(&plan, NodeProcess::new(spec));
    }
}

#[test]
#[ignore = "needs root: mounts a small file system"]
fn disk_full() {
    let plan = Plan::of("full_disk::disk_full", 1, 1);
    let root = tempfile::tempdir().expect("a temporary directory");
    let spec = small_node(root.path());
    let _mounted = Mounted::at(&spec.data_dir);
    check_full_disk(&plan, NodeProcess::new(spec));
}

fn small_node(root: &Path) -> NodeSpec {
    let mut spec = NodeSpec::new(root, "n1", &[]);
    let arguments = SMALL_TABLES.into_iter().filter(|it| !it.contains("disk-reserve"));
    spec.arguments = arguments.chain([RESERVE]).map(str::to_owned).collect();
    spec
}

fn check_full_disk(plan: &Plan, mut node: NodeProcess) {
    let mut crew = writers(WRITERS, &plan.dice());
    let ballast = node.spec.data_dir.join("ballast");
    fs::write(&ballast, vec![1; BALLAST_BYTES]).expect("ballast");
    node.start();
    node.wait_ready();
    let load = Load::start(std::slice::from_ref(&node), crew, FILLING, false);
    wait_until("the disk is full", 2 * PATIENCE, || is_full(&node));
    let (returned, complaints) = load.finish();
    crew = returned;
    check_none("while the disk filled up", &complaints);
    check_refused(&node);
    check_none("on a full disk", &read_back(&node, &mut crew, Level::Quorum));
    fs::remove_file(&ballast).expect("ballast");
    wait_until("writes go on", PATIENCE, || {
        let reply = node.put("/kv/again", "v");
        if reply.status == 200 { Ok(()) } else { Err(reply.text()) }
    });
    check_none("with room again", &read_back(&node, &mut crew, Level::Quorum));
    let warnings = node.status().expect("a status")["warnings"].to_string();
    assert!(!warnings.contains("full"), "{warnings}");
    node.kill();
    node.start();
    node.wait_ready();
    check_none("after a kill", &read_back(&node, &mut crew, Level::Quorum));
    assert!(acknowledged(&crew) > 0, "nothing was written");
}

fn is_full(node: &NodeProcess) -> Result<(), String> {
    let warnings = node.status()?["warnings"].to_string();
    if warnings.contains("disk is full") { Ok(()) } else { Err(warnings) }
}

/// Both interfaces say that the disk is full, and that the write has no effect.
fn check_refused(node: &NodeProcess) {
    let reply = node.put("/kv/refused", "v").expect(507).json();
    assert_eq!((&reply["code"], &reply["outcome"]), (&"disk_full".into(), &"failed".into()));
    let grpc = node.grpc();
    let attempt = Ledger::default().attempt("refused", Some(10));
    let write = crate::load::write(grpc.kv(), "refused", attempt, Level::Quorum, String::new());
    let status = grpc.wait(write).expect_err("a refusal");
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    assert_eq!(status.metadata().get("coterie-code").expect("a trailer"), "disk_full");
    assert_eq!(status.metadata().get("coterie-outcome").expect("a trailer"), "failed");
    node.get("/kv/refused").expect(404);
}

/// A small file system in memory; unmounted when dropped.
struct Mounted {
    at: PathBuf,
}

impl Mounted {
    fn at(dir: &Path) -> Self {
        fs::create_dir_all(dir).expect("a directory");
        let size = format!("size={DISK_BYTES}");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(dir);
        assert!(mount.status().expect("mount runs").success(), "needs root");
        Mounted { at: dir.to_owned() }
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // Lazily, since a node that is still being killed may hold files open.
        let unmounted = Command::new("umount").arg("-l").arg(&self.at).status();
        if !unmounted.is_ok_and(|status| status.success()) {
            eprintln!("{} is still mounted", self.at.display());
        }
    }
}
