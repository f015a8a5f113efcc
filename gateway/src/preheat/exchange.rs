//! What gateways tell each other of their jobs, by the connections that only they can make.
//!
//! Each tells of its own jobs on a stream, and follows those of the others that answer ([`super::others`]). Redis holds
//! nothing of a job but who may carry it out: so nobody who reads there learns what is preheated, and nobody who writes
//! there can have anything fetched. A job's credential is told to nobody.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use futures_util::stream::{self, Stream};
use shoal_identity::{Dialer, Expected};
use shoal_model::{Node, NodeId};
use shoal_proto::gateway_client::GatewayClient;
use shoal_proto::{JobReply, JobRequest, JobsNews, JobsRequest};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Interval, MissedTickBehavior, interval, sleep, timeout};
use tonic::transport::{Channel, Endpoint};
use tonic::{Status, Streaming};

use super::others::Others;
use super::request::Asked;
use super::view::{JobView, State};
use super::{Preheats, Stage};
use crate::sisters::Sisters;

/// How often the others are told of jobs at work, and jobs looked for that nobody carries out.
const BEAT: Duration = Duration::from_secs(1);
/// How long a gateway may take to tell how a job is.
const ANSWER: Duration = Duration::from_secs(2);
/// How long one whose stream broke is left alone.
const PAUSE: Duration = Duration::from_secs(1);
/// How often a gateway is asked for a sign of life, and how long the answer may take.
const PING: Duration = Duration::from_secs(1);
const PONG: Duration = Duration::from_secs(2);
/// What an answer may have beyond the job itself, in bytes.
const FRAME: usize = 1 << 10;

/// What is known of the others' jobs.
pub(super) struct Exchange {
    sisters: Sisters,
    dialer: Dialer,
    others: Mutex<Others>,
    /// Those who are followed.
    calls: Mutex<BTreeMap<NodeId, GatewayClient<Channel>>>,
}

impl Exchange {
    pub(super) fn new(sisters: Sisters, dialer: Dialer) -> Self {
        Self { sisters, dialer, others: Mutex::default(), calls: Mutex::default() }
    }

    /// A job of another gateway, as it is by now; where that does not answer, as it last told. With `cancelled_by`, it is
    /// to end.
    pub(super) async fn ask(&self, id: u64, cancelled_by: Option<&str>) -> Answer {
        let (holder, told) = match self.others().get(id, |it| self.sisters.standing(it)) {
            Some((holder, told)) => (Some(holder.clone()), Some(told.clone())),
            None => (None, None),
        };
        let calls: Vec<_> = {
            let calls = self.calls();
            let holders = holder.as_ref().and_then(|it| calls.get(it)).map(|it| vec![it.clone()]);
            // It may just have been taken in there, or been taken over.
            holders.unwrap_or_else(|| calls.values().cloned().collect())
        };
        let request = JobRequest { id, cancelled_by: cancelled_by.map(str::to_owned) };
        let asked = calls.into_iter().map(|mut it| {
            let request = request.clone();
            async move { timeout(ANSWER, it.job(request)).await.ok()?.ok() }
        });
        let answers = join_all(asked).await.into_iter().flatten();
        let jobs = answers.filter_map(|it| read(&it.into_inner().0?));
        match jobs.max_by_key(|it| it.state != State::Pending) {
            Some(job) => Answer::Now(Arc::new(job)),
            None => told.map_or(Answer::Unknown, Answer::AsTold),
        }
    }

    /// All jobs that others have told of, without what became of their blobs.
    pub(super) fn all(&self) -> Vec<Arc<JobView>> {
        self.others().all(|it| self.sisters.standing(it))
    }

    /// A job of another gateway that does what is asked for.
    pub(super) fn same(&self, asked: &Asked, needs_credential: bool) -> Option<u64> {
        self.others().same(asked, needs_credential, |it| self.sisters.standing(it))
    }

    /// The jobs of gateways that are gone, which nobody carries out, each with whose it was.
    pub(super) fn orphans(&self) -> Vec<(NodeId, Arc<JobView>)> {
        self.others().orphans(|it| self.sisters.standing(it))
    }

    fn others(&self) -> MutexGuard<'_, Others> {
        self.others.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn calls(&self) -> MutexGuard<'_, BTreeMap<NodeId, GatewayClient<Channel>>> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Follows one gateway for as long as she answers there.
    async fn follow(&self, sister: Node) -> NodeId {
        while self.sisters.sister(&sister.id).is_some_and(|it| it.address == sister.address) {
            if let Err(error) = self.listen(&sister).await {
                tracing::debug!(gateway = %sister.id, %error, "her preheat jobs are not told");
            }
            self.calls().remove(&sister.id);
            sleep(PAUSE).await;
        }
        sister.id
    }

    /// Takes in what she tells, until the stream breaks or this gateway has another certificate.
    async fn listen(&self, sister: &Node) -> Result<(), Status> {
        let generation = self.dialer.generation();
        let endpoint = Endpoint::from_shared(format!("http://{}", sister.address));
        let endpoint = endpoint.map_err(|it| Status::unavailable(it.to_string()))?;
        let endpoint = endpoint.http2_keep_alive_interval(PING).keep_alive_timeout(PONG);
        let connector = self.dialer.connector(Expected::node(sister));
        let calls = GatewayClient::new(endpoint.connect_with_connector_lazy(connector));
        let mut calls = calls.max_decoding_message_size(JobReply::MAX_JOB + FRAME);
        let late = |_| Status::deadline_exceeded("no word in time");
        let mut news = timeout(ANSWER, calls.jobs(JobsRequest)).await.map_err(late)??.into_inner();
        let first = next(&mut news).await?;
        self.others().begin(&sister.id);
        self.calls().insert(sister.id.clone(), calls);
        self.hear(&sister.id, first);
        loop {
            tokio::select! {
                news = next(&mut news) => self.hear(&sister.id, news?),
                () = self.dialer.renewed(generation) => return Ok(()),
            }
        }
    }

    fn hear(&self, gateway: &NodeId, JobsNews { jobs, gone }: JobsNews) {
        let jobs: Vec<_> = jobs.iter().filter_map(|it| read(it)).collect();
        let mut others = self.others();
        gone.into_iter().for_each(|id| others.drop_job(gateway, id));
        jobs.into_iter().for_each(|job| others.tell(gateway, job));
    }
}

/// What is known of a job that another gateway has.
pub(super) enum Answer {
    /// She says so.
    Now(Arc<JobView>),
    /// She does not answer, and has told this before.
    AsTold(Arc<JobView>),
    Unknown,
}

async fn next(news: &mut Streaming<JobsNews>) -> Result<JobsNews, Status> {
    news.message().await?.ok_or_else(|| Status::unavailable("she ended the stream"))
}

fn read(job: &[u8]) -> Option<JobView> {
    let read = serde_json::from_slice(job);
    read.inspect_err(|error| tracing::debug!(%error, "a preheat job that cannot be read")).ok()
}

/// A job in at most so many bytes; in short where it is longer.
fn written(job: &JobView, most: usize) -> Option<Bytes> {
    let write = |job: &JobView| serde_json::to_vec(job).ok().filter(|it| it.len() <= most).map(Bytes::from);
    let bytes = write(job).or_else(|| write(&job.shortened()));
    if bytes.is_none() {
        tracing::warn!(id = job.id, most, "a preheat job is too long to be told to other gateways");
    }
    bytes
}

/// What one stream has told.
struct Telling {
    preheats: Preheats,
    changed: watch::Receiver<()>,
    beats: Interval,
    told: BTreeMap<u64, Stage>,
    /// What is still to be sent, the last first.
    left: Vec<JobsNews>,
}

impl Telling {
    /// What has changed since it was last told, in parts.
    fn news(&mut self) -> Vec<JobsNews> {
        let told = std::mem::replace(&mut self.told, self.preheats.stages());
        let gone: Vec<_> = told.keys().filter(|it| !self.told.contains_key(it)).copied().collect();
        let changed = self.told.iter().filter(|(id, stage)| told.get(*id) != Some(*stage));
        let jobs = changed.filter_map(|(id, _)| self.preheats.get_brief(*id));
        let jobs: Vec<_> = jobs.filter_map(|it| written(&it, JobsNews::MAX_JOB)).collect();
        let mut news: Vec<_> =
            jobs.chunks(JobsNews::MAX).map(|it| JobsNews { jobs: it.to_vec(), gone: Vec::new() }).collect();
        if !gone.is_empty() {
            news.push(JobsNews { jobs: Vec::new(), gone });
        }
        news
    }

    async fn next(mut self) -> Option<(Result<JobsNews, Status>, Self)> {
        while self.left.is_empty() {
            tokio::select! {
                Ok(()) = self.changed.changed() => {}
                _ = self.beats.tick() => {}
            }
            self.changed.borrow_and_update();
            self.left = self.news();
            self.left.reverse();
        }
        let news = self.left.pop()?;
        Some((Ok(news), self))
    }
}

impl Preheats {
    /// This gateway's jobs, all of them at first and then what changes, for another gateway.
    pub(crate) fn tell(&self) -> impl Stream<Item = Result<JobsNews, Status>> + Send + use<> {
        let mut beats = interval(BEAT);
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let changed = self.0.changed.subscribe();
        // The first word comes at once, if only to say that there is nothing.
        let (preheats, left) = (self.clone(), vec![JobsNews::default()]);
        let telling = Telling { preheats, changed, beats, told: BTreeMap::new(), left };
        stream::unfold(telling, Telling::next)
    }

    /// One of this gateway's jobs, for another gateway. With `cancelled_by`, it is to end.
    pub(crate) async fn answer(&self, JobRequest { id, cancelled_by }: JobRequest) -> JobReply {
        let job = match cancelled_by {
            Some(by) => self.cancel_own(id, &by).await,
            None => self.get_own(id),
        };
        JobReply(job.and_then(|it| written(&it, JobReply::MAX_JOB)))
    }

    /// Forgets what is not needed of what others have told.
    fn tidy(&self) {
        let exchange = &self.0.exchange;
        let is_own = |id| self.look(id, |_| (), |_| ()).is_some();
        let standing = |it: &NodeId| exchange.sisters.knows(it).then(|| exchange.sisters.standing(it));
        exchange.others().tidy(standing, is_own);
    }

    /// Follows the others, and goes on with the jobs of those that are gone, until the gateway ends.
    pub(super) async fn attend(self) {
        let exchange = &self.0.exchange;
        let mut roll = exchange.sisters.roll();
        let mut beats = interval(BEAT);
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut followed = BTreeSet::new();
        let mut tasks: JoinSet<NodeId> = JoinSet::new();
        loop {
            for sister in exchange.sisters.answering() {
                if followed.insert(sister.id.clone()) {
                    let this = self.clone();
                    tasks.spawn(async move { this.0.exchange.follow(sister).await });
                }
            }
            tokio::select! {
                // `sisters` keeps the sender.
                Ok(()) = roll.changed() => { roll.borrow_and_update(); }
                Some(Ok(ended)) = tasks.join_next() => { followed.remove(&ended); }
                _ = beats.tick() => {
                    self.tidy();
                    self.take_over().await;
                }
            }
        }
    }
}
