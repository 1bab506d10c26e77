//! Writers that keep a cluster busy over gRPC, and the check of what it holds afterwards.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use coterie::proto::v1::kv_client::KvClient;
use coterie::proto::v1::{self, get_response, put_request};
use futures_util::{StreamExt, stream};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

use crate::dice::Dice;
use crate::harness::NodeProcess;
use crate::ledger::{Attempt, Ledger};

/// How long an answer is waited for: longer than the nodes themselves wait.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(40);
/// How long a writer rests after an error: stamps of an attempt of unknown outcome are below
/// those of the next one then, and an overloaded node gets time.
const REST: Duration = Duration::from_millis(10);
/// Reads that are under way at once when everything is read back.
const READS_AT_ONCE: usize = 16;

/// What writers do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    /// Keys that each writer overwrites.
    pub(crate) keys: usize,
    /// How many writes of a thousand go to a key of their own.
    pub(crate) unique_per_mille: u64,
    /// How many of a thousand delete.
    pub(crate) deletes_per_mille: u64,
    /// How many of a thousand read the key back at once.
    pub(crate) reads_per_mille: u64,
    /// How many values of a thousand are between [`Shape::LARGE_BYTES`] and the largest.
    pub(crate) large_per_mille: u64,
    /// Bytes of the largest value.
    pub(crate) bytes_max: u64,
    /// The level of everything.
    pub(crate) level: v1::Level,
}

impl Shape {
    const SMALL_BYTES: u64 = 10;
    const LARGE_BYTES: u64 = 2_000;

    /// Small values at QUORUM.
    pub(crate) const SMALL: Shape = Shape {
        keys: 20,
        unique_per_mille: 300,
        deletes_per_mille: 100,
        reads_per_mille: 100,
        large_per_mille: 0,
        bytes_max: 0,
        level: v1::Level::Quorum,
    };

    /// Values up to 300 KiB, so that some are stored in chunks.
    pub(crate) const MIXED: Shape =
        Shape { unique_per_mille: 100, large_per_mille: 250, bytes_max: 300 << 10, ..Self::SMALL };

    fn bytes(&self, dice: &mut Dice) -> Option<usize> {
        if dice.chance(self.deletes_per_mille) {
            return None;
        }
        let bytes = if dice.chance(self.large_per_mille) {
            dice.between(Self::LARGE_BYTES, self.bytes_max)
        } else {
            dice.between(Self::SMALL_BYTES, Self::LARGE_BYTES)
        };
        Some(usize::try_from(bytes).expect("small"))
    }
}

/// One writer and what it has done; lives through restarts of the nodes.
#[derive(Clone)]
pub(crate) struct Writer {
    name: String,
    dice: Dice,
    pub(crate) ledger: Ledger,
    /// The version last acknowledged: what the next write has seen.
    context: String,
}

/// That many writers.
pub(crate) fn writers(count: usize, dice: &Dice) -> Vec<Writer> {
    let writer = |number: usize| {
        let name = format!("w{number}");
        let dice = dice.fork(&name);
        Writer { name, dice, ledger: Ledger::default(), context: String::new() }
    };
    (0..count).map(writer).collect()
}

/// A node as the writers see it.
struct Gate {
    client: KvClient<Channel>,
    /// Cleared before a node is killed: its errors are then to be expected.
    open: AtomicBool,
}

/// Writers at work.
pub(crate) struct Load {
    runtime: Runtime,
    gates: Arc<Vec<Gate>>,
    stop: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<(Writer, Vec<String>)>>,
}

impl Load {
    /// Sets writers to work on the nodes. `strict` ones take every error of an open node as a
    /// fault; others take it as an attempt of unknown outcome.
    pub(crate) fn start(
        nodes: &[NodeProcess],
        writers: Vec<Writer>,
        shape: Shape,
        strict: bool,
    ) -> Self {
        let runtime = runtime();
        let guard = runtime.enter();
        let gate = |node: &NodeProcess| Gate {
            client: client(node.spec.client_address),
            open: AtomicBool::new(true),
        };
        let gates: Arc<Vec<Gate>> = Arc::new(nodes.iter().map(gate).collect());
        let stop = Arc::new(AtomicBool::new(false));
        let run = |writer: Writer| {
            let (gates, stop) = (Arc::clone(&gates), Arc::clone(&stop));
            let worker = Worker { writer, gates, stop, shape, strict, complaints: Vec::new() };
            tokio::spawn(worker.run())
        };
        let tasks = writers.into_iter().map(run).collect();
        drop(guard);
        Load { runtime, gates, stop, tasks }
    }

    /// Tells the writers whether a node is to be used.
    pub(crate) fn set_open(&self, node: usize, open: bool) {
        self.gates[node].open.store(open, Ordering::SeqCst);
    }

    /// Ends the writers after what they have under way; returns them and what they complain of.
    pub(crate) fn finish(self) -> (Vec<Writer>, Vec<String>) {
        self.stop.store(true, Ordering::SeqCst);
        let mut writers = Vec::new();
        let mut complaints = Vec::new();
        for task in self.tasks {
            let (writer, heard) = self.runtime.block_on(task).expect("a writer");
            writers.push(writer);
            complaints.extend(heard);
        }
        (writers, complaints)
    }
}

struct Worker {
    writer: Writer,
    gates: Arc<Vec<Gate>>,
    stop: Arc<AtomicBool>,
    shape: Shape,
    strict: bool,
    complaints: Vec<String>,
}

impl Worker {
    async fn run(mut self) -> (Writer, Vec<String>) {
        while !self.stop.load(Ordering::SeqCst) {
            let Some(gate) = self.choose_gate(None) else {
                tokio::time::sleep(REST).await;
                continue;
            };
            self.write_once(gate).await;
        }
        (self.writer, self.complaints)
    }

    fn choose_gate(&mut self, besides: Option<usize>) -> Option<usize> {
        let is_open = |gate: &usize| self.gates[*gate].open.load(Ordering::SeqCst);
        let open: Vec<usize> = (0..self.gates.len()).filter(is_open).collect();
        let open: Vec<usize> = open.into_iter().filter(|gate| Some(*gate) != besides).collect();
        (!open.is_empty()).then(|| self.writer.dice.pick(&open))
    }

    async fn write_once(&mut self, gate: usize) {
        let (shape, writer) = (self.shape, &mut self.writer);
        let mut bytes = shape.bytes(&mut writer.dice);
        let key = if writer.dice.chance(shape.unique_per_mille) {
            bytes = bytes.map(|bytes| bytes.min(100));
            format!("{}-unique-{}", writer.name, writer.dice.next())
        } else {
            format!("{}-{}", writer.name, writer.dice.index(shape.keys))
        };
        let attempt = writer.ledger.attempt(&key, bytes);
        if self.try_on(gate, &key, attempt).await.is_err()
            && !self.stop.load(Ordering::SeqCst)
            && let Some(other) = self.choose_gate(Some(gate))
            && let Err(status) = self.try_on(other, &key, attempt).await
        {
            self.note(other, &format!("retrying {key} elsewhere: {status:?}"));
        }
    }

    /// One attempt on one node; an error that is not to be expected there is noted.
    async fn try_on(&mut self, gate: usize, key: &str, attempt: Attempt) -> Result<(), Status> {
        let client = self.gates[gate].client.clone();
        let context = self.writer.context.clone();
        match write(client, key, attempt, self.shape.level, context).await {
            Ok(version) => {
                self.writer.context = version;
                self.writer.ledger.acknowledge(key, attempt.number);
                if self.writer.dice.chance(self.shape.reads_per_mille) {
                    self.read_back(gate, key).await;
                }
                Ok(())
            }
            Err(status) => {
                self.note(gate, &format!("writing {key}: {status:?}"));
                tokio::time::sleep(REST).await;
                Err(status)
            }
        }
    }

    async fn read_back(&mut self, gate: usize, key: &str) {
        match read(self.gates[gate].client.clone(), key, self.shape.level).await {
            Ok(value) => {
                if let Err(wrong) = self.writer.ledger.judge(key, value.as_deref()) {
                    self.complaints.push(format!("just written: {wrong}"));
                }
            }
            Err(status) => self.note(gate, &format!("reading {key}: {status:?}")),
        }
    }

    /// Errors of a node that is being killed are expected, and nothing else.
    fn note(&mut self, gate: usize, what: &str) {
        if self.strict && self.gates[gate].open.load(Ordering::SeqCst) {
            self.complaints.push(format!("node {} refused: {what}", gate + 1));
        }
    }
}

/// Reads every key of every writer from a node and judges it.
pub(crate) fn read_back(
    node: &NodeProcess,
    writers: &mut [Writer],
    level: v1::Level,
) -> Vec<String> {
    read_back_unless(node, writers, level, |_| false)
}

/// As [`read_back`], but a refusal that is excused is no complaint. A wrong answer always is one.
pub(crate) fn read_back_unless(
    node: &NodeProcess,
    writers: &mut [Writer],
    level: v1::Level,
    is_excused: fn(&Status) -> bool,
) -> Vec<String> {
    let runtime = runtime();
    let client = runtime.block_on(async { client(node.spec.client_address) });
    let mut complaints = Vec::new();
    for writer in writers {
        let keys: Vec<String> = writer.ledger.keys().cloned().collect();
        let reads = keys.into_iter().map(|key| {
            let client = client.clone();
            async move { (read(client, &key, level).await, key) }
        });
        let answers = stream::iter(reads).buffer_unordered(READS_AT_ONCE).collect::<Vec<_>>();
        for (answer, key) in runtime.block_on(answers) {
            let judged = match answer {
                Ok(value) => writer.ledger.judge(&key, value.as_deref()),
                Err(status) if is_excused(&status) => Ok(()),
                Err(status) => Err(format!("{key} cannot be read: {status:?}")),
            };
            complaints.extend(judged.err());
        }
    }
    complaints
}

/// Attempts that were acknowledged and that the nodes are still held to.
pub(crate) fn acknowledged(writers: &[Writer]) -> usize {
    writers.iter().map(|writer| writer.ledger.acknowledged()).sum()
}

/// Writes or deletes; returns the version.
pub(crate) async fn write(
    mut client: KvClient<Channel>,
    key: &str,
    attempt: Attempt,
    level: v1::Level,
    context: String,
) -> Result<String, Status> {
    let (key_text, level) = (key.to_owned(), level.into());
    let call = async {
        match attempt.value(key) {
            Some(value) => {
                let data = Some(put_request::Data::ValueBytes(value.into()));
                let put =
                    v1::PutRequest { key: key_text, data, level, context, ..Default::default() };
                client.put(put).await.map(|reply| reply.into_inner().receipt)
            }
            None => {
                let delete =
                    v1::DeleteRequest { key: key_text, level, context, ..Default::default() };
                client.delete(delete).await.map(|reply| reply.into_inner().receipt)
            }
        }
    };
    Ok(within_timeout(call).await?.expect("a receipt").version)
}

/// Reads; `None` when there is no value.
pub(crate) async fn read(
    mut client: KvClient<Channel>,
    key: &str,
    level: v1::Level,
) -> Result<Option<Vec<u8>>, Status> {
    let get = v1::GetRequest { key: key.to_owned(), level: level.into(), ..Default::default() };
    match within_timeout(client.get(get)).await {
        Ok(reply) => Ok(match reply.into_inner().data {
            Some(get_response::Data::Value(text)) => Some(text.into_bytes()),
            Some(get_response::Data::ValueBytes(bytes)) => Some(bytes.to_vec()),
            None => Some(Vec::new()),
        }),
        Err(status) if status.code() == Code::NotFound => Ok(None),
        Err(status) => Err(status),
    }
}

async fn within_timeout<T>(call: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
    let late = |_| Status::internal(format!("no answer within {ANSWER_TIMEOUT:?}"));
    tokio::time::timeout(ANSWER_TIMEOUT, call).await.map_err(late)?
}

fn client(address: SocketAddr) -> KvClient<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("a URI");
    KvClient::new(endpoint.connect_lazy())
}

fn runtime() -> Runtime {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(1).enable_all().build().expect("a runtime")
}
