//! Workers on a strong keyspace, and what they saw.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use bytes::Bytes;
use coterie::Client;
use coterie::client::{ClientError, Current, Keyspace, Outcome, Receipt};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

use crate::dice::Dice;
use crate::harness::Cluster;
use crate::linearizability::appends::{ListCall, decoded, encoded};
use crate::linearizability::history::{Call, Operation, Swap};

pub(crate) const KEYSPACE: &str = "contested";
pub(crate) const PARTITIONS: u32 = 8;

const WORKERS_PER_WORKLOAD: u64 = 3;
/// How long one call may take with all its attempts: longer than any election.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// How many of a thousand calls read.
const READS_PER_MILLE: u64 = 400;
/// How many of a thousand calls on lists read: they grow.
const LIST_READS_PER_MILLE: u64 = 150;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Workload {
    Registers,
    Swaps,
    Lists,
    Bulk,
}

impl Workload {
    pub(crate) const ALL: [Workload; 4] =
        [Workload::Registers, Workload::Swaps, Workload::Lists, Workload::Bulk];
}

/// A write that was acknowledged.
struct Acknowledged {
    partition: u32,
    returned: u64,
    leader: Option<String>,
}

/// What all workers saw. A key's history is that of its workload's judge.
#[derive(Default)]
pub(crate) struct Histories {
    pub(crate) registers: Vec<Operation<Call>>,
    pub(crate) swaps: Vec<Operation<Call>>,
    pub(crate) bulk: Vec<Operation<Call>>,
    pub(crate) lists: Vec<Operation<ListCall>>,
    writes: HashMap<Workload, usize>,
    acknowledgements: Vec<Acknowledged>,
    /// Calls that failed, by code and outcome.
    failures: HashMap<String, usize>,
}

impl Histories {
    pub(crate) fn acknowledged(&self, workload: Workload) -> usize {
        self.writes.get(&workload).copied().unwrap_or_default()
    }

    fn plain(&mut self, workload: Workload) -> &mut Vec<Operation<Call>> {
        match workload {
            Workload::Registers => &mut self.registers,
            Workload::Swaps => &mut self.swaps,
            Workload::Bulk => &mut self.bulk,
            Workload::Lists => unreachable!("lists have their own history"),
        }
    }
}

impl fmt::Display for Histories {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let calls = self.registers.len() + self.swaps.len() + self.bulk.len() + self.lists.len();
        write!(f, "{calls} calls; acknowledged writes: {:?}; ", self.writes)?;
        write!(f, "failed calls: {:?}", self.failures)
    }
}

/// What workers share.
struct Shared {
    origin: Instant,
    round: AtomicUsize,
    stop: AtomicBool,
    /// No value is written twice.
    values: AtomicU64,
    tags: Vec<String>,
    histories: Mutex<Histories>,
}

impl Shared {
    fn now(&self) -> u64 {
        u64::try_from(self.origin.elapsed().as_nanos()).expect("centuries")
    }

    fn histories(&self) -> MutexGuard<'_, Histories> {
        self.histories.lock().expect("no worker panicked")
    }

    fn value(&self) -> u64 {
        self.values.fetch_add(1, Ordering::Relaxed)
    }
}

/// Workers at work.
pub(crate) struct Crew {
    runtime: Runtime,
    shared: Arc<Shared>,
    client: Client,
    tasks: Vec<JoinHandle<()>>,
}

impl Crew {
    /// Sets workers to work; each has a client, and so sessions, of its own.
    pub(crate) fn start(cluster: &Cluster, tags: Vec<String>, dice: &Dice) -> Self {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = builder.worker_threads(1).enable_all().build().expect("a runtime");
        let shared = Arc::new(Shared {
            origin: Instant::now(),
            round: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
            values: AtomicU64::new(0),
            tags,
            histories: Mutex::default(),
        });
        let mut tasks = Vec::new();
        for (kind, workload) in (0..).zip(Workload::ALL) {
            for number in 0..WORKERS_PER_WORKLOAD {
                let id = kind * WORKERS_PER_WORKLOAD + number;
                let keyspace = client(cluster).keyspace(KEYSPACE);
                let dice = dice.fork(&format!("worker {id}"));
                let worker = Worker { id, workload, keyspace, dice, shared: Arc::clone(&shared) };
                tasks.push(runtime.spawn(worker.run()));
            }
        }
        Crew { runtime, shared, client: client(cluster), tasks }
    }

    /// Registers of former rounds are left behind, so that no history grows without end.
    pub(crate) fn set_round(&self, round: usize) {
        self.shared.round.store(round, Ordering::SeqCst);
    }

    /// The time of histories, in nanoseconds.
    pub(crate) fn now(&self) -> u64 {
        self.shared.now()
    }

    /// When, after a moment, a write to the partition was first acknowledged by another leader.
    pub(crate) fn first_of_another(&self, partition: u32, after: u64, leader: &str) -> Option<u64> {
        let histories = self.shared.histories();
        let writes = histories.acknowledgements.iter().filter(|write| {
            let by_another = write.leader.as_deref().is_some_and(|other| other != leader);
            write.partition == partition && write.returned > after && by_another
        });
        writes.map(|write| write.returned).min()
    }

    /// When, before a moment, a write to the partition was last acknowledged by this leader.
    pub(crate) fn last_of(&self, partition: u32, before: u64, leader: &str) -> Option<u64> {
        let histories = self.shared.histories();
        let writes = histories.acknowledgements.iter().filter(|write| {
            let by_it = write.leader.as_deref() == Some(leader);
            write.partition == partition && write.returned < before && by_it
        });
        writes.map(|write| write.returned).max()
    }

    /// Ends the workers after what they have under way, and reads every list once more.
    pub(crate) fn finish(self) -> Histories {
        self.shared.stop.store(true, Ordering::SeqCst);
        for task in self.tasks {
            self.runtime.block_on(task).expect("a worker");
        }
        let keyspace = self.client.keyspace(KEYSPACE);
        let dice = Dice::new(0);
        let shared = Arc::clone(&self.shared);
        let reader = Worker { id: u64::MAX, workload: Workload::Lists, keyspace, dice, shared };
        for partition in 0..PARTITIONS {
            self.runtime
                .block_on(reader.read_list(&reader.key(partition)))
                .expect("a whole cluster");
        }
        std::mem::take(&mut *self.shared.histories())
    }
}

fn client(cluster: &Cluster) -> Client {
    let nodes = cluster.nodes.iter().map(|node| node.spec.client_address.to_string());
    Client::builder().nodes(nodes).timeout(CALL_TIMEOUT).connect().expect("addresses")
}

struct Worker {
    id: u64,
    workload: Workload,
    keyspace: Keyspace,
    dice: Dice,
    shared: Arc<Shared>,
}

impl Worker {
    async fn run(mut self) {
        while !self.shared.stop.load(Ordering::SeqCst) {
            let partition = u32::try_from(self.dice.index(PARTITIONS as usize)).expect("few");
            let key = self.key(partition);
            match self.workload {
                Workload::Registers => self.use_register(partition, &key).await,
                Workload::Swaps => self.swap(partition, &key).await,
                Workload::Bulk if self.dice.chance(READS_PER_MILLE) => drop(self.read(&key).await),
                Workload::Bulk => self.put(partition, &key).await,
                Workload::Lists if self.dice.chance(LIST_READS_PER_MILLE) => {
                    let _ = self.read_list(&key).await;
                }
                Workload::Lists => self.append(partition, &key).await,
            }
        }
    }

    /// The key of a partition for this workload. Lists and bulk registers live to the end; the
    /// histories that are searched are those of one round, in the midst of which a leader goes.
    fn key(&self, partition: u32) -> String {
        let tag = &self.shared.tags[partition as usize];
        let round = self.shared.round.load(Ordering::SeqCst);
        match self.workload {
            Workload::Registers => format!("register:{{{tag}}}:{round}"),
            Workload::Swaps => format!("swap:{{{tag}}}:{round}"),
            Workload::Lists => format!("list:{{{tag}}}"),
            Workload::Bulk => format!("bulk:{{{tag}}}"),
        }
    }

    async fn use_register(&mut self, partition: u32, key: &str) {
        match self.dice.between(0, 9) {
            0..4 => drop(self.read(key).await),
            4..7 => self.put(partition, key).await,
            7 => self.delete(partition, key).await,
            8 => {
                let new = self.unique();
                self.compare_and_set(partition, key, None, Some(new)).await;
            }
            _ => self.append_to_register(partition, key).await,
        }
    }

    /// Changes what was read, as programs do it.
    async fn swap(&mut self, partition: u32, key: &str) {
        let Ok(expect) = self.read(key).await else { return };
        let deletes = expect.is_some() && self.dice.chance(100);
        let new = (!deletes).then(|| self.unique());
        self.compare_and_set(partition, key, expect, new).await;
    }

    fn unique(&self) -> Bytes {
        Bytes::from(self.shared.value().to_string())
    }

    async fn read(&self, key: &str) -> Result<Option<Bytes>, ()> {
        let invoked = self.shared.now();
        let answer = self.keyspace.get(key).await;
        let value = answer.map_err(|error| self.note_failure(&error))?.map(|value| value.bytes);
        let returned = Some(self.shared.now());
        self.record(key, Call::Read(value.clone()), invoked, returned);
        Ok(value)
    }

    async fn put(&self, partition: u32, key: &str) {
        let (value, invoked) = (self.unique(), self.shared.now());
        let answer = self.keyspace.put(key, value.clone()).await;
        self.written(partition, key, Call::Write(value), invoked, answer);
    }

    async fn delete(&self, partition: u32, key: &str) {
        let invoked = self.shared.now();
        let answer = self.keyspace.delete(key).await;
        self.written(partition, key, Call::Delete, invoked, answer);
    }

    async fn append_to_register(&self, partition: u32, key: &str) {
        let value = Bytes::from(format!("+{}", self.shared.value()));
        let invoked = self.shared.now();
        let answer = self.keyspace.append(key, value.clone()).await;
        let answer = answer.map(|appended| appended.receipt);
        self.written(partition, key, Call::Append(value), invoked, answer);
    }

    async fn compare_and_set(
        &self,
        partition: u32,
        key: &str,
        expect: Option<Bytes>,
        new: Option<Bytes>,
    ) {
        let comparing = self.keyspace.compare_and_set(key);
        let expecting = match expect.clone() {
            Some(value) => comparing.expect_value(value),
            None => comparing.expect_absent(),
        };
        let write = match new.clone() {
            Some(value) => expecting.put(value),
            None => expecting.delete(),
        };
        let invoked = self.shared.now();
        let answer = write.await;
        let call = |outcome| Call::CompareAndSet { expect, new, outcome };
        if let Err(ClientError::ConditionFailed { current, .. }) = answer {
            let returned = Some(self.shared.now());
            self.record(key, call(refusal(current)), invoked, returned);
            return;
        }
        self.written(partition, key, call(Swap::Succeeded), invoked, answer);
    }

    async fn append(&self, partition: u32, key: &str) {
        let element = self.shared.value();
        let invoked = self.shared.now();
        let answer = self.keyspace.append(key, encoded(element)).await;
        let answer = answer.map(|appended| appended.receipt);
        if let Some(returned) = self.ended(partition, answer) {
            self.record_list(key, ListCall::Append(element), invoked, returned);
        }
    }

    async fn read_list(&self, key: &str) -> Result<(), ()> {
        let invoked = self.shared.now();
        let answer = self.keyspace.get(key).await;
        let value = answer.map_err(|error| self.note_failure(&error))?;
        let returned = Some(self.shared.now());
        let bytes = value.map(|value| value.bytes).unwrap_or_default();
        let list = decoded(&bytes).expect("whole elements");
        self.record_list(key, ListCall::Read(list), invoked, returned);
        Ok(())
    }

    fn written(
        &self,
        partition: u32,
        key: &str,
        call: Call,
        invoked: u64,
        answer: Result<Receipt, ClientError>,
    ) {
        if let Some(returned) = self.ended(partition, answer) {
            self.record(key, call, invoked, returned);
        }
    }

    /// When a write was acknowledged, `Some(None)` if nobody knows whether it was applied, and
    /// `None` if it certainly was not.
    fn ended(&self, partition: u32, answer: Result<Receipt, ClientError>) -> Option<Option<u64>> {
        let returned = self.shared.now();
        let mut histories = self.shared.histories();
        match answer {
            Ok(receipt) => {
                let leader = receipt.leader;
                histories.acknowledgements.push(Acknowledged { partition, returned, leader });
                *histories.writes.entry(self.workload).or_default() += 1;
                Some(Some(returned))
            }
            Err(error) => {
                drop(histories);
                self.note_failure(&error);
                (error.outcome() == Outcome::Unknown).then_some(None)
            }
        }
    }

    fn note_failure(&self, error: &ClientError) {
        let what = format!("{} ({:?})", error.code(), error.outcome());
        *self.shared.histories().failures.entry(what).or_default() += 1;
    }

    fn record(&self, key: &str, call: Call, invoked: u64, returned: Option<u64>) {
        let operation = Operation { client: self.id, key: key.to_owned(), call, invoked, returned };
        self.shared.histories().plain(self.workload).push(operation);
    }

    fn record_list(&self, key: &str, call: ListCall, invoked: u64, returned: Option<u64>) {
        let operation = Operation { client: self.id, key: key.to_owned(), call, invoked, returned };
        self.shared.histories().lists.push(operation);
    }
}

/// What stood there instead, as far as the node tells.
fn refusal(current: Option<Current>) -> Swap {
    match current {
        None => Swap::RefusedAt(None),
        Some(Current { value: Some(value), .. }) => Swap::RefusedAt(Some(value)),
        Some(Current { value: None, .. }) => Swap::Refused,
    }
}
