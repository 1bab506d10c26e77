//! The leaderless keyspaces of a run: the default one and, in half of the runs, one with another
//! replication. Its name says N, R and W, and its keys begin with its name, so that a key or a
//! request tells a judge all that there is to know.

use std::sync::Arc;
use std::time::Duration;

use coterie::config::Replication;
use coterie::protocol::system::SystemCommand;
use coterie::protocol::system::keyspace::{DEFAULT_NAME, Mode, ReplicationAsked};
use coterie::protocol::system::limits::LimitsAsked;
use coterie::types::{Key, Merge};

use crate::cluster::Cluster;
use crate::dice::Dice;
use crate::run::wait_until;

/// The replication of the second keyspace, if the seed has one.
pub(crate) fn second(dice: &Dice) -> Option<Replication> {
    let mut dice = dice.fork("second keyspace");
    let factor = dice.pick(&[1, 2, 2, 4, 5]);
    let mut quorum = || u32::try_from(dice.between(1, u64::from(factor))).expect("N is small");
    let (read_quorum, write_quorum) = (quorum(), quorum());
    dice.chance(500).then_some(Replication { factor, read_quorum, write_quorum })
}

/// The name of the keyspace of this replication.
pub(crate) fn name(replication: Replication) -> String {
    let Replication { factor, read_quorum, write_quorum } = replication;
    format!("n{factor}r{read_quorum}w{write_quorum}")
}

/// N of the second keyspace, by its name.
pub(crate) fn factor_of(name: &str) -> Option<u32> {
    name.strip_prefix('n')?.split_once('r')?.0.parse().ok()
}

/// A key of the second keyspace.
pub(crate) fn key(replication: Replication, number: usize) -> Key {
    Key::from(format!("{}-{number}", name(replication)))
}

/// The keyspace of a key; `None` for the default one.
pub(crate) fn of_key(key: &Key) -> Option<Arc<str>> {
    let text = key.to_string();
    let (name, _) = text.split_once('-')?;
    factor_of(name).map(|_| Arc::from(name))
}

/// Has the cluster create the second keyspace.
pub(crate) async fn create(cluster: &Cluster, replication: Replication) {
    create_named(cluster, (&name(replication), Merge::Lww), replication).await;
}

/// Makes a keyspace that merges so, replicated as the default one, and waits until all nodes know
/// it.
pub(crate) async fn create_merging(cluster: &Cluster, what: (&str, Merge), at_most: Duration) {
    create_named(cluster, what, cluster.shape.replication).await;
    let is_known = wait_until(cluster, at_most, || is_known_as(cluster, what.0)).await;
    assert!(is_known, "a node never heard of {}", what.0);
}

async fn create_named(cluster: &Cluster, (name, merge): (&str, Merge), replication: Replication) {
    let command = SystemCommand::CreateKeyspace {
        name: name.to_owned(),
        mode: Mode::Quorum,
        merge,
        replication: Some(replication.into()),
        limits: LimitsAsked::default(),
    };
    let node = cluster.nodes().into_iter().next().expect("a settled cluster has nodes");
    let created = node.decide(command).await;
    assert!(created.is_ok(), "a cluster without faults made no keyspace: {created:?}");
}

/// Asks one node after another for another N of the default keyspace until that is decided: as long
/// as partitions are on their way, it is refused.
pub(crate) async fn alter(cluster: Arc<Cluster>, wanted: Replication) {
    const TRIES_MAX: usize = 600;
    let _pending = cluster.change_begins();
    let replication = ReplicationAsked::from(wanted);
    let (name, limits) = (DEFAULT_NAME.to_owned(), LimitsAsked::default());
    let alter = SystemCommand::AlterKeyspace { name, replication, limits };
    for attempt in 0..TRIES_MAX {
        if let Some(mut session) = cluster.session(attempt % cluster.shape.machines) {
            let (node, command) = (Arc::clone(&session.node), alter.clone());
            // It may be decided even if nobody lives to tell.
            cluster.note_altered(wanted);
            let told = tokio::select! {
                biased;
                () = session.ended() => continue,
                told = node.decide(command) => told,
            };
            cluster.note(format_args!("{wanted:?}: {told:?}"));
            if told.is_ok() {
                return;
            }
        }
        cluster.agenda.sleep(Duration::from_millis(500)).await;
    }
}

/// Whether every node has heard of the second keyspace.
pub(crate) fn is_known(cluster: &Cluster, replication: Replication) -> bool {
    is_known_as(cluster, &name(replication))
}

fn is_known_as(cluster: &Cluster, name: &str) -> bool {
    let nodes = cluster.nodes();
    nodes.iter().all(|it| it.system().is_some_and(|it| it.keyspace_named(name).is_some()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use bytes::Bytes;
    use coterie::node::repair::RepairAsked;
    use coterie::node::request::{ReadAnswer, Receipt, RequestError, RequestOptions};
    use coterie::protocol::quorum::level::Level;
    use coterie::protocol::reaping::Share;
    use coterie::types::{PartitionId, Timestamp};

    use coterie::config::GroupOptions;

    use super::*;
    use crate::cluster::{Mending, Shape};
    use crate::disk::Survival;
    use crate::trace::Trace;

    const SECOND: Replication = Replication { factor: 2, read_quorum: 1, write_quorum: 2 };

    /// Runs a story on three machines without nodes, in virtual time.
    fn on_three_machines<F: Future<Output = ()>>(story: impl FnOnce(Arc<Cluster>) -> F) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async {
            let shape = Shape {
                machines: 3,
                late: 0,
                replication: Replication::default(),
                partitions: 16,
                groups: GroupOptions::default(),
                wal_segment_bytes: 16 * 1024,
                mending: Mending::Hints,
            };
            let cluster = Cluster::new(Arc::new(Trace::new(false)), shape, &Dice::new(1));
            story(Arc::clone(&cluster)).await;
            cluster.end();
        });
    }

    async fn eventually(cluster: &Cluster, holds: impl Fn() -> bool) {
        assert!(wait_until(cluster, Duration::from_secs(60), holds).await);
    }

    async fn start(cluster: &Cluster, machines: std::ops::Range<usize>) {
        machines.for_each(|machine| cluster.start(machine));
        let is_ready = || cluster.nodes().iter().all(|node| node.serving().ready);
        eventually(cluster, is_ready).await;
    }

    /// Starts so many nodes, with twenty keys in the second keyspace.
    async fn start_with_rows(cluster: &Cluster, machines: usize) {
        start(cluster, 0..machines).await;
        create(cluster, SECOND).await;
        eventually(cluster, || is_known(cluster, SECOND)).await;
        for number in 0..20 {
            put(cluster, number % machines, number).await;
        }
    }

    fn options(level: Option<Level>) -> RequestOptions {
        let keyspace = Some(Arc::from(name(SECOND)));
        RequestOptions { keyspace, level, ..RequestOptions::default() }
    }

    async fn put(cluster: &Cluster, machine: usize, number: usize) -> Receipt {
        let node = cluster.session(machine).unwrap().node;
        let value = Bytes::from(number.to_string());
        node.put(key(SECOND, number), value, options(None)).await.unwrap()
    }

    async fn get(cluster: &Cluster, machine: usize) -> Result<ReadAnswer, RequestError> {
        let node = cluster.session(machine).unwrap().node;
        node.get(key(SECOND, 0), options(Some(Level::All))).await
    }

    async fn decide(cluster: &Cluster, command: SystemCommand) {
        cluster.session(1).unwrap().node.decide(command).await.unwrap();
    }

    #[test]
    fn altered_quorums_hold_for_the_requests_that_follow() {
        on_three_machines(|cluster| async move {
            start(&cluster, 0..3).await;
            create(&cluster, SECOND).await;
            eventually(&cluster, || is_known(&cluster, SECOND)).await;
            let before = put(&cluster, 0, 0).await;
            assert_eq!((before.required, before.replicas), (2, 2));
            let replication =
                ReplicationAsked { factor: Some(3), read_quorum: None, write_quorum: Some(1) };
            let alter = SystemCommand::AlterKeyspace {
                name: name(SECOND),
                replication,
                limits: LimitsAsked::default(),
            };
            decide(&cluster, alter).await;
            let is_altered = || {
                let state = cluster.session(0).unwrap().node.system().unwrap();
                state.keyspace_named(&name(SECOND)).unwrap().replication.factor == 3
            };
            eventually(&cluster, is_altered).await;
            eventually(&cluster, || cluster.is_settled()).await;
            let after = put(&cluster, 0, 0).await;
            assert_eq!((after.required, after.replicas), (1, 3));
        });
    }

    /// Owners that a larger N made were asked at once, before they had anything.
    #[test]
    fn a_larger_factor_hides_nothing_from_reads_at_one() {
        on_three_machines(|cluster| async move {
            start_with_rows(&cluster, 3).await;
            let replication =
                ReplicationAsked { factor: Some(3), read_quorum: Some(1), write_quorum: Some(3) };
            let (name, limits) = (name(SECOND), LimitsAsked::default());
            decide(&cluster, SystemCommand::AlterKeyspace { name, replication, limits }).await;
            while !cluster.is_settled() {
                assert_all_are_there(&cluster).await;
                cluster.agenda.sleep(Duration::from_millis(1)).await;
            }
            assert_all_are_there(&cluster).await;
        });
    }

    /// Replicas that had not heard of a change of the ring refused to be compared by who had.
    #[test]
    fn a_repair_that_is_asked_for_as_soon_as_the_ring_has_changed_compares_everything() {
        on_three_machines(|cluster| async move {
            start(&cluster, 0..3).await;
            let node = |machine: usize| cluster.session(machine).unwrap().node;
            let leads = |machine: &usize| {
                let status = node(*machine).status();
                status.raft.system_leader == Some(status.node_id)
            };
            let leads = (0..3).find(leads).expect("the system group has a leader");
            let (leader, deaf) = (node(leads), (leads + 1) % 3);
            cluster.network.set_deaf(deaf, true);
            let state = node(leads).system().unwrap();
            let epoch = |machine: usize| node(machine).system().unwrap().epoch();
            let before = epoch(leads);
            // A floor that rises begins an epoch, and nothing moves.
            let share = Share { at: Timestamp(1), epoch: before };
            for (told, known) in state.members() {
                let (node, incarnation) = (*told, known.member.incarnation);
                let partitions = BTreeMap::from([(PartitionId(0), share)]);
                let shared = SystemCommand::Shared { node, incarnation, partitions };
                leader.decide(shared).await.unwrap();
            }
            eventually(&cluster, || epoch(leads) > before).await;
            assert_eq!(epoch(deaf), before);
            let begun = leader.repair(&RepairAsked::default()).unwrap();
            cluster.agenda.sleep(Duration::from_millis(300)).await;
            cluster.network.set_deaf(deaf, false);
            let done = || leader.repair_progress(begun.run).unwrap().is_done();
            eventually(&cluster, done).await;
            let progress = leader.repair_progress(begun.run).unwrap();
            assert!(progress.compared > 0 && progress.failed == 0, "{progress:?}");
        });
    }

    /// That every node reads every key of twenty at ONE.
    async fn assert_all_are_there(cluster: &Cluster) {
        for (machine, number) in (0..3).flat_map(|machine| (0..20).map(move |it| (machine, it))) {
            let node = cluster.session(machine).unwrap().node;
            let read = node.get(key(SECOND, number), options(Some(Level::One))).await.unwrap();
            assert_eq!(read.value, Some(Bytes::from(number.to_string())), "{number} at {machine}");
        }
    }

    #[test]
    fn a_keyspace_is_found_at_once_by_nodes_that_have_not_heard_of_it() {
        on_three_machines(|cluster| async move {
            start(&cluster, 0..3).await;
            create(&cluster, SECOND).await;
            let has_heard = |machine: &usize| {
                let state = cluster.session(*machine).unwrap().node.system().unwrap();
                state.keyspace_named(&name(SECOND)).is_some()
            };
            let deaf: Vec<usize> = (0..3).filter(|machine| !has_heard(machine)).collect();
            assert!(!deaf.is_empty(), "all had heard already");
            for machine in deaf {
                put(&cluster, machine, 0).await;
            }
        });
    }

    #[test]
    fn a_dropped_keyspace_is_gone_everywhere_and_a_new_one_of_its_name_is_empty() {
        on_three_machines(|cluster| async move {
            start(&cluster, 0..3).await;
            create(&cluster, SECOND).await;
            eventually(&cluster, || is_known(&cluster, SECOND)).await;
            put(&cluster, 0, 0).await;
            assert!(get(&cluster, 1).await.unwrap().value.is_some());
            decide(&cluster, SystemCommand::DropKeyspace { name: name(SECOND) }).await;
            let is_gone = || {
                let states = cluster.nodes().into_iter().map(|node| node.system().unwrap());
                states.into_iter().all(|state| state.keyspace_named(&name(SECOND)).is_none())
            };
            eventually(&cluster, is_gone).await;
            let told = get(&cluster, 0).await.map_err(|error| error.code());
            assert_eq!(told, Err("unknown_keyspace"));
            create(&cluster, SECOND).await;
            eventually(&cluster, || is_known(&cluster, SECOND)).await;
            assert_eq!(get(&cluster, 2).await.unwrap().receipt.version, None);
            put(&cluster, 2, 0).await;
            cluster.crash(1, Survival::Everything);
            start(&cluster, 1..2).await;
            eventually(&cluster, || cluster.is_settled()).await;
            assert_eq!(get(&cluster, 1).await.unwrap().value, Some(Bytes::from_static(b"0")));
        });
    }

    #[test]
    fn who_joins_has_the_rows_of_every_keyspace_before_it_is_ready() {
        on_three_machines(|cluster| async move {
            start_with_rows(&cluster, 2).await;
            start(&cluster, 2..3).await;
            eventually(&cluster, || cluster.is_settled()).await;
            let keys: Vec<Key> = (0..20).map(|number| key(SECOND, number)).collect();
            let own: Vec<&Key> =
                keys.iter().filter(|key| cluster.primaries(key).contains(&2)).collect();
            assert!(!own.is_empty());
            let joined = cluster.session(2).unwrap().node;
            for key in own {
                assert!(joined.peek(Some(&name(SECOND)), key).unwrap().is_some(), "{key}");
            }
        });
    }

    #[test]
    fn a_key_names_its_keyspace_and_that_its_factor() {
        let replication = Replication { factor: 5, read_quorum: 1, write_quorum: 4 };
        let keyspace = of_key(&key(replication, 7)).unwrap();
        assert_eq!((&*keyspace, factor_of(&keyspace)), ("n5r1w4", Some(5)));
        assert_eq!(of_key(&Key::from("key-7")), None);
    }
}
