//! Code generated from `proto/`. Only `net`, `api`, `client` and `cli` may name these types.
#![allow(missing_docs, unreachable_pub, clippy::all, rustdoc::all)]

/// The public interface: `kv.proto` and `admin.proto`.
pub mod v1 {
    tonic::include_proto!("coterie.v1");

    /// Descriptors of the public services, for reflection.
    pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/public.bin"));
}

/// The protocol between nodes: `cluster.proto` and `rows.proto`.
pub mod cluster {
    tonic::include_proto!("coterie.cluster.v1");
}
