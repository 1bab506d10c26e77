//! Watches: over gRPC, HTTP and the command line, and by the client while nodes die.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Lines, Write};
use std::net::TcpStream;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use coterie::Client;
use coterie::client::Keyspace;
use coterie::proto::v1;
use coterie::proto::v1::step::Action;
use coterie::proto::v1::watch_request::Selection;
use coterie::proto::v1::watch_response::News;
use parking_lot::Mutex;
use serde_json::Value;
use tonic::{Code, Status, Streaming};

use super::{NAME, path, start, start_with};
use crate::harness::{Cluster, Grpc, NodeProcess, PATIENCE, coterie, wait_until};

/// Keys that are written to, each by a writer of its own.
const WRITERS: usize = 6;
/// Acknowledged writes of each before, while, and after a node is down.
const WRITES: usize = 40;

fn begin(
    grpc: &Grpc,
    selection: Option<Selection>,
    from: &str,
) -> Result<Streaming<v1::WatchResponse>, Status> {
    let (keyspace, from) = (NAME.to_owned(), from.to_owned());
    let request = v1::WatchRequest { keyspace, selection, from };
    grpc.wait(grpc.kv().watch(request)).map(tonic::Response::into_inner)
}

/// The next message that is more than progress.
fn hear(grpc: &Grpc, stream: &mut Streaming<v1::WatchResponse>) -> v1::WatchResponse {
    loop {
        let message = async { tokio::time::timeout(PATIENCE, stream.message()).await };
        let message = grpc.wait(message);
        let message = message.expect("in time").expect("a message").expect("no end");
        if !matches!(message.news, Some(News::Progress(_))) {
            return message;
        }
    }
}

fn changes(message: v1::WatchResponse) -> Vec<(String, Option<String>, String)> {
    let Some(News::Changes(changes)) = message.news else { panic!("{message:?} tells no change") };
    let one = |event: v1::WatchEvent| {
        let value = event.data.map(|data| match data {
            v1::watch_event::Data::Value(text) => text,
            v1::watch_event::Data::ValueBytes(bytes) => format!("{bytes:?}"),
        });
        (event.key, value, event.version)
    };
    changes.events.into_iter().map(one).collect()
}

fn version_of(node: &NodeProcess, key: &str) -> String {
    let reply = node.get(&path(key)).expect(200).json();
    reply["version"].as_str().expect("a version").to_owned()
}

#[test]
fn changes_come_in_order_and_a_watch_goes_on_by_its_token() {
    let cluster = start();
    over_grpc(&cluster);
    a_transaction_comes_whole(&cluster);
    over_http(&cluster.nodes[1]);
    by_the_command_line(&cluster.nodes[2]);
    what_is_wrong_is_named(&cluster.nodes[0]);
    let status = cluster.nodes[0].status().expect("a status");
    let activities = status["activities"].as_array().expect("activities");
    assert!(activities.iter().any(|activity| activity["name"] == "watches"), "{activities:?}");
    let metrics = cluster.nodes[0].get("/metrics").text();
    for name in ["coterie_watches_open", "coterie_watch_events_total", "coterie_watches_lost_total"]
    {
        assert!(metrics.contains(name), "{name} is missing");
    }
}

fn over_grpc(cluster: &Cluster) {
    let [writer, watched, other] = [0, 1, 2].map(|number| &cluster.nodes[number]);
    let grpc = watched.grpc();
    writer.put(&path("g:early"), "0").expect(200);
    let prefix = Some(Selection::Prefix("g:".to_owned()));
    let mut stream = begin(&grpc, prefix.clone(), "").expect("a watch");
    let created = hear(&grpc, &mut stream);
    assert!(matches!(created.news, Some(News::Created(_))), "{created:?}");
    writer.put(&path("elsewhere"), "x").expect(200);
    writer.put(&path("g:k"), "1").expect(200);
    let version = version_of(writer, "g:k");
    let message = hear(&grpc, &mut stream);
    let token = message.token.clone();
    assert_eq!(changes(message), [("g:k".to_owned(), Some("1".to_owned()), version)]);
    drop(stream);
    other.put(&path("g:k"), "2").expect(200);
    let version = version_of(writer, "g:k");
    writer.delete(&path("g:k")).expect(200);
    // A delete of nothing changes nothing.
    writer.delete(&path("g:k")).expect(200);
    other.put(&path("g:k"), "3").expect(200);
    for node in [watched, other] {
        let grpc = node.grpc();
        let mut stream = begin(&grpc, prefix.clone(), &token).expect("it goes on");
        assert_eq!(hear(&grpc, &mut stream).token, token, "from where it was");
        let mut told = Vec::new();
        while told.len() < 3 {
            told.extend(changes(hear(&grpc, &mut stream)));
        }
        assert_eq!(told[0], ("g:k".to_owned(), Some("2".to_owned()), version.clone()));
        let values: Vec<Option<&str>> = told.iter().map(|(_, value, _)| value.as_deref()).collect();
        assert_eq!(values, [Some("2"), None, Some("3")]);
    }
}

fn a_transaction_comes_whole(cluster: &Cluster) {
    let grpc = cluster.nodes[2].grpc();
    let mut stream =
        begin(&grpc, Some(Selection::Prefix("t:{a}".to_owned())), "").expect("a watch");
    hear(&grpc, &mut stream);
    let step = |key: &str| v1::Step {
        key: format!("t:{{a}}:{key}"),
        action: Some(Action::Put(key.to_owned().into())),
    };
    let steps = vec![step("one"), step("two"), step("three")];
    let request = v1::TransactRequest { keyspace: NAME.to_owned(), steps, session: None };
    grpc.wait(grpc.kv().transact(request)).expect("written");
    let told = changes(hear(&grpc, &mut stream));
    assert_eq!(told.len(), 3, "{told:?}");
    assert!(told.iter().all(|(_, _, version)| *version == told[0].2), "{told:?}");
}

/// The lines of a watch over HTTP, as they come.
fn http_lines(node: &NodeProcess, path_and_query: &str) -> impl Iterator<Item = Value> + use<> {
    let mut stream = TcpStream::connect(node.spec.client_address).expect("a connection");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let request = format!("GET {path_and_query} HTTP/1.1\r\nhost: {}\r\n\r\n", node.spec.name);
    stream.write_all(request.as_bytes()).expect("sent");
    let lines = BufReader::new(stream).lines().map(|line| line.expect("a line"));
    // Besides these there are the head, and the lengths of chunks.
    lines
        .filter(|line| line.starts_with('{'))
        .map(|line| serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error} in {line}")))
}

fn over_http(node: &NodeProcess) {
    let mut lines = http_lines(node, &path("h?watch=true"));
    let created = lines.next().expect("a line");
    assert_eq!(created["type"], "created");
    node.put(&path("h"), "1").expect(200);
    node.put(&path("h2"), "other").expect(200);
    node.delete(&path("h")).expect(200);
    let mut events = Vec::new();
    while events.len() < 2 {
        let line = lines.next().expect("a line");
        assert!(line["token"].is_string(), "{line}");
        events.extend(line["events"].as_array().cloned().unwrap_or_default());
    }
    assert_eq!((&events[0]["event"], &events[0]["value"]), (&"put".into(), &"1".into()));
    assert_eq!((&events[1]["event"], &events[1]["key"]), (&"delete".into(), &"h".into()));
    let token = created["token"].as_str().expect("a token");
    let again = http_lines(node, &path(&format!("h?watch=true&from={token}")));
    let again: Vec<Value> = again.filter(|line| line["type"] == "changes").take(1).collect();
    assert_eq!(again[0]["events"][0], events[0]);
    let mut all = http_lines(node, &format!("/v1/{NAME}?watch=true&prefix=h"));
    assert_eq!(all.next().expect("a line")["type"], "created");
    node.put(&path("h3"), "3").expect(200);
    let told = all.find(|line| line["type"] == "changes").expect("a change");
    assert_eq!(told["events"][0]["key"], "h3");
}

/// `coterie watch`, killed when dropped.
struct Watch {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Watch {
    fn begin(node: &NodeProcess, arguments: &[&str]) -> Watch {
        let address = node.spec.client_address.to_string();
        let mut command = Command::new(env!("CARGO_BIN_EXE_coterie"));
        command.args(["--node", &address, "watch", NAME]).args(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the coterie binary runs");
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        Watch { child, lines }
    }

    fn line(&mut self) -> String {
        self.lines.next().expect("no end").expect("a line")
    }

    /// The next line that is a change, or says that the watch stands.
    fn event(&mut self) -> Value {
        loop {
            let line = self.line();
            let event: Value = serde_json::from_str(&line).expect("JSON");
            if event["event"] != "progress" {
                return event;
            }
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn by_the_command_line(node: &NodeProcess) {
    let mut watch = Watch::begin(node, &["--prefix", "c:", "--json"]);
    let created = watch.event();
    assert_eq!(created["event"], "created");
    node.put(&path("c:1"), "one").expect(200);
    let event = watch.event();
    assert_eq!((&event["event"], &event["value"]), (&"put".into(), &"one".into()));
    drop(watch);
    node.delete(&path("c:1")).expect(200);
    let token = created["token"].as_str().expect("a token");
    let mut watch = Watch::begin(node, &["--prefix", "c:", "--from", token]);
    assert_eq!((watch.line(), watch.line()), ("put\tc:1\tone".into(), "delete\tc:1".into()));
    let pid = watch.child.id();
    let stopped = Command::new("sh").args(["-c", &format!("kill -INT {pid}")]).status();
    assert!(stopped.expect("a shell").success());
    let status = watch.child.wait().expect("it ends");
    let error = std::io::read_to_string(watch.child.stderr.take().expect("piped")).expect("text");
    assert!(status.success() && error.contains("go on with --from "), "{status} {error}");
}

fn what_is_wrong_is_named(node: &NodeProcess) {
    let grpc = node.grpc();
    let refused = |request: v1::WatchRequest| {
        let status = grpc.wait(grpc.kv().watch(request)).expect_err("refused");
        (status.code(), status.message().to_owned())
    };
    let expected = "a watch, which needs a keyspace of mode strong, is not available in keyspace \
                    \"default\", whose mode is quorum";
    let of_quorum = refused(v1::WatchRequest::default());
    assert_eq!(of_quorum, (Code::FailedPrecondition, expected.to_owned()));
    let (keyspace, from) = (NAME.to_owned(), "abc".to_owned());
    let (code, message) =
        refused(v1::WatchRequest { keyspace, from, ..v1::WatchRequest::default() });
    assert_eq!(code, Code::InvalidArgument);
    assert!(message.starts_with("from: is malformed"), "{message}");
    let keyspace = "nowhere".to_owned();
    let (code, _) = refused(v1::WatchRequest { keyspace, ..v1::WatchRequest::default() });
    assert_eq!(code, Code::NotFound);
    let reply = node.get("/kv/k?watch=true").expect(400).json();
    assert_eq!(reply["code"], "not_available");
    let reply = node.get(&format!("/v1/{NAME}?watch=true&limit=1")).expect(400).json();
    let error = reply["error"].as_str().unwrap_or_default();
    assert!(error.starts_with("query: \"limit\" is not a parameter here"), "{error}");
    let (code, _, error) = coterie(node, &["watch", "default"]);
    assert!(code == 2 && error.contains("needs a keyspace of mode strong"), "{code} {error}");
}

#[test]
fn a_watch_that_falls_behind_is_lost_and_too_many_are_refused() {
    let few = ["--watch-history-events-max", "4", "--watches-max", "1"];
    let mut cluster = start_with(&few);
    let grpc = cluster.nodes[0].grpc();
    let key = Some(Selection::Key("k".to_owned()));
    let mut stream = begin(&grpc, key.clone(), "").expect("a watch");
    let token = hear(&grpc, &mut stream).token;
    let refused = begin(&grpc, key.clone(), "").expect_err("one is open");
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert_eq!(refused.message(), "overloaded: watches_max is 1");
    drop(stream);
    for number in 0..20 {
        cluster.nodes[1].put(&path("k"), &number.to_string()).expect(200);
    }
    let mut stream = None;
    wait_until("the place is free again", PATIENCE, || {
        stream = Some(begin(&grpc, key.clone(), &token).map_err(|status| status.to_string())?);
        Ok::<(), String>(())
    });
    let mut stream = stream.expect("begun");
    hear(&grpc, &mut stream);
    let News::Lost(lost) = hear(&grpc, &mut stream).news.expect("news") else { panic!("not lost") };
    assert!(lost.oldest > lost.position, "{lost:?}");
    let end = grpc.wait(stream.message()).expect("an end");
    assert_eq!(end, None);
    let (code, _, error) = coterie(&cluster.nodes[1], &["watch", NAME, "k", "--from", &token]);
    assert!(code == 1 && error.contains("the watch is lost"), "{code} {error}");
    // A node that stops does not wait for those who watch.
    let mut stream = begin(&grpc, key, "").expect("a watch");
    hear(&grpc, &mut stream);
    assert!(cluster.nodes[0].terminate().success());
    let ended = grpc.wait(stream.message()).expect_err("it ends with the node");
    assert_eq!(ended.code(), Code::Unavailable);
}

/// What writers were told, and what a watcher was, of one key: values name their write.
#[derive(Default)]
struct Told {
    acknowledged: Mutex<BTreeMap<String, Vec<String>>>,
    watched: Mutex<BTreeMap<String, Vec<String>>>,
    writes: AtomicUsize,
    is_over: AtomicBool,
}

async fn write(keyspace: Keyspace, told: Arc<Told>, number: usize) {
    let key = format!("w:{number}");
    let mut attempt = 0;
    while !told.is_over.load(Ordering::Relaxed) {
        attempt += 1;
        let value = attempt.to_string();
        if keyspace.put(&key, value.clone()).await.is_ok() {
            told.acknowledged.lock().entry(key.clone()).or_default().push(value);
            told.writes.fetch_add(1, Ordering::Relaxed);
        }
    }
}

async fn watch(keyspace: Keyspace, told: Arc<Told>) {
    let mut watching = keyspace.watch().prefix("w:").await.expect("a watch");
    loop {
        // While no node serves in time, it is asked again.
        let Ok(changes) = watching.next().await else { continue };
        let mut watched = told.watched.lock();
        for event in changes.events {
            let value = event.value.expect("nothing is deleted");
            let value = String::from_utf8(value.to_vec()).expect("text");
            watched.entry(event.key).or_default().push(value);
        }
    }
}

/// A node dies that leads some partitions, follows in others, and serves the watch.
#[test]
fn every_acknowledged_write_is_watched_once_while_nodes_die() {
    let mut cluster = start();
    let addresses: Vec<String> =
        cluster.nodes.iter().map(|node| node.spec.client_address.to_string()).collect();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let told = Arc::new(Told::default());
    let writers = Client::builder().nodes(&addresses[..2]).connect().expect("a client");
    // A strict client asks its nodes in their order: the last one first.
    let reversed = addresses.iter().rev();
    let watcher = Client::builder().nodes(reversed).strict().connect().expect("a client");
    let watching = runtime.spawn(watch(watcher.keyspace(NAME), told.clone()));
    wait_until("the last node has the watch", PATIENCE, || {
        let metrics = cluster.nodes[2].get("/metrics").text();
        let open = metrics.lines().any(|line| line == "coterie_watches_open 1");
        if open { Ok(()) } else { Err("no watch is open") }
    });
    let writing: Vec<_> = (0..WRITERS)
        .map(|number| runtime.spawn(write(writers.keyspace(NAME), told.clone(), number)))
        .collect();
    let written = |more: usize| {
        let due = told.writes.load(Ordering::Relaxed) + more * WRITERS;
        wait_until("writers go on", PATIENCE, || {
            let writes = told.writes.load(Ordering::Relaxed);
            if writes >= due { Ok(()) } else { Err(writes) }
        });
    };
    written(WRITES);
    cluster.nodes[2].kill();
    written(WRITES);
    cluster.nodes[2].start();
    cluster.nodes[2].wait_ready();
    written(WRITES);
    told.is_over.store(true, Ordering::Relaxed);
    for writer in writing {
        runtime.block_on(writer).expect("a writer ends");
    }
    wait_until("all is watched", PATIENCE, || is_watched(&told));
    watching.abort();
    let (acknowledged, watched) = (told.acknowledged.lock(), told.watched.lock());
    for (key, acknowledged) in acknowledged.iter() {
        let watched = &watched[key];
        let mut once = watched.clone();
        once.sort();
        once.dedup();
        assert_eq!(once.len(), watched.len(), "{key} is told twice: {watched:?}");
        // A write whose outcome nobody knows may be watched, too.
        let told: Vec<&String> =
            watched.iter().filter(|value| acknowledged.contains(value)).collect();
        assert!(told.into_iter().eq(acknowledged), "{key}: {acknowledged:?} and {watched:?}");
    }
}

fn is_watched(told: &Told) -> Result<(), String> {
    let (acknowledged, watched) = (told.acknowledged.lock(), told.watched.lock());
    let count =
        |values: &BTreeMap<String, Vec<String>>| values.values().map(Vec::len).sum::<usize>();
    let lacks = acknowledged.iter().find_map(|(key, values)| {
        let watched = watched.get(key);
        let lacking = values.iter().find(|value| !watched.is_some_and(|all| all.contains(value)));
        lacking.map(|value| format!("{value} of {key}"))
    });
    match lacks {
        None => Ok(()),
        Some(lacking) => Err(format!(
            "{lacking} is missing among {} of {}",
            count(&watched),
            count(&acknowledged)
        )),
    }
}
