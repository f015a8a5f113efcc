//! `cargo xtask test`: runs groups of tests and ends with what passed and failed.
//!
//! A group is a few cargo runs. Labs are run by nextest, several at a time from whatever files they are in, because they
//! wait for half of their time, and each is killed where it does not end. Output streams through; a run that ends badly without a failed test (code that does not
//! compile, a test binary that was killed) counts as one failure, so that the last line never says less than what happened.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io::{self, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

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
    let nextest = packages::NEXTEST.ensure_installed()?;
    if groups.iter().any(|it| it.needs_binaries()) {
        build_binaries()?;
    }

    let mut tallies = Vec::new();
    for group in groups {
        let (mut tally, began) = (Tally::default(), Instant::now());
        for run in group.runs()? {
            tally +=
                if run.has_labs { run_labs(&run, &nextest, args.test_threads)? } else { run_tests(&run)? };
        }
        tallies.push((group.name(), tally, began.elapsed()));
    }

    let mut total = Tally::default();
    println!();
    for (name, tally, time) in &tallies {
        println!("{name}: {tally}, in {}", minutes(*time));
        total += *tally;
    }
    println!("{total}");
    let all_clean = tallies.iter().all(|(_, tally, _)| tally.is_clean());
    Ok(if all_clean { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Builds the programs in release mode, as the labs and the demo start them, unless the user says where
/// they are.
pub(crate) fn build_binaries() -> Result<()> {
    if std::env::var_os(BIN_DIR).is_some() {
        return Ok(());
    }
    let packages =
        ["shoal-gateway", "shoal-scheduler", "shoal-sidecar", "shoalctl"].map(|it| ["--package", it]);
    let status = cargo("build")
        .arg("--release")
        .args(packages.concat())
        .status()
        .context("cargo cannot be started")?;
    ensure!(status.success(), "the release binaries do not build: {status}");
    Ok(())
}

fn run_tests(run: &Run) -> Result<Tally> {
    let mut command = cargo("test");
    command.args(["--no-fail-fast", "--workspace"]).args(&run.tests).stdout(Stdio::piped());
    let mut child = command.spawn().context("cargo cannot be started")?;
    let output = child.stdout.take().context("cargo's output was asked for")?;
    counted(run, &mut child, output, io::stdout())
}

/// Where a test fails, `.config/nextest.toml` has the others go on.
fn run_labs(run: &Run, nextest: &Path, test_threads: u8) -> Result<Tally> {
    let mut command = bound(nextest);
    let threads = test_threads.to_string();
    command.args(["nextest", "run", "--workspace", "--test-threads", &threads]).args(&run.tests);
    let mut child = command.stderr(Stdio::piped()).spawn().context("nextest cannot be started")?;
    let output = child.stderr.take().context("nextest's output was asked for")?;
    counted(run, &mut child, output, io::stderr())
}

/// Shows what a run says, and counts what it reports.
fn counted(run: &Run, child: &mut Child, output: impl Read, shown: impl Write) -> Result<Tally> {
    let tally = Tally::of_output(BufReader::new(output), shown);
    let mut tally = tally.context("the output cannot be passed on")?;
    let status = child.wait()?;
    if !status.success() && tally.failed == 0 {
        println!("{}: {status}", run.tests.join(" "));
        tally.failed += 1;
    }
    Ok(tally)
}

fn minutes(time: Duration) -> String {
    let seconds = time.as_secs();
    format!("{} min {} s", seconds / 60, seconds % 60)
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
