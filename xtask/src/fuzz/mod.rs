//! `cargo xtask fuzz`: hunts for inputs under which something does not hold that the product promises.
//!
//! Each directory in the corpus of `tests/fuzz` is a target. The fuzzer has counters in all code of ours, by which
//! libFuzzer sees what an input reaches, and every assertion and overflow counts. It runs on each target for its share
//! of the time. What it finds stays in `fuzz` in the directory of what was built, so that the next run goes on from
//! there.

mod fuzzer;
mod outcome;

use std::env;
use std::fs;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;
use std::thread;

use anyhow::{Context, Result, ensure};
use serde_json::json;

use crate::packages;
use crate::test::cargo;
use fuzzer::Fuzzer;
use outcome::Outcome;

/// What to fuzz.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The one target to run; all of them when left out.
    target: Option<String>,
    /// Seconds of fuzzing in all, without those of building.
    #[arg(long, default_value_t = 120, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// Prints one JSON object instead of a table.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    packages::ensure_installed(&packages::FUZZER)?;
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize()?;
    let target_dir = env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    let (seeds, dir) = (root.join("tests/fuzz/corpus"), target_dir.join("fuzz"));
    let mut targets = targets(&seeds)?;
    if let Some(target) = &args.target {
        ensure!(targets.contains(target), "{target} is no target; there are {}", targets.join(", "));
        targets = vec![target.clone()];
    }
    let program = build(&root, &target_dir)?;
    let fuzzers: Vec<_> = targets.iter().map(|it| Fuzzer::new(it, &program, &seeds, &dir)).collect();
    let outcomes = run_all(fuzzers, args.seconds)?;

    if args.json {
        println!("{:#}", json!({ "targets": outcomes.iter().map(Outcome::json).collect::<Vec<_>>() }));
    } else {
        outcome::print_table(&outcomes);
    }
    let is_clean = outcomes.iter().all(Outcome::is_clean);
    Ok(if is_clean { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn targets(seeds: &Path) -> Result<Vec<String>> {
    let dirs = fs::read_dir(seeds).with_context(|| format!("{}: not read", seeds.display()))?;
    let names = dirs.map(|it| Ok(it?.file_name().to_string_lossy().into_owned()));
    let mut names = names.collect::<Result<Vec<_>>>()?;
    names.sort();
    Ok(names)
}

/// Builds the fuzzer, and returns where it is.
fn build(root: &Path, target_dir: &Path) -> Result<PathBuf> {
    let status = cargo("build")
        // By --bin all members count for the features of dependencies, as they do for tests: those are built already then, and
        // only what is ours is compiled for this.
        .args(["--bin", "shoal-fuzz", "--features", "shoal-fuzz/libfuzzer", "--target-dir"])
        .arg(target_dir)
        .current_dir(root)
        .env("RUSTC_WORKSPACE_WRAPPER", root.join("tests/fuzz/instrument"))
        .env("CARGO_PROFILE_DEV_OPT_LEVEL", "1")
        .status()
        .context("cargo cannot be started")?;
    ensure!(status.success(), "the fuzzer does not build: {status}");
    Ok(target_dir.join("debug/shoal-fuzz"))
}

/// Runs each for its share of the time, one for each processor at once. The outcomes come in the same order.
fn run_all(fuzzers: Vec<Fuzzer>, seconds: u64) -> Result<Vec<Outcome>> {
    let (n_targets, n_processors) =
        (fuzzers.len(), thread::available_parallelism().map_or(1, NonZeroUsize::get));
    let n_workers = n_processors.min(n_targets);
    let each = (seconds * n_workers as u64 / n_targets as u64).max(1);
    eprintln!("{n_targets} targets, {each} s each, {n_workers} at a time");
    let (waiting, ended) = (Mutex::new(fuzzers.into_iter().enumerate()), Mutex::new(Vec::new()));
    let work = || -> Result<()> {
        loop {
            let next = waiting.lock().ok().and_then(|mut it| it.next());
            let Some((at, fuzzer)) = next else { return Ok(()) };
            let outcome = fuzzer.run(each)?;
            if let Ok(mut ended) = ended.lock() {
                eprint!("[{}/{n_targets}] {outcome}", ended.len() + 1);
                ended.push((at, outcome));
            }
        }
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..n_workers).map(|_| scope.spawn(work)).collect();
        let joined = workers.into_iter().map(|it| it.join().expect("a worker does not panic"));
        joined.collect::<Result<Vec<()>>>()
    })?;
    let mut ended = ended.into_inner().unwrap_or_default();
    ended.sort_by_key(|(at, _)| *at);
    Ok(ended.into_iter().map(|(_, outcome)| outcome).collect())
}
