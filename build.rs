//! Compiles the protobuf schemas with `protox`, so that `protoc` does not have to be installed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let schemas = ["proto/anode/v1/client.proto", "proto/anode/v1/gossip.proto"];
    for schema in schemas {
        println!("cargo:rerun-if-changed={schema}");
    }
    let descriptors = protox::compile(schemas, ["proto"])?;
    prost_build::Config::new().bytes(["."]).compile_fds(descriptors)?;
    Ok(())
}
