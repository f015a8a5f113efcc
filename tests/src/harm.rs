//! What can happen to the parts of a fleet, done to running ones and taken back.
//!
//! A victim is a part, or a way between parts. Harms leave no trace after they were undone, except for what
//! the harmed part itself lost.

use std::fmt;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::fleet::Fleet;
use crate::host::Host;
use crate::lab::Lab;
use crate::link::Mbit;
use crate::process::Process;
use crate::wait;

/// What is left of a slow link.
pub const SLOWED: Mbit = Mbit(4);

/// How long the parts may take to find each other again.
const WHOLE: Duration = Duration::from_secs(30);

/// Who or what is harmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Victim {
    /// The scheduler.
    Scheduler,
    /// The gateway.
    Gateway,
    /// The registry.
    Registry,
    /// The sidecar of this node, counted from 0; where it is about links, the node.
    Sidecar(usize),
}

impl fmt::Display for Victim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Scheduler => f.write_str("scheduler"),
            Self::Gateway => f.write_str("gateway"),
            Self::Registry => f.write_str("registry"),
            Self::Sidecar(number) => write!(f, "node{}", number + 1),
        }
    }
}

/// What happens to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Harm {
    /// Its process is gone, without a goodbye.
    Killed,
    /// Its process stands still; its connections stay open.
    Paused,
    /// No packet comes through between it and all others that it needs, and no error tells.
    CutOff,
    /// No packet comes through between it and the gateway only.
    CutOffFromGateway,
    /// Its link has but [`SLOWED`].
    Slow,
}

impl fmt::Display for Harm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Killed => "killed",
            Self::Paused => "paused",
            Self::CutOff => "partitioned",
            Self::CutOffFromGateway => "partitioned from the gateway",
            Self::Slow => "slow",
        })
    }
}

impl Fleet {
    /// Does a victim this harm.
    pub async fn harm(&mut self, lab: &Lab, victim: Victim, harm: Harm) -> Result<()> {
        let done = match harm {
            Harm::Killed => self.process(victim)?.kill().await,
            Harm::Paused => self.process(victim)?.stop(),
            Harm::CutOff | Harm::CutOffFromGateway => {
                let (one, others) = self.sides(victim, harm)?;
                lab.partition(&[one], &others).await
            }
            Harm::Slow => self.machine(victim)?.shape(SLOWED, SLOWED).await,
        };
        done.with_context(|| format!("{victim}: cannot be {harm}"))
    }

    /// Takes a harm back, and waits until the victim works again.
    pub async fn undo(&mut self, lab: &Lab, victim: Victim, harm: Harm) -> Result<()> {
        let done = match harm {
            Harm::Killed => self.start_anew(victim).await,
            Harm::Paused => self.process(victim)?.cont(),
            Harm::CutOff | Harm::CutOffFromGateway => {
                let (one, others) = self.sides(victim, harm)?;
                for host in others.iter().chain([&one]) {
                    host.listen_to_all().await?;
                }
                Ok(())
            }
            Harm::Slow => match (victim, lab.rate()) {
                (Victim::Sidecar(_), Some(rate)) => self.machine(victim)?.shape(rate, rate).await,
                _ => self.machine(victim)?.unshape().await,
            },
        };
        done.with_context(|| format!("{victim}: cannot be brought back after it was {harm}"))
    }

    /// Waits until every node and the gateway are known to the scheduler, and all of them to the gateway.
    pub async fn wait_until_whole(&self) -> Result<()> {
        let (n_nodes, n_services) = (self.sidecars.len() as f64, 1.0);
        wait::until("all parts have found each other", WHOLE, async || {
            let known = self.scheduler.metric("shoal_scheduler_nodes", &[]).await;
            let nodes_port = [("listener", "nodes")];
            let connected = self.gateway.metric("shoal_connections", &nodes_port).await;
            let at_least = |it: Result<f64>| it.is_ok_and(|it| it >= n_nodes + n_services);
            (at_least(known) && at_least(connected)).then_some(())
        })
        .await
    }

    async fn start_anew(&mut self, victim: Victim) -> Result<()> {
        let service = match victim {
            Victim::Registry => return self.registry.restart().await,
            Victim::Scheduler => &mut self.scheduler,
            Victim::Gateway => &mut self.gateway,
            Victim::Sidecar(number) => self.sidecars.get_mut(number).context("no such node")?,
        };
        service.process.restart().await?;
        service.wait_until_ready().await
    }

    fn process(&mut self, victim: Victim) -> Result<&mut Process> {
        Ok(match victim {
            Victim::Scheduler => &mut self.scheduler.process,
            Victim::Gateway => &mut self.gateway.process,
            Victim::Registry => &mut self.registry.process,
            Victim::Sidecar(number) => &mut self.sidecars.get_mut(number).context("no such node")?.process,
        })
    }

    /// The machine that a victim is on.
    pub fn machine(&self, victim: Victim) -> Result<Host> {
        Ok(match victim {
            Victim::Scheduler => self.scheduler.host.clone(),
            Victim::Gateway => self.gateway.host.clone(),
            Victim::Registry => self.registry.host.clone(),
            Victim::Sidecar(number) => self.sidecars.get(number).context("no such node")?.host.clone(),
        })
    }

    /// The victim, and those it can no longer talk with. A node always reaches the registry, which is what it
    /// falls back to, and of the registry's only the gateway is cut off.
    fn sides(&self, victim: Victim, harm: Harm) -> Result<(Host, Vec<Host>)> {
        let one = self.machine(victim)?;
        let nodes = self.sidecars.iter().map(|it| &it.host);
        let services = [&self.scheduler.host, &self.gateway.host];
        let others: Vec<Host> = match (victim, harm) {
            (Victim::Registry, _) | (_, Harm::CutOffFromGateway) => vec![self.gateway.host.clone()],
            _ => nodes.chain(services).filter(|it| it.name() != one.name()).cloned().collect(),
        };
        Ok((one, others))
    }
}
