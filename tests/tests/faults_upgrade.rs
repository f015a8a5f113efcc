//! All parts are replaced one after the other while images are pulled: no pull fails.

use std::time::Duration;

use anyhow::{Context, Result};
use shoal_tests::command::Launch;
use shoal_tests::fleet::{Fleet, FleetSpec};
use shoal_tests::image::{Image, ImageSpec};
use shoal_tests::lab::{Lab, LabSpec};
use shoal_tests::link::Mbit;
use shoal_tests::registry::RegistrySpec;
use shoal_tests::runtime::containerd::Containerd;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

const PULL: Duration = Duration::from_secs(60);
/// How long a part may take to end in good order: more than its grace.
const ENDING: Duration = Duration::from_secs(15);
const N_IMAGES: u64 = 3;

/// An image as a node's runtime fetches and forgets it.
struct Wanted {
    image: Image,
    fetch: Launch,
    forget: Launch,
}

/// Pulls one image after the other until all is over; how many.
async fn pull_on(runtime: Containerd, wanted: Vec<Wanted>, over: CancellationToken) -> Result<usize> {
    let mut n_pulled = 0;
    for wanted in wanted.iter().cycle() {
        if over.is_cancelled() {
            break;
        }
        let pulled = runtime.host.run(wanted.fetch.clone(), PULL).await;
        pulled.with_context(|| format!("pull {} of {}", n_pulled + 1, runtime.host.name()))?;
        runtime.check_content(&wanted.image)?;
        runtime.host.run(wanted.forget.clone(), PULL).await?;
        n_pulled += 1;
    }
    Ok(n_pulled)
}

#[tokio::test(flavor = "multi_thread")]
async fn no_pull_fails_while_all_parts_are_restarted_one_after_the_other() -> Result<()> {
    let mut lab = Lab::start("upgrade", LabSpec::nodes(2).at(Mbit(50))).await?;
    let spec = FleetSpec::before(RegistrySpec::plain().for_user("robot", "s3cret"));
    let mut fleet = Fleet::start(&mut lab, spec).await?;
    let mut images = Vec::new();
    for seed in 1..=N_IMAGES {
        let spec = ImageSpec { seed, tag: format!("v{seed}"), ..ImageSpec::new("team/app", 2 << 20) };
        let image = Image::build(&spec)?;
        fleet.registry.push(&image).await?;
        images.push(image);
    }
    let over = CancellationToken::new();
    let mut pulls = JoinSet::new();
    for runtime in fleet.containerds().await? {
        let wanted = images.iter().map(|image| Wanted {
            fetch: runtime.fetch_command(&fleet.registry, image),
            forget: runtime.forget_command(&fleet.registry, image),
            image: image.clone(),
        });
        let wanted = wanted.collect();
        pulls.spawn(pull_on(runtime, wanted, over.clone()));
    }
    let rolling = async {
        for _ in 0..2 {
            let services = [&mut fleet.gateway, &mut fleet.scheduler];
            for service in services.into_iter().chain(&mut fleet.sidecars) {
                service.process.terminate(ENDING).await?;
                service.process.restart().await?;
                service.wait_until_ready().await?;
            }
        }
        anyhow::Ok(())
    };
    let rolled = rolling.await;
    over.cancel();
    while let Some(n_pulled) = pulls.join_next().await {
        let n_pulled = n_pulled??;
        assert!(n_pulled > 0);
    }
    rolled
}
