//! What single decisions and steps of the storage path cost.
//!
//! `cargo bench --bench cores`. Figures of a whole request are those of `benches/ceiling`.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use coterie::protocol::message::{Found, Holding, Want};
use coterie::protocol::quorum::Primary;
use coterie::protocol::quorum::read::{ReadEffect, ReadQuorum, ReadSetup};
use coterie::protocol::quorum::write::{WriteEffect, WriteQuorum, WriteSetup};
use coterie::protocol::ring::{Ring, RingMember};
use coterie::storage::disk::DiskFiles;
use coterie::storage::memory::{MemoryDisk, MemoryEngine};
use coterie::storage::store::Store;
use coterie::storage::wal::{LogRecord, Wal, WalOptions};
use coterie::types::{
    Epoch, Incarnation, Key, KeyspaceId, Lsn, Merge, Moment, NodeId, PartitionId, Record, Row,
    Timestamp, Version,
};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};

/// Rows of a group commit at 64 callers, when all of them wait for it.
const COMMIT_ROWS: u64 = 64;
/// Rows that the store holds.
const STORED_ROWS: u64 = 100_000;
const VALUE_BYTES: usize = 100;
const START: Moment = Moment(0);
const DEADLINE: Moment = Moment(2_000_000);

fn ring(c: &mut Criterion) {
    let member = |number| RingMember::new(NodeId(number), "", 128);
    let members: Vec<RingMember> = (1..=5).map(member).collect();
    let make = || Ring::new(Epoch(1), 256, 3, &members).expect("a sound ring");
    let ring = make();
    let key = Key::from("key-000000000042");
    c.bench_function("ring: primaries of a key", |b| {
        b.iter(|| ring.primaries(ring.partition_of(black_box(&key))).first().copied());
    });
    c.bench_function("ring: made of 5 nodes with 128 vnodes", |b| b.iter(make));
}

fn primaries() -> Vec<Primary> {
    (1..=3).map(|number| Primary { node: NodeId(number), reachable: true }).collect()
}

fn quorum_write() -> usize {
    let setup = WriteSetup {
        coming: None,
        primaries: primaries(),
        fallbacks: Vec::new(),
        required: 2,
        sloppy: false,
        deadline: DEADLINE,
    };
    let mut write = WriteQuorum::new(setup, START);
    let mut answers = 0;
    let mut sent = Vec::new();
    while !write.is_done() {
        while let Some(effect) = write.poll() {
            match effect {
                WriteEffect::Send { to, .. } => sent.push(to),
                WriteEffect::Answer(_) => answers += 1,
                WriteEffect::Hint { .. } => {}
            }
        }
        let Some(from) = sent.pop() else { break };
        write.on_ack(from, START);
    }
    answers
}

fn quorum_read() -> usize {
    let setup = ReadSetup {
        primaries: primaries(),
        required: 2,
        merge: Merge::Lww,
        seen: None,
        at_least: None,
        blocking_repair: true,
        alongside: None,
        hedge_after: Some(Duration::from_millis(20)),
        deadline: DEADLINE,
    };
    let mut read = ReadQuorum::new(setup, START);
    let mut answers = 0;
    let mut asked = Vec::new();
    while !read.is_done() {
        while let Some(effect) = read.poll() {
            match effect {
                ReadEffect::Ask { to, want } => asked.push((to, want)),
                ReadEffect::Answer(_) => answers += 1,
                ReadEffect::Repair { .. } => {}
            }
        }
        let Some((from, want)) = asked.pop() else { break };
        read.on_found(from, found(want), START);
    }
    answers
}

fn found(want: Want) -> Found {
    let record = record(7);
    let holding = match want {
        Want::Value => Holding::Record(record),
        Want::Version => Holding::Version(record.version),
    };
    Found { holding: Some(holding), complete: true }
}

fn quorum(c: &mut Criterion) {
    assert_eq!((quorum_write(), quorum_read()), (1, 1), "each is answered once");
    c.bench_function("quorum: a write of 3, answered at 2", |b| b.iter(quorum_write));
    c.bench_function("quorum: a read of 2 of 3", |b| b.iter(quorum_read));
}

fn record(number: u64) -> Record {
    let version = Version { timestamp: Timestamp(number + 1), incarnation: Incarnation(1) };
    Record::new(version, Some(Bytes::from(vec![0xff; VALUE_BYTES])))
}

fn row(number: u64) -> Row {
    let key = Key::from(format!("key-{number:012}"));
    Row { keyspace: KeyspaceId::DEFAULT, key, record: record(number) }
}

fn store_of(rows: u64) -> Store {
    let engine = Arc::new(MemoryEngine::open(MemoryDisk::new()));
    let store = Store::new(engine).expect("an empty engine");
    store.create_keyspace(KeyspaceId::DEFAULT).expect("a new keyspace");
    let placed = (0..rows).map(|number| (PartitionId(0), row(number)));
    store.publish(Lsn(rows), placed, START);
    store
}

fn store(c: &mut Criterion) {
    let store = store_of(STORED_ROWS);
    let key = row(STORED_ROWS / 2).key;
    c.bench_function("store: read of a row in memory", |b| {
        b.iter(|| store.read(KeyspaceId::DEFAULT, PartitionId(0), black_box(&key)));
    });
    let mut next = STORED_ROWS;
    let mut group = c.benchmark_group("store");
    group.throughput(Throughput::Elements(COMMIT_ROWS));
    group.bench_function("publish of 64 rows", |b| {
        let batch = || {
            next += COMMIT_ROWS;
            let rows = (next - COMMIT_ROWS..next).map(|number| (PartitionId(0), row(number)));
            (Lsn(next), rows.collect::<Vec<_>>())
        };
        let publish = |(lsn, rows): (Lsn, Vec<_>)| store.publish(lsn, rows.into_iter(), START);
        b.iter_batched(batch, publish, BatchSize::SmallInput);
    });
    group.finish();
}

fn wal(c: &mut Criterion) {
    let directory = tempfile::tempdir().expect("a directory");
    let files = Arc::new(DiskFiles::open(directory.path()).expect("a locked directory"));
    let options = WalOptions { segment_bytes: 64 << 20 };
    let (mut wal, _) = Wal::open(files, options, Lsn(0), &mut |_, _| Ok(())).expect("a new log");
    let records: Vec<LogRecord> = (0..COMMIT_ROWS).map(|n| LogRecord::Row(row(n))).collect();
    let mut group = c.benchmark_group("wal");
    group.throughput(Throughput::Elements(COMMIT_ROWS));
    group.bench_function("commit of 64 rows, with its fdatasync", |b| {
        b.iter(|| {
            let last = wal.commit(&records).expect("a sound log");
            // Keep the directory small: nothing is ever replayed.
            wal.drop_through(last).expect("a sound log")
        });
    });
    group.finish();
}

criterion_group!(benches, ring, quorum, store, wal);
criterion_main!(benches);
