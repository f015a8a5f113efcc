//! `shoal-gateway`: reads registries once for a whole region, and says who may have what.

use std::process::ExitCode;

use shoal_gateway::settings::{DEFAULT, Settings};
use shoal_ops::program::Program;

fn main() -> ExitCode {
    let program = Program {
        name: "shoal-gateway",
        about: "Reads each blob from its registry once for all nodes of a Shoal region",
        version: env!("CARGO_PKG_VERSION"),
        config_path: "/etc/shoal/gateway.yaml",
        default_config: DEFAULT,
    };
    program.run(Settings::read, async |settings, ctx| {
        shoal_gateway::start(settings, ctx).await?;
        Ok(())
    })
}
