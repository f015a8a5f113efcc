//! Certificates that are renewed, and end, in the middle of a transfer.

use anyhow::{Result, ensure};
use futures_util::future::try_join_all;
use serde_json::json;
use shoal_model::ByteRate;
use shoal_tests::counting::Seen;
use shoal_tests::fault::Effect;
use shoal_tests::fleet::{Fleet, FleetSpec};
use shoal_tests::lab::{Lab, LabSpec};

const LAYER: usize = 24 << 20;
/// Slow enough for the transfer to outlast the first certificates, which live a minute, and the moment that
/// connections have after their end.
const RATE: ByteRate = ByteRate(256 << 10);

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_goes_on_while_all_certificates_are_renewed_and_the_old_ones_end() -> Result<()> {
    let mut lab = Lab::start("renewal", LabSpec::nodes(2)).await?;
    let short = json!({ "security": { "certLifetime": "1m" } });
    let fleet = Fleet::start(&mut lab, FleetSpec::open().with_gateway(short)).await?;
    let image = fleet.publish(&[LAYER]).await?;
    let layer = &image.layers[0];
    fleet.registry.front.hurt("/blobs/", u32::MAX, Effect::Slow(RATE));
    let reads = [0, 1].map(async |node| fleet.read(node, &image, layer, &[]).await?.finish_with(layer).await);
    try_join_all(reads).await?;

    let parts = fleet.sidecars.iter().chain([&fleet.scheduler]);
    for part in parts {
        let n_issued = part.process.log()?.matches("certificate issued").count();
        ensure!(n_issued >= 2, "{}: {n_issued} certificates", part.host.name());
    }
    ensure!(fleet.gateway.process.log()?.contains("certificate renewed"), "the gateway kept its own");
    let reads: Vec<_> = fleet.registry.front.seen().into_iter().filter(Seen::is_blob_read).collect();
    ensure!(reads.len() == 1, "the registry was read more than once: {reads:?}");
    // Nobody fell off: all are with the scheduler, and the registry itself was never turned to.
    let n_nodes = fleet.scheduler.metric("shoal_scheduler_nodes", &[]).await?;
    ensure!(n_nodes >= 3.0, "{n_nodes} nodes at the scheduler");
    let direct = fleet.metric("shoal_sidecar_download_bytes_total", &[("source", "registry")]).await?;
    ensure!(direct < 1.0, "{direct} bytes straight from the registry");
    Ok(())
}
