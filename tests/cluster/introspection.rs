//! What a node tells of itself: reflection, health, status, ring, metrics.

use coterie::proto::v1;
use futures_util::{StreamExt, stream};
use serde_json::Value;
use tonic::Code;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use crate::grpc::put_text;
use crate::harness::{Cluster, Grpc, PATIENCE, wait_until};

/// Asks one version of the reflection service for the names of all services.
macro_rules! reflected_services {
    ($grpc:expr, $version:ident) => {{
        use tonic_reflection::pb::$version::server_reflection_client::ServerReflectionClient;
        use tonic_reflection::pb::$version::server_reflection_request::MessageRequest;
        use tonic_reflection::pb::$version::server_reflection_response::MessageResponse;
        use tonic_reflection::pb::$version::{
            ListServiceResponse, ServerReflectionRequest, ServerReflectionResponse,
        };
        let message_request = Some(MessageRequest::ListServices(String::new()));
        let request = ServerReflectionRequest { host: String::new(), message_request };
        let answer: Option<ServerReflectionResponse> = $grpc.wait(async {
            let mut client = ServerReflectionClient::new($grpc.channel.clone());
            let requests = stream::iter([request]);
            let replies = client.server_reflection_info(requests).await.expect("reflection");
            replies.into_inner().next().await.map(|reply| reply.expect("an answer"))
        });
        let Some(MessageResponse::ListServicesResponse(ListServiceResponse { service })) =
            answer.and_then(|answer| answer.message_response)
        else {
            panic!("not a list of services")
        };
        service.into_iter().map(|service| service.name).collect::<Vec<String>>()
    }};
}

#[test]
fn both_versions_of_reflection_list_the_public_services() {
    let cluster = Cluster::start(1);
    let grpc = cluster.nodes[0].grpc();
    for services in [reflected_services!(grpc, v1), reflected_services!(grpc, v1alpha)] {
        for name in ["coterie.v1.Kv", "coterie.v1.Admin", "grpc.health.v1.Health"] {
            assert!(services.iter().any(|service| service == name), "{name} in {services:?}");
        }
        let between_nodes = services.iter().any(|service| service.contains("cluster"));
        assert!(!between_nodes, "{services:?}");
    }
}

fn check(grpc: &Grpc, service: &str) -> Result<ServingStatus, Code> {
    let request = HealthCheckRequest { service: service.to_owned() };
    let mut client = HealthClient::new(grpc.channel.clone());
    let answer = grpc.wait(client.check(request)).map_err(|status| status.code())?;
    Ok(answer.into_inner().status())
}

#[test]
fn health_knows_each_service() {
    let cluster = Cluster::start(1);
    let grpc = cluster.nodes[0].grpc();
    for service in ["", "coterie.v1.Kv", "coterie.v1.Admin"] {
        assert_eq!(check(&grpc, service), Ok(ServingStatus::Serving), "{service:?}");
    }
    assert_eq!(check(&grpc, "coterie.v1.Nope"), Err(Code::NotFound));
    let request = HealthCheckRequest::default();
    let first: HealthCheckResponse = grpc.wait(async {
        let mut client = HealthClient::new(grpc.channel.clone());
        let mut watched = client.watch(request).await.expect("a watch").into_inner();
        watched.message().await.expect("alive").expect("a first status")
    });
    assert_eq!(first.status(), ServingStatus::Serving);
}

#[test]
fn a_node_that_has_found_nobody_lives_but_is_not_ready() {
    let mut cluster = Cluster::prepare(2, &[]);
    let lonely = &mut cluster.nodes[1];
    lonely.start();
    crate::harness::wait_until("it lives", crate::harness::PATIENCE, || {
        lonely.try_http("GET", "/healthz", &[], b"").map(|reply| assert_eq!(reply.status, 200))
    });
    let reply = lonely.get("/readyz").expect(503);
    assert_eq!(reply.json()["ready"], false);
    assert!(reply.json()["reason"].as_str().is_some_and(|reason| !reason.is_empty()));
    let refused = lonely.put("/kv/k", "v").expect(503).json();
    assert_eq!(
        (&refused["code"], &refused["outcome"]),
        (&"not_serving".into(), &"not-attempted".into())
    );
    let grpc = lonely.grpc();
    assert_eq!(check(&grpc, "coterie.v1.Kv"), Ok(ServingStatus::NotServing));
    assert_eq!(check(&grpc, "coterie.v1.Admin"), Ok(ServingStatus::Serving));
}

#[test]
fn status_is_the_same_over_http_and_grpc() {
    let cluster = Cluster::start(3);
    let node = &cluster.nodes[1];
    let http = node.status().expect("a status");
    let grpc = node.grpc();
    let status = grpc.wait(grpc.admin().status(v1::StatusRequest {})).expect("a status");
    let status = status.into_inner();
    assert_eq!((http["name"].as_str(), status.name.as_str()), (Some("n2"), "n2"));
    assert_eq!(http["node_id"], status.node_id);
    assert_eq!(http["cluster_id"], status.cluster_id);
    assert_eq!(http["ring"]["digest"], status.ring.expect("a ring").digest);
    let replication = status.replication.expect("replication");
    assert_eq!((replication.replication_factor, replication.replicas_in_effect), (3, 3));
    assert_eq!(http["replication"]["write_quorum_in_effect"], 2);
    assert_eq!(status.members.len(), 3);
    assert_eq!(status.members.iter().filter(|member| member.is_self).count(), 1);
    // What the others say of themselves arrives by gossip.
    wait_until("every member is up and complete", PATIENCE, || {
        let status = grpc.wait(grpc.admin().status(v1::StatusRequest {}));
        let members = status.map_err(|status| status.to_string())?.into_inner().members;
        let well = members.iter().all(|member| member.state == "up" && member.complete);
        if well { Ok(()) } else { Err(format!("{members:?}")) }
    });
}

#[test]
fn every_node_shows_the_same_ring_and_the_same_owners() {
    let cluster = Cluster::start(3);
    let rings: Vec<Value> =
        cluster.nodes.iter().map(|node| node.get("/ring").expect(200).json()).collect();
    let partitions = rings[0]["partitions"].as_array().expect("a list");
    assert_eq!(partitions.len(), 256);
    for partition in partitions {
        assert_eq!(partition["primaries"].as_array().map(Vec::len), Some(3), "{partition}");
    }
    assert!(rings.iter().all(|ring| ring["partitions"] == rings[0]["partitions"]));
    for node in &cluster.nodes {
        let grpc = node.grpc();
        let owners = grpc.wait(grpc.admin().owners(v1::OwnersRequest { key: "a/b".to_owned() }));
        let owners = owners.expect("owners").into_inner();
        let http = node.get("/ring?key=a%2Fb").expect(200).json();
        assert_eq!((http["key"].as_str(), owners.key.as_str()), (Some("a/b"), "a/b"));
        assert_eq!(http["partition"], owners.partition);
        let ids: Vec<&str> = owners.owners.iter().map(|owner| owner.node_id.as_str()).collect();
        let partition = &partitions[owners.partition as usize];
        assert_eq!(partition["primaries"], serde_json::json!(ids), "placed where the ring says");
        assert!(owners.owners.iter().all(|owner| owner.role == "primary"));
    }
}

/// The sum of all samples of all counters.
fn counted(metrics: &str) -> f64 {
    let samples = metrics.lines().filter(|line| !line.starts_with('#'));
    let counters = samples.filter(|line| line.split(['{', ' ']).next().is_some_and(is_counter));
    counters.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

fn is_counter(name: &str) -> bool {
    name.starts_with("coterie_") && name.ends_with("_total")
}

#[test]
fn metrics_are_in_prometheus_format_and_count_requests() {
    let cluster = Cluster::start(1);
    let node = &cluster.nodes[0];
    let before = node.get("/metrics").expect(200);
    assert_eq!(before.header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
    let open = [("accept", "application/openmetrics-text;version=1.0.0")];
    let open = node.http("GET", "/metrics", &open, b"").expect(200);
    assert!(open.header("content-type").starts_with("application/openmetrics-text"));
    for line in before.text().lines() {
        let known = line.starts_with("coterie_") || line.starts_with('#');
        assert!(known, "{line:?} belongs to no family of ours");
    }
    assert!(before.text().contains("# TYPE coterie_"), "{}", before.text());
    let grpc = node.grpc();
    for number in 0..20 {
        let request = put_text(&format!("k{number}"), "v");
        grpc.wait(grpc.kv().put(request)).expect("written");
    }
    let after = node.get("/metrics").expect(200);
    assert!(counted(&after.text()) >= counted(&before.text()) + 20.0, "{}", after.text());
}

#[test]
fn the_root_lists_where_to_go() {
    let cluster = Cluster::start(1);
    let index = cluster.nodes[0].get("/").expect(200).text();
    for path in
        ["/kv/{key}", "/status", "/ring", "/healthz", "/readyz", "/metrics", "coterie.v1.Kv"]
    {
        assert!(index.contains(path), "{path} in {index}");
    }
}

#[test]
fn a_service_that_does_not_exist_is_unimplemented() {
    let cluster = Cluster::start(1);
    let grpc = cluster.nodes[0].grpc();
    let status = grpc.wait(async {
        let mut client = tonic::client::Grpc::new(grpc.channel.clone());
        client.ready().await.expect("connected");
        let codec = tonic_prost::ProstCodec::<v1::GetRequest, v1::GetResponse>::default();
        let path = "/coterie.v9.Kv/Get".parse().expect("a path");
        let request = tonic::Request::new(v1::GetRequest::default());
        client.unary(request, path, codec).await.expect_err("no such service")
    });
    assert_eq!(status.code(), Code::Unimplemented);
}

#[test]
fn a_terminated_node_ends_by_itself_in_bounded_time() {
    let mut cluster = Cluster::start(1);
    let node = &mut cluster.nodes[0];
    node.put("/kv/k", "v").expect(200);
    // An open, idle connection must not hold up the end.
    let idle = std::net::TcpStream::connect(node.spec.client_address).expect("a connection");
    assert!(node.terminate().success());
    drop(idle);
    node.start();
    node.wait_ready();
    assert_eq!(node.get("/kv/k").expect(200).json()["value"], "v");
}
