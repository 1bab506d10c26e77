//! Keyspaces are created, shown, altered and dropped while the cluster runs.

use coterie::proto::v1::{self, put_request};
use serde_json::Value;
use tonic::{Code, Status};

use crate::harness::{Cluster, Grpc, NodeProcess, PATIENCE, coterie, wait_until};

fn create(
    grpc: &Grpc,
    name: &str,
    mode: &str,
    [replication_factor, read_quorum, write_quorum]: [u32; 3],
) -> Result<v1::Keyspace, Status> {
    let (name, mode) = (name.to_owned(), mode.to_owned());
    let unlimited = v1::CreateKeyspaceRequest { name, mode, ..Default::default() };
    let request =
        v1::CreateKeyspaceRequest { replication_factor, read_quorum, write_quorum, ..unlimited };
    let answer = grpc.wait(grpc.admin().create_keyspace(request))?.into_inner();
    Ok(answer.keyspace.expect("a keyspace"))
}

fn alter(grpc: &Grpc, name: &str, [n, r, w]: [u32; 3]) -> Result<v1::Keyspace, Status> {
    let request = v1::AlterKeyspaceRequest {
        name: name.to_owned(),
        replication_factor: n,
        read_quorum: r,
        write_quorum: w,
        ..Default::default()
    };
    let answer = grpc.wait(grpc.admin().alter_keyspace(request))?.into_inner();
    Ok(answer.keyspace.expect("a keyspace"))
}

fn drop_keyspace(grpc: &Grpc, name: &str) -> Result<(), Status> {
    let request = v1::DropKeyspaceRequest { name: name.to_owned() };
    grpc.wait(grpc.admin().drop_keyspace(request)).map(drop)
}

fn names(grpc: &Grpc) -> Vec<String> {
    let call = grpc.wait(grpc.admin().list_keyspaces(v1::ListKeyspacesRequest {}));
    let all = call.expect("a list").into_inner().keyspaces;
    all.into_iter().map(|keyspace| keyspace.name).collect()
}

fn put(grpc: &Grpc, keyspace: &str, key: &str) -> Result<v1::Receipt, Status> {
    let request = v1::PutRequest {
        key: key.to_owned(),
        data: Some(put_request::Data::Value("v".to_owned())),
        keyspace: keyspace.to_owned(),
        ..v1::PutRequest::default()
    };
    Ok(grpc.wait(grpc.kv().put(request))?.into_inner().receipt.expect("a receipt"))
}

fn get(grpc: &Grpc, keyspace: &str, key: &str) -> Result<v1::Receipt, Status> {
    let (key, keyspace) = (key.to_owned(), keyspace.to_owned());
    let request = v1::GetRequest { key, keyspace, ..v1::GetRequest::default() };
    Ok(grpc.wait(grpc.kv().get(request))?.into_inner().receipt.expect("a receipt"))
}

#[track_caller]
fn refused<T: std::fmt::Debug>(result: Result<T, Status>, code: Code, part: &str) {
    let status = result.expect_err("a refusal");
    assert_eq!(status.code(), code, "{status:?}");
    assert!(status.message().contains(part), "{status:?}");
}

#[test]
fn a_keyspace_can_be_used_at_once_where_it_was_created_and_soon_everywhere() {
    let cluster = Cluster::start(3);
    let all: Vec<Grpc> = cluster.nodes.iter().map(NodeProcess::grpc).collect();
    for (node, mode) in [(0, "quorum"), (1, "strong"), (2, "")] {
        let name = format!("k{node}");
        let created = create(&all[node], &name, mode, [0; 3]).expect("created");
        let expected = if mode.is_empty() { "quorum" } else { mode };
        assert_eq!((created.mode.as_str(), created.replication_factor), (expected, 3));
        if expected == "quorum" {
            put(&all[node], &name, "k").expect("it is there");
        }
        for grpc in &all {
            wait_until("every node knows the keyspace", PATIENCE, || {
                get(grpc, &name, "no-such-key").map(drop).or_else(|status| match status.code() {
                    Code::NotFound if status.message().contains("has no value") => Ok(()),
                    _ => Err(status),
                })
            });
        }
    }
    assert_eq!(names(&all[0]), ["default", "k0", "k1", "k2"]);
}

#[test]
fn keyspaces_hold_their_own_keys_and_keep_their_own_promises() {
    let cluster = Cluster::start(3);
    let grpc = cluster.nodes[0].grpc();
    create(&grpc, "all", "quorum", [3, 1, 3]).expect("created");
    create(&grpc, "one", "quorum", [1, 1, 1]).expect("created");
    let receipt = put(&grpc, "all", "k").expect("written");
    assert_eq!((receipt.required, receipt.replicas, receipt.acknowledged.len()), (3, 3, 3));
    let receipt = put(&grpc, "one", "k").expect("written");
    assert_eq!((receipt.required, receipt.replicas, receipt.acknowledged.len()), (1, 1, 1));
    assert_eq!(get(&grpc, "all", "k").expect("read").required, 1);
    refused(get(&grpc, "", "k"), Code::NotFound, "has no value");
    refused(get(&grpc, "none", "k"), Code::NotFound, "there is no keyspace \"none\"");
}

#[test]
fn what_is_altered_holds_for_the_next_request() {
    let cluster = Cluster::start(3);
    let grpc = cluster.nodes[0].grpc();
    create(&grpc, "k", "quorum", [0; 3]).expect("created");
    assert_eq!(put(&grpc, "k", "a").expect("written").required, 2);
    let altered = alter(&grpc, "k", [0, 1, 1]).expect("altered");
    let numbers = (altered.replication_factor, altered.read_quorum, altered.write_quorum);
    assert_eq!((numbers, altered.weak), ((3, 1, 1), true));
    assert_eq!(put(&grpc, "k", "a").expect("written").required, 1);
    alter(&grpc, "default", [0, 0, 3]).expect("altered");
    wait_until("the default keyspace is altered", PATIENCE, || {
        let required = put(&grpc, "", "a").map(|receipt| receipt.required);
        if required.as_ref().ok() == Some(&3) { Ok(()) } else { Err(required) }
    });
    let status = cluster.nodes[0].status().expect("a status");
    assert_eq!(status["replication"]["write_quorum"], 3);
    refused(alter(&grpc, "k", [0; 3]), Code::InvalidArgument, "nothing is to be changed");
    refused(alter(&grpc, "k", [2, 3, 0]), Code::InvalidArgument, "r is 3: it must be from 1 to n");
    refused(alter(&grpc, "none", [2, 0, 0]), Code::NotFound, "no keyspace \"none\"");
}

#[test]
fn rules_are_told_by_name_and_nothing_is_created() {
    let cluster = Cluster::start(3);
    let grpc = cluster.nodes[1].grpc();
    let invalid = [
        ("system", "quorum", [0; 3], "name is system: it is reserved"),
        ("Orders", "quorum", [0; 3], "name is Orders"),
        ("", "quorum", [0; 3], "name is empty"),
        ("k", "weak", [0; 3], "\"weak\" is not a mode"),
        ("k", "quorum", [2, 3, 0], "r is 3: it must be from 1 to n, which is 2"),
        ("k", "quorum", [2, 1, 3], "w is 3: it must be from 1 to n, which is 2"),
        ("k", "quorum", [16, 0, 0], "n is 16: it must be from 1 to 15"),
        ("k", "strong", [3, 1, 0], "r is 1: a strong keyspace of factor 3"),
    ];
    for (name, mode, numbers, part) in invalid {
        refused(create(&grpc, name, mode, numbers), Code::InvalidArgument, part);
    }
    create(&grpc, "first", "strong", [3, 0, 0]).expect("created");
    create(&grpc, "second", "strong", [0; 3]).expect("created: n is that of the first");
    let taken = [
        ("first", "quorum", [0; 3], "a keyspace of that name exists"),
        ("third", "strong", [1, 0, 0], "which was founded with n = 3"),
    ];
    for (name, mode, numbers, part) in taken {
        refused(create(&grpc, name, mode, numbers), Code::FailedPrecondition, part);
    }
    refused(
        alter(&grpc, "first", [5, 0, 0]),
        Code::FailedPrecondition,
        "which was founded with n = 3",
    );
    assert_eq!(names(&grpc), ["default", "first", "second"]);
}

#[test]
fn a_dropped_keyspace_takes_its_keys_with_it_and_its_name_may_be_used_again() {
    let cluster = Cluster::start(3);
    let grpc = cluster.nodes[0].grpc();
    for mode in ["quorum", "strong"] {
        let before = create(&grpc, "k", mode, [0; 3]).expect("created");
        wait_until("a key is written", PATIENCE, || put(&grpc, "k", "a").map(drop));
        drop_keyspace(&grpc, "k").expect("dropped");
        refused(get(&grpc, "k", "a"), Code::NotFound, "there is no keyspace");
        refused(drop_keyspace(&grpc, "k"), Code::NotFound, "there is no keyspace");
        let again = create(&grpc, "k", mode, [0; 3]).expect("created again");
        assert!(again.id > before.id, "{mode}: {} after {}", again.id, before.id);
        wait_until("its keys are gone", PATIENCE, || match get(&grpc, "k", "a") {
            Err(status) if status.message().contains("has no value") => Ok(()),
            other => Err(format!("{other:?}")),
        });
        drop_keyspace(&grpc, "k").expect("dropped");
    }
    let text = "the default keyspace cannot be dropped";
    refused(drop_keyspace(&grpc, "default"), Code::FailedPrecondition, text);
}

#[test]
fn the_command_line_does_the_same() {
    let cluster = Cluster::start(1);
    let node = &cluster.nodes[0];
    let (code, out, error) = coterie(node, &["keyspace", "create", "orders", "--mode", "strong"]);
    assert_eq!((code, out.as_str()), (0, "created orders: strong, N=3 R=2 W=2\n"), "{error}");
    let (_, out, _) = coterie(node, &["keyspace", "list"]);
    let lines: Vec<&str> = out.lines().map(str::trim_end).collect();
    assert!(lines[2].starts_with("orders") && lines[2].contains("strong"), "{out}");
    let (code, _, error) = coterie(node, &["keyspace", "create", "orders"]);
    assert_eq!(code, 1, "{error}");
    let (code, _, error) = coterie(node, &["keyspace", "create", "admin"]);
    assert!(code == 2 && error.contains("reserved"), "{code}: {error}");
    let (_, out, _) = coterie(node, &["keyspace", "describe", "orders", "--output", "json"]);
    let described: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!(
        (&described["mode"], &described["replication_factor"]),
        (&"strong".into(), &3.into())
    );
    assert_eq!(coterie(node, &["keyspace", "describe", "none"]).0, 3);
    let (code, _, error) = coterie(node, &["keyspace", "drop", "orders"]);
    assert!(code == 2 && error.contains("--yes"), "{code}: {error}");
    let (code, out, _) = coterie(node, &["keyspace", "drop", "orders", "--yes"]);
    assert_eq!((code, out.as_str()), (0, "dropped orders with all its keys\n"));
}

#[test]
fn keys_of_strong_keyspaces_are_appended_to_and_compared_by_command() {
    let cluster = Cluster::start(1);
    let node = &cluster.nodes[0];
    assert_eq!(coterie(node, &["keyspace", "create", "s", "--mode", "strong"]).0, 0);
    let run = |line: &str| coterie(node, &line.split(' ').collect::<Vec<&str>>());
    let (code, out, error) = run("append k ab -k s --timeout 20s");
    assert!(code == 0 && out.starts_with("appended, 2 bytes now: version "), "{out}{error}");
    assert!(out.contains(", linearizable, led by "), "{out}");
    assert_eq!(run("append k cd -k s").0, 0);
    assert_eq!(run("get k -k s").1, "abcd");
    assert_eq!(run("get k -k s --consistency stale --max-staleness 1m").1, "abcd");
    let (code, _, error) = run("cas k --expect-absent x -k s");
    assert!(code == 6 && error.contains("it holds \"abcd\""), "{code}: {error}");
    assert_eq!(run("cas k --expect-value abcd x -k s").0, 0);
    assert_eq!(run("get k -k s").1, "x");
    let (_, out, _) = run("cas k --expect-value x y -k s --output json");
    let receipt: Value = serde_json::from_str(&out).expect("JSON");
    let version = receipt["version"].as_str().expect("a version").to_owned();
    let delete = format!("cas k --expect-version {version} --delete -k s");
    assert_eq!((run(&delete).0, run(&delete).0), (0, 6));
    assert_eq!(run("get k -k s").0, 3);
    let (code, _, error) = run("append k ab");
    assert!(code == 2 && error.contains("not available"), "{code}: {error}");
}
