//! What a node's storage keeps of Raft groups, from the queue before the log to the next start.

use bytes::Bytes;
use tokio::sync::oneshot;

use super::*;
use crate::node::committer::{Committed, Completions, ReplyTo, Submission};
use crate::node::env::Machine;
use crate::node::replica::Lookup;
use crate::node::tasks::Tasks;
use crate::protocol::message::{Class, Found, Refusal, RequestId, Scan, ScanPage, Want};
use crate::protocol::raft::entry::{Entry, HardState, LogPosition, LogStart, Payload};
use crate::protocol::raft::membership::Membership;
use crate::storage::files::testing::MemoryFiles;
use crate::storage::group_log::StoredLog;
use crate::storage::memory::{MemoryDisk, MemoryEngine};
use crate::storage::wal::GroupRecord;
use crate::types::{Epoch, GroupId, Key, LogIndex, Record, ReplicaId, Term, Version};

const GROUP: GroupId = GroupId(3);
const REPLICA: ReplicaId = ReplicaId(30);
const PARTITION: PartitionId = PartitionId(3);

/// A disk, and the node's storage on it.
struct Bench {
    files: MemoryFiles,
    disk: Arc<MemoryDisk>,
    local: Local,
    tasks: Tasks,
}

/// Tells those who wait.
struct Waiters;

impl Completions for Waiters {
    fn on_committed(&self, reply_to: ReplyTo, outcome: Result<Committed, Refusal>) {
        let ReplyTo::Waiter(waiter) = reply_to else { panic!("{reply_to:?} was not given") };
        waiter.send(outcome.map(drop)).unwrap();
    }
}

impl Bench {
    fn new() -> Bench {
        Bench::open(MemoryFiles::default(), MemoryDisk::new())
    }

    fn open(files: MemoryFiles, disk: Arc<MemoryDisk>) -> Bench {
        let mut config = Config::default();
        config.storage.wal_segment_bytes = 4096;
        config.storage.wal_queue_bytes_max = 1000;
        let parts = Parts {
            env: Arc::new(Machine::new()),
            files: Arc::new(files.clone()),
            engine: Arc::new(MemoryEngine::open(Arc::clone(&disk))),
            engine_lost: None,
        };
        let local = Local::open(&config, parts).unwrap();
        Bench { files, disk, local, tasks: Tasks::new() }
    }

    /// Starts what commits.
    fn start(&self) {
        let (committer, stop) = (Arc::clone(&self.local.committer), self.tasks.stop_signal());
        self.tasks.spawn(async move { committer.run(Arc::new(Waiters), stop).await });
    }

    /// The process ends; what the engine has not made durable is gone.
    async fn restart(self) -> Bench {
        self.tasks.stop().await;
        let Bench { files, disk, local, .. } = self;
        drop(local);
        let again = Bench::open(files, disk);
        again.start();
        again
    }

    async fn commit(&self, records: Vec<LogRecord>) -> Result<(), Refusal> {
        let (sender, outcome) = oneshot::channel();
        self.local.committer.submit_group(records, ReplyTo::Waiter(sender))?;
        outcome.await.unwrap()
    }

    fn value(&self, row: &Row) -> Option<Bytes> {
        let record = self.local.store.read(row.keyspace, PARTITION, &row.key).unwrap();
        record.and_then(|record| record.value)
    }

    fn restored(&self) -> Option<StoredLog> {
        self.local.group_logs.lock().restored(GROUP)
    }
}

fn row(number: u64) -> Row {
    let version = Version { timestamp: Timestamp(number), incarnation: Incarnation(1) };
    let value = Some(Bytes::from(format!("value {number}").repeat(20)));
    let record = Record::new(version, value);
    Row { keyspace: KeyspaceId::DEFAULT, key: Key::from(format!("key {number}")), record }
}

fn rows(numbers: [u64; 2]) -> LogRecord {
    LogRecord::Rows(numbers.map(|number| (PARTITION, row(number))).into())
}

fn start() -> LogStart {
    let position = LogPosition::default();
    LogStart { position, membership: Membership::default(), membership_index: LogIndex(0) }
}

fn entry(index: u64) -> Entry {
    let payload = Payload::Command(Bytes::from(format!("command {index}")));
    Entry { term: Term(1), index: LogIndex(index), payload }
}

fn founding() -> LogRecord {
    LogRecord::Group(GroupRecord::founding(GROUP, REPLICA, HardState::default(), start()))
}

fn append(entries: Vec<Entry>) -> LogRecord {
    LogRecord::Group(GroupRecord::Entries { group: GROUP, replica: REPLICA, entries })
}

/// The group with entries up to that index.
fn log_through(last: u64) -> StoredLog {
    let entries = (1..=last).map(entry).collect();
    StoredLog { replica: REPLICA, hard_state: HardState::default(), start: start(), entries }
}

#[tokio::test]
async fn what_groups_remember_outlives_the_log_segments_that_first_held_it() {
    let bench = Bench::new();
    bench.start();
    bench.commit(vec![founding(), append(vec![entry(1), entry(2)])]).await.unwrap();
    for number in (0..60).step_by(2) {
        bench.commit(vec![rows([number, number + 1])]).await.unwrap();
    }
    let segments = bench.local.wal.lock().stats().segments;
    assert!(segments > 3, "{segments} segments");
    bench.local.feeder.finish().await;
    assert_eq!(bench.local.health.failure(), None);
    assert!(bench.local.wal.lock().stats().segments < segments);
    let bench = bench.restart().await;
    assert_eq!(bench.restored(), Some(log_through(2)));
    bench.commit(vec![append(vec![entry(3)])]).await.unwrap();
    let bench = bench.restart().await;
    assert_eq!(bench.restored(), Some(log_through(3)));
    for number in 0..60 {
        assert_eq!(bench.value(&row(number)), row(number).record.value, "{number}");
    }
}

#[tokio::test]
async fn rows_of_a_command_are_visible_once_committed_and_come_back_from_the_log_alone() {
    let bench = Bench::new();
    bench.start();
    bench.commit(vec![founding(), append(vec![entry(1)]), rows([1, 2])]).await.unwrap();
    assert_eq!(bench.value(&row(2)), row(2).record.value);
    let bench = bench.restart().await;
    for number in [1, 2] {
        assert_eq!(bench.value(&row(number)), row(number).record.value);
    }
    assert_eq!(bench.restored(), Some(log_through(1)));
    assert!(bench.local.clock.last() >= Timestamp(2), "stamps stay above those of the log");
}

fn row_in(keyspace: u32, number: u64) -> Row {
    Row { keyspace: KeyspaceId(keyspace), ..row(number) }
}

impl Bench {
    fn write(&self, row: Row) -> Result<(), Refusal> {
        let time_left = std::time::Duration::from_secs(60);
        self.local.replica.write(row, PARTITION, time_left, Class::Client, ReplyTo::Nobody)
    }

    fn read(&self, keyspace: u32) -> Result<Found, Refusal> {
        let key = Key::from("key 1");
        let (keyspace, partition) = (KeyspaceId(keyspace), PARTITION);
        let lookup = Lookup {
            keyspace,
            partition,
            key,
            want: Want::Version,
            epoch: Epoch(0),
            deadline: Moment(u64::MAX),
        };
        self.local.replica.read(&lookup)
    }

    fn scan(&self, keyspace: u32) -> Result<ScanPage, Refusal> {
        self.local.replica.scan(&Scan {
            request: RequestId(1),
            keyspace: KeyspaceId(keyspace),
            partition: PARTITION,
            after: None,
            epoch: crate::types::Epoch(0),
            compare: None,
            page_bytes_max: 1000,
        })
    }

    /// Feeds the engine; the node must not have failed over it.
    async fn feed(&self) {
        for _ in 0..2 {
            self.local.store.freeze();
            while !self.local.store.feed(100).unwrap().done {}
        }
        self.local.store.checkpoint().unwrap();
        assert_eq!(self.local.health.failure(), None);
    }
}

#[tokio::test]
async fn a_keyspace_that_was_never_made_is_refused_and_harms_nobody() {
    let bench = Bench::new();
    bench.start();
    assert_eq!(bench.write(row_in(7, 1)), Err(Refusal::NotServing));
    assert_eq!(bench.read(7), Err(Refusal::NotServing));
    assert_eq!(bench.scan(7), Err(Refusal::NotServing));
    // Groups do not ask: an entry may come before this node has heard of its keyspace.
    let rows = LogRecord::Rows(vec![(PARTITION, row_in(7, 1))]);
    bench.commit(vec![rows]).await.unwrap();
    bench.feed().await;
    assert_eq!(bench.value(&row_in(7, 1)), row(1).record.value);
    bench.local.store.create_keyspace(KeyspaceId(8)).unwrap();
    assert_eq!(bench.write(row_in(8, 1)), Ok(()));
    assert!(bench.read(8).is_ok() && bench.scan(8).is_ok());
}

#[tokio::test]
async fn rows_of_a_keyspace_come_back_from_the_log_though_the_engine_forgot_it() {
    let bench = Bench::new();
    bench.start();
    bench.local.store.create_keyspace(KeyspaceId(7)).unwrap();
    bench.commit(vec![LogRecord::Rows(vec![(PARTITION, row_in(7, 1))])]).await.unwrap();
    let bench = bench.restart().await;
    assert!(!bench.local.store.has_keyspace(KeyspaceId(7)), "no checkpoint had covered it");
    bench.feed().await;
    assert_eq!(bench.value(&row_in(7, 1)), row(1).record.value);
    assert!(bench.local.store.has_keyspace(KeyspaceId(7)));
}

#[tokio::test]
async fn a_dropped_keyspace_is_refused_and_stays_away_after_a_restart() {
    let bench = Bench::new();
    bench.start();
    bench.local.store.create_keyspace(KeyspaceId(7)).unwrap();
    bench.commit(vec![LogRecord::Rows(vec![(PARTITION, row_in(7, 1))])]).await.unwrap();
    bench.feed().await;
    bench.commit(vec![LogRecord::DropKeyspace(KeyspaceId(7))]).await.unwrap();
    assert_eq!(bench.write(row_in(7, 2)), Err(Refusal::KeyspaceDropped));
    assert_eq!(bench.read(7), Err(Refusal::KeyspaceDropped));
    assert_eq!(bench.scan(7), Err(Refusal::KeyspaceDropped));
    let bench = bench.restart().await;
    assert_eq!(bench.read(7), Err(Refusal::KeyspaceDropped), "the log says so");
    bench.feed().await;
    let bench = bench.restart().await;
    assert_eq!(bench.value(&row_in(7, 1)), None);
    assert!(!bench.local.store.keyspaces().contains(&KeyspaceId(7)));
}

#[tokio::test]
async fn groups_are_queued_when_rows_are_refused_and_until_the_log_fails() {
    let bench = Bench::new();
    let (sender, _outcome) = oneshot::channel();
    let mut reply_to = Some(ReplyTo::Waiter(sender));
    let mut submit = |number| {
        let reply_to = reply_to.take().unwrap_or(ReplyTo::Nobody);
        let (row, expires) = (row(number), Moment(u64::MAX));
        bench.local.committer.submit(Submission { row, partition: PARTITION, expires, reply_to })
    };
    let refused = (0..100).find_map(|number| submit(number).err());
    assert_eq!(refused, Some(Refusal::Overloaded));
    let queued = bench.local.committer.queued_records();
    let of_group = || vec![founding(), append(vec![entry(1)])];
    bench.local.committer.submit_group(of_group(), ReplyTo::Nobody).unwrap();
    assert_eq!(bench.local.committer.queued_records(), queued + 2);
    bench.local.health.fail("a test".to_owned());
    let refused = bench.local.committer.submit_group(of_group(), ReplyTo::Nobody);
    assert_eq!(refused, Err(Refusal::LogFailed));
}

#[tokio::test]
async fn a_record_that_does_not_fit_ends_the_nodes_promises() {
    let bench = Bench::new();
    bench.start();
    let gap = append(vec![entry(5)]);
    assert_eq!(bench.commit(vec![founding(), gap]).await, Err(Refusal::InDoubt));
    let failure = bench.local.health.failure().unwrap();
    assert!(failure.contains("group 3 has entries up to 0; one at 5 cannot follow"), "{failure}");
}
