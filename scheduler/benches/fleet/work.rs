//! One round: a scheduler and a fleet from nothing, and what each part of their work took.

use std::slice;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::fleet::{self, Fleet};
use crate::gateway;
use crate::restart::{Restart, restart};
use crate::scheduler::Scheduler;

/// How much is done.
#[derive(Clone, Copy)]
pub(crate) struct Extent {
    /// Nodes that join.
    pub(crate) nodes: usize,
    /// Blobs that each of them then wishes, one after the other.
    pub(crate) wished: u64,
    /// Blobs that each of them holds from the start.
    pub(crate) held: u64,
    /// Nodes whose scheduler is restarted, and for how long it is away.
    pub(crate) returning: usize,
    pub(crate) away: Duration,
}

impl Extent {
    /// The scheduler is away until nodes wait as long as they ever do between two attempts.
    pub(crate) const FULL: Self =
        Self { nodes: 10_000, wished: 4, held: 100, returning: 1000, away: Duration::from_secs(10) };
    pub(crate) const QUICK: Self =
        Self { nodes: 100, wished: 2, held: 4, returning: 50, away: Duration::from_millis(300) };
}

/// What some work took.
pub(crate) struct Took {
    /// How much it was.
    pub(crate) units: f64,
    /// By the clock.
    pub(crate) wall: Duration,
    /// CPU time of the scheduler.
    pub(crate) cpu: Duration,
    /// What the scheduler told nodes meanwhile.
    pub(crate) orders: u64,
}

/// One of everything.
pub(crate) struct Round {
    /// Nodes join.
    pub(crate) joins: Took,
    /// Each wishes some blobs.
    pub(crate) registrations: Took,
    /// Each wishes one more, and brings it in.
    pub(crate) pull: Took,
    /// The reports of that.
    pub(crate) reports: Took,
    /// Resident memory of the scheduler in bytes: with connected nodes, with all that they hold, in the end.
    pub(crate) resident_joined: u64,
    pub(crate) resident_announced: u64,
    pub(crate) resident_pulled: u64,
    /// The scheduler dies under its nodes and is started again.
    pub(crate) restart: Restart,
}

/// Runs one round.
pub(crate) async fn round(extent: &Extent) -> Result<Round> {
    let scheduler = Scheduler::start(gateway::start().await?).await?;
    let watch = Watch::start(&scheduler)?;
    let fleet = Fleet::join(scheduler.listen, extent.nodes).await?;
    let joins = watch.took(&scheduler, extent.nodes as f64, fleet.n_orders()?)?;
    let resident_joined = scheduler.resident()?;

    let held: Vec<_> = (0..extent.held).map(fleet::key).collect();
    fleet.announce(&scheduler, &held).await?;
    let resident_announced = scheduler.resident()?;

    let wished: Vec<_> = (extent.held..extent.held + extent.wished).map(fleet::key).collect();
    let (tickets, n_orders) = (fleet.tickets(&wished), fleet.n_orders()?);
    let watch = Watch::start(&scheduler)?;
    fleet.register(&wished, tickets).await?;
    let units = (wished.len() * extent.nodes) as f64;
    let registrations = watch.took(&scheduler, units, fleet.n_orders()? - n_orders)?;

    let pulled = fleet::key(extent.held + extent.wished);
    let (tickets, n_orders) = (fleet.tickets(slice::from_ref(&pulled)), fleet.n_orders()?);
    let watch = Watch::start(&scheduler)?;
    fleet.register(slice::from_ref(&pulled), tickets).await?;
    let (n_reports, reports) = {
        let watch = Watch::start(&scheduler)?;
        let n_reports = fleet.pull(&scheduler, &pulled).await?;
        (n_reports, watch.took(&scheduler, n_reports as f64, 0)?)
    };
    let pull =
        watch.took(&scheduler, (n_reports as usize + extent.nodes) as f64, fleet.n_orders()? - n_orders)?;
    let resident_pulled = scheduler.resident()?;
    drop((fleet, scheduler));
    let restart = restart(extent).await?;
    Ok(Round {
        joins,
        registrations,
        pull,
        reports,
        resident_joined,
        resident_announced,
        resident_pulled,
        restart,
    })
}

/// Since when something is done, and what had been used by then.
struct Watch {
    since: Instant,
    cpu: Duration,
}

impl Watch {
    fn start(scheduler: &Scheduler) -> Result<Self> {
        Ok(Self { since: Instant::now(), cpu: scheduler.cpu_used()? })
    }

    fn took(&self, scheduler: &Scheduler, units: f64, orders: u64) -> Result<Took> {
        let cpu = scheduler.cpu_used()?.saturating_sub(self.cpu);
        Ok(Took { units, wall: self.since.elapsed(), cpu, orders })
    }
}
