use std::collections::VecDeque;

use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::Response;
use tonic::transport::Server;

use super::*;
use crate::client::scripted::{Script, Scripted};
use crate::proto::v1::kv_server::KvServer;

/// Answers a node's way: the next scripted status, or success once there is none.
#[derive(Clone, Default)]
struct Answers {
    failures: Arc<Mutex<VecDeque<Status>>>,
    keys: Arc<Mutex<Vec<String>>>,
}

impl Answers {
    fn answer(&self, key: String) -> Result<(), Status> {
        self.keys.lock().push(key);
        self.failures.lock().pop_front().map_or(Ok(()), Err)
    }

    fn asked(&self) -> usize {
        self.keys.lock().len()
    }

    /// Serves on a free port and tells its address.
    async fn serve(&self) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound").to_string();
        let server = Server::builder().add_service(KvServer::new(Scripted(self.clone())));
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        address
    }
}

#[tonic::async_trait]
impl Script for Answers {
    async fn put(
        &self,
        request: Request<v1::PutRequest>,
    ) -> Result<Response<v1::PutResponse>, Status> {
        self.answer(request.into_inner().key)?;
        Ok(Response::new(v1::PutResponse::default()))
    }

    async fn get(
        &self,
        request: Request<v1::GetRequest>,
    ) -> Result<Response<v1::GetResponse>, Status> {
        self.answer(request.into_inner().key)?;
        let data = Some(v1::get_response::Data::Value("four".into()));
        Ok(Response::new(v1::GetResponse { data, ..v1::GetResponse::default() }))
    }
}

fn options(retry_elsewhere: bool) -> CallOptions {
    CallOptions {
        connections: 1,
        value_bytes: 10,
        level: None,
        r: 0,
        w: 0,
        timeout: None,
        retry_elsewhere,
        keyspace: String::new(),
    }
}

fn not_attempted() -> Status {
    let mut status = Status::unavailable("too few replicas");
    status.metadata_mut().insert("coterie-outcome", "not-attempted".parse().expect("ascii"));
    status
}

const PUT: Step = Step { action: Action::Put, key: 1 };
const GET: Step = Step { action: Action::Get, key: 2 };

/// An address at which nobody listens.
fn nowhere() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("bound").to_string()
}

#[tokio::test]
async fn operations_reach_the_node_and_their_bytes_are_counted() {
    let node = Answers::default();
    let cluster = Cluster::connect(&[node.serve().await], options(false)).await.expect("reached");
    let mut caller = cluster.caller(0);
    assert_eq!(caller.call(PUT).await, Ok(Done { value_bytes: 10, ..Done::default() }));
    assert_eq!(caller.call(GET).await, Ok(Done { value_bytes: 4, ..Done::default() }));
    assert_eq!(*node.keys.lock(), [key_text(1), key_text(2)]);
}

#[tokio::test]
async fn a_missing_key_is_a_success() {
    let node = Answers::default();
    node.failures.lock().push_back(Status::not_found("no value"));
    let cluster = Cluster::connect(&[node.serve().await], options(false)).await.expect("reached");
    let found = cluster.caller(0).call(GET).await;
    assert_eq!(found, Ok(Done { missing: true, ..Done::default() }));
}

#[tokio::test]
async fn what_was_not_attempted_goes_elsewhere_once_when_asked_to() {
    let (refusing, serving) = (Answers::default(), Answers::default());
    let nodes = [refusing.serve().await, serving.serve().await];
    refusing.failures.lock().extend([not_attempted(), not_attempted()]);

    let plain = Cluster::connect(&nodes, options(false)).await.expect("reached");
    let refused = plain.caller(0).call(PUT).await.expect_err("refused");
    assert_eq!((refused.kind.as_str(), serving.asked()), ("Unavailable, not-attempted", 0));

    let retrying = Cluster::connect(&nodes, options(true)).await.expect("reached");
    let mut caller = retrying.caller(0);
    assert!(caller.call(PUT).await.is_ok_and(|done| done.retried));
    assert!(caller.call(PUT).await.is_ok_and(|done| !done.retried), "its own node serves again");
    assert_eq!((refusing.asked(), serving.asked()), (3, 1));
}

#[tokio::test]
async fn an_unknown_outcome_is_never_tried_again() {
    let (failing, other) = (Answers::default(), Answers::default());
    let nodes = [failing.serve().await, other.serve().await];
    let mut status = Status::unknown("quorum failed");
    status.metadata_mut().insert("coterie-outcome", "unknown".parse().expect("ascii"));
    failing.failures.lock().push_back(status);
    let cluster = Cluster::connect(&nodes, options(true)).await.expect("reached");
    let failed = cluster.caller(0).call(PUT).await.expect_err("unknown");
    assert_eq!((failed.kind.as_str(), other.asked()), ("Unknown, unknown", 0));
}

#[tokio::test]
async fn a_caller_of_a_dead_node_fails_once_and_moves_on() {
    let living = Answers::default();
    let nodes = [nowhere(), living.serve().await];
    let cluster = Cluster::connect(&nodes, options(false)).await.expect("one is reached");
    let mut caller = cluster.caller(0);
    let failed = caller.call(PUT).await.expect_err("nobody listens");
    assert!(failed.kind.ends_with(", no answer"), "{failed:?}");
    assert!(caller.call(PUT).await.is_ok() && caller.call(GET).await.is_ok());

    let retrying = Cluster::connect(&nodes, options(true)).await.expect("one is reached");
    assert!(retrying.caller(0).call(PUT).await.is_ok_and(|done| done.retried));
}

#[tokio::test]
async fn when_no_node_can_be_reached_each_is_named() {
    let nodes = [nowhere(), nowhere()];
    let error = Cluster::connect(&nodes, options(false)).await.err().expect("none is reached");
    assert!(nodes.iter().all(|node| error.contains(node)), "{error}");
}

#[test]
fn kinds_of_failures_tell_code_and_outcome() {
    assert_eq!(failed(&Heard::of(&not_attempted())).kind, "Unavailable, not-attempted");
    assert_eq!(failed(&Heard::of(&Status::internal("x"))).kind, "Internal, no outcome told");
    let lost = Status::from_error(Box::new(std::io::Error::other("reset")));
    assert!(
        failed(&Heard::of(&lost)).kind.ends_with(", no answer"),
        "{:?}",
        failed(&Heard::of(&lost))
    );
}

#[test]
fn values_are_no_text_and_keys_have_a_fixed_length() {
    assert!(std::str::from_utf8(&random_bytes(100)).is_err());
    assert_eq!((key_text(0).len(), key_text(999_999_999_999).len()), (16, 16));
}
