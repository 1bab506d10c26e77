//! What chance would rarely arrange, arranged.

mod damaged;
pub(crate) mod moves;
mod patience;
mod voters;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use coterie::config::{GroupOptions, HistoryLimits, Replication};
use coterie::node::request::RequestOptions;
use coterie::protocol::quorum::level::Level;
use coterie::protocol::system::SystemCommand;
use coterie::protocol::system::keyspace::Mode;
use coterie::protocol::system::limits::LimitsAsked;
use coterie::types::{GroupId, Key, Merge};

use crate::cluster::{Cluster, Mending, Session, Shape};
use crate::dice::Dice;
use crate::disk::Survival;
use crate::run::{start_all, virtually, wait_until};
use crate::strong::watch::groups;
use crate::trace::Trace;

pub(crate) const SHAPE: Shape = Shape {
    machines: 5,
    late: 0,
    replication: Replication { factor: 3, read_quorum: 2, write_quorum: 2 },
    partitions: 16,
    groups: GroupOptions {
        log_entries_max: 256,
        log_entries_kept: 64,
        snapshot_chunk_bytes: 256 << 10,
        record_bytes_max: 1 << 20,
        lease_reads: false,
        watch_history: HistoryLimits { events_max: 65_536, bytes_max: 1 << 20 },
    },
    wal_segment_bytes: 64 << 10,
    mending: Mending::Hints,
};

#[test]
fn a_key_that_many_ask_for_is_shown_and_forgotten_when_they_cease() {
    virtually(async {
        let cluster = Cluster::new(Arc::new(Trace::new(false)), SHAPE, &Dice::new(1));
        start_all(&cluster).await;
        let node = cluster.session(0).expect("it runs").node;
        let began = cluster.agenda.now();
        // A window of its own, of 10 s, begins with the next request after one has passed.
        cluster.agenda.sleep(Duration::from_secs(10)).await;
        for count in 0..2000 {
            let name = if count % 4 == 0 { format!("cold-{count}") } else { "hot".to_owned() };
            let _read = node.get(Key::from(name), RequestOptions::default()).await;
        }
        assert!(cluster.agenda.now().since(began) < Duration::from_secs(20), "within a window");
        cluster.agenda.sleep(Duration::from_secs(10)).await;
        let hot = node.status().hot_keys;
        let [hottest] = hot.as_slice() else { panic!("{hot:?}") };
        assert_eq!((hottest.keyspace.as_str(), hottest.key.as_str()), ("default", "hot"));
        assert!((60..90).contains(&hottest.share_percent), "{hottest:?}");
        assert!((100..200).contains(&hottest.requests_per_second), "{hottest:?}");
        cluster.agenda.sleep(Duration::from_secs(20)).await;
        assert_eq!(node.status().hot_keys, []);
        cluster.end();
    });
}

/// Hints, of which one is due, yield to clients that wait for a node which stands still.
#[test]
fn background_work_waits_while_clients_keep_a_node_busy() {
    // More than half of what a node coordinates at once.
    const BUSY: usize = 2_500;
    virtually(async {
        let cluster = Cluster::new(Arc::new(Trace::new(false)), SHAPE, &Dice::new(1));
        start_all(&cluster).await;
        let key = Key::from("k");
        let [coordinator, still, absent] = cluster.primaries(&key)[..] else { panic!("N is 3") };
        let node = cluster.session(coordinator).expect("it runs").node;
        cluster.crash(absent, Survival::Everything);
        let (w, timeout) = (Some(2), Some(Duration::from_secs(30)));
        let both = RequestOptions { quorum: w, timeout, ..RequestOptions::default() };
        let hinted =
            insist(&cluster, || node.put(key.clone(), Bytes::from_static(b"v"), both.clone()));
        hinted.await.expect("two of three live");
        let kept = || !cluster.hints().is_empty();
        assert!(wait_until(&cluster, Duration::from_secs(60), kept).await, "no hint is kept");

        cluster.set_paused(still, true);
        let mut clients = tokio::task::JoinSet::new();
        for _ in 0..BUSY {
            let (node, key, both) = (node.clone(), key.clone(), both.clone());
            clients.spawn(async move { node.put(key, Bytes::from_static(b"w"), both).await });
        }
        cluster.start(absent);
        let admission = || {
            let mut activities = node.status().activities.into_iter();
            let admission = activities.find(|activity| activity.name == "admission");
            admission.expect("a line of its own")
        };
        let yields = || admission().detail.contains(" hint");
        assert!(wait_until(&cluster, Duration::from_secs(20), yields).await, "{:?}", admission());
        assert_eq!(admission().state, "throttled");
        assert!(kept(), "the hint went before the clients");

        cluster.set_paused(still, false);
        let drained = || cluster.hints().is_empty();
        assert!(wait_until(&cluster, Duration::from_secs(120), drained).await, "hints are left");
        assert_eq!(admission().state, "idle");
        clients.shutdown().await;
        cluster.end();
    });
}

/// A replica that is silent holds up nobody but those who ask for it: requests that were answered
/// without it and wait for its word are not counted against those that come.
#[test]
fn a_silent_replica_takes_no_room_from_clients() {
    // Five times what a node coordinates at once.
    const ROUNDS: usize = 40;
    const AT_ONCE: usize = 512;
    virtually(async {
        let cluster = Cluster::new(Arc::new(Trace::new(false)), SHAPE, &Dice::new(1));
        start_all(&cluster).await;
        let key = Key::from("k");
        let [coordinator, silent, _] = cluster.primaries(&key)[..] else { panic!("N is 3") };
        let node = cluster.session(coordinator).expect("it runs").node;
        // Its log takes minutes, so that it is there and acknowledges nothing.
        cluster.machine(silent).set_job_ms_max(Some(600_000));
        let (quorum, timeout) = (Some(2), Some(Duration::from_secs(30)));
        let options = RequestOptions { quorum, timeout, ..RequestOptions::default() };
        for round in 0..ROUNDS {
            let mut clients = tokio::task::JoinSet::new();
            for _ in 0..AT_ONCE {
                let (node, key, options) = (node.clone(), key.clone(), options.clone());
                clients
                    .spawn(async move { node.put(key, Bytes::from_static(b"v"), options).await });
            }
            for written in clients.join_all().await {
                assert!(written.is_ok(), "round {round}: {written:?}");
            }
        }
        // Four times as many may wait for the silent one; the others have left it hints.
        let metrics = node.metrics_text();
        let metric = |name: &str| {
            let line = metrics.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|value| value.trim().parse::<usize>().ok()).expect(name)
        };
        assert_eq!(metric("coterie_requests_lingering "), 4 * 4096);
        assert_eq!(metric("coterie_requests_cut_short_total "), ROUNDS * AT_ONCE - 4 * 4096);
        assert!(!cluster.hints().is_empty(), "what is given up is hinted");
        cluster.end();
    });
}

/// A replica whose disk is slow holds up no write that two others acknowledge, and everybody can
/// see which one it is, until it has recovered.
#[test]
fn a_slow_replica_is_shown_and_writes_do_not_wait_for_it() {
    virtually(async {
        let cluster = Cluster::new(Arc::new(Trace::new(false)), SHAPE, &Dice::new(1));
        start_all(&cluster).await;
        let key = Key::from("k");
        let [coordinator, slow, _] = cluster.primaries(&key)[..] else { panic!("N is 3") };
        let node = cluster.session(coordinator).expect("it runs").node;
        let slow_id = cluster.node_ids()[&slow];
        let write = async |count: usize| {
            for _ in 0..count {
                let began = cluster.agenda.now();
                let options = RequestOptions { quorum: Some(2), ..RequestOptions::default() };
                let written = node.put(key.clone(), Bytes::from_static(b"v"), options).await;
                written.expect("two of three are well");
                let took = cluster.agenda.now().since(began);
                assert!(took < Duration::from_millis(50), "it waited {took:?}");
                cluster.agenda.sleep(Duration::from_millis(100)).await;
            }
        };
        let shown = || {
            let status = node.status();
            let members = status.members.iter().filter(|member| member.slow);
            let slow: Vec<_> = members.map(|member| member.node_id).collect();
            let warned = status.warnings.iter().any(|warning| warning.contains(" is slow: "));
            (slow, warned)
        };
        write(20).await;
        assert_eq!(shown(), (vec![], false));
        cluster.machine(slow).set_job_ms_max(Some(2_000));
        write(60).await;
        assert_eq!(shown(), (vec![slow_id], true));
        cluster.machine(slow).set_job_ms_max(None);
        write(100).await;
        assert_eq!(shown(), (vec![], false));
        cluster.end();
    });
}

/// A replica that hangs costs a reader or two a hedge, and the others go round it at once.
#[test]
fn reads_go_round_a_replica_that_hangs() {
    // It takes longer for a connection to break.
    const READS: usize = 40;
    virtually(async {
        let cluster = Cluster::new(Arc::new(Trace::new(false)), SHAPE, &Dice::new(1));
        start_all(&cluster).await;
        let key = Key::from("k");
        let primaries = cluster.primaries(&key);
        let is_other = |machine: &usize| !primaries.contains(machine);
        let coordinator = (0..SHAPE.machines).find(is_other).expect("five nodes, three replicas");
        let node = cluster.session(coordinator).expect("it runs").node;
        let first = node.owners(&key).owners[0].node_id;
        let hangs = primaries.iter().find(|machine| cluster.node_ids()[machine] == first);
        cluster.set_paused(*hangs.expect("the first owner is a primary"), true);
        let mut hedged = 0;
        for _ in 0..READS {
            let began = cluster.agenda.now();
            let one = RequestOptions { level: Some(Level::One), ..RequestOptions::default() };
            node.get(key.clone(), one).await.expect("two of three are well");
            hedged += usize::from(cluster.agenda.now().since(began) >= Duration::from_millis(10));
        }
        assert!((1..=2).contains(&hedged), "{hedged} reads waited for the one that hangs");
        assert!(
            node.status().members.iter().all(|member| member.slow == (member.node_id == first))
        );
        cluster.end();
    });
}

/// Leaderless keyspaces owe the system group nothing while membership stays as it is.
#[test]
fn quorum_keyspaces_go_on_while_the_system_group_has_no_majority() {
    virtually(async {
        let cluster = Cluster::new(Arc::new(Trace::new(false)), SHAPE, &Dice::new(1));
        start_all(&cluster).await;
        // Long enough for every node to become a voter.
        cluster.agenda.sleep(Duration::from_secs(20)).await;
        let voters = system_voters(&cluster).await;
        assert!(voters.len() >= 3, "{voters:?} vote");
        let stopped: Vec<usize> = voters.iter().copied().take(voters.len() / 2 + 1).collect();
        let (key, node) = served_without(&cluster, &stopped);
        stopped.iter().for_each(|machine| cluster.crash(*machine, Survival::Everything));

        let quorum = RequestOptions { level: Some(Level::Quorum), ..RequestOptions::default() };
        for count in 0..20 {
            let value = Bytes::from(format!("v{count}"));
            let written = insist(&cluster, || node.put(key.clone(), value.clone(), quorum.clone()));
            written.await.expect("a quorum of the key's replicas lives");
            let read = node.get(key.clone(), quorum.clone()).await;
            assert_eq!(read.map(|read| read.value), Ok(Some(value)));
            cluster.agenda.sleep(Duration::from_secs(1)).await;
        }
        let (name, mode) = ("late".to_owned(), Mode::Strong);
        let command = SystemCommand::CreateKeyspace {
            name,
            mode,
            merge: Merge::Lww,
            replication: None,
            limits: LimitsAsked::default(),
        };
        assert!(node.decide(command).await.is_err(), "the system group decides without a majority");
        cluster.end();
    });
}

/// The machines whose nodes vote in the system group.
async fn system_voters(cluster: &Cluster) -> BTreeSet<usize> {
    let session: Session = cluster.session(0).expect("all nodes run");
    let statuses = groups(session).await;
    let system = statuses.iter().find(|status| status.group == GroupId::SYSTEM);
    let replicas = &system.expect("every node has a replica of the system group").replicas;
    let ids = cluster.node_ids();
    let voters = replicas.iter().filter(|(_, _, votes)| *votes).filter_map(|(_, node, _)| *node);
    let machine = |node| ids.iter().find(|(_, id)| **id == node).map(|(machine, _)| *machine);
    voters.filter_map(machine).collect()
}

/// A key of which two primaries are left without these machines, and a node that is left.
fn served_without(
    cluster: &Cluster,
    stopped: &[usize],
) -> (Key, Arc<coterie::node::service::Node>) {
    let is_served = |key: &Key| {
        cluster.primaries(key).iter().filter(|machine| !stopped.contains(machine)).count() >= 2
    };
    let mut keys = (0..1000).map(|number| Key::from(format!("key-{number}")));
    let key = keys.find(is_served).expect("some key has two primaries among any two nodes");
    let left = (0..SHAPE.machines).find(|machine| !stopped.contains(machine));
    let session = left.and_then(|machine| cluster.session(machine));
    (key, session.expect("some node is left").node)
}

/// Tries for a while: that nodes are gone is noticed within seconds.
async fn insist<T, E: std::fmt::Debug, F: Future<Output = Result<T, E>>>(
    cluster: &Cluster,
    attempt: impl Fn() -> F,
) -> Result<T, E> {
    const TRIES_MAX: usize = 10;
    for _ in 1..TRIES_MAX {
        if let Ok(done) = attempt().await {
            return Ok(done);
        }
        cluster.agenda.sleep(Duration::from_millis(500)).await;
    }
    attempt().await
}
