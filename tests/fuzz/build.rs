//! Compiles the wire contract to what it says of each message, by which nearly valid ones are built.

use std::path::Path;

use prost::Message as _;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    const CONTRACT: &str = "../../proto/shoal/v1/shoal.proto";
    println!("cargo:rerun-if-changed={CONTRACT}");
    let descriptors = protox::compile([CONTRACT], ["../../proto"])?;
    let path = Path::new(&std::env::var("OUT_DIR")?).join("contract.bin");
    Ok(std::fs::write(path, descriptors.encode_to_vec())?)
}
