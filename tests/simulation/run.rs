//! One run: a cluster comes up, clients and faults have their time, everything heals, and what is
//! left is read and judged.

use std::cell::RefCell;
use std::sync::{Arc, Once};
use std::time::Duration;

use coterie::config::Replication;
use coterie::node::request::RequestOptions;
use coterie::protocol::planted::Planted as RingPlanted;
use coterie::protocol::quorum::level::Level;
use coterie::protocol::raft::planted::Planted as RaftPlanted;
use coterie::types::{Key, Version};

use crate::cluster::Cluster;
use crate::converging::{converge, held_by_primaries};
use crate::dice::Dice;
use crate::faults::{self, Planned};
use crate::history::{Action, Answer, Evidence, Held, History};
use crate::invariants::{self, Violation};
use crate::mergeable::Chore;
use crate::merging::Book;
use crate::planted::Planted;
use crate::scenario::{Scenario, StrongPart};
use crate::siblings::Wish;
use crate::strong::{self, Crew, StrongEvidence};
use crate::trace::{Counts, Trace};
use crate::workload::{self, Client, Request, Workload};
use crate::{keyspaces, listing, mergeable, merging, siblings};

/// How often a condition is looked at.
const POLL: Duration = Duration::from_millis(100);

/// How long a fresh cluster may take to come up.
const START_MAX: Duration = Duration::from_secs(60);

/// How long healing may take: long enough for the largest skew, the longest detection and the
/// slowest back-off, one after another.
const HEAL_MAX: Duration = Duration::from_secs(120);

/// How long repairs behind an answer may take.
const REPAIR_TIME: Duration = Duration::from_secs(10);

/// The harness's own reads carry this client number.
const JUDGE: usize = 1000;

/// What a run is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The leaderless default keyspace.
    Quorum,
    /// A strong keyspace, with a little work on the other one beside it.
    Strong,
    /// The default keyspace while nodes join and leave; in some runs a strong one beside it.
    Ring,
}

impl Kind {
    /// What a seed's runs are about unless somebody says otherwise.
    pub(crate) fn of(seed: u64) -> Kind {
        let mut dice = Dice::new(seed).fork("kind");
        if dice.chance(500) {
            return Kind::Strong;
        }
        if dice.chance(500) { Kind::Quorum } else { Kind::Ring }
    }

    /// Its name in the environment and in `seeds.txt`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Quorum => "quorum",
            Kind::Strong => "strong",
            Kind::Ring => "ring",
        }
    }

    /// The kind of that name.
    pub(crate) fn named(name: &str) -> Option<Kind> {
        [Kind::Quorum, Kind::Strong, Kind::Ring].into_iter().find(|kind| kind.name() == name)
    }
}

/// What to run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setup {
    pub(crate) seed: u64,
    pub(crate) kind: Kind,
    pub(crate) planted: Option<Planted>,
    /// A bug in what every node does about the ring.
    pub(crate) ring: Option<RingPlanted>,
    /// A bug in the Raft core of every replica.
    pub(crate) raft: Option<RaftPlanted>,
    pub(crate) printing: bool,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Report {
    pub(crate) seed: u64,
    pub(crate) kind: Kind,
    pub(crate) hash: u64,
    pub(crate) counts: Counts,
    pub(crate) violations: Vec<Violation>,
}

thread_local! {
    /// Panics of tasks, which their runtime would otherwise keep to itself.
    static PANICS: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// Runs a seed from beginning to end, on a thread of its own so that no run inherits anything
/// from another.
pub(crate) fn run(setup: Setup) -> Report {
    record_panics();
    std::thread::scope(|scope| {
        let run = scope.spawn(|| run_here(setup));
        run.join().unwrap_or_else(|_| panic!("seed {}: the harness itself panicked", setup.seed))
    })
}

/// Whether code under simulation has panicked: what it took along will not come back.
pub(crate) fn has_panicked() -> bool {
    PANICS.with(|panics| !panics.borrow().is_empty())
}

fn record_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            PANICS.with(|panics| panics.borrow_mut().push(info.to_string()));
            before(info);
        }));
    });
}

fn run_here(setup: Setup) -> Report {
    let trace = Arc::new(Trace::new(setup.printing));
    let mut evidence = virtually(drive(setup, trace.clone()));
    evidence.panics = PANICS.take();
    let violations = invariants::check_all(&evidence);
    let Setup { seed, kind, .. } = setup;
    Report { seed, kind, hash: trace.hash(), counts: trace.counts(), violations }
}

/// Runs something on a clock that jumps whenever nothing is left to do.
pub(crate) fn virtually<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime starts");
    runtime.block_on(future)
}

async fn drive(setup: Setup, trace: Arc<Trace>) -> Evidence {
    let dice = Dice::new(setup.seed);
    let Scenario { shape, mut workload, plan, strong } = Scenario::draw(setup.kind, &dice);
    let lists = setup.kind != Kind::Strong && listing::prepare(&mut workload, &dice);
    let repeats = plan.iter().any(|planned| planned.fault.repeats_messages());
    let cluster = Cluster::new(trace, shape, &dice);
    cluster.note(format_args!("seed {} {shape:?} {workload:?} {strong:?}", setup.seed));
    faults::prepare(&cluster, &plan);
    start_all(&cluster).await;
    if strong.is_some() {
        strong::create(&cluster, &mut dice.fork("creation")).await;
    }
    if let Some(second) = workload.second {
        create_second(&cluster, second).await;
    }
    let shops = setup.kind != Kind::Strong && merging::prepare::<Wish>(repeats, &dice);
    if shops {
        siblings::create(&cluster, START_MAX).await;
    }
    let clerks = setup.kind != Kind::Strong && merging::prepare::<Chore>(repeats, &dice);
    if clerks {
        mergeable::create(&cluster, START_MAX).await;
    }
    cluster.plant(setup.planted);
    // From here on: all replicas of a run share its thread.
    RaftPlanted::set(setup.raft);
    RingPlanted::set(setup.ring);
    let history = Arc::new(History::default());
    let crew = Crew::new(cluster.steps.watch.clone(), strong, &dice);
    let shop = Arc::new(Book::<Wish>::default());
    let shopping = if shops { Some(&shop) } else { None };
    let office = Arc::new(Book::<Chore>::default());
    let counting = if clerks { Some(&office) } else { None };
    let work = Work { history: &history, workload, crew: &crew, strong, lists, shopping, counting };
    let watching = safety_phase(&cluster, work, plan, &dice).await;
    let hints_left = heal(&cluster).await;
    let unread = converge(&cluster, &workload::keys(&workload)).await;
    cluster.plant(setup.planted.map(Planted::after_healing));
    let strong = judge_strong(&cluster, &crew, strong, &dice).await;
    drop(watching);
    let mut judge = Judge { cluster: &cluster, history: &history, dice: dice.fork("judge") };
    let mut evidence = judge.look(&workload::keys(&workload)).await;
    if shops {
        evidence.shopped = shop.look(&cluster, dice.fork("shop judge")).await;
    }
    if clerks {
        evidence.tallied = office.look(&cluster, dice.fork("office judge")).await;
    }
    cluster.end();
    evidence.strong = strong;
    evidence.unread = unread;
    evidence.steps = cluster.steps.violations();
    evidence.hints_left = hints_left;
    evidence.operations = history.operations();
    evidence.listings = history.listings();
    evidence.messages_repeated = repeats;
    evidence.failed_starts.extend(cluster.failed_starts());
    evidence
}

async fn create_second(cluster: &Cluster, replication: Replication) {
    keyspaces::create(cluster, replication).await;
    let is_known = || keyspaces::is_known(cluster, replication);
    let known = wait_until(cluster, START_MAX, is_known).await;
    assert!(known, "a node without faults never heard of a keyspace");
}

/// Waits for the groups to become whole, and takes down what is left of the strong keyspace.
async fn judge_strong(
    cluster: &Cluster,
    crew: &Crew,
    part: Option<StrongPart>,
    dice: &Dice,
) -> StrongEvidence {
    let mut evidence = StrongEvidence::default();
    if let Some(StrongPart { workload, .. }) = part {
        evidence.unsettled = strong::settle(cluster).await;
        let mut dice = dice.fork("strong judge");
        strong::look(cluster, &crew.history, workload.keys, &mut dice, &mut evidence).await;
        evidence.sightings = crew.watch.sightings();
        if let Some(followed) = &crew.followed {
            // Where groups are not whole that is said already.
            let waits = evidence.unsettled.is_empty();
            evidence.unfollowed = if waits { followed.catch_up(cluster).await } else { Vec::new() };
            evidence.stretches = followed.stretches();
            evidence.applied = cluster.steps.applied();
        }
    }
    evidence
}

pub(crate) async fn start_all(cluster: &Cluster) {
    for machine in 0..cluster.shape.machines - cluster.shape.late {
        cluster.start(machine);
    }
    let up = wait_until(cluster, START_MAX, || cluster.is_settled()).await;
    let warnings: Vec<_> = cluster.nodes().iter().map(|node| node.status().warnings).collect();
    assert!(up, "a cluster without faults did not come up within {START_MAX:?}: {warnings:?}");
}

/// Waits in virtual time for a condition; false when it did not come true in time.
pub(crate) async fn wait_until(
    cluster: &Cluster,
    at_most: Duration,
    holds: impl Fn() -> bool,
) -> bool {
    let deadline = cluster.agenda.now() + at_most;
    while !holds() {
        if cluster.agenda.now() >= deadline {
            return false;
        }
        cluster.agenda.sleep(POLL).await;
    }
    true
}

/// What goes on while faults happen.
struct Work<'a> {
    history: &'a Arc<History>,
    workload: Workload,
    crew: &'a Crew,
    strong: Option<StrongPart>,
    /// Whether a client lists the default keyspace.
    lists: bool,
    /// Where clients of a keyspace that keeps siblings leave what they did.
    shopping: Option<&'a Arc<Book<Wish>>>,
    /// The same of clients of counters and sets.
    counting: Option<&'a Arc<Book<Chore>>>,
}

/// Returns whoever goes on watching the groups; it stops when that is dropped.
async fn safety_phase(
    cluster: &Arc<Cluster>,
    work: Work<'_>,
    plan: Vec<Planned>,
    dice: &Dice,
) -> tokio::task::JoinSet<()> {
    let start = cluster.agenda.now();
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..work.workload.clients {
        let (cluster, history) = (cluster.clone(), work.history.clone());
        let dice = dice.fork(&format!("client {number}"));
        tasks.spawn(Client { number, cluster, history, dice, workload: work.workload }.run());
    }
    if work.lists {
        tasks.spawn(listing::run(cluster.clone(), work.history.clone(), dice, work.workload));
    }
    if let Some(shop) = work.shopping {
        for shopper in shop.clients(cluster, dice, work.workload) {
            tasks.spawn(shopper);
        }
    }
    if let Some(office) = work.counting {
        for clerk in office.clients(cluster, dice, work.workload) {
            tasks.spawn(clerk);
        }
    }
    let mut watching = tokio::task::JoinSet::new();
    if let Some(StrongPart { workload, looks_every }) = work.strong {
        work.crew.start(cluster, workload, dice, &mut tasks);
        watching.spawn(work.crew.watch.clone().run(cluster.clone(), looks_every));
        work.crew.start_watcher(cluster, dice, &mut watching);
    }
    tasks.spawn(faults::afflict(cluster.clone(), plan, start));
    tasks.join_all().await;
    watching
}

/// All faults have stopped: waits for the cluster to become whole, and returns what hints it keeps
/// in spite of that.
async fn heal(cluster: &Cluster) -> Vec<String> {
    cluster.note(format_args!("healing"));
    let whole = || cluster.is_settled() && cluster.hints().is_empty();
    wait_until(cluster, HEAL_MAX, || whole() || has_panicked()).await;
    cluster.hints()
}

/// Reads everything once clients are done.
struct Judge<'a> {
    cluster: &'a Cluster,
    history: &'a History,
    dice: Dice,
}

impl Judge<'_> {
    async fn look(&mut self, keys: &[Key]) -> Evidence {
        let shape = self.cluster.shape;
        let mut evidence = Evidence {
            machines: u32::try_from(shape.machines).expect("clusters are small"),
            node_ids: self.cluster.node_ids(),
            burnt: self.cluster.burnt(),
            replication_factor: shape.replication.factor,
            altered: self.cluster.altered(),
            reaps: shape.mending.reaps(),
            ..Evidence::default()
        };
        for key in keys {
            self.read_finally(key, &mut evidence).await;
        }
        self.cluster.agenda.sleep(REPAIR_TIME).await;
        for key in keys {
            let held = self.hold(key, &mut evidence.failed_starts);
            evidence.replicas.push((key.clone(), held));
        }
        evidence
    }

    /// Reads a key at QUORUM, then at ALL.
    async fn read_finally(&mut self, key: &Key, evidence: &mut Evidence) {
        for level in [Level::Quorum, Level::All] {
            match self.read(key, level).await {
                Ok(version) if level == Level::All => {
                    evidence.final_reads.push((key.clone(), version));
                }
                Ok(_) => {}
                Err(told) => evidence.unreadable.push((key.clone(), told)),
            }
        }
    }

    /// Reads from one node after another until one answers.
    async fn read(&mut self, key: &Key, level: Level) -> Result<Option<Version>, String> {
        const TRIES_MAX: usize = 20;
        let timeout = Some(Duration::from_secs(5));
        let mut told = "no node runs".to_owned();
        for _ in 0..TRIES_MAX {
            let machine = self.dice.index(self.cluster.shape.machines);
            let options = RequestOptions { level: Some(level), timeout, ..Default::default() };
            let request = Request { machine, key: key.clone(), action: Action::Get, options };
            match workload::ask(self.cluster, self.history, JUDGE, request).await {
                Some(Answer::Read(read)) => return Ok(read.receipt.version),
                Some(answer) => told = format!("{level}: {answer:?}"),
                None => {}
            }
            self.cluster.agenda.sleep(Duration::from_secs(1)).await;
        }
        Err(told)
    }

    /// What each primary of a key holds, by machine.
    fn hold(&self, key: &Key, failures: &mut Vec<String>) -> Held {
        let held = held_by_primaries(self.cluster, key, failures);
        let (found, in_effect) = (held.len(), self.cluster.in_effect(key));
        if found as u64 != u64::from(in_effect) {
            failures
                .push(format!("{found} primaries of {key} could be looked at, not {in_effect}"));
        }
        held
    }
}
