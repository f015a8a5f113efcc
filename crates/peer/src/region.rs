//! What a process knows of its region, from the one stream that it keeps to a gateway.
//!
//! The stream is also how the gateway is known to be there. While it is broken, or after somebody
//! complained about an answer that did not come, nobody waits for the gateway: only this module tries
//! it again, and everybody else goes on without. So a dead gateway delays one request, not each.
//!
//! The gateway of another region keeps the same stream to its hub. It is told nothing by it but that the hub is there.

use std::collections::BTreeMap;
use std::error::Error;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use shoal_identity::{Dialer, Expected, Role};
use shoal_model::TrustGroup;
use shoal_proto::gateway_client::GatewayClient;
use shoal_proto::{RegionRequest, RegionState, Regional};
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};

use crate::RegionKeys;
use crate::channel::endpoint;
use crate::ticket::Verifier;

/// How long a gateway may take to its first word.
const FIRST: Duration = Duration::from_secs(2);
/// A gateway tells its state at least every 10 s; one that is silent for longer is gone.
const SILENCE: Duration = Duration::from_secs(15);
/// How often the hub is asked for a sign of life, and how long the answer may take. It is told nothing but that, so it
/// is to be missed soon; but links between regions are slow, and full of content.
const HUB_PING: Duration = Duration::from_secs(1);
const HUB_PONG: Duration = Duration::from_secs(4);
/// How long a gateway that failed is left alone.
const PAUSE: Duration = Duration::from_secs(1);

/// A gateway that answers.
#[derive(Clone)]
pub struct Gateway {
    /// `https://host:port`, for requests that pass straight through.
    pub url: Arc<str>,
    /// Since when it answers.
    pub since: SystemTime,
    /// Its calls.
    pub calls: GatewayClient<Channel>,
}

/// The region as this node sees it; clones are of the same.
#[derive(Clone)]
pub struct Region {
    gateway: watch::Receiver<Option<Gateway>>,
    schedulers: watch::Receiver<Vec<String>>,
    keys: watch::Receiver<Arc<RegionKeys>>,
    trust_groups: watch::Receiver<BTreeMap<String, TrustGroup>>,
    suspected: Arc<Notify>,
}

/// Keeps the stream.
pub struct Keeper {
    addresses: Vec<String>,
    dialer: Dialer,
    /// Who asks, where that is the gateway of another region.
    regional: Option<Regional>,
    /// Learns the region's keys.
    verifier: Option<Arc<Verifier>>,
    gateway: watch::Sender<Option<Gateway>>,
    schedulers: watch::Sender<Vec<String>>,
    keys: watch::Sender<Arc<RegionKeys>>,
    trust_groups: watch::Sender<BTreeMap<String, TrustGroup>>,
    suspected: Arc<Notify>,
}

impl Region {
    /// The region of the first of `addresses` that answers; nothing is known until the [`Keeper`] runs.
    /// `verifier` learns the region's keys.
    pub fn new(addresses: Vec<String>, dialer: Dialer, verifier: Arc<Verifier>) -> (Self, Keeper) {
        Self::kept(addresses, dialer, None, Some(verifier))
    }

    /// The hub of `me`, the gateway of another region; of it is known whether it is there, and by which gateway.
    pub fn hub(addresses: Vec<String>, dialer: Dialer, me: Regional) -> (Self, Keeper) {
        Self::kept(addresses, dialer, Some(me), None)
    }

    fn kept(
        addresses: Vec<String>,
        dialer: Dialer,
        regional: Option<Regional>,
        verifier: Option<Arc<Verifier>>,
    ) -> (Self, Keeper) {
        let suspected = Arc::new(Notify::new());
        let (gateway, gateway_seen) = watch::channel(None);
        let (schedulers, schedulers_seen) = watch::channel(Vec::new());
        let (keys, keys_seen) = watch::channel(Arc::default());
        let (trust_groups, trust_groups_seen) = watch::channel(BTreeMap::new());
        let keeper = Keeper {
            addresses,
            dialer,
            regional,
            verifier,
            gateway,
            schedulers,
            keys,
            trust_groups,
            suspected: suspected.clone(),
        };
        let region = Self {
            gateway: gateway_seen,
            schedulers: schedulers_seen,
            keys: keys_seen,
            trust_groups: trust_groups_seen,
            suspected,
        };
        (region, keeper)
    }

    /// A region whose gateway is away and will not come back.
    pub fn without_gateway(keys: RegionKeys) -> Self {
        Self {
            gateway: watch::channel(None).1,
            schedulers: watch::channel(Vec::new()).1,
            keys: watch::channel(Arc::new(keys)).1,
            trust_groups: watch::channel(BTreeMap::new()).1,
            suspected: Arc::default(),
        }
    }

    /// The gateway, where one answers.
    pub fn gateway(&self) -> Option<Gateway> {
        self.gateway.borrow().clone()
    }

    /// Waits until a gateway has answered once, or `patience` is over.
    pub async fn first_answer(&self, patience: Duration) {
        // Either way the caller looks for itself.
        let _ = timeout(patience, self.answered()).await;
    }

    /// Waits until a gateway has answered once.
    pub async fn answered(&self) {
        // The keeper lives as long as the process.
        let _ = self.gateway.clone().wait_for(Option::is_some).await;
    }

    /// The gateway did not answer in time: nobody else is to wait for it until it has proven well.
    pub fn suspect(&self) {
        // Not kept for later: it says nothing about the next stream.
        self.suspected.notify_waiters();
    }

    /// The schedulers' addresses, as they change.
    pub fn schedulers(&self) -> watch::Receiver<Vec<String>> {
        self.schedulers.clone()
    }

    /// Whose word counts for a registry's digests, as the last gateway that answered said.
    pub fn trust_group(&self, registry: &str) -> TrustGroup {
        let told = self.trust_groups.borrow().get(registry).cloned();
        told.unwrap_or_else(|| TrustGroup::new(registry))
    }

    /// The keys that sign attestations.
    pub fn keys(&self) -> Arc<RegionKeys> {
        self.keys.borrow().clone()
    }

    /// The same, as they change.
    pub fn keys_told(&self) -> watch::Receiver<Arc<RegionKeys>> {
        self.keys.clone()
    }
}

impl Keeper {
    /// Follows the region until `stopping`.
    pub async fn run(self, stopping: CancellationToken) {
        stopping.run_until_cancelled(self.follow()).await;
    }

    async fn follow(self) {
        let mut told = false;
        loop {
            for address in &self.addresses {
                let status = self.keep(address).await;
                let error = &status as &dyn Error;
                // Once per outage is news, every second is noise.
                match (told, self.is_of_hub()) {
                    (true, _) => tracing::debug!(gateway = address, error, "still none"),
                    (false, true) => tracing::warn!(gateway = address, error, "no hub"),
                    (false, false) => tracing::warn!(gateway = address, error, "no gateway"),
                }
                told = self.gateway.send_replace(None).is_none();
            }
            sleep(PAUSE).await;
        }
    }

    /// Follows one gateway for as long as it is well.
    async fn keep(&self, address: &str) -> Status {
        loop {
            if let Err(status) = self.follow_stream(address).await {
                return status;
            }
        }
    }

    /// Follows one stream until this process has another certificate: the connection of the old one ends with
    /// that. The next is made before, and used from its first word on, so that nobody is without a gateway.
    async fn follow_stream(&self, address: &str) -> Result<(), Status> {
        let mut endpoint = endpoint(address.to_owned()).map_err(|it| Status::from_error(Box::new(it)))?;
        if self.is_of_hub() {
            endpoint = endpoint.http2_keep_alive_interval(HUB_PING).keep_alive_timeout(HUB_PONG);
        }
        let generation = self.dialer.generation();
        let connector = self.dialer.connector(Expected::Any(Role::Gateway));
        let channel = endpoint.connect_with_connector_lazy(connector);
        let mut calls = GatewayClient::new(channel);
        let asked = timeout(FIRST, calls.region(RegionRequest { regional: self.regional.clone() }));
        let mut states = asked.await.map_err(|_| silent())??.into_inner();
        let gateway = Gateway { url: address.into(), since: self.since(address), calls };
        let mut renewed = pin!(self.dialer.renewed(generation));
        loop {
            let state = tokio::select! {
                () = renewed.as_mut() => return Ok(()),
                state = timeout(SILENCE, next(&mut states)) => state.map_err(|_| silent())??,
                () = self.suspected.notified() => return Err(silent()),
            };
            self.take_in(state)?;
            let fresh = self.gateway.send_replace(Some(gateway.clone())).is_none();
            if fresh {
                tracing::info!(gateway = address, is_hub = self.is_of_hub(), "gateway answers");
            }
        }
    }

    /// Since when this gateway answers, on whatever stream.
    fn since(&self, address: &str) -> SystemTime {
        let answering = self.gateway.borrow();
        let same = answering.as_ref().filter(|it| *it.url == *address);
        same.map_or_else(SystemTime::now, |it| it.since)
    }

    /// Whether it is kept to another region.
    const fn is_of_hub(&self) -> bool {
        self.regional.is_some()
    }

    fn take_in(&self, state: RegionState) -> Result<(), Status> {
        // What another region consists of is not told.
        let Some(verifier) = &self.verifier else { return Ok(()) };
        let keys = RegionKeys::parse(&state.verifying_keys)
            .map_err(|it| Status::failed_precondition(it.to_string()))?;
        // What was checked under the same keys need not be checked again.
        if **self.keys.borrow() != keys {
            verifier.trust(keys.clone());
            self.keys.send_replace(Arc::new(keys));
        }
        self.schedulers.send_if_modified(|it| {
            let changed = *it != state.schedulers;
            it.clone_from(&state.schedulers);
            changed
        });
        self.trust_groups.send_replace(state.trust_groups);
        Ok(())
    }
}

async fn next(states: &mut Streaming<RegionState>) -> Result<RegionState, Status> {
    states.message().await?.ok_or_else(|| Status::unavailable("the gateway ended the stream"))
}

fn silent() -> Status {
    Status::new(Code::DeadlineExceeded, "the gateway did not answer in time")
}
