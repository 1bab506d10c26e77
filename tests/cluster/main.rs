//! Black-box tests of the interfaces: real `coterie serve` processes, driven over HTTP and gRPC.
//!
//! Each test starts its own nodes on free loopback ports with data in a temporary directory, and
//! waits for conditions, never for a fixed time. When one fails, the tails of its nodes' logs are
//! printed.

mod batches;
mod expiry;
mod failures;
mod growth;
mod grpc;
mod harness;
mod http_errors;
mod http_keys;
mod introspection;
mod keyspaces;
mod leaders;
mod listing;
mod membership;
mod mergeable;
mod overload;
mod repair;
mod siblings;
mod strong;
