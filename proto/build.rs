//! Compiles the contracts: messages with prost, services with tonic over this crate's own types.
//!
//! protox reads the `.proto` text in Rust, so no `protoc` is needed. The services are generated from
//! the same descriptors, but their methods take and return the types of `messages`, through the
//! codec of `codec.rs`; the generated message types stay private to this crate.

use tonic_build::manual::{Builder, Method, Service};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=shoal/v1/shoal.proto");
    let descriptors = protox::compile(["shoal/v1/shoal.proto"], ["."])?;
    let services: Vec<Service> = descriptors
        .file
        .iter()
        .flat_map(|file| file.service.iter().map(|it| service(file.package(), it)))
        .collect();
    Builder::new().compile(&services);
    let mut messages = descriptors;
    messages.file.iter_mut().for_each(|file| file.service.clear());
    prost_build::Config::new().bytes(["."]).compile_fds(messages)?;
    Ok(())
}

fn service(package: &str, contract: &prost_types::ServiceDescriptorProto) -> Service {
    let mut service = Service::builder().name(contract.name()).package(package);
    for method in &contract.method {
        let mut built = Method::builder()
            .name(method.name().to_lowercase())
            .route_name(method.name())
            .input_type(own_type(method.input_type()))
            .output_type(own_type(method.output_type()))
            .codec_path("crate::codec::OwnCodec");
        if method.client_streaming() {
            built = built.client_streaming();
        }
        if method.server_streaming() {
            built = built.server_streaming();
        }
        service = service.method(built.build());
    }
    service.build()
}

/// `.shoal.v1.OpenRequest` is `crate::OpenRequest`.
fn own_type(message: &str) -> String {
    format!("crate::{}", message.rsplit('.').next().unwrap_or(message))
}
