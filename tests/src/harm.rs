//! What can happen to the parts of a fleet, done to running ones and taken back.
//!
//! A victim is a part, or a way between parts. Harms leave no trace after they were undone, except for what
//! the harmed part itself lost.

use std::fmt;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use futures_util::future::try_join_all;

use crate::disk::Disk;
use crate::fleet::Fleet;
use crate::host::Host;
use crate::lab::Lab;
use crate::link::Mbit;
use crate::process::Process;
use crate::stored::stored;
use crate::wait;

/// What is left of a slow link.
pub const SLOWED: Mbit = Mbit(4);

/// How long the parts may take to find each other again.
const WHOLE: Duration = Duration::from_secs(30);
const NO_REDIS: &str = "the fleet has no Redis";
const NO_DISK: &str = "the fleet has no such disk";
const NO_NODE: &str = "no such node";

/// Who or what is harmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Victim {
    /// The scheduler.
    Scheduler,
    /// The gateway.
    Gateway,
    /// The registry.
    Registry,
    /// The gateways' Redis.
    Redis,
    /// The sidecar of this node, counted from 0; where it is about links, the node.
    Sidecar(usize),
    /// The disk of the first gateway's store.
    GatewayDisk,
    /// The disk of this node's store.
    NodeDisk(usize),
}

impl fmt::Display for Victim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Scheduler => f.write_str("scheduler"),
            Self::Gateway => f.write_str("gateway"),
            Self::Registry => f.write_str("registry"),
            Self::Redis => f.write_str("redis"),
            Self::Sidecar(number) => write!(f, "node{}", number + 1),
            Self::GatewayDisk => f.write_str("gateway's disk"),
            Self::NodeDisk(number) => write!(f, "node{}'s disk", number + 1),
        }
    }
}

/// What happens to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Harm {
    /// Its process is gone, without a goodbye.
    Killed,
    /// Its process stands still; its connections stay open. Of a disk: it does not answer.
    Paused,
    /// No packet comes through between it and all others that it needs, and no error tells.
    CutOff,
    /// No packet comes through between it and the gateway only.
    CutOffFromGateway,
    /// Its link has but [`SLOWED`].
    Slow,
    /// Of a disk: there is no room on it.
    Full,
    /// Of a disk: it takes nothing any more.
    ReadOnly,
    /// Of a disk: nothing can be read from it any more.
    Broken,
}

impl fmt::Display for Harm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Killed => "killed",
            Self::Paused => "paused",
            Self::CutOff => "partitioned",
            Self::CutOffFromGateway => "partitioned from the gateway",
            Self::Slow => "slow",
            Self::Full => "full",
            Self::ReadOnly => "read-only",
            Self::Broken => "broken",
        })
    }
}

impl Fleet {
    /// Does a victim this harm.
    pub async fn harm(&mut self, lab: &Lab, victim: Victim, harm: Harm) -> Result<()> {
        if let Some(disk) = self.disks.get(&victim) {
            return harm_disk(disk, harm).await.with_context(|| format!("{victim}: cannot be {harm}"));
        }
        let done = match harm {
            Harm::Killed => self.process(victim)?.kill().await,
            Harm::Paused => self.process(victim)?.stop(),
            Harm::CutOff | Harm::CutOffFromGateway => {
                let (one, others) = self.sides(victim, harm)?;
                lab.partition(&[one], &others).await
            }
            Harm::Slow => self.machine(victim)?.shape(SLOWED, SLOWED).await,
            Harm::Full | Harm::ReadOnly | Harm::Broken => Err(anyhow!(NO_DISK)),
        };
        done.with_context(|| format!("{victim}: cannot be {harm}"))
    }

    /// Takes a harm back, and waits until the victim works again.
    pub async fn undo(&mut self, lab: &Lab, victim: Victim, harm: Harm) -> Result<()> {
        if self.disks.contains_key(&victim) {
            let done = self.undo_to_disk(victim, harm).await;
            return done.with_context(|| format!("{victim}: cannot be mended after it was {harm}"));
        }
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
            Harm::Full | Harm::ReadOnly | Harm::Broken => Ok(()),
        };
        done.with_context(|| format!("{victim}: cannot be brought back after it was {harm}"))
    }

    /// Waits until every node and gateway is known to the scheduler, every node and the scheduler to a gateway, and the
    /// gateways to each other and their Redis.
    pub async fn wait_until_whole(&self) -> Result<()> {
        let (n_nodes, n_gateways) = (self.sidecars.len() as f64, self.gateways().len() as f64);
        wait::until("all parts have found each other", WHOLE, async || {
            let known = self.scheduler.metric("shoal_scheduler_nodes", &[]).await;
            let connected = self.total("shoal_connections", &[("listener", "nodes")]).await;
            let at_least = |it: Result<f64>, n: f64| it.is_ok_and(|it| it >= n);
            let have_redis = match self.redis {
                Some(_) => at_least(self.total("shoal_gateway_redis_up", &[]).await, n_gateways),
                None => true,
            };
            let have_sisters = n_gateways < 2.0
                || at_least(self.total("shoal_gateway_sisters", &[]).await, n_gateways * (n_gateways - 1.0));
            // Each gateway is a client of the others.
            let n_connected = n_nodes + 1.0 + n_gateways * (n_gateways - 1.0);
            let are_known = at_least(known, n_nodes + n_gateways) && at_least(connected, n_connected);
            (are_known && have_redis && have_sisters).then_some(())
        })
        .await
    }

    /// A metric, summed over all gateways.
    async fn total(&self, name: &str, labels: &[(&str, &str)]) -> Result<f64> {
        Ok(try_join_all(self.gateways().into_iter().map(|it| it.metric(name, labels)))
            .await?
            .into_iter()
            .sum())
    }

    /// A disk that is broken for good is replaced by an empty one, for which its service has to be started anew.
    async fn undo_to_disk(&mut self, victim: Victim, harm: Harm) -> Result<()> {
        let disk = self.disks.get(&victim).context(NO_DISK)?;
        match harm {
            Harm::Full => return disk.make_room(),
            Harm::Paused => return disk.thaw().await,
            _ => {}
        }
        self.process(victim)?.kill().await?;
        self.disks.get(&victim).context(NO_DISK)?.replace().await?;
        self.start_anew(victim).await
    }

    async fn start_anew(&mut self, victim: Victim) -> Result<()> {
        let service = match victim {
            Victim::Registry => return self.registry.restart().await,
            Victim::Redis => return self.redis.as_mut().context(NO_REDIS)?.restart().await,
            Victim::Scheduler => &mut self.scheduler,
            Victim::Gateway | Victim::GatewayDisk => &mut self.gateway,
            Victim::Sidecar(number) | Victim::NodeDisk(number) => {
                self.sidecars.get_mut(number).context(NO_NODE)?
            }
        };
        service.process.restart().await?;
        service.wait_until_ready().await
    }

    fn process(&mut self, victim: Victim) -> Result<&mut Process> {
        Ok(match victim {
            Victim::Scheduler => &mut self.scheduler.process,
            Victim::Gateway | Victim::GatewayDisk => &mut self.gateway.process,
            Victim::Registry => &mut self.registry.process,
            Victim::Redis => &mut self.redis.as_mut().context(NO_REDIS)?.process,
            Victim::Sidecar(number) | Victim::NodeDisk(number) => {
                &mut self.sidecars.get_mut(number).context(NO_NODE)?.process
            }
        })
    }

    /// The machine that a victim is on.
    pub fn machine(&self, victim: Victim) -> Result<Host> {
        Ok(match victim {
            Victim::Scheduler => self.scheduler.host.clone(),
            Victim::Gateway | Victim::GatewayDisk => self.gateway.host.clone(),
            Victim::Registry => self.registry.host.clone(),
            Victim::Redis => self.redis.as_ref().context(NO_REDIS)?.host.clone(),
            Victim::Sidecar(number) | Victim::NodeDisk(number) => {
                self.sidecars.get(number).context(NO_NODE)?.host.clone()
            }
        })
    }

    /// The victim, and those it can no longer talk with. A node always reaches the registry, which is what it
    /// falls back to; from the registry only the gateway is cut off, and from Redis all that use it.
    fn sides(&self, victim: Victim, harm: Harm) -> Result<(Host, Vec<Host>)> {
        let one = self.machine(victim)?;
        let nodes = self.sidecars.iter().map(|it| &it.host);
        let gateways = self.gateways().into_iter().map(|it| &it.host);
        let others: Vec<Host> = match (victim, harm) {
            (Victim::Registry, _) | (_, Harm::CutOffFromGateway) => vec![self.gateway.host.clone()],
            (Victim::Redis, _) => gateways.cloned().collect(),
            _ => {
                let all = nodes.chain([&self.scheduler.host]).chain(gateways);
                all.filter(|it| it.name() != one.name()).cloned().collect()
            }
        };
        Ok((one, others))
    }
}

async fn harm_disk(disk: &Disk, harm: Harm) -> Result<()> {
    match harm {
        Harm::Paused => disk.freeze().await,
        Harm::Full => disk.fill(),
        Harm::ReadOnly => disk.turn_read_only().await,
        Harm::Broken => disk.break_down(&stored(disk.dir())?),
        Harm::Killed | Harm::CutOff | Harm::CutOffFromGateway | Harm::Slow => {
            bail!("that does not happen to a disk")
        }
    }
}
