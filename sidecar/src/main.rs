//! `shoal-sidecar`: the registry mirror on a node, and the node's part in the swarm.

use std::process::ExitCode;

use shoal_ops::program::Program;
use shoal_sidecar::settings::{DEFAULT, Settings};

fn main() -> ExitCode {
    let program = Program {
        name: "shoal-sidecar",
        about: "Serves a node's container runtime from its Shoal region, and the region from the node",
        version: env!("CARGO_PKG_VERSION"),
        config_path: "/etc/shoal/sidecar.yaml",
        default_config: DEFAULT,
    };
    program.run(Settings::read, shoal_sidecar::start)
}
