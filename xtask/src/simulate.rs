//! `cargo xtask simulate`: a fleet of any size in one process, on the swarm's own decisions.

use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr as _;

use anyhow::{Context, Result};
use clap::builder::PossibleValuesParser;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use shoal_model::{ByteSize, Rng};
use shoal_simulator::{Bound, Outcome, Simulation, World, svg};
use shoal_swarm::Algorithm;

/// What to simulate.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Number of nodes.
    #[arg(long, default_value_t = 1000)]
    nodes: usize,
    /// Size of the blob; `layers` has eight blobs of its own.
    #[arg(long, default_value = "500Mi")]
    size: ByteSize,
    /// Which world. `uneven`: three tenths of the nodes send at 10 Gbit/s, and always others are busy for a second.
    #[arg(long, default_value = "flat", value_parser = PossibleValuesParser::new(World::NAMES))]
    world: String,
    /// How nodes compare their neighbours: default or ml.
    #[arg(long, default_value_t, value_parser = Algorithm::from_str)]
    algorithm: Algorithm,
    /// Everything that is random follows from it.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Print the figures as JSON.
    #[arg(long)]
    json: bool,
    /// Draw the nodes' progress over time into this file, as SVG.
    #[arg(long)]
    plot: Option<PathBuf>,
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let mut rng = Rng::new(args.seed);
    let world = World::named(&args.world, args.nodes, args.size.0, &mut rng);
    let mut world = world.with_context(|| format!("{}: too large to be cut into pieces", args.size))?;
    world.algorithm = args.algorithm;
    let progress = progress_of(&world)?;
    let run = Simulation::new(world, args.seed).run(|now, n_unfinished| {
        progress.set_message(format!("{}.{:03} s simulated", now / 1_000_000, now / 1000 % 1000));
        progress.set_position(progress.length().unwrap_or_default().saturating_sub(n_unfinished as u64));
        true
    });
    progress.finish_and_clear();
    let outcome = Outcome::of(&run);
    if args.json {
        print_json(args, &outcome);
    } else {
        print_table(args, &outcome);
    }
    if let Some(path) = &args.plot {
        std::fs::write(path, svg(&run)).with_context(|| format!("{}: not written", path.display()))?;
    }
    Ok(if outcome.failed_pulls == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn progress_of(world: &World) -> Result<ProgressBar> {
    let style = ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len} pulls, {elapsed}")?;
    Ok(ProgressBar::new((world.joins.len() * world.blobs.len()) as u64).with_style(style))
}

fn print_json(args: &Args, outcome: &Outcome) {
    let figures = json!({
        "world": args.world,
        "algorithm": args.algorithm.as_str(),
        "nodes": outcome.n_nodes,
        "size": args.size.0,
        "seed": args.seed,
        "lastNodeRatio": outcome.last_node_ratio,
        "p50Ratio": outcome.p50_ratio,
        "p99Ratio": outcome.p99_ratio,
        "registryEgressRatio": outcome.registry_egress_ratio,
        "gatewayUploadRatio": outcome.gateway_upload_ratio,
        "crossZoneCopies": outcome.cross_zone_copies,
        "crossRackCopies": outcome.cross_rack_copies,
        "failedPulls": outcome.failed_pulls,
        "schedulerMessages": outcome.scheduler_messages,
        "simulatedSeconds": outcome.simulated_seconds,
        "boundSeconds": outcome.bound_seconds,
        "boundFormula": Bound::FORMULA,
    });
    println!("{figures:#}");
}

fn print_table(args: &Args, outcome: &Outcome) {
    let Args { world, algorithm, seed, .. } = args;
    println!(
        "{world}, {algorithm}: {} nodes, seed {seed}, {:.2} s simulated\n",
        outcome.n_nodes, outcome.simulated_seconds
    );
    for (name, figure) in [
        ("last node over the bound", outcome.last_node_ratio),
        ("99th percentile", outcome.p99_ratio),
        ("median", outcome.p50_ratio),
        ("registry egress, copies", outcome.registry_egress_ratio),
        ("gateway upload, copies", outcome.gateway_upload_ratio),
        ("copies into a zone", outcome.cross_zone_copies),
        ("copies into a rack", outcome.cross_rack_copies),
    ] {
        println!("{name:26} {figure:8.3}");
    }
    for (name, count) in [
        ("failed pulls", outcome.failed_pulls as u64),
        ("scheduler messages", outcome.scheduler_messages),
        ("asks refused", outcome.refused),
        ("pieces received twice", outcome.wasted),
    ] {
        println!("{name:26} {count:8}");
    }
    println!("\nbound of the median node: {:.3} s\n  {}", outcome.bound_seconds, Bound::FORMULA);
}
