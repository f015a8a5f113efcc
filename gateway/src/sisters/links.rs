//! Streams to the other gateways, and the lists of where they may be.
//!
//! An address comes from the settings, where a name may stand for several, or from Redis. Whoever answers there proves
//! to be a gateway of the region and says which one; it answers for as long as the stream lives. A machine that lost its
//! power, or a process that was stopped, is noticed by its silence within a few seconds. An address that is listed no
//! longer is left once nobody answers there.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use shoal_identity::{Dialer, Expected, Role};
use shoal_model::NodeId;
use shoal_peer::RegionKeys;
use shoal_peer::keys::KeyError;
use shoal_proto::gateway_client::GatewayClient;
use shoal_proto::{RegionRequest, RegionState};
use tokio::net::lookup_host;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tonic::transport::Endpoint;
use tonic::{Status, Streaming};

use super::Sisters;
use super::roll::{MAX_SISTERS, Roll, Word};

/// How often Redis is asked for addresses, and told this gateway's.
const BEAT: Duration = Duration::from_secs(1);
/// How often names are looked up, in beats, and how long that may take.
const LOOKUPS: u64 = 10;
const LOOKUP: Duration = Duration::from_millis(500);
/// How long a gateway may take to its first word.
const FIRST: Duration = Duration::from_secs(2);
/// A gateway speaks at least every 10 s.
const SILENCE: Duration = Duration::from_secs(15);
/// How often a gateway is asked for a sign of life, and how long the answer may take.
const PING: Duration = Duration::from_secs(1);
const PONG: Duration = Duration::from_secs(2);
/// How long an address where nobody answered is left alone.
const PAUSE: Duration = Duration::from_secs(1);

/// Keeps the streams.
pub(super) struct Links {
    sisters: Sisters,
    /// Of the settings, `scheme://host:port`.
    names: Vec<String>,
    /// What each of these last stood for.
    looked_up: BTreeMap<String, BTreeSet<SocketAddr>>,
    dialer: Dialer,
    /// Everybody who is to be followed.
    wanted: watch::Sender<BTreeSet<SocketAddr>>,
    /// Those who are, each with whether it has been tried once.
    followed: BTreeMap<SocketAddr, watch::Receiver<bool>>,
    tasks: JoinSet<SocketAddr>,
}

/// Why a stream ended.
#[derive(Debug, thiserror::Error)]
enum LinkError {
    #[error(transparent)]
    Address(#[from] tonic::transport::Error),
    #[error("no word in time")]
    Silent,
    #[error(transparent)]
    Refused(#[from] Status),
    #[error("it ended the stream")]
    Ended,
    #[error("it does not say who it is: an older version")]
    Nameless,
    #[error("there are too many gateways")]
    TooMany,
    #[error(transparent)]
    Keys(#[from] KeyError),
}

impl Links {
    pub(super) fn new(sisters: Sisters, names: Vec<String>, dialer: Dialer) -> Self {
        sisters.0.tried.send_replace(false);
        Self {
            sisters,
            names,
            looked_up: BTreeMap::new(),
            dialer,
            wanted: watch::Sender::default(),
            followed: BTreeMap::new(),
            tasks: JoinSet::new(),
        }
    }

    /// Keeps in touch until `stopping`.
    pub(super) async fn run(mut self, stopping: CancellationToken) {
        let mut beats = interval(BEAT);
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let beating = async {
            for beat in 0.. {
                beats.tick().await;
                if beat % LOOKUPS == 0 {
                    self.look_up().await;
                }
                self.attend().await;
                self.follow_wanted();
                self.tell_metrics();
                if beat == 0 {
                    self.all_tried().await;
                }
            }
        };
        stopping.run_until_cancelled(beating).await;
    }

    async fn look_up(&mut self) {
        for name in &self.names {
            let host = name.split_once("://").map_or(name.as_str(), |(_, host)| host);
            match timeout(LOOKUP, lookup_host(host)).await {
                Ok(Ok(found)) => {
                    self.looked_up.insert(name.clone(), found.take(MAX_SISTERS + 1).collect());
                }
                Ok(Err(error)) => tracing::debug!(name, %error, "gateway's name not found"),
                Err(_) => tracing::debug!(name, "gateway's name not found in time"),
            }
        }
    }

    async fn attend(&self) {
        let Some(redis) = &self.sisters.0.redis else { return };
        let me = self.sisters.0.roll.borrow().me().address.clone();
        let listed = redis.attend(&me).await;
        self.sisters.0.metrics.redis_up.set(i64::from(listed.is_ok()));
        self.sisters.borrow(listed.is_ok());
        // What was last known stays while Redis is away.
        if let Ok(addresses) = listed {
            // Who writes to Redis may name any address, but no name that would have to be looked up.
            let addresses = addresses.into_iter().filter(|it| it.parse::<SocketAddr>().is_ok());
            self.sisters.0.roll.send_if_modified(|it| it.list(addresses.map(Arc::from)));
        }
    }

    fn follow_wanted(&mut self) {
        while let Some(Ok(ended)) = self.tasks.try_join_next() {
            self.followed.remove(&ended);
        }
        let wanted: BTreeSet<_> = {
            let roll = self.sisters.0.roll.borrow();
            let me = roll.me().address.parse().ok();
            let listed = roll.listed().iter().filter_map(|it| it.parse().ok());
            let looked_up = self.looked_up.values().flatten().copied();
            listed.chain(looked_up).filter(|it| Some(*it) != me).collect()
        };
        self.wanted.send_if_modified(|it| std::mem::replace(it, wanted.clone()) != wanted);
        for address in wanted {
            if self.followed.contains_key(&address) {
                continue;
            }
            let (tried, has_tried) = watch::channel(false);
            let link = Link {
                address,
                sisters: self.sisters.clone(),
                dialer: self.dialer.clone(),
                wanted: self.wanted.subscribe(),
                tried,
            };
            self.tasks.spawn(link.run());
            self.followed.insert(address, has_tried);
        }
    }

    fn tell_metrics(&self) {
        let (roll, metrics) = (self.sisters.0.roll.borrow(), &self.sisters.0.metrics);
        // Both are small.
        metrics.answering.set(roll.answering().count() as i64);
        metrics.sharing.set(roll.company().n_sharing.into());
    }

    async fn all_tried(&mut self) {
        for tried in self.followed.values_mut() {
            // A link that has ended has been tried.
            let _ = tried.wait_for(|it| *it).await;
        }
        self.sisters.0.tried.send_replace(true);
    }
}

/// One address.
struct Link {
    address: SocketAddr,
    sisters: Sisters,
    dialer: Dialer,
    wanted: watch::Receiver<BTreeSet<SocketAddr>>,
    tried: watch::Sender<bool>,
}

/// Who answers at an address; the one behind a stream that has ended does not.
struct Answering<'a> {
    roll: &'a watch::Sender<Roll>,
    id: NodeId,
}

impl Drop for Answering<'_> {
    fn drop(&mut self) {
        self.roll.send_modify(|it| it.leave(&self.id));
        tracing::warn!(gateway = %self.id, "another gateway answers no more");
    }
}

impl Link {
    /// Follows whoever answers at the address, for as long as it is wanted.
    async fn run(self) -> SocketAddr {
        let mut is_told = false;
        while self.wanted.borrow().contains(&self.address) {
            let Err(error) = self.follow().await else { continue };
            self.tried.send_replace(true);
            // Once per outage is news, every second is noise.
            if is_told {
                tracing::debug!(address = %self.address, error = &error as &dyn Error, "still no gateway there");
            } else {
                tracing::warn!(address = %self.address, error = &error as &dyn Error, "no other gateway there");
            }
            is_told = true;
            sleep(PAUSE).await;
        }
        self.address
    }

    /// Follows one stream, until it breaks or this gateway has another certificate, with which the connection ends.
    async fn follow(&self) -> Result<(), LinkError> {
        let generation = self.dialer.generation();
        let endpoint = Endpoint::from_shared(format!("http://{}", self.address))?;
        let endpoint = endpoint.http2_keep_alive_interval(PING).keep_alive_timeout(PONG);
        // The connector sees to security; to gRPC it is a connection like any other.
        let connector = self.dialer.connector(Expected::Any(Role::Gateway));
        let mut calls = GatewayClient::new(endpoint.connect_with_connector_lazy(connector));
        let asked =
            timeout(FIRST, calls.region(RegionRequest::default())).await.map_err(|_| LinkError::Silent)?;
        let mut states = asked?.into_inner();
        let first = timeout(FIRST, next(&mut states)).await.map_err(|_| LinkError::Silent)??;
        let roll = &self.sisters.0.roll;
        let id = first.node.id.clone();
        if id == roll.borrow().me().id {
            // This gateway itself, by another of its addresses. For as long as that is so, nobody else is there.
            self.tried.send_replace(true);
            while next(&mut states).await.is_ok_and(|it| it.node.id == id) {}
            return Ok(());
        }
        let mut has_room = true;
        roll.send_modify(|it| has_room = it.enter(first));
        if !has_room {
            return Err(LinkError::TooMany);
        }
        let _answering = Answering { roll, id: id.clone() };
        tracing::info!(gateway = %id, address = %self.address, "another gateway answers");
        self.tried.send_replace(true);
        loop {
            let word = tokio::select! {
                word = timeout(SILENCE, next(&mut states)) => word.map_err(|_| LinkError::Silent)??,
                () = self.dialer.renewed(generation) => return Ok(()),
            };
            if word.node.id != id {
                return Err(LinkError::Ended);
            }
            roll.send_if_modified(|it| it.tell(word));
        }
    }
}

async fn next(states: &mut Streaming<RegionState>) -> Result<Word, LinkError> {
    let state = states.message().await?.ok_or(LinkError::Ended)?;
    let RegionState { gateway, own_keys, verifying_keys: believed, borrows, .. } = state;
    RegionKeys::parse(&own_keys)?;
    Ok(Word { node: gateway.ok_or(LinkError::Nameless)?, own_keys, believed, borrows })
}
