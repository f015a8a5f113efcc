//! `cargo xtask test`: runs groups of tests and ends with what passed and failed.
//!
//! A group is a few cargo runs. Their output streams through; a run that ends badly without a failed test
//! (code that does not compile, a test binary that was killed) counts as one failure, so that the last line
//! never says less than what happened.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io::{self, BufReader};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use serde_json::{Value, json};
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

/// One cargo run of a group. It is always of the whole workspace: of another choice of packages their dependencies
/// would have other features, and be built once more.
struct Run {
    /// Which tests.
    tests: Vec<String>,
    /// Whether they start labs, which are heavy on the machine.
    has_labs: bool,
}

impl Run {
    /// Tests by cargo's own options.
    fn of(options: &[&str]) -> Self {
        Self { tests: options.iter().map(|it| (*it).to_owned()).collect(), has_labs: false }
    }

    /// Tests in files of these names; `*` is any text.
    fn named<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        let tests = names.into_iter().flat_map(|it| ["--test".to_owned(), it.to_owned()]);
        Self { tests: tests.collect(), has_labs: false }
    }

    /// The same of labs.
    fn labs(names: &str) -> Self {
        Self { has_labs: true, ..Self::named([names]) }
    }
}

impl Group {
    fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |it| it.get_name().into())
    }

    /// Whether its tests start the release binaries.
    fn needs_binaries(self) -> bool {
        !matches!(self, Self::Unit)
    }

    fn runs(self) -> Result<Vec<Run>> {
        Ok(match self {
            Self::Unit => {
                let products = test_files_of_products()?;
                vec![
                    Run::of(&["--lib", "--bins"]),
                    Run::named(products.iter().map(String::as_str).chain(["architecture"])),
                    Run::of(&["--doc"]),
                    Run::labs("lab*"),
                ]
            }
            Self::MainJob => vec![Run::labs("main_job*"), Run::named(["demo", "bench"])],
            Self::Authority => vec![Run::labs("authority_*")],
            Self::Preheat => vec![Run::labs("preheat*")],
            Self::Operate => vec![Run::labs("operate*")],
            Self::Faults => vec![Run::labs("faults*")],
        })
    }
}

/// The names of all files of tests but those of the lab and of this program.
fn test_files_of_products() -> Result<BTreeSet<String>> {
    let output = cargo("metadata").args(["--no-deps", "--format-version", "1"]).output()?;
    ensure!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).context("cargo metadata")?;
    let packages = metadata["packages"].as_array().context("cargo metadata: no packages")?.iter();
    let products = packages.filter(|it| it["name"] != "shoal-tests" && it["name"] != "xtask");
    let targets = products.flat_map(|it| it["targets"].as_array().into_iter().flatten());
    let tests = targets.filter(|it| it["kind"] == json!(["test"]));
    Ok(tests.filter_map(|it| it["name"].as_str().map(str::to_owned)).collect())
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
        for run in group.runs()? {
            tally += run_tests(&run, args.test_threads)?;
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
    command.args(["--no-fail-fast", "--workspace"]).args(&run.tests);
    if run.has_labs {
        command.args(["--", "--test-threads", &test_threads.to_string()]);
    }
    let mut child = command.stdout(Stdio::piped()).spawn().context("cargo cannot be started")?;
    let output = child.stdout.take().context("cargo's output was asked for")?;
    let tally = Tally::of_output(BufReader::new(output), io::stdout());
    let mut tally = tally.context("cargo's output cannot be passed on")?;
    let status = child.wait()?;
    if !status.success() && tally.failed == 0 {
        println!("cargo test {}: {status}", run.tests.join(" "));
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
