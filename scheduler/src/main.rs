//! `shoal-scheduler`: tells every node of a region whom to ask for what.

use std::process::ExitCode;

use shoal_ops::program::Program;
use shoal_scheduler::settings::{DEFAULT, Settings};

fn main() -> ExitCode {
    let program = Program {
        name: "shoal-scheduler",
        about: "Tells every node of a Shoal region whom to ask for which piece of which blob",
        version: env!("CARGO_PKG_VERSION"),
        config_path: "/etc/shoal/scheduler.yaml",
        default_config: DEFAULT,
    };
    program.run(Settings::read, shoal_scheduler::start)
}
