//! Several regions of Shoal in one lab, before one registry: by way of a hub, or each by itself.
//!
//! A region is a gateway, a scheduler and some of the lab's nodes. What a region gets, from the hub or from the registry,
//! comes over its gateway's link.

use std::time::Duration;

use anyhow::{Context, Result};
use futures_util::future::try_join_all;
use serde_json::{Value, json};

use crate::fleet::{
    admin, changed, gateway_settings, gateway_url, join_token, scheduler_settings, sidecar_settings,
};
use crate::image::{Blob, Image, ImageSpec};
use crate::lab::Lab;
use crate::raw::Exchange;
use crate::registry::{Registry, RegistrySpec};
use crate::shoal::{Part, Service};
use crate::wait;

const DEADLINE: Duration = Duration::from_secs(30);
/// The streams of other regions that a hub has.
pub const ATTENDING: &str = "shoal_gateway_regions";

/// What regions are to be.
#[derive(Clone, Debug)]
pub struct RegionsSpec {
    /// Their registry.
    pub registry: RegistrySpec,
    /// How many there are; the lab's nodes are divided among them.
    pub n_regions: usize,
    /// Whether they read by way of a hub.
    pub has_hub: bool,
    /// Settings of the regional gateways' registry that differ from the usual ones.
    pub regional: Value,
    /// The same of the hub's.
    pub hub: Value,
}

impl RegionsSpec {
    /// So many regions behind a hub.
    pub fn behind_hub(registry: RegistrySpec, n_regions: usize) -> Self {
        Self { registry, n_regions, has_hub: true, regional: json!({}), hub: json!({}) }
    }

    /// So many regions that each read the registry.
    pub fn apart(registry: RegistrySpec, n_regions: usize) -> Self {
        Self { has_hub: false, ..Self::behind_hub(registry, n_regions) }
    }

    /// The same where the regional gateways are told something else of the registry.
    pub fn with_regional(self, regional: Value) -> Self {
        Self { regional, ..self }
    }

    /// The same where the hub is.
    pub fn with_hub(self, hub: Value) -> Self {
        Self { hub, ..self }
    }
}

/// Running regions.
#[derive(Debug)]
pub struct Regions {
    /// Their registry.
    pub registry: Registry,
    /// The hub's gateway, if there is one.
    pub hub: Option<Service>,
    /// The regions.
    pub all: Vec<Region>,
}

/// One region.
#[derive(Debug)]
pub struct Region {
    /// Its gateway.
    pub gateway: Service,
    /// Its scheduler.
    pub scheduler: Service,
    /// Its nodes' sidecars.
    pub sidecars: Vec<Service>,
}

impl Regions {
    /// Starts the hub and the regions, and waits until every part is ready.
    pub async fn start(lab: &mut Lab, spec: RegionsSpec) -> Result<Self> {
        let registry = lab.registry(spec.registry.clone()).await?;
        let hub = match spec.has_hub {
            true => Some(start_hub(lab, &registry, &spec.hub).await?),
            false => None,
        };
        let nodes = lab.nodes().to_vec();
        let mut all = Vec::new();
        for (number, nodes) in nodes.chunks(nodes.len().div_ceil(spec.n_regions)).enumerate() {
            let at_gateway = lab.host(&format!("gateway{number}")).await?;
            let at_scheduler = lab.host(&format!("scheduler{number}")).await?;
            let mut settings =
                gateway_settings(&at_gateway, std::slice::from_ref(&at_scheduler), &registry, &json!({}));
            if let Some(hub) = &hub {
                go_through(&mut settings, hub, &format!("region-{number}"))?;
            }
            settings["registries"][0] = changed(settings["registries"][0].take(), &spec.regional);
            let gateway = Service::start(&at_gateway, Part::Gateway, &settings, admin(Part::Gateway)).await?;
            let settings = scheduler_settings(&at_scheduler, &at_gateway);
            let scheduler =
                Service::start(&at_scheduler, Part::Scheduler, &settings, admin(Part::Scheduler)).await?;
            let sidecars = nodes.iter().map(async |node| {
                let settings = sidecar_settings(node, &at_gateway, &registry);
                Service::start(node, Part::Sidecar, &settings, admin(Part::Sidecar)).await
            });
            all.push(Region { gateway, scheduler, sidecars: try_join_all(sidecars).await? });
        }
        let it = Self { registry, hub, all };
        it.attend().await?;
        Ok(it)
    }

    /// Waits until all regions are known to the hub, and each scheduler knows its nodes and its gateway.
    async fn attend(&self) -> Result<()> {
        let joined = self.all.iter().map(async |region| {
            let n_nodes = region.sidecars.len() + 1;
            wait::until("all have joined", DEADLINE, async || {
                let n_joined = region.scheduler.metric("shoal_scheduler_nodes", &[]).await;
                n_joined.is_ok_and(|it| it >= n_nodes as f64).then_some(())
            })
            .await
        });
        try_join_all(joined).await?;
        let Some(hub) = &self.hub else { return Ok(()) };
        wait::until("all regions attend", DEADLINE, async || {
            let n_attending = hub.metric(ATTENDING, &[]).await.ok()?;
            (n_attending >= self.all.len() as f64).then_some(())
        })
        .await
    }

    /// The hub's gateway.
    pub fn hub(&self) -> Result<&Service> {
        self.hub.as_ref().context("these regions have no hub")
    }

    /// Makes an image of these layers, in bytes, and pushes it as `team/app:v1`.
    pub async fn publish(&self, layers: &[usize]) -> Result<Image> {
        let spec = ImageSpec { layers: layers.into(), ..ImageSpec::new("team/app", 0) };
        let image = Image::build(&spec)?;
        self.registry.push(&image).await?;
        Ok(image)
    }

    /// Asks a sidecar for a blob. `headers` are lines such as `Range: bytes=5-`.
    pub async fn read(
        &self,
        from: &Service,
        image: &Image,
        blob: &Blob,
        headers: &[&str],
    ) -> Result<Exchange> {
        let ns = self.registry.authority().replace(':', "%3A");
        let target = format!("/v2/{}/blobs/{}?ns={ns}", image.repository, blob.digest);
        Exchange::send(&from.host, "GET", &target, headers).await
    }

    /// The sum of a metric over all sidecars.
    pub async fn of_sidecars(&self, name: &str) -> Result<f64> {
        Ok(try_join_all(self.sidecars().map(|it| it.metric(name, &[]))).await?.into_iter().sum())
    }

    /// All sidecars of all regions.
    pub fn sidecars(&self) -> impl Iterator<Item = &Service> {
        self.all.iter().flat_map(|it| &it.sidecars)
    }

    /// Has each region learn what the image is made of, as the first runtime there does that asks for its manifest.
    pub async fn resolve(&self, image: &Image) -> Result<()> {
        let ns = self.registry.authority().replace(':', "%3A");
        let target = format!("/v2/{}/manifests/{}?ns={ns}", image.repository, image.tag);
        let accept = format!("Accept: {}", image.media_type());
        for region in &self.all {
            let node = &region.sidecars.first().context("a region without nodes")?.host;
            wait::until("a manifest", DEADLINE, async || {
                let answer = Exchange::send(node, "GET", &target, &[&accept]).await.ok()?;
                (answer.status == 200).then_some(answer)
            })
            .await?
            .finish()
            .await?;
        }
        Ok(())
    }

    /// Reads every blob on every node, all at once.
    pub async fn read_everywhere(&self, image: &Image) -> Result<()> {
        self.resolve(image).await?;
        let reads = self.sidecars().flat_map(|sidecar| image.blobs().map(move |blob| (sidecar, blob)));
        let reads = reads
            .map(async |(sidecar, blob)| self.read(sidecar, image, blob, &[]).await?.finish_with(blob).await);
        try_join_all(reads).await.map(drop)
    }
}

async fn start_hub(lab: &mut Lab, registry: &Registry, changes: &Value) -> Result<Service> {
    let host = lab.host("hub").await?;
    let mut settings = gateway_settings(&host, &[], registry, &json!({}));
    settings["registries"][0] = changed(settings["registries"][0].take(), changes);
    // Waiting for a job is asking for it again and again.
    let settings = changed(settings, &json!({ "management": { "requestsPerSecond": 1000 } }));
    Service::start(&host, Part::Gateway, &settings, admin(Part::Gateway)).await
}

/// Has a gateway read its registry by way of the hub, without what leads to the registry itself.
fn go_through(settings: &mut Value, hub: &Service, region: &str) -> Result<()> {
    let token = join_token_of_regions(hub);
    settings["hub"] = json!({
        "gateways": [gateway_url(&hub.host)],
        "region": region,
        "security": { "joinToken": format!("file:{}", token.display()) },
    });
    let entry = settings["registries"][0].as_object_mut().context("no registry")?;
    ["url", "ca", "insecure"].iter().for_each(|it| drop(entry.remove(*it)));
    if let Some(credentials) = entry.get_mut("credentials").and_then(Value::as_object_mut) {
        ["username", "password"].iter().for_each(|it| drop(credentials.remove(*it)));
    }
    entry.insert("source".into(), json!("hub"));
    Ok(())
}

/// The file of the token that lets gateways of other regions come to the hub.
fn join_token_of_regions(hub: &Service) -> std::path::PathBuf {
    join_token(&hub.host, Part::Gateway).with_file_name("region.token")
}
