//! The hub, as this region's gateway asks it: the gateways of another region, which read registries for this one as well.
//!
//! Of a registry behind the hub everything is asked of the hub's mirror endpoint, in just the words that the registry
//! itself would be asked in. What a seed reads comes framed ([`frames`](crate::frames)). A certificate of the hub's region
//! says who asks; it opens nothing by itself where callers' credentials decide, so a seed shows one that was seen to open
//! the repository ([`lent`]).
//!
//! Whether the hub is there says a stream of its own ([`Region`]), and not how fast it answers: it may well wait for a
//! registry that is slow, and it says by itself when one is silent. Content goes over a connection of its own, whose
//! window is small where the link's rate is limited: what has been sent and not taken yet is part of what the link
//! carries.
//!
//! What the hub orders of this region comes by streams of their own ([`orders`]), each blob with a ticket that opens it
//! there.
//!
//! Knows nothing of: who may read what, pieces.

mod lent;
mod orders;

use std::fmt::Display;
use std::time::Duration;

use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::{HeaderName, HeaderValue, Request, Response, Uri};
use http_body_util::Empty;
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use shoal_identity::enrol::{Applicant, enrol};
use shoal_identity::{Connector, Dialer, Expected, Role};
use shoal_model::{ByteRate, Digest, NodeId};
use shoal_oci::{RegistryName, Repository};
use shoal_ops::Context;
use shoal_peer::region::Region;
use shoal_proto::{Regional, Ticket};
use shoal_registry::{ErrorKind, RegistryBody, RegistryError};
use tokio::time::timeout;

use crate::frames;
use crate::mode::Asker;
use crate::preheat::Preheats;
use crate::priority::Urgency;
use crate::settings::HubSettings;
use crate::timestamp::Timestamp;
use lent::{Entrusted, Lent};

/// With whose right the region has its nodes read: `client` or `gateway`. The hub must say the same.
pub(crate) const MODE: HeaderName = HeaderName::from_static("shoal-mode");
/// There where nobody waits for a blob yet.
pub(crate) const BACKGROUND: HeaderName = HeaderName::from_static("shoal-background");
/// What the region is called.
pub(crate) const REGION: HeaderName = HeaderName::from_static("shoal-region");
/// The hub's own ticket for a blob that it has ordered.
pub(crate) const TICKET: HeaderName = HeaderName::from_static("shoal-ticket");

/// From sending a request to its answer's headers.
const ANSWER: Duration = Duration::from_secs(30);
/// How long the start waits for the hub's first word.
const FIRST: Duration = Duration::from_secs(2);
/// For how long a seed waits for a hub that is not there. It says nothing meanwhile, so that nodes look for another way.
const RETURN: Duration = Duration::from_secs(10 * 60);
/// How often a connection is asked for a sign of life, and how long the answer may take.
const PING: Duration = Duration::from_secs(5);
const PONG: Duration = Duration::from_secs(5);
/// How much of a link's rate may have been sent and not be taken yet: as much as it carries in this time.
const AHEAD: Duration = Duration::from_millis(100);
/// The least that HTTP/2 allows for a connection.
const LEAST_WINDOW: u32 = 65_535;

/// A gateway of the hub that answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answering {
    /// `https://host:port`.
    pub(crate) gateway: String,
    pub(crate) since: Timestamp,
}

/// The hub; clones are of the same.
#[derive(Clone)]
pub(crate) struct Hub {
    dialer: Dialer,
    region: HeaderValue,
    me: Regional,
    /// All of its gateways, `https://host:port` each.
    gateways: Vec<String>,
    /// Which of them answers.
    there: Region,
}

impl Hub {
    /// Gets a certificate of the hub's region, and keeps in touch with the hub, as tasks of the process. `address` is where
    /// this region reaches its gateway.
    pub(crate) async fn start(settings: HubSettings, address: String, ctx: &Context) -> anyhow::Result<Self> {
        let HubSettings { gateways, region, certificate } = settings;
        let named = HeaderValue::from_str(region.as_str())?;
        let applicant = Applicant {
            role: Role::Region,
            unproven: NodeId::new(region.as_str()),
            address: None,
            gateways: gateways.clone(),
        };
        let enrolment = enrol(ctx, certificate, applicant)?;
        let dialer = Dialer::new(enrolment.keychain.as_ref());
        let me = Regional { region: region.to_string(), address };
        let (there, keeper) = Region::hub(gateways.clone(), dialer.clone(), me.clone());
        ctx.tasks.spawn_infallible("hub", keeper.run(ctx.tasks.stopping()));
        // Who asks before that is told that the hub does not answer, which is no harm.
        there.first_answer(FIRST).await;
        Ok(Self { dialer, region: named, me, gateways, there })
    }

    /// Takes the orders of each of its gateways, as tasks of the process: a job is known to the one that it was asked of.
    pub(crate) fn take_orders(&self, preheats: &Preheats, ctx: &Context) {
        for gateway in &self.gateways {
            let taking = orders::Orders::new(gateway.clone(), self.dialer.clone(), self.me.clone());
            let (taking, stopping) = (taking.take(preheats.ordered()), ctx.tasks.stopping());
            ctx.tasks.spawn_infallible("hub's orders", async move {
                stopping.run_until_cancelled(taking).await;
            });
        }
    }

    /// What this region is called there.
    pub(crate) fn region(&self) -> &str {
        // It was made of a text.
        self.region.to_str().unwrap_or_default()
    }

    /// The one of its gateways that answers, if any does.
    pub(crate) fn answering(&self) -> Option<Answering> {
        let gateway = self.there.gateway()?;
        Some(Answering { gateway: gateway.url.to_string(), since: Timestamp::of(gateway.since) })
    }

    /// A registry that is read by way of the hub, within this rate in all.
    pub(crate) fn registry(&self, name: RegistryName, rate: Option<ByteRate>) -> HubRegistry {
        HubRegistry {
            asking: self.client(None),
            reading: self.client(rate),
            hub: self.clone(),
            name,
            lent: Lent::new(),
            entrusted: Entrusted::new(),
        }
    }

    fn client(&self, rate: Option<ByteRate>) -> HubClient {
        let mut builder = Client::builder(TokioExecutor::new());
        builder.pool_timer(TokioTimer::new()).timer(TokioTimer::new()).http2_only(true);
        builder.http2_keep_alive_interval(PING).http2_keep_alive_timeout(PONG);
        match rate {
            Some(rate) => {
                let window = window(rate);
                builder.http2_initial_stream_window_size(window).http2_initial_connection_window_size(window);
            }
            None => {
                builder.http2_adaptive_window(true);
            }
        }
        builder.build(self.dialer.connector(Expected::Any(Role::Gateway)))
    }
}

type HubClient = Client<Connector, Empty<Bytes>>;

/// How many bytes may be on their way at this rate.
fn window(rate: ByteRate) -> u32 {
    let ahead = u128::from(rate.0) * AHEAD.as_millis() / 1000;
    // The most that HTTP/2 allows is 2 GiB.
    u32::try_from(ahead).unwrap_or(u32::MAX).clamp(LEAST_WINDOW, i32::MAX as u32)
}

/// A registry that is read by way of the hub.
pub(crate) struct HubRegistry {
    hub: Hub,
    name: RegistryName,
    asking: HubClient,
    reading: HubClient,
    lent: Lent,
    entrusted: Entrusted,
}

impl HubRegistry {
    /// Whether a gateway of the hub answers.
    pub(crate) fn is_there(&self) -> bool {
        self.hub.there.gateway().is_some()
    }

    /// A caller with this `Authorization` was allowed to read the repository: seeds may show it.
    pub(crate) fn lend(&self, repository: &Repository, authorization: &HeaderValue) {
        self.lent.lend(repository, authorization);
    }

    /// What callers showed for the repository is shown no more.
    pub(crate) fn forget(&self, repository: &Repository) {
        self.lent.forget(repository);
    }

    /// The hub gives the blob for this ticket, for so long: seeds may show it.
    pub(crate) fn entrust(&self, repository: &Repository, digest: Digest, ticket: &Ticket, lives: Duration) {
        self.entrusted.keep(repository, digest, ticket, lives);
    }

    /// Asks the hub what the registry would be asked.
    pub(crate) async fn ask(
        &self,
        request: Request<()>,
        asker: Asker,
    ) -> Result<Response<RegistryBody>, RegistryError> {
        self.send(&self.asking, request, asker).await
    }

    /// Asks for a blob's content, once the hub is there; it comes framed. Shown is a credential that was seen to open the
    /// repository, where callers' decide, and the hub's own ticket, if it has ordered the blob. Where the hub refuses
    /// that, the credential is shown no more, and the answer is `None`.
    pub(crate) async fn read(
        &self,
        (repository, digest): (&Repository, Digest),
        mut request: Request<()>,
        asker: Asker,
        urgency: &Urgency,
    ) -> Result<Option<Response<RegistryBody>>, RegistryError> {
        // If it is not there after that either, sending says so.
        self.hub.there.first_answer(RETURN).await;
        let headers = request.headers_mut();
        headers.insert(http::header::ACCEPT, HeaderValue::from_static(frames::MEDIA_TYPE));
        if !urgency.is_live() {
            headers.insert(BACKGROUND, HeaderValue::from_static("1"));
        }
        headers.remove(AUTHORIZATION);
        let shown = if asker == Asker::Caller { self.lent.of(repository) } else { None };
        headers.extend(shown.iter().map(|it| (AUTHORIZATION, it.clone())));
        headers.extend(self.entrusted.of(repository, digest).map(|it| (TICKET, it)));
        let answer = self.send(&self.reading, request, asker).await?;
        if asker == Asker::Caller && matches!(answer.status().as_u16(), 401 | 403) {
            shown.iter().for_each(|it| self.lent.refused(repository, it));
            return Ok(None);
        }
        Ok(Some(answer))
    }

    async fn send(
        &self,
        client: &HubClient,
        request: Request<()>,
        asker: Asker,
    ) -> Result<Response<RegistryBody>, RegistryError> {
        let told = format!("{} {} by way of the hub", request.method(), request.uri().path());
        let fail = |kind, fault: &dyn Display| RegistryError {
            registry: self.name.clone(),
            what: format!("{told}: {fault}"),
            kind,
        };
        let gateway = self.hub.there.gateway().map(|it| it.url);
        let gateway = gateway.ok_or_else(|| fail(ErrorKind::Connect, &"no gateway of the hub answers"))?;
        let (mut parts, ()) = request.into_parts();
        parts.uri = self.target(&gateway, &parts.uri).map_err(|it| fail(ErrorKind::Protocol, &it))?;
        let mode = if asker == Asker::Caller { "client" } else { "gateway" };
        parts.headers.insert(MODE, HeaderValue::from_static(mode));
        parts.headers.insert(REGION, self.hub.region.clone());
        let answer = client.request(Request::from_parts(parts, Empty::new()));
        match timeout(ANSWER, answer).await {
            Ok(Ok(answer)) => Ok(answer.map(|it| RegistryBody::new(it, self.name.clone(), told.into()))),
            Ok(Err(error)) => Err(fail(ErrorKind::Connect, &innermost(&error))),
            Err(_) => Err(fail(ErrorKind::Timeout, &format!("no answer within {} s", ANSWER.as_secs()))),
        }
    }

    /// Where the hub is asked for what the registry has at this path.
    fn target(&self, gateway: &str, uri: &Uri) -> Result<Uri, http::uri::InvalidUri> {
        let path = uri.path_and_query().map_or("/v2/", http::uri::PathAndQuery::as_str);
        let joint = if path.contains('?') { '&' } else { '?' };
        let ns = utf8_percent_encode(self.name.as_str(), NON_ALPHANUMERIC);
        format!("{gateway}{path}{joint}ns={ns}").parse()
    }
}

/// The text of the cause; the layers around it say that a request failed.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_on_its_way_is_a_small_part_of_what_the_link_carries() {
        for (rate, expected) in
            [(1, 65_535), (1 << 20, 104_857), (100 << 20, 10_485_760), (u64::MAX, i32::MAX as u32)]
        {
            assert_eq!(window(ByteRate(rate)), expected, "{rate}");
        }
    }
}
