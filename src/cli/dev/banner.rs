//! What is shown once a local cluster is up: addresses, and commands to paste.

use serde_json::{Value, json};

use crate::cli::dev::layout::Layout;
use crate::cli::dev::process::NodeProcess;
use crate::cli::output::table;

/// The table of nodes and the commands to try.
pub(super) fn text(nodes: &[NodeProcess], layout: &Layout) -> String {
    let row = |node: &NodeProcess| {
        vec![
            node.place.name.clone(),
            node.place.client.to_string(),
            node.place.peer.to_string(),
            node.pid().map_or_else(|| String::from("-"), |pid| pid.to_string()),
            node.place.log.display().to_string(),
        ]
    };
    let header = ["NODE", "CLIENTS", "PEERS", "PID", "LOG"];
    let nodes = table(&header, &[], nodes.iter().map(row).collect());
    format!("\n{nodes}\n\n{}", commands(layout))
}

/// The same nodes for programs.
pub(super) fn json(nodes: &[NodeProcess], layout: &Layout) -> Value {
    let node = |node: &NodeProcess| {
        json!({
            "name": node.place.name,
            "client_address": node.place.client.to_string(),
            "peer_address": node.place.peer.to_string(),
            "pid": node.pid(),
            "log": node.place.log.display().to_string(),
        })
    };
    let nodes: Vec<Value> = nodes.iter().map(node).collect();
    json!({ "directory": layout.directory.display().to_string(), "nodes": nodes })
}

fn commands(layout: &Layout) -> String {
    let clients: Vec<String> = layout.places.iter().map(|place| place.client.to_string()).collect();
    let first = clients.first().cloned().unwrap_or_default();
    let last = clients.last().cloned().unwrap_or_default();
    format!(
        "Try, in another terminal:

  grpcurl -plaintext -d '{{\"key\":\"mykey\",\"value\":\"myvalue\"}}' {first} coterie.v1.Kv/Put
  grpcurl -plaintext -d '{{\"key\":\"mykey\"}}' {last} coterie.v1.Kv/Get

  curl -X PUT http://{first}/kv/greeting -d '{{\"value\":\"hello\"}}'
  curl http://{last}/kv/greeting

  coterie --node {first} status
  coterie --node {first} ring mykey
  coterie --node {all} bench --duration 5s

Ctrl-C stops the cluster; its data stays in {directory}.",
        all = clients.join(","),
        directory = layout.directory.display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_name_real_addresses() {
        let layout = Layout::new("d".into(), 3, 7400).expect("fits");
        let text = commands(&layout);
        assert!(text.contains("-d '{\"key\":\"mykey\",\"value\":\"myvalue\"}' 127.0.0.1:7400"));
        assert!(text.contains("http://127.0.0.1:7420/kv/greeting"));
        assert!(text.contains("--node 127.0.0.1:7400,127.0.0.1:7410,127.0.0.1:7420 bench"));
    }
}
