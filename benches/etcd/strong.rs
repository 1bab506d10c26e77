//! The strong keyspace that the comparison is about.

use coterie::proto::v1;
use coterie::proto::v1::admin_client::AdminClient;
use tonic::transport::Endpoint;

use crate::AnyError;
use crate::process::until;

/// Its name.
pub(crate) const KEYSPACE: &str = "strong";

/// Keys that are written through every node before the keyspace counts as serving: enough to meet
/// nearly every partition.
const PROBES: usize = 1024;

/// Creates the keyspace, and waits until writes to it are taken through every node.
pub(crate) async fn create(nodes: &[String]) -> Result<(), AnyError> {
    let asked = v1::CreateKeyspaceRequest {
        name: KEYSPACE.to_owned(),
        mode: "strong".to_owned(),
        ..Default::default()
    };
    let first = Endpoint::from_shared(format!("http://{}", nodes[0]))?;
    AdminClient::new(first.connect().await?).create_keyspace(asked).await?;
    until("the strong keyspace does not serve", async || all_serve(nodes)).await
}

fn all_serve(nodes: &[String]) -> bool {
    nodes.iter().all(|node| {
        (0..PROBES).all(|probe| {
            let url = format!("http://{node}/v1/{KEYSPACE}/probe-{probe}");
            ureq::put(url).send("{\"value\":\"probe\"}").is_ok()
        })
    })
}
