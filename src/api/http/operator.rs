//! What operators and their tools look at: health, readiness, status, ring and metrics.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::api::convert;
use crate::api::http::query;
use crate::api::http::reply::HttpError;
use crate::node::service::Node;
use crate::node::status::{NodeStatus, Serving};

/// The media type of the exposition format that metrics are written in.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// The older format, of which ours is a valid instance; browsers show it.
const PROMETHEUS_TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// 200 while the process lives.
pub(crate) async fn healthz() -> &'static str {
    "ok\n"
}

/// 200 while the node serves, else 503 and the reason.
pub(crate) async fn readyz(State(node): State<Arc<Node>>) -> Response {
    readiness(&node.serving())
}

fn readiness(serving: &Serving) -> Response {
    let status = if serving.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(json!({ "ready": serving.ready, "reason": serving.reason }))).into_response()
}

/// The node, its members and its ring.
pub(crate) async fn status(State(node): State<Arc<Node>>) -> Json<NodeStatus> {
    Json(node.status())
}

/// All partitions, or with `?key=` where that key lies.
pub(crate) async fn ring(State(node): State<Arc<Node>>, uri: Uri) -> Result<Response, HttpError> {
    match query::ring_key(&uri)? {
        None => Ok(Json(node.ring()).into_response()),
        Some(key) => Ok(Json(node.owners(&convert::key(key)?)).into_response()),
    }
}

/// How far partitions are on their way.
pub(crate) async fn transfers(State(node): State<Arc<Node>>) -> Result<Response, HttpError> {
    Ok(Json(node.transfers()?).into_response())
}

/// The metrics, in the format that the scraper prefers.
pub(crate) async fn metrics(State(node): State<Arc<Node>>, headers: HeaderMap) -> Response {
    ([(header::CONTENT_TYPE, metrics_type(&headers))], node.metrics_text()).into_response()
}

fn metrics_type(headers: &HeaderMap) -> &'static str {
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
    let open_metrics = accept.is_some_and(|accept| accept.contains("application/openmetrics-text"));
    if open_metrics { OPEN_METRICS } else { PROMETHEUS_TEXT }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[tokio::test]
    async fn readiness_follows_the_node_and_gives_the_reason() {
        let ready = readiness(&Serving { ready: true, reason: String::new() });
        assert_eq!(ready.status(), 200);
        let reason = String::from("joining by 127.0.0.1:7401");
        let waiting = readiness(&Serving { ready: false, reason });
        assert_eq!(waiting.status(), 503);
        let body = axum::body::to_bytes(waiting.into_body(), 1024).await.expect("a body");
        assert_eq!(body, r#"{"ready":false,"reason":"joining by 127.0.0.1:7401"}"#);
    }

    #[test]
    fn metrics_are_typed_as_the_scraper_asks() {
        let prometheus = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;q=0.4,*/*";
        let accept =
            |value| HeaderMap::from_iter([(header::ACCEPT, HeaderValue::from_static(value))]);
        assert_eq!(metrics_type(&accept(prometheus)), OPEN_METRICS);
        assert_eq!(metrics_type(&accept("*/*")), PROMETHEUS_TEXT);
        assert_eq!(metrics_type(&HeaderMap::new()), PROMETHEUS_TEXT);
    }
}
