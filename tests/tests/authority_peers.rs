//! Peers, gateway and scheduler serve nobody who does not show a certificate of the region, and no blob to
//! anybody without a ticket of their own for it; whoever tries is counted.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use http::Request;
use serde_json::json;
use shoal_model::{Node, NodeId, Place, Role};
use shoal_proto::{OpenRequest, Source};
use shoal_tests::fleet::{Fleet, FleetSpec};
use shoal_tests::host::Host;
use shoal_tests::image::{Blob, Image};
use shoal_tests::intruder::{Ca, Certificate};
use shoal_tests::lab::{Lab, LabSpec};
use shoal_tests::shoal::Service;
use shoal_tests::wait;

const DEADLINE: Duration = Duration::from_secs(10);
const GATEWAY_PORT: u16 = 65003;
const PEER_PORT: u16 = 65002;
const SCHEDULER_PORT: u16 = 65005;
/// How many bytes of a blob are asked for.
const PART: usize = 1000;

/// A region whose first node holds two layers; the intruder sits on the second.
struct Region {
    lab: Lab,
    fleet: Fleet,
    image: Image,
}

/// What somebody tries at a part of the region, and how that is to be counted.
struct Attempt {
    what: &'static str,
    certificate: Option<Certificate>,
    ticket: String,
    counted: Metric,
}

/// A metric's name and labels.
type Metric = (&'static str, Vec<(&'static str, &'static str)>);

/// Connections refused at a listener.
fn refused_connections(listener: &'static str) -> Metric {
    ("shoal_connections_refused_total", vec![("listener", listener)])
}

/// Requests for pieces refused for a reason.
fn refused_tickets(reason: &'static str) -> Metric {
    ("shoal_peer_refused_total", vec![("reason", reason)])
}

/// Requests of those who have no certificate.
fn strangers() -> Metric {
    ("shoal_gateway_unauthenticated_requests_total", Vec::new())
}

impl Region {
    async fn start(name: &str, spec: FleetSpec) -> Result<Self> {
        let mut lab = Lab::start(name, LabSpec::nodes(2)).await?;
        let fleet = Fleet::start(&mut lab, spec).await?;
        let image = fleet.publish(&[1 << 20, 1 << 20]).await?;
        for layer in &image.layers {
            fleet.read(0, &image, layer, &[]).await?.finish_with(layer).await?;
        }
        Ok(Self { lab, fleet, image })
    }

    /// Where the intruder sits.
    fn at(&self) -> &Host {
        &self.lab.nodes()[1]
    }

    fn certificate(&self, node: usize) -> Result<Certificate> {
        Certificate::kept_in(&self.lab.nodes()[node].dir().join("shoal-sidecar/identity"))
    }

    /// A ticket that the gateway gives to a node.
    async fn ticket(&self, node: usize, blob: &Blob) -> Result<String> {
        let (host, certificate) = (&self.lab.nodes()[node], self.certificate(node)?);
        let identity = certificate.identity()?;
        let (_, id) = identity.rsplit_once('/').context("an identity without a node")?;
        let request = OpenRequest {
            source: Source {
                registry: self.fleet.registry.authority().into(),
                repository: self.image.repository.clone(),
            },
            digests: vec![blob.digest],
            authorization: None,
            traces: Vec::new(),
            node: Node {
                id: NodeId::new(id),
                address: format!("{}:{PEER_PORT}", host.address()).into(),
                role: Role::Sidecar,
                place: Place::default(),
            },
        };
        let gateway = at(&self.fleet.gateway, GATEWAY_PORT);
        Ok(host.open(gateway, certificate, request).await?.ticket.0)
    }

    /// Asks a part of the region for the beginning of the first layer.
    async fn ask(&self, of: SocketAddr, certificate: Option<&Certificate>, ticket: &str) -> Result<Vec<u8>> {
        let group = self.fleet.registry.authority().replace(':', "%3A");
        let request = Request::get(format!("/pieces/{group}/{}", self.image.layers[0].digest.hex()))
            .header("host", of.to_string())
            .header("range", format!("bytes=0-{}", PART - 1))
            .header("shoal-ticket", ticket);
        let answer = self.at().ask_under_tls(of, certificate, request.body(Default::default())?).await?;
        ensure!(answer.status() == 206, "{}", answer.status());
        Ok(answer.into_body().into())
    }

    /// Fails unless an attempt gets nothing of `service`, and is counted.
    async fn check_refused(&self, service: &Service, port: u16, attempt: &Attempt) -> Result<()> {
        let Attempt { what, certificate, ticket, counted: (metric, labels) } = attempt;
        let before = service.metric(metric, labels).await?;
        let served = self.ask(at(service, port), certificate.as_ref(), ticket).await;
        let name = service.host.name();
        ensure!(served.is_err(), "{name} served {what}");
        let counted = wait::until("counted", DEADLINE, async || {
            service.metric(metric, labels).await.is_ok_and(|it| it > before).then_some(())
        });
        counted.await.with_context(|| format!("{what} at {name}: {metric} {labels:?}, {served:?}"))
    }

    /// Shows that the intruder would be served with the right certificate and ticket.
    async fn check_served(&self, of: &Service, port: u16, certificate: &Certificate) -> Result<()> {
        let layer = &self.image.layers[0];
        let ticket = self.ticket(1, layer).await?;
        let served = self.ask(at(of, port), Some(certificate), &ticket).await?;
        ensure!(served == layer.bytes[..PART], "{}: other bytes", of.host.name());
        Ok(())
    }

    /// Where the gateway keeps its certificate authority.
    fn authority_dir(&self) -> PathBuf {
        self.fleet.gateway.host.dir().join("gateway/ca")
    }
}

fn at(service: &Service, port: u16) -> SocketAddr {
    (service.host.address(), port).into()
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_served_without_a_good_certificate_of_the_region() -> Result<()> {
    let region = Region::start("certificates", FleetSpec::private()).await?;
    let (fleet, own) = (&region.fleet, Ca::kept_in(&region.authority_dir())?);
    let identity = region.certificate(1)?.identity()?;
    let ticket = region.ticket(1, &region.image.layers[0]).await?;
    let parts = [
        (&fleet.sidecars[0], PEER_PORT, "peers"),
        (&fleet.gateway, GATEWAY_PORT, "nodes"),
        (&fleet.scheduler, SCHEDULER_PORT, "nodes"),
    ];
    for (service, port, listener) in parts {
        let attempts = [
            ("an expired certificate", own.certify_expired(&identity)?),
            ("a certificate of another region", Ca::foreign()?.certify(&identity)?),
            ("a certificate of another trust domain", own.certify("spiffe://other/sidecar/node2")?),
        ];
        for (what, certificate) in attempts {
            let (certificate, counted) = (Some(certificate), refused_connections(listener));
            let attempt = Attempt { what, certificate, ticket: ticket.clone(), counted };
            region.check_refused(service, port, &attempt).await?;
        }
        // A gateway also talks with those that have yet to get a certificate, but not of blobs.
        let counted = if port == GATEWAY_PORT { strangers() } else { refused_connections(listener) };
        let attempt = Attempt { what: "no certificate", certificate: None, ticket: ticket.clone(), counted };
        region.check_refused(service, port, &attempt).await?;
    }
    let mirror = format!("/v2/{}/manifests/{}", region.image.repository, region.image.tag);
    let request = Request::get(mirror).header("host", "gateway").body(Default::default())?;
    let answer = region.at().ask_under_tls(at(&fleet.gateway, GATEWAY_PORT), None, request).await?;
    ensure!(answer.status() == 401, "the gateway's mirror: {}", answer.status());

    // All that was wrong with those was wrong on purpose.
    let forged = own.certify(&identity)?;
    region.check_served(&fleet.sidecars[0], PEER_PORT, &forged).await?;
    region.check_served(&fleet.gateway, GATEWAY_PORT, &forged).await
}

/// A scheduler is believed about who holds what, and reads nothing: not with a ticket that was given to a node,
/// and not by way of the mirror, where the gateway's robot would read for it.
#[tokio::test(flavor = "multi_thread")]
async fn a_schedulers_certificate_opens_no_content() -> Result<()> {
    let region = Region::start("schedulers", FleetSpec::private()).await?;
    let fleet = &region.fleet;
    let dir = fleet.scheduler.host.dir().join("shoal-scheduler/identity");
    let ticket = region.ticket(1, &region.image.layers[0]).await?;
    for (service, port, counted) in [
        (&fleet.sidecars[0], PEER_PORT, refused_tickets("other_node")),
        (&fleet.gateway, GATEWAY_PORT, strangers()),
    ] {
        let what = "a scheduler's certificate with a node's ticket";
        let certificate = Some(Certificate::kept_in(&dir)?);
        let attempt = Attempt { what, certificate, ticket: ticket.clone(), counted };
        region.check_refused(service, port, &attempt).await?;
    }
    let scheduler = Certificate::kept_in(&dir)?;
    let (repository, tag) = (&region.image.repository, &region.image.tag);
    let layer = region.image.layers[0].digest;
    for path in [format!("{repository}/manifests/{tag}"), format!("{repository}/blobs/{layer}")] {
        let request =
            Request::get(format!("/v2/{path}")).header("host", "gateway").body(Default::default())?;
        let answer =
            region.at().ask_under_tls(at(&fleet.gateway, GATEWAY_PORT), Some(&scheduler), request).await?;
        ensure!(answer.status() == 401, "{path}: {}", answer.status());
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_served_without_a_ticket_of_their_own_for_the_blob() -> Result<()> {
    let region = Region::start("tickets", FleetSpec::private()).await?;
    let [layer, other] = [&region.image.layers[0], &region.image.layers[1]];
    let own = region.ticket(1, layer).await?;
    let (claims, signature) = own.rsplit_once('.').context("not a signed token")?;
    let first = if signature.starts_with('A') { 'B' } else { 'A' };
    let altered = format!("{claims}.{first}{}", signature.get(1..).unwrap_or_default());
    for (service, port) in [(&region.fleet.sidecars[0], PEER_PORT), (&region.fleet.gateway, GATEWAY_PORT)] {
        let attempts = [
            ("another node's ticket", region.ticket(0, layer).await?, "other_node"),
            ("a ticket for another blob", region.ticket(1, other).await?, "other_blob"),
            ("an altered ticket", altered.clone(), "unsigned"),
            ("a ticket that is none", "ticket".to_owned(), "malformed"),
        ];
        for (what, ticket, reason) in attempts {
            let certificate = Some(region.certificate(1)?);
            let attempt = Attempt { what, certificate, ticket, counted: refused_tickets(reason) };
            region.check_refused(service, port, &attempt).await?;
        }
        region.check_served(service, port, &region.certificate(1)?).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ticket_opens_nothing_after_its_life() -> Result<()> {
    let short = json!({ "authority": { "ticketLife": "2s" } });
    let region = Region::start("ticket-ends", FleetSpec::private().with_gateway(short)).await?;
    let (holder, certificate) = (&region.fleet.sidecars[0], region.certificate(1)?);
    let ticket = region.ticket(1, &region.image.layers[0]).await?;
    let ask = async || region.ask(at(holder, PEER_PORT), Some(&certificate), &ticket).await;
    ask().await.context("while it is good")?;
    wait::until("refused", DEADLINE, async || ask().await.is_err().then_some(())).await?;
    let (metric, labels) = refused_tickets("expired");
    assert!(holder.metric(metric, &labels).await? > 0.0, "not counted");
    Ok(())
}
