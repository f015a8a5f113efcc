//! `cargo xtask demo`: a whole region on this machine, one image pulled on all its nodes at once.
//!
//! Registry, gateway, scheduler and sidecars listen on loopback only, so it needs neither root nor a
//! network. No service outlives it, however it ends, and no file either unless it was killed. The registry
//! counts what it sends and the sidecars what they take, so that the demo shows what Shoal is for: the
//! registry sends an image once, the nodes give it to each other.

mod progress;
mod puller;
mod registry;
mod report;
mod usage;

use std::future::pending;
use std::io;
use std::pin::pin;
use std::process::ExitCode;

use anyhow::{Context, Result};
use futures_util::FutureExt;
use futures_util::future::{select_all, try_join_all};
use http::Uri;
use indicatif::BinaryBytes;
use shoal_model::ByteSize;
use shoal_tests::image::{Image, ImageSpec, Packing};
use tokio::signal::unix::{SignalKind, signal};

use crate::region::fleet::{Fleet, Security};
use crate::region::processes::Processes;
use crate::region::source::Source;
use crate::test::build_binaries;
use progress::Progress;
use puller::Puller;
use registry::Throwaway;
use report::{NodeRound, Report, Round};
use usage::Usage;

/// What to show.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Number of nodes.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=100))]
    nodes: u16,
    /// Size of the image that is made up for the demo.
    #[arg(long, default_value = "256Mi", conflicts_with = "registry")]
    size: ByteSize,
    /// Print the figures as one JSON object, and everything else to standard error.
    #[arg(long)]
    json: bool,
    /// Leave everything running after the pull, to play with, until Ctrl-C.
    #[arg(long)]
    keep: bool,
    /// Pull from this registry in place of the demo's own.
    #[arg(long, value_name = "URL", requires = "image")]
    registry: Option<Uri>,
    /// The image at that registry, such as team/app:v1; it must be readable without credentials.
    #[arg(long, value_name = "REF", requires = "registry")]
    image: Option<String>,
    /// Accept plain HTTP, or a certificate that is not verified, from that registry.
    #[arg(long, requires = "registry")]
    insecure: bool,
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let wanted = Wanted::of(args)?;
    build_binaries()?;
    // Until here Ctrl-C finds nothing to clean up.
    play(args, wanted)
}

/// What is to be pulled.
enum Wanted {
    /// An image made up for the demo, from a registry of its own.
    Made(Image),
    /// What the user named.
    Named(Source),
}

impl Wanted {
    fn of(args: &Args) -> Result<Self> {
        if let (Some(registry), Some(image)) = (&args.registry, &args.image) {
            return Ok(Self::Named(Source::new(registry.clone(), args.insecure, image)?));
        }
        eprintln!("making an image of {}", BinaryBytes(args.size.0));
        let size = usize::try_from(args.size.0).context("image larger than this machine can address")?;
        let layers = vec![size / 2, size / 4, size / 4];
        let spec = ImageSpec { layers, packing: Packing::Tar, ..ImageSpec::new("demo/app", 0) };
        Ok(Self::Made(Image::build(&spec)?))
    }
}

#[tokio::main]
async fn play(args: &Args, wanted: Wanted) -> Result<ExitCode> {
    let mut told_to_end = pin!(signals_to_end()?);
    let demo = Demo::new(args, wanted).await?;
    let mut processes = Processes::new()?;
    let started = tokio::select! {
        started = demo.fleet.start(&mut processes, &demo.source) => started.map(|()| None),
        code = told_to_end.as_mut() => Ok(Some(code)),
    };
    let done = match started {
        Ok(None) => tokio::select! {
            done = demo.play() => done,
            error = processes.first_death() => Err(error),
            code = told_to_end => Ok(code),
        },
        Ok(Some(code)) => Ok(code),
        Err(error) => Err(error),
    };
    let ended = processes.end().await;
    done.and_then(|code| ended.map(|()| code))
}

/// Hears signals to end from now on; the future waits for one and has the exit code that shells expect.
fn signals_to_end() -> Result<impl Future<Output = ExitCode>> {
    let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
    let heard: io::Result<Vec<_>> = kinds.into_iter().map(|kind| Ok((kind, signal(kind)?))).collect();
    let mut heard = heard.context("cannot watch for signals")?;
    Ok(async move {
        let signals = heard.iter_mut().map(|(kind, it)| Box::pin(it.recv().map(|_| *kind)));
        let (kind, ..) = select_all(signals).await;
        ExitCode::from(128 + kind.as_raw_value() as u8)
    })
}

/// The region and what is pulled through it.
struct Demo<'a> {
    args: &'a Args,
    source: Source,
    /// The demo's own registry, unless the user named one.
    throwaway: Option<Throwaway>,
    fleet: Fleet,
}

impl<'a> Demo<'a> {
    async fn new(args: &'a Args, wanted: Wanted) -> Result<Self> {
        let (source, throwaway) = match wanted {
            Wanted::Named(source) => (source, None),
            Wanted::Made(image) => {
                let throwaway = Throwaway::start(&image).await?;
                (throwaway.source(&image)?, Some(throwaway))
            }
        };
        Ok(Self { args, source, throwaway, fleet: Fleet::new(args.nodes, Security::Mtls)? })
    }

    /// Pulls twice, prints what was found and, if wanted, waits for the signal that ends it all.
    async fn play(&self) -> Result<ExitCode> {
        eprintln!("starting a gateway, a scheduler and {} sidecars", self.args.nodes);
        self.fleet.wait_until_ready().await?;
        eprintln!("pulling {} on all nodes at once", self.source);
        let report = self.pull_twice().await?;
        if self.args.json {
            println!("{}", report.json());
        } else {
            println!("\n{report}");
        }
        if self.args.keep {
            eprint!("{}", Usage { source: &self.source, fleet: &self.fleet });
            return pending().await;
        }
        Ok(if report.is_verified() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    async fn pull_twice(&self) -> Result<Report> {
        let first = self.pull().await?;
        let n_registry = self.throwaway.as_ref().map(Throwaway::n_bytes_sent);
        let n_gateway = self.fleet.n_bytes_uploaded().await?;
        eprintln!("pulling it again");
        Ok(Report { first, again: self.pull().await?, n_registry, n_gateway })
    }

    /// Pulls on all nodes at the same time.
    async fn pull(&self) -> Result<Round> {
        let nodes = &self.fleet.nodes;
        let before = self.fleet.taken().await?;
        let progress = Progress::new(nodes.iter().map(|it| it.name.as_str()), self.args.json);
        let pulls = nodes.iter().zip(progress.bars()).map(async |(node, bar)| {
            let puller = Puller::new(&self.source, node.mirror)?;
            puller.pull(bar).await.with_context(|| node.name.clone())
        });
        let pulled = tokio::select! {
            pulled = try_join_all(pulls) => pulled?,
            never = progress.print() => match never {},
        };
        let after = self.fleet.taken().await?;
        let taken = after.into_iter().zip(before).map(|(after, before)| after - before);
        let rows = nodes.iter().zip(taken).zip(pulled);
        let rows = rows.map(|((node, taken), pulled)| NodeRound { name: node.name.clone(), taken, pulled });
        Ok(Round(rows.collect()))
    }
}
