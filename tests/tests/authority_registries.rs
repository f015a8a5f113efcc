//! Registries that cannot be trusted: one that lies about what is another's, one that holds forged manifests,
//! and one that sends the gateway elsewhere.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use shoal_tests::counting::{Front, Seen};
use shoal_tests::fault::Effect;
use shoal_tests::fleet::{Fleet, FleetSpec};
use shoal_tests::host::Host;
use shoal_tests::hostile::HostileRegistry;
use shoal_tests::image::{Blob, Image};
use shoal_tests::lab::{Lab, LabSpec};
use shoal_tests::private::{ALICE, BOB, NOBODY, PrivateFleet};
use shoal_tests::raw::{Ending, Exchange};
use shoal_tests::registry::RegistrySpec;

const EVERY_TIME: u32 = u32::MAX;
/// Where clouds keep the credentials of their machines.
const METADATA: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);

// === A registry that lies ===

/// A fleet that also knows a registry which claims to have Alice's image. The gateway takes it for one of this
/// kind.
async fn with_liar(name: &str, kind: &str) -> Result<(PrivateFleet, HostileRegistry)> {
    let mut private = PrivateFleet::start(name, RegistrySpec::plain()).await?;
    let liar = HostileRegistry::start(&mut private.lab, &private.of_alice).await?;
    let (entry, mut of_kind) = (liar.settings(), liar.settings());
    of_kind["kind"] = json!(kind);
    let add = |list: &mut Value, entry: &Value| {
        list.as_array_mut().into_iter().for_each(|it| it.push(entry.clone()));
    };
    private
        .fleet
        .reconfigure(
            |it| add(&mut it["registries"], &of_kind),
            |it| add(&mut it["proxy"]["registries"], &entry),
        )
        .await?;
    Ok((private, liar))
}

/// Has a node read the liar's manifest, which names all of Alice's blobs, and then one of the blobs there.
async fn read_at_liar(node: &Host, liar: &HostileRegistry, image: &Image, blob: &Blob) -> Result<Exchange> {
    let ns = liar.authority().replace(':', "%3A");
    let manifest = format!("/v2/{}/manifests/{}?ns={ns}", image.repository, image.tag);
    let manifest = Exchange::send(node, "GET", &manifest, &[]).await?;
    ensure!(manifest.status == 200, "{manifest:?}");
    ensure!(manifest.finish().await?.body == image.manifest.bytes, "the liar's manifest is not Alice's");
    let blob = format!("/v2/{}/blobs/{}?ns={ns}", image.repository, blob.digest);
    Exchange::send(node, "GET", &blob, &[]).await
}

/// Fails if what came is the blob, or anything that passes for it.
async fn check_nothing_came(answer: Exchange, blob: &Blob) -> Result<()> {
    // The gateway has found out already, and a runtime would go on to the liar by itself.
    if answer.status == 503 {
        return Ok(());
    }
    ensure!(answer.status == 200, "{answer:?}");
    let ended = answer.finish().await?;
    ensure!(ended.ending == Ending::Fin, "{:?} after {} bytes", ended.ending, ended.body.len());
    ensure!(ended.body.iter().all(|it| *it == 0), "bytes of {} that the liar does not have", blob.digest);
    Ok(())
}

/// Has every node read all blobs at the liar. Fails unless the gateway reads there, and if anything comes of it.
async fn check_liar(private: &PrivateFleet, liar: &HostileRegistry) -> Result<()> {
    let image = &private.of_alice;
    for node in private.lab.nodes() {
        for blob in image.blobs() {
            check_nothing_came(read_at_liar(node, liar, image, blob).await?, blob).await?;
        }
    }
    let registry = [("registry", liar.authority())];
    let read = private.fleet.gateway.metric("shoal_gateway_back_to_source_bytes_total", &registry).await?;
    ensure!(read > 0.0, "nobody asked the liar");
    Ok(())
}

async fn check_that_a_liar_opens_nothing(name: &str, kind: &str) -> Result<()> {
    let (private, liar) = with_liar(name, kind).await?;
    let (image, layer) = (&private.of_alice, &private.of_alice.layers[0]);
    private.read(0, ALICE, image, layer).await?.finish_with(layer).await?;
    check_liar(&private, &liar).await?;
    // Nor has the liar's word become a right at the registry itself.
    for node in 0..2 {
        assert_eq!(private.read(node, NOBODY, image, layer).await?.status, 401);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_says_yes_to_everything_opens_nothing_of_another() -> Result<()> {
    check_that_a_liar_opens_nothing("liar-opens", "oci").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_whose_manifests_are_believed_opens_nothing_of_another() -> Result<()> {
    check_that_a_liar_opens_nothing("liar-believed", "distribution").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_lies_about_the_content_poisons_nothing_of_another() -> Result<()> {
    let (private, liar) = with_liar("liar-poisons", "distribution").await?;
    check_liar(&private, &liar).await?;
    let image = &private.of_alice;
    for (node, containerd) in private.fleet.containerds().await?.iter().enumerate() {
        containerd.pull_as(ALICE, &private.fleet.registry, image).await?;
        containerd.check(&private.fleet.registry, image).await?;
        for blob in image.blobs() {
            private.read(node, ALICE, image, blob).await?.finish_with(blob).await?;
        }
    }
    Ok(())
}

// === Honest registries with hostile content ===

/// Manifests which a registry that folds the case of keys takes for one of `own`, and a reader that goes by the
/// letter for one of `foreign`.
fn forgeries(own: &Image, foreign: &Blob) -> Result<Vec<String>> {
    let text = std::str::from_utf8(&own.manifest.bytes)?;
    let digest = own.layers[0].digest.to_string();
    let layers = serde_json::from_str::<Value>(text)?["layers"].to_string();
    let foreign_layers = layers.replace(&digest, &foreign.digest.to_string());
    let of_list = |key| {
        let both = format!("\"layers\":{foreign_layers},\"{key}\":{layers}");
        text.replace(&format!("\"layers\":{layers}"), &both)
    };
    let of_layer = |key| {
        let both = format!("\"digest\":\"{}\",\"{key}\":\"{digest}\"", foreign.digest);
        text.replace(&format!("\"digest\":\"{digest}\""), &both)
    };
    let lists = ["Layers", "layer\u{17f}", "layers"].map(of_list);
    let layers = ["Digest", "DIGEST"].map(of_layer);
    Ok(lists.into_iter().chain(layers).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_that_the_registry_read_otherwise_opens_nothing() -> Result<()> {
    let private = PrivateFleet::start("forged", RegistrySpec::plain()).await?;
    let (registry, layer) = (&private.fleet.registry, &private.of_alice.layers[0]);
    private.read(0, ALICE, &private.of_alice, layer).await?.finish_with(layer).await?;
    for (n, bytes) in forgeries(&private.of_bob, layer)?.into_iter().enumerate() {
        // The registry makes sure of the blobs, and finds all of those that it sees.
        let mut forged = private.of_bob.clone();
        (forged.tag, forged.manifest.bytes) = (format!("forged-{n}"), bytes.into());
        registry.push(&forged).await?;
        for node in 0..2 {
            let manifest = private.read_manifest(node, BOB, &forged).await?;
            ensure!(manifest.status == 200, "{manifest:?}");
            ensure!(manifest.finish().await?.body == forged.manifest.bytes, "{} has changed", forged.tag);
            let answer = private.read(node, BOB, &forged, layer).await?;
            ensure!(answer.status == 404, "{}: {answer:?}", forged.tag);
        }
    }
    let own = &private.of_bob.layers[0];
    private.read(1, BOB, &private.of_bob, own).await?.finish_with(own).await?;
    Ok(())
}

// === A registry that sends elsewhere ===

/// A fleet whose gateway alone has the registry's password, and an image that nobody has asked for.
async fn sent_elsewhere(name: &str) -> Result<(Lab, Fleet, Image)> {
    let mut lab = Lab::start(name, LabSpec::nodes(1)).await?;
    let mut fleet = Fleet::start(&mut lab, FleetSpec::private()).await?;
    // So that each blob is asked for before anything of it is promised, and the runtime is told what is wrong.
    fleet.reconfigure(|it| it["registries"][0]["kind"] = json!("oci"), |_| {}).await?;
    let image = fleet.publish(&[1 << 20]).await?;
    Ok((lab, fleet, image))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_to_another_host_carries_no_credential() -> Result<()> {
    let (mut lab, fleet, image) = sent_elsewhere("redirect-storage").await?;
    let storage = lab.registry(RegistrySpec::plain().named("storage")).await?;
    storage.push(&image).await?;
    fleet.registry.front.hurt("/blobs/", EVERY_TIME, Effect::Redirect(storage.url()));
    let node = &fleet.containerds().await?[0];
    node.pull(&fleet.registry, &image).await?;
    node.check(&fleet.registry, &image).await?;

    let [asked, redirected] = [&fleet.registry, &storage].map(|it| it.front.seen());
    assert!(asked.iter().any(|it| it.is_blob_read() && it.authorization.is_some()), "{asked:?}");
    assert!(redirected.iter().any(|it| it.is_blob_read() && it.status == 200), "{redirected:?}");
    assert!(redirected.iter().all(|it| it.authorization.is_none()), "{redirected:?}");
    Ok(())
}

/// Fails unless redirects to `url` end the pull with an error that says why, and nothing comes to the server
/// there, which listens at `port` of `host`.
async fn check_redirect_refused(
    (fleet, image): (&Fleet, &Image),
    url: &str,
    (host, port): (&Host, u16),
) -> Result<()> {
    const WHY: &str = "led to an address inside this machine or its metadata service";
    let nowhere: SocketAddr = (Ipv4Addr::LOCALHOST, 1).into();
    let inner = Front::start(host, port, nowhere, None, None)?;
    let front = &fleet.registry.front;
    front.hurt("/blobs/", EVERY_TIME, Effect::Redirect(url.into()));

    let answer = fleet.read(0, image, &image.layers[0], &[]).await?;
    ensure!(answer.status == 503, "{answer:?}");
    let text = String::from_utf8(answer.finish().await?.body)?;
    ensure!(text.contains(WHY), "{text}");
    let pull = fleet.containerds().await?[0].pull(&fleet.registry, image).await;
    let Err(error) = pull else { anyhow::bail!("pulled what nobody has") };
    let text = format!("{error:#}");
    ensure!(text.contains(WHY) && text.contains(fleet.registry.authority()), "{text}");

    // Only the gateway has a credential.
    let sent_away = |it: &Seen| it.status == 307 && it.authorization.is_some();
    ensure!(front.seen().iter().any(sent_away), "the gateway was not redirected: {:?}", front.seen());
    ensure!(inner.seen().is_empty(), "{:?}", inner.seen());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_to_the_metadata_service_is_refused() -> Result<()> {
    let (mut lab, fleet, image) = sent_elsewhere("redirect-metadata").await?;
    let metadata = lab.host("metadata").await?;
    metadata.take_address(METADATA).await?;
    // The way is there; only the rule keeps the gateway off it.
    fleet.gateway.host.reach(METADATA).await?;
    let listener = metadata.listen(81)?;
    fleet.gateway.host.connect((METADATA, 81).into()).await?;
    drop(listener);
    check_redirect_refused((&fleet, &image), &format!("http://{METADATA}"), (&metadata, 80)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_to_the_gateways_own_loopback_is_refused() -> Result<()> {
    let (_lab, fleet, image) = sent_elsewhere("redirect-loopback").await?;
    let gateway = fleet.gateway.host.clone();
    check_redirect_refused((&fleet, &image), "http://127.0.0.1:9000", (&gateway, 9000)).await
}
