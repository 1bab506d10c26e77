//! Damaged files of the storage engine on one node of three: the node sets them aside or notices
//! each damaged row, says so, and fills up again from the others; no answer is wrong meanwhile.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use coterie::proto::v1::Level;

use crate::dice::Dice;
use crate::harness::{Cluster, NodeProcess, PATIENCE, wait_until};
use crate::ledger::check_none;
use crate::load::{Load, Shape, Writer, acknowledged, read_back, writers};
use crate::plan::{Plan, end, pass, stop};

/// The engine's cache is small, so that a running node reads its files too. Rows may be copied
/// fast, as a node keeps to a small part of that where other tests keep the machine busy.
const ARGUMENTS: [&str; 8] = [
    "--partitions=32",
    "--vnodes=32",
    "--engine-cache-bytes=1MiB",
    "--request-timeout=20s",
    "--memtable-bytes-max=1MiB",
    "--memtable-age-max=200ms",
    "--transfer-bytes-per-second=256MiB",
    "--disk-reserve-bytes=1MiB",
];

const VICTIM: usize = 2;
const WRITERS: usize = 8;
/// In so many rounds some damage must have been noticed.
const ROUNDS_THAT_NOTICE: usize = 5;
/// Places that are damaged under a running node.
const PLACES_IF_RUNNING: usize = 20;
/// Everything lies on all three nodes before one is damaged.
const SHAPE: Shape = Shape {
    keys: 60,
    large_per_mille: 500,
    level: Level::All,
    deletes_per_mille: 50,
    ..Shape::MIXED
};

#[test]
fn a_ruined_engine_is_set_aside_and_the_node_fills_up_again() {
    let test = "damage_engine::a_ruined_engine_is_set_aside_and_the_node_fills_up_again";
    let plan = Plan::of(test, 1, 4);
    for round in 0..plan.rounds {
        let mut dice = plan.dice().fork(&round.to_string());
        let (mut cluster, mut crew) = filled(&mut dice);
        cluster.nodes.iter_mut().for_each(stop);
        let how = ruin(&cluster.nodes[VICTIM].spec.data_dir.join("engine"), &mut dice);
        let when = format!("round {round}, {how}");
        cluster.nodes[VICTIM].start();
        wait_until(&format!("{when}: the node says what it lost"), PATIENCE, || {
            check_quarantine(&mut cluster.nodes[VICTIM])
        });
        check_counts_for_nothing(&cluster.nodes[VICTIM], &crew);
        cluster.nodes[..VICTIM].iter_mut().for_each(NodeProcess::start);
        cluster.wait_formed();
        wait_until("the node has filled up", PATIENCE, || check_complete(&cluster, VICTIM));
        check_alone(&mut cluster, &mut crew, &when);
    }
}

#[test]
fn damage_within_the_engine_makes_no_answer_wrong_and_is_repaired() {
    let test = "damage_engine::damage_within_the_engine_makes_no_answer_wrong_and_is_repaired";
    let plan = Plan::of(test, 3, 20);
    let mut dice = plan.dice();
    let (mut cluster, mut crew) = filled(&mut dice);
    for round in 0..plan.rounds {
        let how = restart_hurt(&mut cluster, &crew, &mut dice);
        let when = format!("round {round}, {how}");
        for reader in [0, 1, VICTIM] {
            let complaints = read_back(&cluster.nodes[reader], &mut crew, Level::Quorum);
            check_none(&format!("{when}, read at QUORUM from {reader}"), &complaints);
        }
        make_well(&mut cluster, &when);
        check_all(&mut cluster, &mut crew, &when);
    }
    let log = cluster.nodes[VICTIM].log();
    let noticed = log.matches("engine is damaged and was set aside").count();
    assert!(noticed > 0 || plan.rounds < ROUNDS_THAT_NOTICE, "no damage was ever noticed");
    check_alone(&mut cluster, &mut crew, "at the end");
}

/// Reads everything from all three. If that meets the damage, the node refuses what it would get
/// wrong; once it was started again and has filled up, it must have everything.
fn check_all(cluster: &mut Cluster, crew: &mut [Writer], when: &str) {
    let complaints = read_back(&cluster.nodes[0], crew, Level::All);
    if cluster.nodes[VICTIM].get("/readyz").status == 200 {
        return check_none(&format!("{when}, read at ALL"), &complaints);
    }
    make_well(cluster, when);
    let complaints = read_back(&cluster.nodes[0], crew, Level::All);
    check_none(&format!("{when}, read at ALL after a restart"), &complaints);
}

fn make_well(cluster: &mut Cluster, when: &str) {
    wait_until(&format!("{when}: the node is well again"), PATIENCE, || {
        check_well(&mut cluster.nodes[VICTIM])
    });
    cluster.wait_formed();
}

/// Starts the node again and damages it: before that in one place, since all is read anew then, or
/// after it in several, since a running node reads only some.
fn restart_hurt(cluster: &mut Cluster, crew: &[Writer], dice: &mut Dice) -> String {
    let node = &mut cluster.nodes[VICTIM];
    let engine = node.spec.data_dir.join("engine");
    end(node, dice);
    let stopped = dice.chance(500);
    let mut how = String::new();
    if stopped {
        how = format!("stopped, {}", hurt(&engine, 1, crew, dice));
    }
    node.start();
    // What compares rows in the background may meet the damage at once.
    make_well(cluster, &how);
    if !stopped {
        how = format!("running, {}", hurt(&engine, PLACES_IF_RUNNING, crew, dice));
    }
    how
}

/// Three nodes and what was written to all of them.
fn filled(dice: &mut Dice) -> (Cluster, Vec<Writer>) {
    let cluster = Cluster::start_with(3, &ARGUMENTS);
    let load = Load::start(&cluster.nodes, writers(WRITERS, dice), SHAPE, false);
    pass(dice, 1500, 2500);
    let (crew, complaints) = load.finish();
    check_none("under load", &complaints);
    assert!(acknowledged(&crew) > 0, "nothing was written");
    (cluster, crew)
}

/// Damage that cannot be overlooked.
fn ruin(engine: &Path, dice: &mut Dice) -> String {
    let path = engine.join("db");
    let file = File::options().write(true).open(&path).expect("the engine's file");
    let bytes = file.metadata().expect("a size").len();
    if dice.chance(500) {
        let kept = bytes * dice.between(1, 50) / 100;
        file.set_len(kept).expect("cut");
        return format!("cut from {bytes} to {kept} bytes");
    }
    // All of it: the beginning alone may be a segment that nothing refers to any more.
    let garbage: Vec<u8> = (0..1 << 20).map(|_| dice.next() as u8).collect();
    for at in (0..bytes).step_by(garbage.len()) {
        let length = garbage.len().min((bytes - at) as usize);
        file.write_all_at(&garbage[..length], at).expect("written");
    }
    format!("all {bytes} bytes are garbage")
}

/// Damage that may be met at once, later or never.
fn hurt(engine: &Path, places: usize, crew: &[Writer], dice: &mut Dice) -> String {
    let path = engine.join("db");
    let bytes = fs::read(&path).expect("the engine's file");
    let file = File::options().write(true).open(&path).expect("the engine's file");
    let value = crew[dice.index(crew.len())].ledger.longest_value();
    let value_at = find(&bytes, &value);
    let mut done = Vec::new();
    for _ in 0..places {
        let (what, at) = match value_at {
            Some(at) if dice.chance(500) => ("within a value", at + dice.index(value.len())),
            _ => ("anywhere", dice.index(bytes.len())),
        };
        let at = at.min(bytes.len() - 1);
        if dice.chance(700) {
            file.write_all_at(&[bytes[at] ^ 1 << dice.index(8)], at as u64).expect("written");
            done.push(format!("a bit flipped {what} at {at}"));
        } else {
            let garbage: Vec<u8> = (0..dice.between(2, 5000)).map(|_| dice.next() as u8).collect();
            file.write_all_at(&garbage, at as u64).expect("written");
            done.push(format!("{} bytes of garbage {what} at {at}", garbage.len()));
        }
    }
    done.join(", ")
}

/// Where a value lies, or its first piece.
fn find(bytes: &[u8], value: &[u8]) -> Option<usize> {
    const PROBE_BYTES: usize = 32;
    let probe = value.get(..PROBE_BYTES)?;
    bytes.windows(PROBE_BYTES).position(|window| window == probe)
}

fn check_quarantine(node: &mut NodeProcess) -> Result<(), String> {
    if let Some(status) = node.exited() {
        panic!("the node ended with {status}");
    }
    let warnings = node.status()?["warnings"].to_string();
    if !warnings.contains("was set aside as") {
        return Err(warnings);
    }
    let aside: Vec<PathBuf> = fs::read_dir(&node.spec.data_dir)
        .expect("a data directory")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.to_string_lossy().contains("quarantined"))
        .collect();
    assert_eq!(aside.len(), 1, "{aside:?}");
    assert!(warnings.contains(&aside[0].display().to_string()), "{warnings}");
    Ok(())
}

/// Alone and empty, the node must not say that there is nothing.
fn check_counts_for_nothing(node: &NodeProcess, crew: &[Writer]) {
    for writer in crew {
        for key in writer.ledger.keys().take(5) {
            let reply = node.get(&format!("/kv/{key}?level=one&timeout=300ms"));
            assert!(reply.status >= 500, "{key}: {} {}", reply.status, reply.text());
        }
    }
    let reply = node.get("/readyz");
    assert_eq!(reply.status, 503, "{}", reply.text());
}

fn check_complete(cluster: &Cluster, node: usize) -> Result<(), String> {
    let name = &cluster.nodes[node].spec.name;
    for viewer in &cluster.nodes {
        let member = viewer.member(name)?;
        if member["complete"] != true {
            return Err(format!("{} sees {member}", viewer.spec.name));
        }
    }
    Ok(())
}

/// A node whose engine turns out damaged while it runs stops itself from being trusted; as its
/// operator would, this starts it again then.
fn check_well(node: &mut NodeProcess) -> Result<(), String> {
    let reply = node.try_http("GET", "/readyz", &[], b"").map_err(|error| error.to_string())?;
    if reply.status == 200 {
        return Ok(());
    }
    if reply.text().contains("engine") {
        node.kill();
        node.start();
    }
    Err(reply.text())
}

/// Without the others, the node holds everything itself.
fn check_alone(cluster: &mut Cluster, crew: &mut [Writer], when: &str) {
    cluster.nodes[..VICTIM].iter_mut().for_each(NodeProcess::kill);
    let node = &cluster.nodes[VICTIM];
    wait_until("the others are gone", PATIENCE, || {
        for other in &cluster.nodes[..VICTIM] {
            let member = node.member(&other.spec.name)?;
            if member["connected"] == true {
                return Err(member.to_string());
            }
        }
        Ok(())
    });
    check_none(&format!("{when}, read at ONE, alone"), &read_back(node, crew, Level::One));
}
