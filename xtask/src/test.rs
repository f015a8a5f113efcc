//! `cargo xtask test`: runs groups of tests and ends with what passed and failed.
//!
//! A group is a few cargo runs. Their output streams through; a run that ends badly without a failed test
//! (code that does not compile, a test binary that was killed) counts as one failure, so that the last line
//! never says less than what happened.

use std::ffi::OsStr;
use std::io::{self, BufReader};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use shoal_tests::shoal::BIN_DIR;

use crate::packages;
use crate::tally::Tally;

/// What to run.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The one group to run; all of them when left out.
    group: Option<Group>,
    /// How many tests with a lab run at a time.
    #[arg(long, default_value_t = 2)]
    test_threads: u8,
}

#[derive(Clone, Copy, ValueEnum)]
enum Group {
    /// Unit and documentation tests, the architecture, the lab itself.
    Unit,
    /// The product's main job, on real runtimes and registries.
    MainJob,
    /// Who may read what, where credentials stay, and which peers are served.
    Authority,
    /// Images on nodes before they are wanted, and several regions.
    Preheat,
    /// What operators see and do: metrics, alerts, dashboards, the management API.
    Operate,
    /// What dies, hangs, lies, fills up or comes back, and that no pull is lost by it.
    Faults,
}

/// One cargo run of a group.
struct Run {
    /// Arguments of `cargo test`.
    args: &'static [&'static str],
    /// Whether its tests start labs, which are heavy on the machine.
    has_labs: bool,
}

impl Group {
    fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |it| it.get_name().into())
    }

    /// Whether its tests start the release binaries.
    fn needs_binaries(self) -> bool {
        !matches!(self, Self::Unit)
    }

    fn runs(self) -> &'static [Run] {
        const PRODUCT: &[&str] =
            &["--workspace", "--exclude", "shoal-tests", "--exclude", "xtask", "--tests"];
        const HELPERS: &[&str] = &["--package", "shoal-tests", "--package", "xtask", "--lib", "--bins"];
        const LAB: &[&str] = &["--package", "shoal-tests", "--test", "lab*"];
        const BENCH: &[&str] = &["--package", "xtask", "--test", "bench"];
        const DEMO: &[&str] = &["--package", "xtask", "--test", "demo"];
        const MAIN_JOB: &[&str] = &["--package", "shoal-tests", "--test", "main_job*"];
        const FAULTS: &[&str] = &["--package", "shoal-tests", "--test", "faults*"];
        const PREHEAT: &[&str] = &["--package", "shoal-tests", "--test", "preheat*", "--test", "regions*"];
        const OPERATE: &[&str] = &["--package", "shoal-tests", "--test", "operate*", "--test", "management*"];
        const AUTHORITY: &[&str] = &["--package", "shoal-tests", "--test", "authority*"];
        match self {
            Self::Unit => &[
                Run { args: PRODUCT, has_labs: false },
                Run { args: HELPERS, has_labs: false },
                Run { args: &["--workspace", "--doc"], has_labs: false },
                Run { args: &["--package", "shoal-tests", "--test", "architecture"], has_labs: false },
                Run { args: LAB, has_labs: true },
            ],
            Self::MainJob => &[
                Run { args: MAIN_JOB, has_labs: true },
                Run { args: DEMO, has_labs: false },
                Run { args: BENCH, has_labs: false },
            ],
            Self::Authority => &[Run { args: AUTHORITY, has_labs: true }],
            Self::Preheat => &[Run { args: PREHEAT, has_labs: true }],
            Self::Operate => &[Run { args: OPERATE, has_labs: true }],
            Self::Faults => &[Run { args: FAULTS, has_labs: true }],
        }
    }
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    packages::ensure_installed(&packages::LAB)?;
    ensure!(nix::unistd::geteuid().is_root(), "the lab makes network namespaces, which needs root");
    let groups: &[Group] = match &args.group {
        Some(group) => std::slice::from_ref(group),
        None => Group::value_variants(),
    };
    if groups.iter().any(|it| it.needs_binaries()) {
        build_binaries()?;
    }

    let mut tallies = Vec::new();
    for group in groups {
        let mut tally = Tally::default();
        for run in group.runs() {
            tally += run_tests(run, args.test_threads)?;
        }
        tallies.push((group.name(), tally));
    }

    let mut total = Tally::default();
    println!();
    for (name, tally) in &tallies {
        println!("{name}: {tally}");
        total += *tally;
    }
    println!("{total}");
    let all_clean = tallies.iter().all(|(_, tally)| tally.is_clean());
    Ok(if all_clean { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Builds the services in release mode, as the labs and the demo start them, unless the user says where
/// they are.
pub(crate) fn build_binaries() -> Result<()> {
    if std::env::var_os(BIN_DIR).is_some() {
        return Ok(());
    }
    let packages = ["shoal-gateway", "shoal-scheduler", "shoal-sidecar"].map(|it| ["--package", it]);
    let status = cargo("build")
        .arg("--release")
        .args(packages.concat())
        .status()
        .context("cargo cannot be started")?;
    ensure!(status.success(), "the release binaries do not build: {status}");
    Ok(())
}

fn run_tests(run: &Run, test_threads: u8) -> Result<Tally> {
    let mut command = cargo("test");
    command.arg("--no-fail-fast").args(run.args);
    if run.has_labs {
        command.args(["--", "--test-threads", &test_threads.to_string()]);
    }
    let mut child = command.stdout(Stdio::piped()).spawn().context("cargo cannot be started")?;
    let output = child.stdout.take().context("cargo's output was asked for")?;
    let tally = Tally::of_output(BufReader::new(output), io::stdout());
    let mut tally = tally.context("cargo's output cannot be passed on")?;
    let status = child.wait()?;
    if !status.success() && tally.failed == 0 {
        println!("cargo test {}: {status}", run.args.join(" "));
        tally.failed += 1;
    }
    Ok(tally)
}

/// Cargo, with a command of its own.
pub(crate) fn cargo(command: &str) -> Command {
    let mut cargo = bound(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.arg(command);
    cargo
}

/// A program that must not go on alone when this process is ended.
pub(crate) fn bound(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "TERM", "--"]).arg(program).stdin(Stdio::null());
    command
}
