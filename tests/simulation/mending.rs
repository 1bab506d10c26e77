//! A replica that was cut off is mended by anti-entropy alone, and bugs planted there are seen.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use coterie::config::{GroupOptions, Replication};
use coterie::node::request::RequestOptions;
use coterie::node::service::Node;
use coterie::protocol::planted::Planted;
use coterie::protocol::quorum::level::Level;
use coterie::types::Key;

use crate::cluster::{Cluster, Mending, Shape};
use crate::converging::converge;
use crate::dice::Dice;
use crate::history::Evidence;
use crate::invariants::replicas_converge_unread;
use crate::run::{start_all, virtually, wait_until};
use crate::trace::Trace;

/// Keys of each kind.
const KEYS: usize = 6;

/// The machine that is cut off.
const CUT_OFF: usize = 2;

/// Bugs that leave replicas different.
const BUGS: [Planted; 4] = [
    Planted::TreeMissesDeletes,
    Planted::StaleBucketsKept,
    Planted::RepairsBackwards,
    Planted::AbsentRowsOverlooked,
];

#[test]
fn a_replica_that_missed_writes_gets_them_although_nobody_reads_and_no_hint_is_kept() {
    assert_eq!(left_different(None), Vec::<String>::new());
}

#[test]
fn every_bug_planted_in_anti_entropy_is_caught() {
    for bug in BUGS {
        let left = left_different(Some(bug));
        assert!(!left.is_empty(), "{bug:?} was not caught");
        println!("{bug:?} left {} keys different", left.len());
    }
}

/// What stays different after one of three replicas missed new rows, changes and deletes.
fn left_different(bug: Option<Planted>) -> Vec<String> {
    virtually(async {
        let shape = Shape {
            machines: 3,
            late: 0,
            replication: Replication { factor: 3, read_quorum: 2, write_quorum: 2 },
            partitions: 16,
            groups: GroupOptions::default(),
            wal_segment_bytes: 64 << 10,
            mending: Mending::AntiEntropy,
        };
        let cluster = Cluster::new(Arc::new(Trace::new(false)), shape, &Dice::new(1));
        start_all(&cluster).await;
        Planted::set(bug);
        let node = cluster.session(0).expect("it runs").node;
        for key in keys("changed").into_iter().chain(keys("deleted")) {
            write(&cluster, &node, &key, Some("before"), Level::All).await;
        }
        // Long enough for every tree to be made, and to be compared again.
        cluster.agenda.sleep(Duration::from_secs(20)).await;
        cut_off(&cluster, true);
        for key in keys("changed").into_iter().chain(keys("new")) {
            write(&cluster, &node, &key, Some("after"), Level::Quorum).await;
        }
        for key in keys("deleted") {
            write(&cluster, &node, &key, None, Level::Quorum).await;
        }
        cut_off(&cluster, false);
        let settled = wait_until(&cluster, Duration::from_secs(120), || cluster.is_settled());
        assert!(settled.await, "the cut was not mended");
        let all = [keys("changed"), keys("deleted"), keys("new")].concat();
        let unread = converge(&cluster, &all).await;
        assert!(unread.iter().all(|(_, held)| held.len() == 3), "{unread:?}");
        cluster.end();
        Planted::set(None);
        replicas_converge_unread::check(&Evidence { unread, ..Evidence::default() })
    })
}

fn keys(kind: &str) -> Vec<Key> {
    (0..KEYS).map(|number| Key::from(format!("{kind}-{number}"))).collect()
}

fn cut_off(cluster: &Cluster, blocked: bool) {
    for other in 0..CUT_OFF {
        cluster.network.set_blocked(CUT_OFF, other, blocked);
        cluster.network.set_blocked(other, CUT_OFF, blocked);
    }
}

/// Writes, again and again if need be: that a node is cut off is noticed within seconds.
async fn write(
    cluster: &Cluster,
    node: &Arc<Node>,
    key: &Key,
    value: Option<&'static str>,
    level: Level,
) {
    const TRIES_MAX: usize = 20;
    for _ in 0..TRIES_MAX {
        let options = RequestOptions { level: Some(level), ..RequestOptions::default() };
        let written = match value {
            Some(value) => {
                node.put(key.clone(), Bytes::from_static(value.as_bytes()), options).await
            }
            None => node.delete(key.clone(), options).await,
        };
        if written.is_ok() {
            return;
        }
        cluster.agenda.sleep(Duration::from_millis(500)).await;
    }
    panic!("{key} could not be written");
}
