//! Every caller is checked, whatever the node's cache holds: who may read what, and until when.
//!
//! The registries are real, once with passwords and once with a token service, and so are the runtimes with
//! their users' credentials. One thing is not the registry's own: its password file knows users and no rights, so
//! with passwords the registry itself refuses strangers (401), and the lab's front before it refuses a user the
//! repositories of others (403). With tokens, the registry decides about everything.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use shoal_tests::counting::Seen;
use shoal_tests::image::{Blob, Image, ImageSpec};
use shoal_tests::private::{ALICE, BOB, NOBODY, PrivateFleet, Refusal, publish};
use shoal_tests::registry::RegistrySpec;
use shoal_tests::runtime::containerd::Containerd;
use shoal_tests::wait;

/// Fails unless both nodes refuse a user a blob just as the registry does, and it does.
async fn check_refused(private: &PrivateFleet, user: Option<&str>, image: &Image, blob: &Blob) -> Result<()> {
    let expected = private.registrys_refusal(user, image, blob).await?;
    ensure!((400..500).contains(&expected.status), "the registry itself: {expected:?}");
    for node in 0..2 {
        let got = Refusal::from(&private.read(node, user, image, blob).await?);
        ensure!(got == expected, "{user:?} at node {node}: {got:?}, at the registry: {expected:?}");
    }
    Ok(())
}

/// Fails unless a pull by containerd is refused.
async fn check_pull_refused(
    private: &PrivateFleet,
    node: &Containerd,
    user: Option<&str>,
    image: &Image,
) -> Result<()> {
    let pull = node.pull_as(user, &private.fleet.registry, image).await;
    let Err(error) = pull else { anyhow::bail!("{user:?} pulled {}", image.repository) };
    let text = format!("{error:#}");
    ensure!(["401", "403", "authorization failed"].iter().any(|it| text.contains(it)), "{text}");
    Ok(())
}

/// How often the registry answered 200 to each blob of an image, by method.
fn granted(private: &PrivateFleet, method: &str, image: &Image) -> Vec<usize> {
    let seen: Vec<Seen> = private.fleet.registry.front.seen();
    let reads = |blob: &Blob| {
        let of_blob = |it: &&Seen| it.method == method && it.path.ends_with(&blob.digest.to_string());
        seen.iter().filter(of_blob).filter(|it| it.status == 200).count()
    };
    image.blobs().map(reads).collect()
}

// === Who ===

/// Fails unless each reader gets the own image on both nodes, and nothing of the other's.
async fn check_that_readers_are_kept_apart(private: &PrivateFleet) -> Result<()> {
    let (registry, image) = (&private.fleet.registry, &private.of_alice);
    let layer = &image.layers[0];
    let nodes = private.fleet.containerds().await?;
    nodes[0].pull_as(ALICE, registry, image).await?;
    nodes[0].check(registry, image).await?;

    // The first node holds the blobs, the second could have them from there.
    for blob in image.blobs() {
        check_refused(private, BOB, image, blob).await?;
        check_refused(private, NOBODY, image, blob).await?;
    }
    for node in &nodes {
        check_pull_refused(private, node, BOB, image).await?;
        check_pull_refused(private, node, NOBODY, image).await?;
    }
    ensure!(nodes[1].check_content(image).is_err(), "Bob's node has Alice's content");

    // Neither is shut to those who may.
    private.read(1, ALICE, image, layer).await?.finish_with(layer).await?;
    nodes[0].pull_as(BOB, registry, &private.of_bob).await?;
    assert_eq!(granted(private, "GET", image), [1, 1]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn with_passwords_what_one_reader_pulled_stays_shut_to_the_other() -> Result<()> {
    let private = PrivateFleet::start("readers-passwords", RegistrySpec::plain()).await?;
    check_that_readers_are_kept_apart(&private).await?;
    // What manifests prove needs no question.
    assert_eq!(granted(&private, "HEAD", &private.of_alice), [0, 0]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn with_tokens_what_one_reader_pulled_stays_shut_to_the_other() -> Result<()> {
    let private = PrivateFleet::start("readers-tokens", RegistrySpec::plain().with_tokens()).await?;
    check_that_readers_are_kept_apart(&private).await
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_are_kept_apart_where_manifests_prove_nothing_about_blobs() -> Result<()> {
    let mut private = PrivateFleet::start("readers-oci", RegistrySpec::plain()).await?;
    private.tell_gateway(|it| it["kind"] = json!("oci")).await?;
    check_that_readers_are_kept_apart(&private).await?;
    assert_eq!(granted(&private, "HEAD", &private.of_alice), [1, 1]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_are_kept_apart_by_tokens_that_the_gateway_checks_itself() -> Result<()> {
    let mut private = PrivateFleet::start("readers-key", RegistrySpec::plain().with_tokens()).await?;
    let key = private.fleet.registry.tokens.as_ref().context("no token service")?.key_settings();
    let merge = |entry: &mut serde_json::Value| {
        for (name, value) in key.as_object().into_iter().flatten() {
            entry["credentials"][name] = value.clone();
        }
    };
    private.tell_gateway(merge).await?;
    check_that_readers_are_kept_apart(&private).await?;
    // Alice came with one token after the other, and of none the registry was asked.
    assert_eq!(granted(&private, "HEAD", &private.of_alice), [0, 0]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_public_repository_stays_open_to_everybody() -> Result<()> {
    let private = PrivateFleet::start("readers-public", RegistrySpec::plain().with_tokens()).await?;
    let image = publish(&private.fleet, "public", 3, NOBODY).await?;
    let nodes = private.fleet.containerds().await?;
    for (node, user) in [(0, NOBODY), (1, NOBODY), (1, BOB)] {
        nodes[node].pull_as(user, &private.fleet.registry, &image).await?;
        nodes[node].check_content(&image)?;
        nodes[node].forget(&private.fleet.registry, &image).await?;
    }
    assert_eq!(granted(&private, "GET", &image), [1, 1]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_public_repository_is_no_way_to_a_private_blob() -> Result<()> {
    let private = PrivateFleet::start("readers-shared", RegistrySpec::plain().with_tokens()).await?;
    let registry = &private.fleet.registry;
    // Equal seeds make equal layers: the first layer of both is Alice's, the second is private.
    let spec = ImageSpec { layers: vec![1 << 20, 1 << 20], ..ImageSpec::new("private/shared", 0) };
    let secret = Image::build(&ImageSpec { seed: 7, ..spec.clone() })?;
    let public = ImageSpec { layers: vec![1 << 20], repository: "public/base".into(), seed: 7, ..spec };
    let public = Image::build(&public)?;
    let [shared, own] = [&secret.layers[0], &secret.layers[1]];
    assert_eq!(shared.digest, public.layers[0].digest);
    for (image, reader) in [(&secret, ALICE), (&public, NOBODY)] {
        registry.push(image).await?;
        registry.rights()?.grant(reader, &image.repository);
    }
    let nodes = private.fleet.containerds().await?;
    nodes[0].pull_as(ALICE, registry, &secret).await?;
    nodes[1].pull_as(BOB, registry, &public).await?;

    for user in [BOB, NOBODY] {
        check_refused(&private, user, &public, own).await?;
        check_refused(&private, user, &secret, own).await?;
        check_refused(&private, user, &secret, shared).await?;
        private.read(0, user, &public, shared).await?.finish_with(shared).await?;
    }
    Ok(())
}

// === Until when ===

/// How long a proof of a right is believed here, and how long a ticket is good.
const ALLOW: &str = "2s";
const TICKET: &str = "2s";
/// Both together, counted from the withdrawal; by default it is ten minutes.
const BOUND: Duration = Duration::from_secs(4);
/// What a busy machine may add to it, for the questions alone.
const MACHINE: Duration = Duration::from_secs(2);

#[tokio::test(flavor = "multi_thread")]
async fn a_withdrawn_right_opens_nothing_after_the_bound() -> Result<()> {
    let mut private = PrivateFleet::start("withdrawn-passwords", RegistrySpec::plain()).await?;
    let short = json!({ "allowFor": ALLOW, "ticketLife": TICKET });
    private.fleet.reconfigure(|it| it["authority"] = short, |_| {}).await?;
    let image = private.of_alice.clone();
    let layer = &image.layers[0];
    for node in 0..2 {
        private.read(node, ALICE, &image, layer).await?.finish_with(layer).await?;
    }

    private.fleet.registry.rights()?.withdraw(ALICE, &image.repository);
    let is_refused = async |node| {
        let answer = private.read(node, ALICE, &image, layer).await;
        answer.is_ok_and(|it| it.status == 403)
    };
    wait::until("refused at every node", BOUND + MACHINE, async || {
        (is_refused(0).await && is_refused(1).await).then_some(())
    })
    .await?;
    check_refused(&private, ALICE, &image, layer).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_withdrawn_right_shows_with_the_next_token() -> Result<()> {
    let private = PrivateFleet::start("withdrawn-tokens", RegistrySpec::plain().with_tokens()).await?;
    let (registry, image) = (&private.fleet.registry, &private.of_alice);
    let nodes = private.fleet.containerds().await?;
    nodes[0].pull_as(ALICE, registry, image).await?;
    registry.rights()?.withdraw(ALICE, &image.repository);
    for node in &nodes {
        check_pull_refused(&private, node, ALICE, image).await?;
    }
    check_refused(&private, ALICE, image, &image.layers[0]).await
}
