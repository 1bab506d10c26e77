//! Compiles `proto/` to Rust with a compiler that is itself a crate: no `protoc` is needed.

use std::error::Error;
use std::path::PathBuf;

/// What clients may call. What it imports is compiled along.
const PUBLIC: [&str; 2] = ["proto/kv.proto", "proto/admin.proto"];

/// What nodes say to each other.
const INTERNAL: [&str; 2] = ["proto/cluster.proto", "proto/rows.proto"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(PUBLIC.into_iter().chain(INTERNAL), ["proto"])?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    // Reflection serves what clients may call; the protocol between nodes is not among it.
    let public = protox::compile(PUBLIC, ["proto"])?;
    std::fs::write(out.join("public.bin"), encode(&public))?;
    tonic_prost_build::configure().bytes(".").compile_fds(descriptors)?;
    Ok(())
}

fn encode(descriptors: &protox::prost_reflect::prost_types::FileDescriptorSet) -> Vec<u8> {
    use protox::prost_reflect::prost::Message;
    descriptors.encode_to_vec()
}
