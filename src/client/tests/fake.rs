//! Nodes that answer as they are told to, on real sockets, and write down what they were asked.
//!
//! They share one store. It executes writes as the groups of a cluster do: under a session once.

mod admin;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use prost::Message;
use tokio::net::TcpSocket;
use tokio::runtime::Runtime;
use tonic::metadata::MetadataMap;
use tonic::{Code, Request, Response, Status};

use crate::client::heard::LEADER_TRAILER;
use crate::client::scripted::{Script, Scripted};
use crate::proto::v1;
use crate::proto::v1::admin_server::AdminServer;
use crate::proto::v1::kv_server::KvServer;
use crate::protocol::group::sessions::WINDOW;

/// What a node does with a request for a key.
#[derive(Clone, Debug)]
pub(super) enum Act {
    /// Refuses, with this.
    Refuse(Status),
    /// Executes it, and answers this instead.
    ExecuteAndSay(Status),
    /// Executes it, and never answers.
    ExecuteAndHang,
    /// Does nothing, for ever.
    Hang,
}

/// A request for a key, as it came.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Seen {
    pub(super) node: usize,
    pub(super) session: Option<v1::Session>,
    pub(super) timeout: Option<String>,
}

/// What the nodes share.
#[derive(Debug, Default)]
struct Store {
    values: BTreeMap<String, Vec<u8>>,
    /// Answers to executed writes, by session and number.
    answered: BTreeMap<(String, u64), Result<(), Status>>,
    /// Sessions and what they have acknowledged.
    sessions: BTreeMap<String, u64>,
    seen: Vec<Seen>,
    executed: usize,
    plans: Vec<VecDeque<Act>>,
    addresses: Vec<String>,
    leader: Option<usize>,
    rules_broken: Vec<String>,
}

/// Some nodes.
pub(super) struct Cluster {
    store: Arc<Mutex<Store>>,
    nodes: Vec<Option<Runtime>>,
    /// Keep others from the addresses of nodes that were stopped.
    _ports: Vec<TcpSocket>,
}

impl Cluster {
    pub(super) fn start(nodes: usize) -> Cluster {
        let store = Arc::new(Mutex::new(Store::default()));
        let free = "127.0.0.1:0".parse().unwrap();
        let ports: Vec<TcpSocket> = (0..nodes).map(|_| bound(free)).collect();
        let addresses: Vec<SocketAddr> =
            ports.iter().map(|port| port.local_addr().unwrap()).collect();
        store.lock().addresses = addresses.iter().map(SocketAddr::to_string).collect();
        store.lock().plans = vec![VecDeque::new(); nodes];
        let serve = |(number, at): (usize, &SocketAddr)| {
            Some(serve(Node { number, store: store.clone() }, bound(*at)))
        };
        let nodes = addresses.iter().enumerate().map(serve).collect();
        Cluster { store, nodes, _ports: ports }
    }

    pub(super) fn address(&self, node: usize) -> String {
        self.store.lock().addresses[node].clone()
    }

    /// What a node does with the next requests for keys; after that it serves.
    pub(super) fn plan(&self, node: usize, acts: impl IntoIterator<Item = Act>) {
        self.store.lock().plans[node].extend(acts);
    }

    /// The node that leads; the others refuse and name it.
    pub(super) fn lead(&self, node: usize) {
        self.store.lock().leader = Some(node);
    }

    /// Its connections break.
    #[allow(clippy::disallowed_methods, reason = "the thread is joined at once")]
    pub(super) fn stop(&mut self, node: usize) {
        if let Some(runtime) = self.nodes[node].take() {
            // On a thread of its own, for it waits until the node does not listen any more.
            let down = move || runtime.shutdown_timeout(Duration::from_secs(10));
            std::thread::spawn(down).join().expect("no panic");
        }
    }

    pub(super) fn forget_sessions(&self) {
        self.store.lock().sessions.clear();
    }

    pub(super) fn seen(&self) -> Vec<Seen> {
        let store = self.store.lock();
        assert_eq!(store.rules_broken, Vec::<String>::new());
        store.seen.clone()
    }

    /// Which nodes were asked for keys, in order.
    pub(super) fn asked(&self) -> Vec<usize> {
        self.seen().iter().map(|seen| seen.node).collect()
    }

    /// Writes that were executed, repeated answers not counted.
    pub(super) fn executed(&self) -> usize {
        self.store.lock().executed
    }

    pub(super) fn value(&self, key: &str) -> Option<String> {
        let value = self.store.lock().values.get(key).cloned();
        value.map(|value| String::from_utf8(value).unwrap())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        (0..self.nodes.len()).for_each(|node| self.stop(node));
    }
}

/// A socket that does not listen yet, where another may be bound if neither does.
fn bound(at: SocketAddr) -> TcpSocket {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind(at).unwrap();
    socket
}

fn serve(node: Node, socket: TcpSocket) -> Runtime {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let listener = {
        let _within = runtime.enter();
        socket.listen(1024).unwrap()
    };
    runtime.spawn(async move {
        let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
        let router = tonic::transport::Server::builder()
            .add_service(KvServer::new(Scripted(node.clone())))
            .add_service(AdminServer::new(node));
        router.serve_with_incoming(incoming).await.unwrap();
    });
    runtime
}

/// A refusal by a node that says what it knows.
pub(super) fn status(code: Code, word: &str, outcome: &str) -> Status {
    let mut trailers = MetadataMap::new();
    trailers.insert("coterie-code", word.parse().unwrap());
    trailers.insert("coterie-outcome", outcome.parse().unwrap());
    Status::with_metadata(code, word, trailers)
}

#[derive(Clone)]
struct Node {
    number: usize,
    store: Arc<Mutex<Store>>,
}

impl Node {
    /// Does with a request what was planned, and what it asks for.
    async fn take<T, A>(
        &self,
        request: Request<T>,
        session: impl Fn(&T) -> Option<v1::Session>,
        work: impl Fn(&mut Store, &T) -> Result<A, Status>,
    ) -> Result<Response<A>, Status> {
        let timeout = request.metadata().get("grpc-timeout");
        let timeout = timeout.map(|timeout| timeout.to_str().unwrap().to_owned());
        let request = request.into_inner();
        let session = session(&request);
        let act = {
            let mut store = self.store.lock();
            let seen = Seen { node: self.number, session: session.clone(), timeout };
            store.seen.push(seen);
            store.plans[self.number].pop_front()
        };
        let execute = || self.execute(session.as_ref(), |store| work(store, &request));
        match act {
            None => self.lead_or_refuse().and_then(|()| execute()).map(|a| self.answer(a)),
            Some(Act::Refuse(status)) => Err(status),
            Some(Act::ExecuteAndSay(status)) => execute().and(Err(status)),
            Some(Act::ExecuteAndHang) => {
                execute()?;
                std::future::pending().await
            }
            Some(Act::Hang) => std::future::pending().await,
        }
    }

    fn lead_or_refuse(&self) -> Result<(), Status> {
        let store = self.store.lock();
        let Some(leader) = store.leader.filter(|leader| *leader != self.number) else {
            return Ok(());
        };
        let mut refusal = status(Code::Unavailable, "no_leader", "not-attempted");
        let address = store.addresses[leader].parse().unwrap();
        refusal.metadata_mut().insert(LEADER_TRAILER, address);
        Err(refusal)
    }

    fn answer<A>(&self, answer: A) -> Response<A> {
        let mut response = Response::new(answer);
        let store = self.store.lock();
        if let Some(leader) = store.leader {
            let address = store.addresses[leader].parse().unwrap();
            response.metadata_mut().insert(LEADER_TRAILER, address);
        }
        response
    }

    fn execute<A>(
        &self,
        session: Option<&v1::Session>,
        work: impl Fn(&mut Store) -> Result<A, Status>,
    ) -> Result<A, Status> {
        let mut store = self.store.lock();
        let Some(session) = session else { return work(&mut store) };
        let number = (session.client.clone(), session.sequence);
        if let Some(answered) = store.answered.get(&number).cloned() {
            // The answer is made as at first, without the effect.
            let (values, executed) = (store.values.clone(), store.executed);
            let answer = answered.and_then(|()| work(&mut store));
            (store.values, store.executed) = (values, executed);
            return answer;
        }
        store.admit(session)?;
        let answer = work(&mut store);
        let remembered = answer.as_ref().map(|_| ()).map_err(Status::clone);
        store.answered.insert(number, remembered);
        answer
    }
}

impl Store {
    fn admit(&mut self, session: &v1::Session) -> Result<(), Status> {
        let v1::Session { client, sequence, acknowledged } = session;
        if !self.sessions.contains_key(client) && *sequence > 1 {
            return Err(status(Code::FailedPrecondition, "session_unknown", "failed"));
        }
        let known = self.sessions.entry(client.clone()).or_default();
        *known = (*known).max(*acknowledged);
        let in_window = *known < *sequence && *sequence <= *known + WINDOW;
        if !in_window {
            self.rules_broken.push(format!("{session:?} is outside of the window at {known}"));
        }
        Ok(())
    }

    fn put(&mut self, key: &str, value: &[u8]) -> Option<v1::Receipt> {
        self.executed += 1;
        self.values.insert(key.to_owned(), value.to_vec());
        Some(v1::Receipt { version: self.executed.to_string(), ..Default::default() })
    }
}

#[tonic::async_trait]
impl Script for Node {
    async fn put(
        &self,
        request: Request<v1::PutRequest>,
    ) -> Result<Response<v1::PutResponse>, Status> {
        let work = |store: &mut Store, asked: &v1::PutRequest| {
            let Some(v1::put_request::Data::ValueBytes(value)) = &asked.data else {
                return Err(Status::invalid_argument("no bytes"));
            };
            Ok(v1::PutResponse { key: asked.key.clone(), receipt: store.put(&asked.key, value) })
        };
        self.take(request, |asked| asked.session.clone(), work).await
    }

    async fn get(
        &self,
        request: Request<v1::GetRequest>,
    ) -> Result<Response<v1::GetResponse>, Status> {
        let work = |store: &mut Store, asked: &v1::GetRequest| {
            let missing = || status(Code::NotFound, "not_found", "failed");
            let value = store.values.get(&asked.key).cloned().ok_or_else(missing)?;
            let data = Some(v1::get_response::Data::ValueBytes(value.into()));
            Ok(v1::GetResponse { key: asked.key.clone(), data, ..Default::default() })
        };
        self.take(request, |_| None, work).await
    }

    async fn append(
        &self,
        request: Request<v1::AppendRequest>,
    ) -> Result<Response<v1::AppendResponse>, Status> {
        let work = |store: &mut Store, asked: &v1::AppendRequest| {
            let Some(v1::append_request::Data::ValueBytes(more)) = &asked.data else {
                return Err(Status::invalid_argument("no bytes"));
            };
            let mut value = store.values.get(&asked.key).cloned().unwrap_or_default();
            value.extend_from_slice(more);
            let receipt = store.put(&asked.key, &value);
            let value_bytes = value.len() as u64;
            Ok(v1::AppendResponse { key: asked.key.clone(), value_bytes, receipt })
        };
        self.take(request, |asked| asked.session.clone(), work).await
    }

    async fn compare_and_set(
        &self,
        request: Request<v1::CompareAndSetRequest>,
    ) -> Result<Response<v1::CompareAndSetResponse>, Status> {
        let work = |store: &mut Store, asked: &v1::CompareAndSetRequest| {
            // Whatever is expected: it is not so, if there is a value.
            if let Some(value) = store.values.get(&asked.key) {
                let value = Bytes::from(value.clone());
                let version = "v7".to_owned();
                let failed = v1::ConditionFailed { step: 0, found: true, value, version };
                let refusal = status(Code::FailedPrecondition, "condition_failed", "failed");
                let (details, trailers) = (failed.encode_to_vec().into(), refusal.metadata());
                let code = refusal.code();
                return Err(Status::with_details_and_metadata(
                    code,
                    "the condition does not hold",
                    details,
                    trailers.clone(),
                ));
            }
            let receipt = store.put(&asked.key, b"set");
            Ok(v1::CompareAndSetResponse { key: asked.key.clone(), receipt })
        };
        self.take(request, |asked| asked.session.clone(), work).await
    }

    async fn transact(
        &self,
        request: Request<v1::TransactRequest>,
    ) -> Result<Response<v1::TransactResponse>, Status> {
        let work = |store: &mut Store, asked: &v1::TransactRequest| {
            let mut receipt = None;
            for step in &asked.steps {
                receipt = store.put(&step.key, b"stepped");
            }
            let result = v1::StepResult { existed: false, value_bytes: 7 };
            Ok(v1::TransactResponse { results: vec![result; asked.steps.len()], receipt })
        };
        self.take(request, |asked| asked.session.clone(), work).await
    }
}
