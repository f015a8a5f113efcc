//! A client that was not made for mirrors of this kind, and owes Shoal nothing, pulls through a sidecar.
//!
//! `oci-client` names the registry in `ns` unescaped, looks for a challenge at `/v2/` before each request,
//! and verifies every digest, those in headers too.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Context, Result};
use futures_util::future::try_join_all;
use oci_client::client::{ClientConfig, ClientProtocol, ImageData};
use oci_client::manifest::IMAGE_LAYER_GZIP_MEDIA_TYPE;
use oci_client::secrets::RegistryAuth;
use oci_client::{Client, Reference};
use rustls::crypto::ring;
use shoal_tests::fleet::{Fleet, FleetSpec};
use shoal_tests::host::Host;
use shoal_tests::image::Image;
use shoal_tests::lab::{Lab, LabSpec};
use shoal_tests::raw::MIRROR;
use tokio::io::copy_bidirectional;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

/// An address of this process's own network that leads to the mirror on a host. Dropping it cuts all.
struct Door {
    address: SocketAddr,
    _connections: JoinSet<()>,
}

impl Door {
    async fn to(host: &Host) -> Result<Self> {
        let (host, listener) = (host.clone(), TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?);
        let address = listener.local_addr()?;
        let mut connections = JoinSet::new();
        connections.spawn(async move {
            // Connections belong to the accept loop, so that they end with it.
            let mut connections = JoinSet::new();
            while let Ok((mut from, _)) = listener.accept().await {
                let host = host.clone();
                connections.spawn(async move {
                    // What goes wrong here the client sees, as a connection that closes.
                    if let Ok(mut to) = host.connect(MIRROR).await {
                        let _closed = copy_bidirectional(&mut from, &mut to).await;
                    }
                });
            }
        });
        Ok(Self { address, _connections: connections })
    }
}

/// Pulls the image through the sidecar on a host.
async fn pull(fleet: &Fleet, image: &Image, host: &Host) -> Result<ImageData> {
    let door = Door::to(host).await?;
    // A proxy that the environment names is no way into the lab. It is left aside where another one is
    // given, which is then excepted from every host.
    let config = ClientConfig {
        protocol: ClientProtocol::Http,
        http_proxy: Some(format!("http://{}", door.address)),
        no_proxy: Some("*".into()),
        ..ClientConfig::default()
    };
    let registry = fleet.registry.authority().to_owned();
    let mut reference = Reference::with_tag(registry, image.repository.clone(), image.tag.clone());
    reference.set_mirror_registry(door.address.to_string());
    let layers = vec![IMAGE_LAYER_GZIP_MEDIA_TYPE];
    let pulled = Client::try_from(config)?.pull(&reference, &RegistryAuth::Anonymous, layers).await;
    pulled.with_context(|| format!("{reference} on {}", host.name()))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_of_another_make_pulls_an_image_through_every_sidecar() -> Result<()> {
    // The client wants a provider for TLS, although mirrors speak none.
    ring::default_provider().install_default().expect("this is the only test here");
    let mut lab = Lab::start("oci-client", LabSpec::nodes(3)).await?;
    let fleet = Fleet::start(&mut lab, FleetSpec::private()).await?;
    let image = fleet.publish(&[12 << 20, 4 << 20]).await?;
    for pulled in try_join_all(lab.nodes().iter().map(|it| pull(&fleet, &image, it))).await? {
        assert!(pulled.config.data == image.config.bytes, "another config");
        // They are told in the order in which they came.
        let mut layers: Vec<_> = pulled.layers.into_iter().map(|it| it.data).collect();
        let mut expected: Vec<_> = image.layers.iter().map(|it| it.bytes.clone()).collect();
        layers.sort();
        expected.sort();
        assert!(layers == expected, "other layers");
    }
    let reads = fleet.registry.front.seen().iter().filter(|it| it.is_blob_read()).count();
    assert_eq!(reads, image.blobs().count(), "each blob is read once");
    Ok(())
}
