//! What a gateway believes of a node that asks it: the name and the address that are proven, and nothing else.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use shoal_model::{Node, NodeId, Place, Role};
use shoal_proto::{OpenRequest, OpenedBlob, Source};
use shoal_tests::fleet::{Fleet, FleetSpec};
use shoal_tests::image::Image;
use shoal_tests::intruder::{Ca, Certificate};
use shoal_tests::lab::{Lab, LabSpec};
use shoal_tests::wait;

const DEADLINE: Duration = Duration::from_secs(10);
const GATEWAY_PORT: u16 = 65003;
/// An address that no node has.
const ELSEWHERE: &str = "10.255.255.1:65002";

struct Region {
    lab: Lab,
    fleet: Fleet,
    image: Image,
}

impl Region {
    async fn start(name: &str) -> Result<Self> {
        let mut lab = Lab::start(name, LabSpec::nodes(2)).await?;
        let fleet = Fleet::start(&mut lab, FleetSpec::private()).await?;
        let image = fleet.publish(&[1 << 20]).await?;
        Ok(Self { lab, fleet, image })
    }

    /// The certificate of a node's sidecar.
    fn certificate(&self, node: usize) -> Result<Certificate> {
        Certificate::kept_in(&self.lab.nodes()[node].dir().join("shoal-sidecar/identity"))
    }

    /// A node as it truly is.
    fn node(&self, n: usize) -> Result<Node> {
        let identity = self.certificate(n)?.identity()?;
        let (_, id) = identity.rsplit_once('/').context("an identity without a node")?;
        Ok(Node {
            id: NodeId::new(id),
            address: format!("{}:65002", self.lab.nodes()[n].address()).into(),
            role: Role::Sidecar,
            place: Place::default(),
        })
    }

    /// Has the gateway open the layer for `stated`, as the caller at a node.
    async fn open(&self, at: usize, stated: &Node) -> Result<OpenedBlob> {
        let request = OpenRequest {
            source: Source {
                registry: self.fleet.registry.authority().into(),
                repository: self.image.repository.clone(),
            },
            digests: vec![self.image.layers[0].digest],
            authorization: None,
            node: stated.clone(),
            traces: Vec::new(),
        };
        self.lab.nodes()[at].open(self.gateway(), self.certificate(at)?, request).await
    }

    fn gateway(&self) -> SocketAddr {
        SocketAddr::new(self.fleet.gateway.host.address().into(), GATEWAY_PORT)
    }

    /// Waits until the gateway has told its audit log that it turned a node away, and why.
    async fn rejection(&self) -> Result<Value> {
        let file = self.fleet.gateway.host.dir().join("gateway/audit.jsonl");
        wait::until("told to the audit log", DEADLINE, async || {
            let text = std::fs::read_to_string(&file).ok()?;
            let mut lines = text.lines().filter_map(|it| serde_json::from_str::<Value>(it).ok());
            lines.find(|it| it["event"] == "rejection")
        })
        .await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_opens_nothing_in_the_name_of_another() -> Result<()> {
    let region = Region::start("impostor").await?;
    let [own, others] = [region.node(0)?, region.node(1)?];
    region.open(0, &own).await?;
    let Err(error) = region.open(0, &others).await else { anyhow::bail!("opened in another's name") };
    ensure!(format!("{error:#}").contains("its certificate says"), "{error:#}");
    let told = region.rejection().await?;
    let expected = (own.id.as_str(), "open", "impostor");
    let [node, request, reason] = ["node", "request", "reason"].map(|it| told[it].as_str().unwrap_or("-"));
    assert_eq!((node, request, reason), expected, "{told}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_is_named_to_others_at_an_address_of_its_own_only() -> Result<()> {
    let region = Region::start("introduced").await?;
    let [own, other] = [region.node(0)?, region.node(1)?];
    let displaced = Node { address: ELSEWHERE.into(), ..own.clone() };
    region.open(0, &displaced).await?;
    assert_eq!(region.open(1, &other).await?.holders, []);
    // It hears of others all the same, and they of it once it stands where it says.
    assert_eq!(region.open(0, &displaced).await?.holders, std::slice::from_ref(&other));
    region.open(0, &own).await?;
    assert_eq!(region.open(1, &other).await?.holders, [own]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn preheat_jobs_are_told_to_gateways_and_to_no_node() -> Result<()> {
    let region = Region::start("jobs-told").await?;
    let image = region.fleet.registry.reference(&region.image);
    let id = region.fleet.gateway.preheat(&json!({ "image": image })).await?;
    region.fleet.gateway.ended_job(id).await?;
    let node = &region.lab.nodes()[0];
    let Err(error) = node.jobs_of(region.gateway(), region.certificate(0)?).await else {
        anyhow::bail!("jobs are told to a sidecar")
    };
    ensure!(format!("{error:#}").contains("a sidecar may not do this"), "{error:#}");
    // Who may is told, so that it was not for another reason.
    let identity = region.certificate(0)?.identity()?.replace("/sidecar/", "/gateway/");
    let gateway = Ca::kept_in(&region.fleet.gateway.host.dir().join("gateway/ca"))?.certify(&identity)?;
    let told = node.jobs_of(region.gateway(), gateway).await?;
    let job: Value = serde_json::from_slice(told[1].jobs.first().context("no job is told")?)?;
    assert_eq!((&job["id"], &job["state"]), (&json!(id), &json!("SUCCESS")), "{job}");
    Ok(())
}
