//! The other gateways of the region, and which of them reads a blob.
//!
//! A region's gateways are equal. Each blob has an *owner* among them, by the same rule that schedulers go by, and a
//! seed takes out a *lease* on its blob in Redis before it reads the registry ([`claim`]); so one gateway reads it,
//! also while they do not agree on who there is. Gateways keep streams to each other ([`links`]): that is how one knows
//! that another is there, and what it signs with, and no Redis is needed for it. Redis tells addresses ([`redis`]), which
//! anybody may have written there; who answers at one has to show a gateway's certificate.
//!
//! What gateways may ask of a registry together is kept there as well ([`Lend`]).
//!
//! A gateway without settings for any of this has no sisters: it owns every blob and asks nobody.
//!
//! Knows nothing of: registries, what a seed does with its turn, what a preheat job is.

mod claim;
mod clock;
mod dial;
mod links;
mod metrics;
mod redis;
mod roll;
mod tenure;

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use shoal_identity::Dialer;
use shoal_model::{BlobKey, Node, NodeId};
use shoal_ops::Context;
use shoal_peer::RegionKeys;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

pub(crate) use claim::Turn;
pub(crate) use roll::{Company, Roll, Standing};
pub(crate) use tenure::Tenure;

use crate::budget::Lend;
use crate::settings::SistersSettings;
use claim::Matter;
use clock::EpochClock;
use links::Links;
use metrics::SisterMetrics;
use redis::Redis;

/// How long a gateway that starts waits for the others at the most.
const SETTLING: Duration = Duration::from_secs(5);
/// How long what one gateway says takes to all others, if they are busy.
const NEWS: Duration = Duration::from_millis(250);

/// The gateways of the region; clones are of the same.
#[derive(Clone)]
pub(crate) struct Sisters(Arc<Inner>);

struct Inner {
    roll: watch::Sender<Roll>,
    redis: Option<Redis>,
    metrics: SisterMetrics,
    epochs: EpochClock,
    /// Nobody else is looked for.
    is_alone: bool,
    /// Whether everybody that was named has been tried once.
    tried: watch::Sender<bool>,
}

impl Sisters {
    /// For a gateway that is alone.
    pub(crate) fn none(me: Node, own_keys: Vec<[u8; 32]>) -> Self {
        Self::new(me, own_keys, None, SisterMetrics::default(), true)
    }

    /// Looks for the others, and keeps in touch with them, as tasks of the process.
    pub(crate) fn start(
        settings: SistersSettings,
        me: Node,
        own_keys: Vec<[u8; 32]>,
        dialer: Dialer,
        ctx: &Context,
    ) -> Self {
        if settings.addresses.is_empty() && settings.redis.is_none() {
            return Self::none(me, own_keys);
        }
        let metrics = SisterMetrics::register(&ctx.metrics, settings.redis.is_some());
        let it = Self::new(me, own_keys, settings.redis.map(Redis::new), metrics, false);
        let links = Links::new(it.clone(), settings.addresses, dialer);
        ctx.tasks.spawn_infallible("sisters", links.run(ctx.tasks.stopping()));
        it
    }

    fn new(
        me: Node,
        own_keys: Vec<[u8; 32]>,
        redis: Option<Redis>,
        metrics: SisterMetrics,
        is_alone: bool,
    ) -> Self {
        let roll = watch::Sender::new(Roll::new(me, own_keys));
        let tried = watch::Sender::new(true);
        Self(Arc::new(Inner { roll, redis, metrics, epochs: EpochClock::default(), is_alone, tried }))
    }

    /// Waits until those who can be found have been, and believe what this gateway signs; a few seconds at the most.
    pub(crate) async fn settle(&self) {
        let mut tried = self.0.tried.subscribe();
        let mut roll = self.0.roll.subscribe();
        let settled = async {
            // Both senders live as long as `self`.
            let _ = tried.wait_for(|it| *it).await;
            let _ = roll.wait_for(Roll::is_believed).await;
        };
        if timeout(SETTLING, settled).await.is_err() {
            tracing::warn!("not all gateways of the region have been heard of; going on without them");
        }
    }

    /// Who there is, now and at each change.
    pub(crate) fn roll(&self) -> watch::Receiver<Roll> {
        self.0.roll.subscribe()
    }

    /// This gateway signs with these keys from now on.
    pub(crate) fn sign_with(&self, own_keys: Vec<[u8; 32]>) {
        self.0.roll.send_if_modified(|it| it.sign_with(own_keys));
    }

    /// Whose turn it is to seed the blob, and so its last resort within the region.
    pub(crate) fn owner(&self, key: &BlobKey) -> Node {
        self.0.roll.borrow().owner(key).clone()
    }

    /// Whether this gateway owns the blob.
    pub(crate) fn owns(&self, key: &BlobKey) -> bool {
        let roll = self.0.roll.borrow();
        roll.owner(key).id == roll.me().id
    }

    /// Whether that is the name of another gateway.
    pub(crate) fn knows(&self, id: &NodeId) -> bool {
        self.0.roll.borrow().knows(id)
    }

    /// Another gateway, if she answers.
    pub(crate) fn sister(&self, id: &NodeId) -> Option<Node> {
        self.0.roll.borrow().answering_as(id).cloned()
    }

    /// The others that answer.
    pub(crate) fn answering(&self) -> Vec<Node> {
        self.0.roll.borrow().answering().cloned().collect()
    }

    /// All others that are known of, each with how she is to this one, by name.
    pub(crate) fn all(&self) -> Vec<(Node, Standing)> {
        self.0.roll.borrow().all().map(|(it, standing)| (it.clone(), standing)).collect()
    }

    /// How another gateway is to this one.
    pub(crate) fn standing(&self, id: &NodeId) -> Standing {
        self.0.roll.borrow().standing(id)
    }

    /// Whether there is a Redis, and it answers.
    pub(crate) fn has_redis(&self) -> bool {
        self.0.redis.as_ref().is_some_and(Redis::is_up)
    }

    /// A number that no other gateway gives, unless at the same microsecond, and larger than all before; `None` for a
    /// gateway that is alone, and may count by itself.
    pub(crate) fn number(&self) -> Option<u64> {
        (!self.0.is_alone).then(|| self.0.epochs.tell())
    }

    /// Whose signatures are believed.
    pub(crate) fn keys(&self) -> RegionKeys {
        // Each of them was usable when it was told, and there are no more than are allowed.
        RegionKeys::parse(&self.0.roll.borrow().company().keys).unwrap_or_default()
    }

    /// This gateway's name.
    pub(crate) fn me(&self) -> NodeId {
        self.0.roll.borrow().me().id.clone()
    }

    /// What lends to all gateways alike, where there is a Redis.
    pub(crate) fn lender(&self) -> Option<Arc<dyn Lend>> {
        self.0.redis.is_some().then(|| Arc::new(self.clone()) as _)
    }

    /// The others are to know whether this gateway borrows; true where that is news.
    fn borrow(&self, borrows: bool) -> bool {
        self.0.roll.send_if_modified(|it| it.borrow(borrows))
    }

    /// This gateway, as nodes see it.
    pub(crate) fn myself(&self) -> Node {
        self.0.roll.borrow().me().clone()
    }

    /// The claim of a seed that begins now. `is_named`: the scheduler wants it to be this gateway's.
    pub(crate) fn tenure(&self, key: BlobKey, is_named: bool) -> Tenure {
        Tenure::new(self.clone(), Matter::Blob(key), is_named)
    }

    /// The claim to carry out a preheat job that this gateway has.
    pub(crate) fn job(&self, id: u64) -> Tenure {
        Tenure::new(self.clone(), Matter::Job(id), false)
    }
}

impl Lend for Sisters {
    fn lend<'a>(&'a self, budget: &'a str, price: Duration) -> BoxFuture<'a, Option<Duration>> {
        async move {
            let wait = self.0.redis.as_ref()?.lend(budget, price).await;
            self.0.metrics.borrowed(wait.is_ok());
            if let Err(error) = &wait {
                tracing::debug!(budget, %error, "not borrowed");
                if self.borrow(false) {
                    // Until they know, the others borrow what this gateway is to have.
                    sleep(NEWS).await;
                }
            }
            wait.ok()
        }
        .boxed()
    }
}
