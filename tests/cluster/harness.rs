//! Starts, stops, kills and pauses real nodes, and speaks to them.
//!
//! Other test binaries include this file by `#[path]`, so it stands alone, and none uses all of it.
#![allow(dead_code, reason = "each test binary uses its own part")]
#![allow(clippy::disallowed_methods, reason = "real processes live by the real clock")]

use std::fmt::Debug;
use std::fs::{self, File};
use std::future::Future;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use coterie::proto::v1::admin_client::AdminClient;
use coterie::proto::v1::kv_client::KvClient;
use serde_json::Value;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tonic::transport::{Channel, Endpoint};
use ureq::http::{HeaderMap, Request};

/// How long a node may take to serve, or a condition to come true, on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// How long a command may take; some wait until partitions have arrived.
const COMMAND_PATIENCE: Duration = Duration::from_secs(180);
/// How often a condition is looked at.
const POLL_INTERVAL: Duration = Duration::from_millis(20);
/// How long one HTTP request may take: longer than any request's default timeout.
pub(crate) const HTTP_TIMEOUT: Duration = Duration::from_secs(10);
/// Lines of each node's log that a failed test prints.
const LOG_LINES_SHOWN: usize = 40;

/// What a node is started with.
#[derive(Clone, Debug)]
pub(crate) struct NodeSpec {
    pub(crate) name: String,
    pub(crate) data_dir: PathBuf,
    pub(crate) log: PathBuf,
    pub(crate) client_address: SocketAddr,
    pub(crate) peer_address: SocketAddr,
    pub(crate) seeds: Vec<SocketAddr>,
    /// Further arguments of `coterie serve`.
    pub(crate) arguments: Vec<String>,
    /// Variables that are added to the environment.
    pub(crate) environment: Vec<(String, String)>,
}

impl NodeSpec {
    /// A node on free ports with its own directory below `root`; without seeds it founds a cluster.
    pub(crate) fn new(root: &Path, name: &str, seeds: &[SocketAddr]) -> Self {
        NodeSpec {
            name: name.to_owned(),
            data_dir: root.join(name),
            log: root.join(format!("{name}.log")),
            client_address: free_address(),
            peer_address: free_address(),
            seeds: seeds.to_vec(),
            arguments: Vec::new(),
            environment: Vec::new(),
        }
    }

    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_coterie"));
        command.args(["serve", "--name", &self.name]);
        command.arg("--data-dir").arg(&self.data_dir);
        command.args(["--listen", &self.client_address.to_string()]);
        command.args(["--peer-listen", &self.peer_address.to_string()]);
        if !self.seeds.is_empty() {
            let seeds: Vec<String> = self.seeds.iter().map(SocketAddr::to_string).collect();
            command.args(["--seeds", &seeds.join(",")]);
        }
        let environment = self.environment.iter().map(|(name, value)| (name, value));
        command.args(&self.arguments).envs(environment).stdin(Stdio::null());
        command
    }
}

/// An address whose port is free for TCP and UDP, and below those that the kernel gives to
/// outgoing connections, so that it is still free when a node is started again.
pub(crate) fn free_address() -> SocketAddr {
    const FIRST: u32 = 10_000;
    const COUNT: u32 = 20_000;
    static TAKEN: AtomicU32 = AtomicU32::new(0);
    let start = std::process::id().wrapping_mul(97);
    for _ in 0..COUNT {
        let step = start.wrapping_add(TAKEN.fetch_add(1, Ordering::Relaxed));
        let port = u16::try_from(FIRST + step % COUNT).expect("below 65536");
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        if TcpListener::bind(address).is_ok() && UdpSocket::bind(address).is_ok() {
            return address;
        }
    }
    panic!("no free port between {FIRST} and {}", FIRST + COUNT);
}

/// One node's process; killed when dropped.
pub(crate) struct NodeProcess {
    pub(crate) spec: NodeSpec,
    child: Option<Child>,
}

impl NodeProcess {
    /// A node that has not been started yet.
    pub(crate) fn new(spec: NodeSpec) -> Self {
        NodeProcess { spec, child: None }
    }

    /// Starts the process; its output is appended to the node's log.
    pub(crate) fn start(&mut self) {
        assert!(self.child.is_none(), "{} runs already", self.spec.name);
        let log = File::options().create(true).append(true).open(&self.spec.log).expect("a log");
        let errors = log.try_clone().expect("a second handle");
        let child = self.spec.command().stdout(log).stderr(errors).spawn();
        self.child = Some(child.expect("the coterie binary runs"));
    }

    /// Waits until the node serves; fails at once if its process has ended.
    pub(crate) fn wait_ready(&mut self) {
        let name = self.spec.name.clone();
        wait_until(&format!("{name} is ready"), PATIENCE, || {
            if let Some(status) = self.exited() {
                panic!("{name} ended with {status} before it was ready");
            }
            let reply = self.try_http("GET", "/readyz", &[], b"").map_err(|e| e.to_string())?;
            if reply.status == 200 { Ok(()) } else { Err(reply.text()) }
        });
    }

    /// The exit status, if the process has ended by itself.
    pub(crate) fn exited(&mut self) -> Option<ExitStatus> {
        self.child.as_mut().and_then(|child| child.try_wait().expect("a child of ours"))
    }

    /// Ends the process by SIGKILL and waits until it is gone.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Fails only when the process has ended already.
            let _ = child.kill();
            child.wait().expect("a child of ours");
        }
    }

    /// Sends SIGTERM and waits for the process to end by itself.
    pub(crate) fn terminate(&mut self) -> ExitStatus {
        self.signal("TERM");
        let name = self.spec.name.clone();
        let status = wait_for(&format!("{name} stops"), PATIENCE, || {
            self.exited().ok_or_else(|| "it still runs".to_owned())
        });
        self.child = None;
        status
    }

    /// Stops the process where it is, as a long pause of the machine would.
    pub(crate) fn pause(&self) {
        self.signal("STOP");
    }

    /// Lets a paused process go on.
    pub(crate) fn resume(&self) {
        self.signal("CONT");
    }

    /// The process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.as_ref().expect("the node runs").id()
    }

    fn signal(&self, name: &str) {
        let command = format!("kill -{name} {}", self.pid());
        let status = Command::new("sh").args(["-c", &command]).status();
        assert!(status.expect("a shell").success(), "cannot signal {}", self.spec.name);
    }

    /// The URL of a path on this node.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.spec.client_address)
    }

    /// One HTTP request, which must be answered.
    pub(crate) fn http(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> HttpReply {
        let reply = self.try_http(method, path, headers, body);
        reply.unwrap_or_else(|error| panic!("{} {method} {path}: {error}", self.spec.name))
    }

    /// One HTTP request; any status is a reply.
    pub(crate) fn try_http(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<HttpReply, ureq::Error> {
        let mut request = Request::builder().method(method).uri(self.url(path));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = if body.is_empty() && method != "PUT" && method != "POST" {
            agent().run(request.body(()).expect("a request"))?
        } else {
            agent().run(request.body(body).expect("a request"))?
        };
        HttpReply::read(answer)
    }

    /// `GET` of a path without headers.
    pub(crate) fn get(&self, path: &str) -> HttpReply {
        self.http("GET", path, &[], b"")
    }

    /// `PUT` of a text in JSON.
    pub(crate) fn put(&self, path: &str, text: &str) -> HttpReply {
        let body = serde_json::json!({ "value": text }).to_string();
        self.http("PUT", path, &[("content-type", "application/json")], body.as_bytes())
    }

    /// `DELETE` of a path.
    pub(crate) fn delete(&self, path: &str) -> HttpReply {
        self.http("DELETE", path, &[], b"")
    }

    /// The node's `/status`, or why there is none.
    pub(crate) fn status(&self) -> Result<Value, String> {
        let reply = self.try_http("GET", "/status", &[], b"").map_err(|error| error.to_string())?;
        serde_json::from_slice(&reply.body).map_err(|error| format!("{error}: {}", reply.text()))
    }

    /// What this node says of the member of that name.
    pub(crate) fn member(&self, name: &str) -> Result<Value, String> {
        let status = self.status()?;
        let members = status["members"].as_array().cloned().unwrap_or_default();
        let found = members.into_iter().find(|member| member["name"] == name);
        found.ok_or_else(|| format!("{} knows no member {name}", self.spec.name))
    }

    /// The states of all members by name, as this node sees them.
    pub(crate) fn member_states(&self) -> Result<Vec<(String, String)>, String> {
        let status = self.status()?;
        let members = status["members"].as_array().cloned().unwrap_or_default();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let mut states: Vec<_> =
            members.iter().map(|member| (text(&member["name"]), text(&member["state"]))).collect();
        states.sort();
        Ok(states)
    }

    /// The node's id.
    pub(crate) fn node_id(&self) -> String {
        let status = self.status().expect("a status");
        status["node_id"].as_str().expect("an id").to_owned()
    }

    /// gRPC clients of this node.
    pub(crate) fn grpc(&self) -> Grpc {
        Grpc::connect(self.spec.client_address)
    }

    /// Everything that the node has logged so far.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.spec.log).unwrap_or_default()
    }
}

impl Drop for NodeProcess {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            let tail = &lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..];
            eprintln!("--- log of {} ---\n{}", self.spec.name, tail.join("\n"));
        }
    }
}

/// Nodes `n1`, `n2`, … of one cluster. `n1` founds it; the others have it as their seed.
pub(crate) struct Cluster {
    pub(crate) nodes: Vec<NodeProcess>,
    pub(crate) root: TempDir,
}

impl Cluster {
    /// Nodes that have not been started yet.
    pub(crate) fn prepare(count: usize, arguments: &[&str]) -> Self {
        let root = tempfile::tempdir().expect("a temporary directory");
        let mut nodes: Vec<NodeProcess> = Vec::new();
        for number in 1..=count {
            let seeds: Vec<SocketAddr> =
                nodes.first().map(|founder| founder.spec.peer_address).into_iter().collect();
            let mut spec = NodeSpec::new(root.path(), &format!("n{number}"), &seeds);
            spec.arguments = arguments.iter().map(|&argument| argument.to_owned()).collect();
            nodes.push(NodeProcess::new(spec));
        }
        Cluster { nodes, root }
    }

    /// Starts that many nodes and waits until all serve and see each other.
    pub(crate) fn start(count: usize) -> Self {
        Self::start_with(count, &[])
    }

    /// The same with further arguments of `coterie serve`.
    pub(crate) fn start_with(count: usize, arguments: &[&str]) -> Self {
        let mut cluster = Self::prepare(count, arguments);
        cluster.nodes.iter_mut().for_each(NodeProcess::start);
        cluster.wait_formed();
        cluster
    }

    /// Waits until all nodes serve, each sees all of them up and connected, and every partition is
    /// where it is to lie.
    pub(crate) fn wait_formed(&mut self) {
        self.nodes.iter_mut().for_each(NodeProcess::wait_ready);
        wait_until("all nodes see each other", PATIENCE, || self.check_formed());
    }

    fn check_formed(&self) -> Result<(), String> {
        for node in &self.nodes {
            for other in &self.nodes {
                let (viewer, name) = (&node.spec.name, &other.spec.name);
                let member = node.member(name)?;
                let connected = member["connected"] == true || viewer == name;
                if member["state"] != "up" || !connected || member["agrees"] != true {
                    return Err(format!("{viewer} sees {member}"));
                }
            }
            let status = node.status()?;
            if status["ring"]["unsettled"] != 0 {
                return Err(format!("{} sees {}", node.spec.name, status["ring"]));
            }
            let members = node.member_states()?.len();
            if members != self.nodes.len() {
                return Err(format!("{} has {members} members", node.spec.name));
            }
        }
        Ok(())
    }

    /// Waits until `viewer` sees the member in that state.
    pub(crate) fn wait_state(&self, viewer: usize, member: usize, state: &str) {
        let (viewer, name) = (&self.nodes[viewer], &self.nodes[member].spec.name);
        let what = format!("{} sees {name} {state}", viewer.spec.name);
        wait_until(&what, PATIENCE, || {
            let seen = viewer.member(name)?;
            if seen["state"] == state { Ok(()) } else { Err(seen.to_string()) }
        });
    }
}

/// An HTTP answer, read to its end.
#[derive(Clone, Debug)]
pub(crate) struct HttpReply {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl HttpReply {
    fn read(mut answer: ureq::http::Response<ureq::Body>) -> Result<Self, ureq::Error> {
        let body = answer.body_mut().with_config().limit(u64::MAX).read_to_vec()?;
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        Ok(HttpReply { status, headers, body })
    }

    /// The body as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error} in {} {:?}", self.status, self.text()))
    }

    /// A header, or the empty text.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// This reply, if it has that status.
    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", self.text());
        self
    }
}

/// A client without a pool: no reply can come from a process that was killed and replaced.
fn agent() -> ureq::Agent {
    let config = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(HTTP_TIMEOUT))
        // 300 is an answer like any other.
        .max_redirects(0)
        .max_idle_connections(0)
        .build();
    config.into()
}

/// gRPC clients of one node, and the runtime that drives them.
pub(crate) struct Grpc {
    runtime: Runtime,
    pub(crate) channel: Channel,
}

impl Grpc {
    /// Clients that connect when first used.
    pub(crate) fn connect(address: SocketAddr) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("a URI");
        let channel = runtime.block_on(async { endpoint.connect_lazy() });
        Grpc { runtime, channel }
    }

    /// The data service.
    pub(crate) fn kv(&self) -> KvClient<Channel> {
        KvClient::new(self.channel.clone())
    }

    /// The operators' service.
    pub(crate) fn admin(&self) -> AdminClient<Channel> {
        AdminClient::new(self.channel.clone())
    }

    /// Runs a call to its end.
    pub(crate) fn wait<F: Future>(&self, call: F) -> F::Output {
        self.runtime.block_on(call)
    }
}

/// Runs `coterie` against a node to its end, which must come in time; its exit code, stdout and
/// stderr.
#[track_caller]
pub(crate) fn coterie(node: &NodeProcess, arguments: &[&str]) -> (i32, String, String) {
    let outputs = tempfile::tempdir().expect("a temporary directory");
    let path = |name| outputs.path().join(name);
    let file = |name| File::create(path(name)).expect("a file for what is said");
    let address = node.spec.client_address.to_string();
    let mut command = Command::new(env!("CARGO_BIN_EXE_coterie"));
    command.args(["--node", &address]).args(arguments).stdin(Stdio::null());
    command.stdout(file("out")).stderr(file("err"));
    let mut child = command.spawn().expect("the coterie binary runs");
    let said = |name| fs::read_to_string(path(name)).expect("text");
    let started = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().expect("a child of ours") {
            break status;
        }
        if started.elapsed() > COMMAND_PATIENCE {
            let _ = child.kill();
            let _ = child.wait();
            panic!("{arguments:?} has not ended; it said: {} {}", said("out"), said("err"));
        }
        std::thread::sleep(POLL_INTERVAL);
    };
    (status.code().expect("an exit code"), said("out"), said("err"))
}

/// Waits until a condition holds, and fails with what was last seen instead.
#[track_caller]
pub(crate) fn wait_until<E: Debug>(
    what: &str,
    patience: Duration,
    check: impl FnMut() -> Result<(), E>,
) {
    wait_for(what, patience, check);
}

/// Waits until a value can be had, and fails with what was last seen instead.
#[track_caller]
pub(crate) fn wait_for<T, E: Debug>(
    what: &str,
    patience: Duration,
    mut look: impl FnMut() -> Result<T, E>,
) -> T {
    let started = Instant::now();
    loop {
        match look() {
            Ok(value) => return value,
            Err(seen) if started.elapsed() > patience => {
                panic!("waited {patience:?} until {what}; last seen: {seen:?}")
            }
            Err(_) => std::thread::sleep(POLL_INTERVAL),
        }
    }
}
