//! The five nodes of `docker/compose.yml`, and what can be done to their containers.

use std::fs;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};

use parking_lot::{Mutex, MutexGuard};

use crate::docker::{docker, printed, try_docker};
use crate::harness::{Cluster, NodeProcess, PATIENCE, wait_until};
use crate::image::{Image, PROGRAM};

/// Nodes of the Compose file.
pub(crate) const NODES: usize = 5;
/// Nodes of a cluster that grows: one in each zone.
pub(crate) const FOUNDERS: usize = 3;
/// What it grows to.
const NODES_GROWN: usize = 6;
/// Their zones, in order.
const ZONES: [&str; NODES] = ["a", "b", "c", "a", "b"];
/// The Compose file that users get.
const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docker/compose.yml");
/// What adds a sixth node to it.
const SIXTH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/containers/sixth.yml");
/// How long a node waits for its replicas: long enough that a busy machine makes no timeouts.
const REQUEST_TIMEOUT: &str = "5s";
/// Networks that are tried: 172.30.0.0/24 to 172.30.255.0/24.
const NETWORKS: u32 = 256;

/// One project at a time: two would share the machine's processors and tell us less.
static ALONE: Mutex<()> = Mutex::new(());

/// The project; stopped and removed with its network and volumes when dropped.
pub(crate) struct Compose {
    project: String,
    network: String,
    /// Clients of the nodes. The processes behind them are the containers', not the harness's.
    pub(crate) cluster: Cluster,
    /// Those of nodes that have not been started.
    later: Vec<NodeProcess>,
    image: Image,
    _alone: MutexGuard<'static, ()>,
}

impl Compose {
    /// Builds the image, starts the five nodes and waits until each sees all of them.
    pub(crate) fn start() -> Self {
        let mut compose = Compose::prepare(NODES);
        compose.run(&["up", "--detach"]);
        compose.cluster.wait_formed();
        compose
    }

    /// The same with the first three nodes alone.
    pub(crate) fn start_founders() -> Self {
        let mut compose = Compose::prepare(NODES_GROWN);
        compose.later = compose.cluster.nodes.split_off(FOUNDERS);
        compose.run(&["up", "--detach", "n1", "n2", "n3"]);
        compose.cluster.wait_formed();
        compose
    }

    /// Starts the others, too.
    pub(crate) fn start_others(&mut self) {
        self.run(&["up", "--detach"]);
        self.cluster.nodes.append(&mut self.later);
    }

    /// Builds the image for that many nodes.
    fn prepare(nodes: usize) -> Self {
        static PROJECTS: AtomicU32 = AtomicU32::new(0);
        let alone = ALONE.lock();
        let number = PROJECTS.fetch_add(1, Ordering::Relaxed);
        let project = format!("coterie-test-{}-{number}", std::process::id());
        let (cluster, later) = (Cluster::prepare(nodes, &[]), Vec::new());
        let image = Image::build(&format!("{project}:latest"));
        let network = free_network();
        Compose { project, network, cluster, later, image, _alone: alone }
    }

    /// Runs a Compose command on the project, which must succeed.
    #[track_caller]
    pub(crate) fn run(&self, arguments: &[&str]) -> String {
        printed(&format!("compose {}", arguments.join(" ")), self.try_run(arguments))
    }

    fn try_run(&self, arguments: &[&str]) -> Output {
        let mut command = compose_command();
        command.args(["--project-name", &self.project, "--file", FILE]);
        let nodes = || self.cluster.nodes.iter().chain(&self.later);
        if nodes().count() == NODES_GROWN {
            command.args(["--file", SIXTH]);
        }
        command.args(arguments);
        command.env("COTERIE_IMAGE", &self.image.tag).env("COTERIE_NETWORK", &self.network);
        command.env("COTERIE_REQUEST_TIMEOUT", REQUEST_TIMEOUT);
        for (number, node) in (1..).zip(nodes()) {
            let port = node.spec.client_address.port().to_string();
            command.env(format!("COTERIE_PORT_{number}"), port);
        }
        command.output().expect("docker-compose, or docker with its compose plugin")
    }

    /// The name of a node, as in the Compose file.
    pub(crate) fn name(&self, node: usize) -> &str {
        &self.cluster.nodes[node].spec.name
    }

    /// Ends a node by SIGKILL.
    pub(crate) fn kill(&self, node: usize) {
        docker(&["kill", &self.container(node)]);
    }

    /// Starts a node that was killed.
    pub(crate) fn start_again(&self, node: usize) {
        docker(&["start", &self.container(node)]);
    }

    /// Freezes a node where it is. On a busy machine the kernel's older freezer gives up at times.
    pub(crate) fn pause(&self, node: usize) {
        let container = self.container(node);
        wait_until(&format!("{} is frozen", self.name(node)), PATIENCE, || {
            let output = try_docker(&["pause", &container]);
            if output.status.success() { Ok(()) } else { Err(output) }
        });
    }

    /// Lets a frozen node go on.
    pub(crate) fn resume(&self, node: usize) {
        docker(&["unpause", &self.container(node)]);
    }

    /// Cuts a node off from the others and from its clients.
    pub(crate) fn disconnect(&self, node: usize) {
        docker(&["network", "disconnect", &self.network_name(), &self.container(node)]);
    }

    /// Connects a node again, under the address and the name that it had.
    pub(crate) fn reconnect(&self, node: usize) {
        let (address, name) = (format!("{}.{}", self.network, 11 + node), self.name(node));
        let (network, container) = (self.network_name(), self.container(node));
        docker(&["network", "connect", "--ip", &address, "--alias", name, &network, &container]);
    }

    /// Runs the program inside a node's container, which works without any network.
    pub(crate) fn exec(&self, node: usize, arguments: &[&str]) -> Output {
        let container = self.container(node);
        try_docker(&[&["exec", &container, PROGRAM], arguments].concat())
    }

    /// The exit code of a container that has stopped.
    pub(crate) fn exit_code(&self, node: usize) -> String {
        docker(&["inspect", "--format", "{{.State.ExitCode}}", &self.container(node)])
    }

    /// Whether every partition keeps two of its three primaries without these nodes: each zone has
    /// one replica of everything.
    pub(crate) fn spares_quorums(victims: &[usize]) -> bool {
        victims.iter().all(|&victim| ZONES[victim] == ZONES[victims[0]])
    }

    /// Waits until no node keeps hints for any other.
    pub(crate) fn wait_hints_drained(&self) {
        wait_until("all hints are delivered", PATIENCE * 2, || self.check_no_hints());
    }

    fn check_no_hints(&self) -> Result<(), String> {
        for node in &self.cluster.nodes {
            let status = node.status()?;
            for member in status["members"].as_array().into_iter().flatten() {
                if member["hint_bytes"] != 0 {
                    return Err(format!("{} keeps hints for {member}", node.spec.name));
                }
            }
        }
        Ok(())
    }

    /// The container of a node: Compose's versions name them differently.
    fn container(&self, node: usize) -> String {
        let service = format!("label=com.docker.compose.service={}", self.name(node));
        let id =
            docker(&["ps", "--all", "--quiet", "--filter", &self.label(), "--filter", &service]);
        assert!(!id.is_empty(), "{} has no container", self.name(node));
        id
    }

    fn label(&self) -> String {
        format!("label=com.docker.compose.project={}", self.project)
    }

    fn network_name(&self) -> String {
        format!("{}_ring", self.project)
    }

    /// Lays the containers' output where the harness looks for logs when a test fails.
    fn save_logs(&self) {
        for node in &self.cluster.nodes {
            let logs = self.try_run(&["logs", "--no-color", &node.spec.name]);
            // A test has failed already; without logs it says less.
            let _ = fs::write(&node.spec.log, logs.stdout);
        }
    }
}

impl Drop for Compose {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.save_logs();
        }
        // A frozen container can be neither stopped nor removed.
        self.try_run(&["unpause"]);
        let removed = self.try_run(&["down", "--volumes", "--timeout", "0"]);
        if !removed.status.success() {
            let errors = String::from_utf8_lossy(&removed.stderr);
            eprintln!("{} was not removed: {errors}", self.project);
        }
    }
}

/// `docker-compose`, or where there is none, `docker compose`.
fn compose_command() -> Command {
    if Command::new("docker-compose").arg("version").output().is_ok() {
        return Command::new("docker-compose");
    }
    let mut command = Command::new("docker");
    command.arg("compose");
    command
}

/// The first three numbers of a network that none of Docker's overlaps.
fn free_network() -> String {
    let ids = docker(&["network", "ls", "--quiet"]);
    let mut arguments = vec!["network", "inspect", "--format", "{{json .IPAM.Config}}"];
    arguments.extend(ids.split_whitespace());
    let taken = docker(&arguments);
    let numbers = (0..NETWORKS).map(|step| (std::process::id() + step) % NETWORKS);
    let mut networks = numbers.map(|number| format!("172.30.{number}"));
    networks.find(|network| !taken.contains(&format!("\"{network}."))).expect("a free network")
}
