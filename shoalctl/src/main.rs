//! `shoalctl`: Shoal's command line.

#![forbid(unsafe_code)]

use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::Parser as _;
use shoal_ops::settings::Secret;
use shoalctl::cli::Cli;
use shoalctl::fault::{Exit, Fault};
use shoalctl::run::{Outcome, run};

fn main() -> ExitCode {
    // Ends the process by itself, with 2, where that cannot be understood.
    let cli = Cli::parse();
    let token = std::env::var("SHOAL_TOKEN").ok().filter(|it| !it.is_empty()).map(Secret::new);
    let done = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|it| {
            Fault::new(Exit::Failure, format!("no runtime: {it}"), "is the machine out of file descriptors?")
        })
        .and_then(|it| it.block_on(run(cli, token)));
    match done {
        Ok(Outcome { text, exit }) => match io::stdout().write_all(text.as_bytes()) {
            Ok(()) => exit.into(),
            // Whoever read it has gone (`| head`).
            Err(_) => Exit::Failure.into(),
        },
        Err(fault) => {
            // The exit code says it as well where standard error is closed.
            let _ = writeln!(io::stderr(), "shoalctl: {fault}");
            fault.exit.into()
        }
    }
}
