//! The region that suffers.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use futures_util::future::try_join_all;
use nix::fcntl::OFlag;
use serde_json::json;
use shoal_model::{ByteSize, Rng};
use shoal_tests::fault::{Effect, Ending};
use shoal_tests::fleet::{Fleet, FleetSpec};
use shoal_tests::harm::Victim;
use shoal_tests::image::{Image, ImageSpec};
use shoal_tests::lab::{Lab, LabSpec};
use shoal_tests::link::Mbit;
use shoal_tests::registry::RegistrySpec;
use shoal_tests::runtime::MIRROR;
use shoal_tests::runtime::containerd::Containerd;
use shoal_tests::shoal::Service;
use shoal_tests::stored::stored;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::clients::{Pulled, Shift, Wanted, pull, read};
use super::leaks::{Held, Leaked, leaked};
use super::plan::{Fault, Plan};

/// How many nodes there are.
pub(super) const N_NODES: u16 = 6;
/// The rate of every node's link.
const RATE: Mbit = Mbit(50);
const N_IMAGES: u64 = 12;
/// The layers of each image, in bytes.
const LAYERS: [usize; 3] = [3 << 20, 1 << 20, 100 << 10];
/// What the stores may keep: a node's some four images, the gateway's some six.
const NODE_STORE: &str = "16Mi";
const GATEWAY_STORE: &str = "24Mi";
/// What a node or the first gateway has for its store.
const DISK: ByteSize = ByteSize(64 << 20);
/// How many pulls without Shoal are measured.
const DIRECT: usize = 5;
/// How long the clients go on when everything works again.
const AFTERMATH: Duration = Duration::from_secs(5);
/// What of the registry's bodies comes before they break, in bytes, and how many break.
const BREAK: (u64, u32) = (300_000, 2);
/// What has not been written to for so long is at rest.
const AT_REST: Duration = Duration::from_secs(2);
/// How many bits are flipped in one go.
const FLIPS: usize = 8;
/// What is written past the page cache comes in whole blocks of so many bytes.
const BLOCK: usize = 4096;

/// A running region with clients on each node.
pub(super) struct Region {
    lab: Lab,
    fleet: Fleet,
    runtimes: Vec<Arc<Containerd>>,
    /// For each node, all images.
    wanted: Vec<Arc<Vec<Wanted>>>,
    authorization: String,
}

impl Region {
    pub(super) async fn start() -> Result<Self> {
        let mut lab = Lab::start("chaos", LabSpec::nodes(N_NODES).at(RATE)).await?;
        let store = |size: &str| json!({ "storage": { "diskGCThreshold": size, "freeSpaceFloor": "1Mi" } });
        let registry = RegistrySpec::plain().for_user("robot", "s3cret");
        let spec =
            FleetSpec::before(registry).with_gateway(store(GATEWAY_STORE)).with_sidecar(store(NODE_STORE));
        let spec = spec.with_gateways(2).with_redis().with_disks(DISK);
        let fleet = Fleet::start(&mut lab, spec).await?;
        let runtimes: Vec<_> = fleet.containerds().await?.into_iter().map(Arc::new).collect();
        let mut images = Vec::new();
        for seed in 1..=N_IMAGES {
            let tag = format!("v{seed}");
            let spec = ImageSpec { layers: LAYERS.into(), tag, seed, ..ImageSpec::new("team/app", 0) };
            let image = Image::build(&spec)?;
            fleet.registry.push(&image).await?;
            images.push(Arc::new(image));
        }
        let wanted = runtimes.iter().map(|runtime| {
            let wanted = images.iter().map(|image| wanted(&fleet, runtime, image));
            anyhow::Ok(Arc::new(wanted.collect::<Result<Vec<_>>>()?))
        });
        let wanted = wanted.collect::<Result<_>>()?;
        let credentials = fleet.registry.credentials().context("the registry has a user")?;
        let authorization = credentials.basic();
        fleet.wait_until_whole().await?;
        // On a link that is slow and full, questions after places are lost as well, and a registry that is to be reached at
        // all times cannot be.
        lab.introduce(&fleet.hosts()).await?;
        Ok(Self { lab, fleet, runtimes, wanted, authorization })
    }

    /// The median time of a pull without Shoal.
    pub(super) async fn direct(&self) -> Result<Duration> {
        let (runtime, registry) = (&self.runtimes[0], &self.fleet.registry);
        runtime.go_direct(registry)?;
        let mut took = Vec::new();
        for wanted in self.wanted[0].iter().take(DIRECT) {
            took.push(runtime.fetch(registry, &wanted.image).await?);
            runtime.forget(registry, &wanted.image).await?;
        }
        runtime.go_through(registry, MIRROR)?;
        took.sort_unstable();
        Ok(took[took.len() / 2])
    }

    /// Has every node pull every image once, so that all connections are there.
    pub(super) async fn warm_up(&self) -> Result<()> {
        let pulls = self.runtimes.iter().zip(&self.wanted).map(async |(runtime, wanted)| {
            for wanted in wanted.iter() {
                runtime.fetch(&self.fleet.registry, &wanted.image).await?;
                runtime.forget(&self.fleet.registry, &wanted.image).await?;
            }
            anyhow::Ok(())
        });
        try_join_all(pulls).await.map(drop)
    }

    /// What is open now.
    pub(super) fn held(&self) -> Result<Held> {
        Held::by(self.services())
    }

    /// What is held beyond `before` once all is quiet.
    pub(super) async fn leaked(&self, before: &Held) -> Result<Leaked> {
        let stores = self.fleet.gateways().into_iter().chain(&self.fleet.sidecars);
        leaked(before, async || self.held(), &stores.collect::<Vec<_>>()).await
    }

    /// Goes through the plan while all clients pull, and a little longer.
    pub(super) async fn suffer(&mut self, plan: &Plan, seed: u64) -> Result<Pulled> {
        let shift = Shift { began: Instant::now(), over: CancellationToken::new() };
        let mut rng = Rng::new(seed);
        let mut clients = JoinSet::new();
        for (node, (runtime, wanted)) in self.runtimes.iter().zip(&self.wanted).enumerate() {
            let mut rng = || Rng::new(rng.next_u64());
            clients.spawn(pull(node, runtime.clone(), wanted.clone(), rng(), shift.clone()));
            let (host, authorization) = (runtime.host.clone(), self.authorization.clone());
            clients.spawn(read(host, wanted.clone(), authorization, rng(), shift.clone()));
        }
        let suffered = self.go_through(plan, shift.began, &mut rng).await;
        self.fleet.wait_until_whole().await?;
        sleep_until(shift.began.max(Instant::now()) + AFTERMATH).await;
        shift.over.cancel();
        suffered?;
        let mut pulled = Pulled::default();
        while let Some(client) = clients.join_next().await {
            pulled += client??;
        }
        Ok(pulled)
    }

    async fn go_through(&mut self, plan: &Plan, began: Instant, rng: &mut Rng) -> Result<()> {
        let begins = plan.faults.iter().map(|it| (it.begins, true, it.fault));
        let ends = plan.faults.iter().map(|it| (it.ends, false, it.fault));
        let mut turns: Vec<_> = begins.chain(ends).collect();
        turns.sort_unstable();
        for (at, is_begin, fault) in turns {
            sleep_until(began + at).await;
            eprintln!("{:6.1} s: {fault}{}", at.as_secs_f64(), if is_begin { "" } else { ", over" });
            match fault {
                Fault::Harm(victim, harm) if is_begin => self.fleet.harm(&self.lab, victim, harm).await?,
                Fault::Harm(victim, harm) => self.fleet.undo(&self.lab, victim, harm).await?,
                Fault::Damage(victim) if is_begin => self.damage(victim, rng)?,
                Fault::Breaks if is_begin => {
                    let (after, times) = BREAK;
                    let effect = Effect::Break { after, ending: Ending::Fin };
                    self.fleet.registry.front.hurt("/blobs/", times, effect);
                }
                Fault::Breaks => self.fleet.registry.front.heal(),
                Fault::Damage(_) => {}
            }
        }
        Ok(())
    }

    /// Flips bits at random places of the victim's store.
    fn damage(&self, victim: Victim, rng: &mut Rng) -> Result<()> {
        let host = self.fleet.machine(victim)?;
        let mut files = stored(host.dir())?;
        files.retain(|it| is_at_rest(it));
        for _ in 0..FLIPS.min(files.len()) {
            // A file that is evicted meanwhile needs no damage.
            let _gone = flip_bit(&files[rng.below(files.len())], rng);
        }
        Ok(())
    }

    fn services(&self) -> impl Iterator<Item = &Service> {
        [&self.fleet.scheduler].into_iter().chain(self.fleet.gateways()).chain(&self.fleet.sidecars)
    }
}

/// How a node's clients ask for an image.
fn wanted(fleet: &Fleet, runtime: &Containerd, image: &Arc<Image>) -> Result<Wanted> {
    let layers = image.layers.iter().map(|it| fleet.blob_target(image, it));
    Ok(Wanted {
        layers: layers.collect::<Result<_>>()?,
        fetch: runtime.fetch_command(&fleet.registry, image),
        forget: runtime.forget_command(&fleet.registry, image),
        image: image.clone(),
    })
}

/// Whether nothing has been written to a file lately.
fn is_at_rest(file: &Path) -> bool {
    let changed = fs::metadata(file).and_then(|it| it.modified());
    changed.is_ok_and(|it| it.elapsed().is_ok_and(|it| it > AT_REST))
}

/// Flips a bit as a disk does that rots: what lies in the page cache, and is on its way to a client from there, stays what
/// it was, and whoever reads the block next gets it from the disk.
fn flip_bit(file: &Path, rng: &mut Rng) -> io::Result<()> {
    let file = File::options().read(true).write(true).custom_flags(OFlag::O_DIRECT.bits()).open(file)?;
    let n_blocks = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX) / BLOCK;
    // The end of a file is no whole block, and cannot be written like this.
    let Some(block) = (n_blocks > 0).then(|| rng.below(n_blocks) * BLOCK) else { return Ok(()) };
    let mut memory = vec![0; 2 * BLOCK];
    let aligned = memory.as_ptr().align_offset(BLOCK);
    let bytes = &mut memory[aligned..aligned + BLOCK];
    file.read_exact_at(bytes, block as u64)?;
    bytes[rng.below(BLOCK)] ^= 1;
    file.write_all_at(bytes, block as u64)
}
