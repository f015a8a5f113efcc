//! Developer commands, the one front door for people and CI alike: `cargo xtask --help`.

mod bench;
mod chaos;
mod demo;
mod deny;
mod faults;
mod fuzz;
mod lab;
mod packages;
mod region;
mod simulate;
mod tally;
mod test;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Developer commands of Shoal.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Shows what Shoal does: pulls an image on several nodes at once, all on this machine, and counts.
    Demo(demo::Args),
    /// Runs tests, all groups or one, installing what they need.
    Test(test::Args),
    /// Looks whether dependencies are what they may be: licences, sources, crates that are not wanted.
    Deny,
    /// Hunts for inputs that break a promise of a parser or state machine.
    Fuzz(fuzz::Args),
    /// Measures what Shoal costs and how fast it is, beside references in the same run.
    Bench(bench::Args),
    /// Starts a lab to play with: nodes with containerd and a registry that holds an image.
    Lab(lab::Args),
    /// Lets a region suffer faults of all kinds for minutes, under continuous pulls, and counts what went wrong.
    Chaos(chaos::Args),
    /// Harms each part of a region in each way, before, during and after pulls, and times the pulls.
    Faults(faults::Args),
    /// Works out how a fleet of any size would pull, on simulated links and the swarm's own decisions.
    Simulate(simulate::Args),
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Demo(args) => demo::run(&args),
        Command::Test(args) => test::run(&args),
        Command::Deny => deny::run(),
        Command::Fuzz(args) => fuzz::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Lab(args) => lab::run(&args),
        Command::Chaos(args) => chaos::run(&args),
        Command::Faults(args) => faults::run(&args),
        Command::Simulate(args) => simulate::run(&args),
    };
    match done {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
