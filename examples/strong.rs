//! Strong keyspaces from a program: what is written is read from then on, from any node, and a
//! write that is repeated because its answer was lost is applied once.
//!
//! Against a cluster on this machine:
//!
//! ```text
//! coterie dev                          # in one terminal; three nodes
//! cargo run --example strong           # in another; name other nodes as arguments
//! ```
//!
//! It creates the keyspace `example` if there is none, puts and gets, appends to a log, moves an
//! amount between two keys of one partition, and lets several tasks count in one key. Kill nodes
//! meanwhile (`coterie dev` says how): the numbers come out all the same.

use std::error::Error;
use std::time::Duration;

use coterie::Client;
use coterie::client::{ClientError, Condition, Keyspace, Mode};

const NODE: &str = "127.0.0.1:7400";
const TASKS: u64 = 8;
const INCREMENTS: u64 = 25;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut nodes: Vec<String> = std::env::args().skip(1).collect();
    if nodes.is_empty() {
        nodes.push(NODE.to_owned());
    }
    // One node is enough: the others are learnt from it.
    let client = Client::builder().nodes(nodes).timeout(Duration::from_secs(10)).connect()?;
    create_if_absent(&client, "example").await?;
    let keyspace = client.keyspace("example");
    put_and_get(&keyspace).await?;
    append(&keyspace).await?;
    transfer(&keyspace).await?;
    count(&keyspace).await?;
    Ok(())
}

async fn create_if_absent(client: &Client, name: &str) -> Result<(), ClientError> {
    let keyspaces = client.admin().list_keyspaces().await?;
    if !keyspaces.iter().any(|keyspace| keyspace.name == name) {
        let created = client.admin().create_keyspace(name, Mode::Strong).await?;
        println!("created {name} with {} replicas of each key", created.replication_factor);
    }
    Ok(())
}

async fn put_and_get(keyspace: &Keyspace) -> Result<(), ClientError> {
    let receipt = keyspace.put("greeting", "hello").await?;
    println!("put greeting at version {}", receipt.version);
    if let Some(value) = keyspace.get("greeting").await? {
        println!("got {:?}", String::from_utf8_lossy(&value.bytes));
    }
    Ok(())
}

async fn append(keyspace: &Keyspace) -> Result<(), ClientError> {
    for line in ["one\n", "two\n", "three\n"] {
        let appended = keyspace.append("log", line).await?;
        println!("the log has {} bytes", appended.value_bytes);
    }
    Ok(())
}

/// Both keys have the tag `{bank}`, so they lie in one partition and change together.
async fn transfer(keyspace: &Keyspace) -> Result<(), ClientError> {
    let (from, to) = ("{bank}alice", "{bank}bob");
    keyspace.transact().put(from, "100").put(to, "0").await?;
    let moved = keyspace.transact().check(from, Condition::Value("100".into()));
    let done = moved.put(from, "60").put(to, "40").await?;
    println!("moved 40 at version {}", done.receipt.version);
    Ok(())
}

/// Several tasks count in one key; none of their increments is lost or counted twice.
async fn count(keyspace: &Keyspace) -> Result<(), Box<dyn Error>> {
    keyspace.put("counter", "0").await?;
    let tasks = (0..TASKS).map(|_| tokio::spawn(increments(keyspace.clone())));
    for task in tasks.collect::<Vec<_>>() {
        task.await??;
    }
    let value = keyspace.get("counter").await?.ok_or("the counter is gone")?;
    let counted = String::from_utf8_lossy(&value.bytes);
    println!("{TASKS} tasks counted to {counted}, which should be {}", TASKS * INCREMENTS);
    Ok(())
}

async fn increments(keyspace: Keyspace) -> Result<(), ClientError> {
    for _ in 0..INCREMENTS {
        increment(&keyspace).await?;
    }
    Ok(())
}

/// Reads, and writes one more if nobody else did in between; else tries again.
async fn increment(keyspace: &Keyspace) -> Result<(), ClientError> {
    loop {
        let Some(value) = keyspace.get("counter").await? else { return Ok(()) };
        let number: u64 = String::from_utf8_lossy(&value.bytes).parse().unwrap_or(0);
        let next = (number + 1).to_string();
        let change = keyspace.compare_and_set("counter").expect_version(value.version).put(next);
        match change.await {
            Err(ClientError::ConditionFailed { .. }) => continue,
            other => return other.map(|_| ()),
        }
    }
}
