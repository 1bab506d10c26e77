//! The interfaces of a running node: gRPC and HTTP on one port.
//!
//! This layer translates and nothing more: requests become [`RequestOptions`], answers become
//! replies, and `api::error` alone decides which status an error has. The decisions are taken
//! below, in `node` and `protocol`.
//!
//! [`RequestOptions`]: crate::node::request::RequestOptions

mod admin;
mod batch;
mod convert;
mod error;
mod health;
mod http;
mod kv;
mod leader;
pub mod server;
