//! The region that is harmed, and one attempt after another in it.

use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::json;
use shoal_model::ByteSize;
use shoal_tests::fleet::{Fleet, FleetSpec};
use shoal_tests::image::{Image, ImageSpec};
use shoal_tests::lab::{Lab, LabSpec};
use shoal_tests::link::Mbit;
use shoal_tests::registry::RegistrySpec;
use shoal_tests::runtime::MIRROR;
use shoal_tests::runtime::containerd::Containerd;
use shoal_tests::wait;
use tokio::time::{Instant, sleep};
use tokio_util::task::AbortOnDropHandle;

use super::cell::{Course, Kind, Moment, N_NODES, Row, not_tried};
use super::table::Outcome;

/// The rate of every node's link.
const RATE: Mbit = Mbit(50);
/// The layers of each image, in bytes.
const LAYERS: [usize; 3] = [6 << 20, 3 << 20, 256 << 10];
/// The disk of each node and of the gateway, in bytes: all images of a run and some more.
const DISK: ByteSize = ByteSize(3 << 30);
/// In the middle of a pull this much has come.
const MIDDLE: u64 = 3 << 20;
/// How long a part is away that comes back in the middle.
const AWAY: Duration = Duration::from_secs(1);
/// How long a pull may take. What takes longer has failed.
const PULL: Duration = Duration::from_secs(180);
const UNDER_WAY: Duration = Duration::from_secs(30);

/// A running region with a runtime on each node.
pub(super) struct Region {
    lab: Lab,
    fleet: Fleet,
    runtimes: Vec<Containerd>,
    n_images: u64,
}

/// Pulls of one image by some nodes.
struct Pulls(Vec<(usize, AbortOnDropHandle<Result<Duration>>)>);

impl Pulls {
    /// Waits for these nodes' and gives up the others'; how long the slowest took.
    async fn slowest_of(self, nodes: &[usize]) -> Result<Duration> {
        let mut slowest = Duration::ZERO;
        for (node, pull) in self.0.into_iter().filter(|(node, _)| nodes.contains(node)) {
            slowest = slowest.max(pull.await?.with_context(|| format!("node{}", node + 1))?);
        }
        Ok(slowest)
    }
}

impl Region {
    pub(super) async fn start(kind: Kind) -> Result<Self> {
        let mut lab = Lab::start("faults", LabSpec::nodes(N_NODES).at(RATE)).await?;
        let registry = RegistrySpec::plain().for_user("robot", "s3cret");
        // No blob is removed for the sake of the others, however small the disks.
        let all_of_it = json!({ "storage": { "freeSpaceFloor": "0" } });
        let spec = FleetSpec::before(registry).with_gateway(all_of_it.clone()).with_sidecar(all_of_it);
        let spec = spec.with_disks(DISK);
        let spec = match kind {
            Kind::OneGateway => spec,
            Kind::TwoGateways => spec.with_gateways(2).with_redis(),
        };
        let fleet = Fleet::start(&mut lab, spec).await?;
        let runtimes = fleet.containerds().await?;
        fleet.wait_until_whole().await?;
        Ok(Self { lab, fleet, runtimes, n_images: 0 })
    }

    /// How long one node takes without Shoal.
    pub(super) async fn direct(&mut self) -> Result<Duration> {
        let image = self.publish().await?;
        let runtime = self.runtimes.first().context("there are no nodes")?;
        runtime.go_direct(&self.fleet.registry)?;
        let took = self.pull(&image, &[0]).slowest_of(&[0]).await?;
        runtime.go_through(&self.fleet.registry, MIRROR)?;
        self.check_and_forget(&image, &[0]).await?;
        Ok(took)
    }

    /// How long the slowest node takes when nothing happens: of all that begin at once, and of one that comes later
    /// beside one that pulls once more.
    pub(super) async fn undisturbed(&mut self) -> Result<[Duration; 2]> {
        let (all, two) = (Vec::from_iter(0..self.runtimes.len()), [0, 1]);
        let image = self.publish().await?;
        let together = self.pull(&image, &all).slowest_of(&all).await?;
        self.check_and_forget(&image, &all).await?;
        let image = self.publish().await?;
        self.pull_on_all_but_first(&image).await?;
        let later = self.pull(&image, &two).slowest_of(&two).await?;
        self.check_and_forget(&image, &two).await?;
        Ok([together, later])
    }

    /// Tries one cell. What fails of the pulls is an outcome; an error is of the lab.
    pub(super) async fn attempt(&mut self, row: &Row, course: Course, moment: Moment) -> Result<Outcome> {
        if let Some(why) = not_tried(row, course, moment) {
            return Ok(Outcome::NotTried(why));
        }
        let image = self.publish().await?;
        let (pulls, measured) = self.begin(row, course, moment, &image).await?;
        if matches!(course, Course::BackAgain(_)) {
            sleep(AWAY).await;
            self.undo(row, course).await?;
        }
        let took = pulls.slowest_of(&measured).await;
        if !matches!(course, Course::BackAgain(_)) {
            self.undo(row, course).await?;
        }
        self.fleet.wait_until_whole().await?;
        let pulled = match took {
            Ok(took) => self.check_and_forget(&image, &measured).await.map(|()| took),
            Err(error) => Err(error),
        };
        Ok(match pulled {
            Ok(took) => Outcome::Pulled(took),
            Err(error) => Outcome::Failed(format!("{error:#}")),
        })
    }

    /// Brings about the moment and the harm; the pulls that are under way then, and whose time counts.
    async fn begin(
        &mut self,
        row: &Row,
        course: Course,
        moment: Moment,
        image: &Image,
    ) -> Result<(Pulls, Vec<usize>)> {
        let (all, measured) = (Vec::from_iter(0..self.runtimes.len()), row.measured());
        match moment {
            Moment::Before => {
                self.harm(row, course).await?;
                Ok((self.pull(image, &measured), measured))
            }
            Moment::During => {
                let before = self.received().await?;
                let pulls = self.pull(image, &all);
                wait::until("the pulls are under way", UNDER_WAY, async || {
                    self.received().await.is_ok_and(|it| it > before + MIDDLE).then_some(())
                })
                .await?;
                self.harm(row, course).await?;
                Ok((pulls, measured))
            }
            Moment::After => {
                self.pull_on_all_but_first(image).await?;
                self.harm(row, course).await?;
                Ok((self.pull(image, &[0, 1]), vec![0, 1]))
            }
        }
    }

    /// Has all nodes but the first pull, and the second one's runtime forget what its sidecar keeps.
    async fn pull_on_all_but_first(&self, image: &Image) -> Result<()> {
        let others = Vec::from_iter(1..self.runtimes.len());
        self.pull(image, &others).slowest_of(&others).await?;
        self.check_and_forget(image, &others).await
    }

    fn pull(&self, image: &Image, nodes: &[usize]) -> Pulls {
        let pulls = nodes.iter().map(|node| {
            let runtime = &self.runtimes[*node];
            let (host, command) = (runtime.host.clone(), runtime.pull_command(&self.fleet.registry, image));
            let pull = async move {
                let began = Instant::now();
                host.run(command, PULL).await?;
                Ok(began.elapsed())
            };
            (*node, AbortOnDropHandle::new(tokio::spawn(pull)))
        });
        Pulls(pulls.collect())
    }

    async fn check_and_forget(&self, image: &Image, nodes: &[usize]) -> Result<()> {
        for node in nodes {
            self.runtimes[*node].check_content(image)?;
            self.runtimes[*node].forget(&self.fleet.registry, image).await?;
        }
        Ok(())
    }

    /// A fresh image.
    async fn publish(&mut self) -> Result<Image> {
        self.n_images += 1;
        let seed = self.n_images;
        let spec = ImageSpec {
            layers: LAYERS.into(),
            tag: format!("v{seed}"),
            seed,
            ..ImageSpec::new("team/app", 0)
        };
        let image = Image::build(&spec)?;
        self.fleet.registry.push(&image).await?;
        Ok(image)
    }

    /// Bytes that have come to the first node.
    async fn received(&self) -> Result<u64> {
        Ok(self.runtimes.first().context("there are no nodes")?.host.traffic().await?.received)
    }

    async fn harm(&mut self, row: &Row, course: Course) -> Result<()> {
        for victim in row.victims {
            self.fleet.harm(&self.lab, *victim, course.harm()).await?;
        }
        Ok(())
    }

    async fn undo(&mut self, row: &Row, course: Course) -> Result<()> {
        for victim in row.victims {
            self.fleet.undo(&self.lab, *victim, course.harm()).await?;
        }
        Ok(())
    }
}
