//! Keyspaces that are created, altered and dropped.

use crate::protocol::system::keyspace::{
    DROPPED_KEYSPACES_MAX, KEYSPACES_MAX, Mode, ReplicationAsked,
};
use crate::protocol::system::limits::{KeyspaceLimits, LimitsAsked};
use crate::protocol::system::samples::{Cluster, asked, create, drop_named, strong};
use crate::protocol::system::settings::Replication;
use crate::protocol::system::{SystemCommand, SystemReply};
use crate::types::{KeyspaceId, Merge};

const NOTHING: ReplicationAsked =
    ReplicationAsked { factor: None, read_quorum: None, write_quorum: None };

fn alter(name: &str, replication: ReplicationAsked) -> SystemCommand {
    SystemCommand::AlterKeyspace {
        name: name.to_owned(),
        replication,
        limits: LimitsAsked::default(),
    }
}

fn replication(factor: u32, read_quorum: u32, write_quorum: u32) -> Replication {
    Replication { factor, read_quorum, write_quorum }
}

/// N, R and W of a keyspace.
fn of(cluster: &Cluster, name: &str) -> Replication {
    cluster.state.keyspace_named(name).unwrap().replication
}

#[test]
fn what_is_not_named_is_filled_in() {
    let cases = [
        (Mode::Quorum, NOTHING, replication(3, 2, 2)),
        (Mode::Quorum, asked(None, Some(1), None), replication(3, 1, 2)),
        (Mode::Quorum, asked(Some(5), None, None), replication(5, 3, 3)),
        (Mode::Quorum, asked(Some(5), None, Some(5)), replication(5, 3, 5)),
        (Mode::Quorum, asked(Some(1), None, None), replication(1, 1, 1)),
        (Mode::Strong, NOTHING, replication(3, 2, 2)),
        (Mode::Strong, asked(Some(4), None, None), replication(4, 3, 3)),
        (Mode::Strong, asked(Some(5), Some(3), Some(3)), replication(5, 3, 3)),
    ];
    for (mode, asked, expected) in cases {
        let mut cluster = Cluster::sized(1);
        let reply = cluster.apply(create("k", mode, asked));
        assert_eq!(reply, Ok(SystemReply::Created { keyspace: KeyspaceId(1) }));
        assert_eq!(of(&cluster, "k"), expected, "{asked:?}");
        assert_eq!(cluster.state.keyspace(KeyspaceId(1)).unwrap().mode, mode);
    }
}

#[test]
fn a_strong_keyspace_takes_the_factor_of_those_that_exist() {
    let mut cluster = Cluster::sized(5);
    cluster.apply(strong("first", 5)).unwrap();
    let placed = cluster.state.groups().clone();
    cluster.apply(create("second", Mode::Strong, NOTHING)).unwrap();
    assert_eq!(of(&cluster, "second"), replication(5, 3, 3));
    assert_eq!(*cluster.state.groups(), placed, "all are served by the same groups");
}

#[test]
fn names_and_numbers_have_rules() {
    let long = "a".repeat(65);
    let quorum = |name: &str| create(name, Mode::Quorum, NOTHING);
    let asks = |n, r, w| create("k", Mode::Quorum, asked(n, r, w));
    let cases = [
        (quorum(""), "name is empty: it must have 1 to 64 characters"),
        (quorum(&long), "it must have 1 to 64 characters of a-z, 0-9, '_' and '-'"),
        (quorum("Orders"), "name is Orders"),
        (quorum("1st"), "begin with a letter"),
        (quorum("a/b"), "name is a/b"),
        (quorum("größe"), "name is größe"),
        (quorum("system"), "name is system: it is reserved"),
        (quorum("default"), "name is \"default\": a keyspace of that name exists (id 0)"),
        (asks(Some(0), None, None), "n is 0: it must be from 1 to 15"),
        (asks(Some(16), None, None), "n is 16: it must be from 1 to 15"),
        (asks(None, Some(0), None), "r is 0: it must be from 1 to n, which is 3"),
        (asks(Some(2), Some(3), None), "r is 3: it must be from 1 to n, which is 2"),
        (asks(None, None, Some(4)), "w is 4: it must be from 1 to n, which is 3"),
        (strong("k", 0), "n is 0"),
        (strong("k", u32::MAX), "n is 4294967295"),
        (
            create("k", Mode::Strong, asked(None, Some(1), None)),
            "r is 1: a strong keyspace of factor 3 always uses its majority of 2; leave it out",
        ),
        (create("k", Mode::Strong, asked(None, None, Some(3))), "w is 3: a strong keyspace"),
    ];
    for (command, expected) in cases {
        let refusal = Cluster::sized(1).refused(command);
        assert!(refusal.contains(expected), "{refusal}");
    }
    let mut cluster = Cluster::sized(1);
    for name in ["a", "a-b_9", &"a".repeat(64)] {
        cluster.apply(quorum(name)).unwrap();
    }
}

#[test]
fn all_strong_keyspaces_share_one_factor() {
    let mut cluster = Cluster::sized(3);
    cluster.apply(strong("orders", 3)).unwrap();
    let refusal = cluster.refused(strong("carts", 5));
    assert!(refusal.contains("n is 5: all strong keyspaces share"), "{refusal}");
    assert!(refusal.contains("founded with n = 3 and is kept"), "{refusal}");
}

#[test]
fn the_factor_outlives_the_keyspace_that_brought_it() {
    let mut cluster = Cluster::sized(5);
    assert_eq!(cluster.state.strong_factor(), None);
    cluster.apply(strong("orders", 5)).unwrap();
    cluster.apply(drop_named("orders")).unwrap();
    assert_eq!(cluster.state.strong_factor(), Some(5));
    let refusal = cluster.refused(strong("carts", 3));
    assert!(refusal.contains("n is 3") && refusal.contains("give 5"), "{refusal}");
    cluster.apply(create("carts", Mode::Strong, NOTHING)).unwrap();
    assert_eq!(of(&cluster, "carts"), replication(5, 3, 3), "not the default keyspace's factor");
    cluster.apply(strong("orders", 5)).unwrap();
}

#[test]
fn a_quorum_keyspace_is_altered_within_the_rules() {
    let mut cluster = Cluster::sized(1);
    cluster.apply(create("k", Mode::Quorum, NOTHING)).unwrap();
    let steps = [
        (asked(None, Some(1), None), replication(3, 1, 2)),
        (asked(Some(5), None, None), replication(5, 1, 2)),
        (NOTHING, replication(5, 1, 2)),
        (asked(Some(1), Some(1), Some(1)), replication(1, 1, 1)),
    ];
    for (asked, expected) in steps {
        let (epoch, before) = (cluster.state.epoch(), of(&cluster, "k"));
        let reply = cluster.apply(alter("k", asked));
        assert_eq!(reply, Ok(SystemReply::Altered { keyspace: KeyspaceId(1) }));
        assert_eq!(of(&cluster, "k"), expected);
        let others_answer = before.factor != expected.factor;
        assert_eq!(cluster.state.epoch() > epoch, others_answer);
        cluster.settle();
    }
    let refusal = cluster.refused(alter("k", asked(None, Some(2), None)));
    assert!(refusal.contains("r is 2: it must be from 1 to n, which is 1"), "{refusal}");
    let refusal = cluster.refused(alter("other", NOTHING));
    assert_eq!(refusal, "name is \"other\": there is no keyspace of that name");
}

#[test]
fn the_default_keyspace_is_the_clusters() {
    let mut cluster = Cluster::sized(1);
    cluster.apply(alter("default", asked(Some(5), Some(4), Some(4)))).unwrap();
    assert_eq!(cluster.state.settings().replication, replication(5, 4, 4));
    cluster.apply(create("k", Mode::Quorum, NOTHING)).unwrap();
    assert_eq!(of(&cluster, "k"), replication(5, 4, 4));
    let refusal = cluster.refused(drop_named("default"));
    assert!(refusal.contains("the default keyspace cannot be dropped"), "{refusal}");
}

#[test]
fn a_strong_keyspace_cannot_be_altered() {
    let mut cluster = Cluster::sized(3);
    cluster.apply(strong("orders", 3)).unwrap();
    let refusal = cluster.refused(alter("orders", asked(Some(5), None, None)));
    assert!(refusal.contains("n is 5") && refusal.contains("n = 3"), "{refusal}");
    let refusal = cluster.refused(alter("orders", asked(None, None, Some(1))));
    assert!(refusal.contains("w is 1: a strong keyspace"), "{refusal}");
    cluster.apply(alter("orders", asked(Some(3), Some(2), None))).unwrap();
}

#[test]
fn weak_quorums_are_told_from_strong_ones() {
    let weak = |n, r, w| replication(n, r, w).is_weak();
    assert!(weak(3, 1, 2) && weak(2, 1, 1) && weak(15, 7, 8));
    assert!(!weak(3, 2, 2) && !weak(1, 1, 1) && !weak(3, 3, 1));
    let mut cluster = Cluster::sized(1);
    cluster.apply(create("loose", Mode::Quorum, asked(None, Some(1), Some(1)))).unwrap();
    cluster.apply(strong("orders", 3)).unwrap();
    assert!(cluster.state.keyspace_named("loose").unwrap().is_weak());
    assert!(!cluster.state.keyspace_named("orders").unwrap().is_weak());
}

#[test]
fn a_dropped_name_is_free_and_its_id_is_not() {
    let mut cluster = Cluster::sized(1);
    cluster.apply(create("k", Mode::Quorum, NOTHING)).unwrap();
    let reply = cluster.apply(drop_named("k"));
    assert_eq!(reply, Ok(SystemReply::Dropped { keyspace: KeyspaceId(1) }));
    assert!(cluster.refused(drop_named("k")).contains("there is no keyspace of that name"));
    let reply = cluster.apply(create("k", Mode::Quorum, NOTHING));
    assert_eq!(reply, Ok(SystemReply::Created { keyspace: KeyspaceId(2) }));
}

#[test]
fn a_request_that_comes_twice_is_answered_alike() {
    let mut cluster = Cluster::sized(1);
    let created = Ok(SystemReply::Created { keyspace: KeyspaceId(1) });
    let dropped = Ok(SystemReply::Dropped { keyspace: KeyspaceId(1) });
    let command = create("k", Mode::Quorum, NOTHING);
    assert_eq!(cluster.request(100, command.clone()), created);
    assert_eq!(cluster.request(100, command.clone()), created);
    assert!(cluster.refused(command.clone()).contains("exists (id 1)"), "another request is not");
    assert_eq!(cluster.request(101, drop_named("k")), dropped);
    assert_eq!(cluster.request(101, drop_named("k")), dropped);
    assert_eq!(cluster.request(100, command.clone()), created, "it does not come back by this");
    assert!(cluster.state.keyspace_named("k").is_none());
    cluster.request(102, command).unwrap();
    assert_eq!(cluster.request(101, drop_named("k")), dropped);
    assert!(cluster.state.keyspace_named("k").is_some(), "the later one stays");
    // What the cluster was founded with was not created by a request.
    let reply = cluster.request(0, create("other", Mode::Quorum, NOTHING));
    assert_eq!(reply, Ok(SystemReply::Created { keyspace: KeyspaceId(3) }));
}

#[test]
fn an_alteration_that_comes_again_undoes_none_that_was_made_since() {
    let mut cluster = Cluster::sized(1);
    cluster.apply(create("k", Mode::Quorum, NOTHING)).unwrap();
    let (five, one) = (asked(Some(5), None, None), asked(Some(1), Some(1), Some(1)));
    let altered = Ok(SystemReply::Altered { keyspace: KeyspaceId(1) });
    assert_eq!(cluster.request(100, alter("k", five)), altered);
    cluster.settle();
    assert_eq!(cluster.request(101, alter("k", one)), altered);
    cluster.settle();
    assert_eq!(cluster.request(100, alter("k", five)), altered);
    assert_eq!(of(&cluster, "k"), replication(1, 1, 1));
    for later in 102..150 {
        cluster.request(later, alter("k", one)).unwrap();
    }
    let kept = cluster.state.keyspace_named("k").map(|keyspace| keyspace.altered_by.len());
    assert_eq!(kept, Some(16));
}

#[test]
fn keyspaces_are_limited_and_drops_are_forgotten_in_time() {
    let mut cluster = Cluster::sized(1);
    for number in 1..KEYSPACES_MAX {
        cluster.apply(create(&format!("k{number}"), Mode::Quorum, NOTHING)).unwrap();
    }
    let refusal = cluster.refused(create("more", Mode::Quorum, NOTHING));
    assert!(refusal.contains("there are 1024 keyspaces, and 1024 are the most"), "{refusal}");
    for _ in 0..DROPPED_KEYSPACES_MAX + 5 {
        cluster.apply(drop_named("k1")).unwrap();
        cluster.apply(create("k1", Mode::Quorum, NOTHING)).unwrap();
    }
    let kept = cluster.state.keyspaces.len();
    assert_eq!(kept, KEYSPACES_MAX + DROPPED_KEYSPACES_MAX);
    assert!(cluster.state.is_dropped(KeyspaceId(1)), "also one that is forgotten");
}

#[test]
fn limits_are_set_changed_and_lifted_in_keyspaces_of_any_mode() {
    let ask = |operations_per_second, bytes_per_second| LimitsAsked {
        operations_per_second,
        bytes_per_second,
    };
    for mode in [Mode::Quorum, Mode::Strong] {
        let mut cluster = Cluster::sized(3);
        let name = || "k".to_owned();
        let limits = ask(Some(10), None);
        let replication = Some(NOTHING);
        let merge = Merge::Lww;
        let created =
            SystemCommand::CreateKeyspace { name: name(), mode, merge, replication, limits };
        cluster.apply(created).unwrap();
        let mut limited = |limits| {
            let replication = NOTHING;
            let altered = SystemCommand::AlterKeyspace { name: name(), replication, limits };
            cluster.apply(altered).unwrap();
            let KeyspaceLimits { operations_per_second, bytes_per_second } =
                cluster.state.keyspace_named("k").unwrap().limits;
            (operations_per_second, bytes_per_second)
        };
        assert_eq!(limited(ask(None, None)), (Some(10), None));
        assert_eq!(limited(ask(None, Some(20))), (Some(10), Some(20)));
        assert_eq!(limited(ask(Some(0), None)), (None, Some(20)));
    }
}

#[test]
fn a_keyspace_tells_by_its_id_how_its_copies_merge() {
    let mut cluster = Cluster::sized(3);
    let create = |name: &str, mode, merge| SystemCommand::CreateKeyspace {
        name: name.to_owned(),
        mode,
        merge,
        replication: Some(NOTHING),
        limits: LimitsAsked::default(),
    };
    let refused = cluster.refused(create("s", Mode::Strong, Merge::Siblings));
    assert!(refused.contains("merge") && refused.contains("do not differ"), "{refused}");
    for (number, merge) in [(1, Merge::Siblings), (2, Merge::Lww)] {
        let name = merge.name();
        cluster.apply(create(name, Mode::Quorum, merge)).unwrap();
        let id = cluster.state.keyspace_named(name).unwrap().id;
        assert_eq!((id.number(), id.merge()), (number, merge));
        assert!(!cluster.state.is_dropped(id));
    }
    cluster.apply(SystemCommand::DropKeyspace { name: "siblings".to_owned() }).unwrap();
    assert!(cluster.state.is_dropped(KeyspaceId::numbered(1, Merge::Siblings)));
    assert!(!cluster.state.is_dropped(KeyspaceId::numbered(3, Merge::Siblings)));
}
