//! Preheat jobs: having an image where it will be wanted, before it is.
//!
//! Somebody asks for it ([`request`]): a person by [`api`], Harbor, a schedule. The job is written down ([`store`]),
//! waits for its turn ([`book`]), begins and ends ([`life`]) and is carried out ([`run`]) as its machine says ([`job`]): the image is resolved
//! ([`resolve`]), nodes are chosen ([`choice`]), and each is told to fetch the blobs, by the same way as for a pull.
//! What came of it anybody may see who may see jobs ([`view`]).
//!
//! A job may have other regions do the same, which read by way of this gateway: each has a part in it ([`branch`]). The
//! other way round, what this gateway's hub orders is carried out like a job ([`ordered`]), and told ([`telling`]).
//!
//! Nothing is opened to anybody by it. The image has to be one that the asker's credential reads, or in gateway mode
//! one that nodes may pull; and whoever reads at a node what a job has put there is opened for himself.
//!
//! A job's credential is in memory only. After a restart jobs begin anew, without it: where it was needed, the job ends
//! and says so.
//!
//! Of several gateways each tells the others of its jobs ([`exchange`]), so that a job is seen, joined and stopped at any
//! of them. One that is gone loses its jobs to the others ([`others`], [`succession`]); with Redis, and not without, because only a lease
//! there says that nobody else carries out or ends the same job.

pub(crate) mod api;
mod book;
mod branch;
mod choice;
mod exchange;
pub mod image;
mod job;
mod life;
mod metrics;
mod ordered;
mod others;
pub mod request;
mod resolve;
mod run;
pub mod schedule;
mod store;
mod succession;
mod target;
mod telling;
mod view;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use shoal_identity::Dialer;
use shoal_oci::RegistryName;
use shoal_ops::Context;
use shoal_ops::tasks::Tasks;
use shoal_peer::client::PeerClient;
use tokio::sync::{oneshot, watch};
use tokio::task::{JoinHandle, spawn_blocking};

pub(crate) use ordered::Ordered;
pub use view::{Held, JobView, LayerView, Progress, RegionView, Row, State};

use crate::authority::Holder;
use crate::census::Census;
use crate::gate::Gate;
use crate::mirror::Manifests;
use crate::mode::Asker;
use crate::open::Opener;
use crate::regions::Desk;
use crate::seed::Seeder;
use crate::shelf::SeedingShelf;
use crate::sisters::{Sisters, Tenure};
use crate::tickets::Tickets;
use crate::timestamp::Timestamp;
use book::{Book, Entered, Full, Sameness};
use exchange::{Answer, Exchange};
use metrics::PreheatMetrics;
use request::Request;
use run::Progressing;
use store::{JobStore, Kept, StoreError};

/// How often another number is tried where a gateway has given the same at the same moment.
const NUMBERS: usize = 3;

/// What jobs are carried out with.
pub(crate) struct Means {
    pub(crate) gate: Arc<Gate>,
    pub(crate) manifests: Arc<Manifests>,
    pub(crate) opener: Arc<Opener>,
    pub(crate) tickets: Arc<Tickets>,
    pub(crate) sisters: Sisters,
    pub(crate) seeder: Seeder,
    pub(crate) shelf: Arc<SeedingShelf>,
    pub(crate) peers: PeerClient,
    /// Knows which nodes there are.
    pub(crate) census: Arc<Census>,
    /// How other gateways are asked.
    pub(crate) dialer: Dialer,
    /// Where other regions are told what to do.
    pub(crate) desk: Desk,
}

/// The jobs of this gateway; clones are of the same.
#[derive(Clone)]
pub(crate) struct Preheats(Arc<Inner>);

struct Inner {
    means: Arc<Means>,
    store: JobStore,
    tasks: Tasks,
    metrics: PreheatMetrics,
    state: Mutex<Jobs>,
    exchange: Exchange,
    /// A job is new, has begun, has ended or is gone.
    changed: watch::Sender<()>,
}

struct Jobs {
    book: Book,
    /// Those that go on: as they were asked for, and as they are.
    going_on: BTreeMap<u64, GoingOn>,
    /// Those that went on when the gateway last ended, until they do again.
    left: BTreeMap<u64, Arc<JobView>>,
    /// The ones among them that somebody has begun to see to.
    claimed: BTreeSet<u64>,
}

#[derive(Clone)]
struct GoingOn {
    view: Arc<JobView>,
    progressing: Arc<Progressing>,
    /// By what right this gateway carries it out.
    tenure: Arc<Tenure>,
}

/// How far a job is, in little room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Waiting,
    AtWork(&'static str, Progress),
    Ended,
}

/// What became of a request.
enum TakenIn {
    New(Arc<JobView>),
    /// The same as the job of this number.
    Joined(u64),
}

/// Why there is no job.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refused {
    #[error("{} jobs wait already: ask again later", book::MAX_QUEUED)]
    Full,
    #[error("the job cannot be written down, and would be lost at a restart")]
    NotKept,
    #[error("the gateway is ending")]
    Ending,
}

/// The gateway that has a job does not answer, and so it cannot be stopped.
#[derive(Debug, thiserror::Error)]
#[error("preheat job {0}: the gateway that has it does not answer: ask again later")]
pub(crate) struct OutOfReach(u64);

/// Part of a list of jobs, each without what became of its blobs: that can be thousands of rows.
pub(crate) struct Listed {
    pub(crate) jobs: Vec<JobView>,
    /// How many there are in all.
    pub(crate) n_all: usize,
}

impl Preheats {
    /// Opens what was kept in `dir`. The jobs of before wait for [`Preheats::resume`].
    pub(crate) async fn start(means: Means, dir: &Path, ctx: &Context) -> anyhow::Result<Self> {
        let dir = dir.to_owned();
        let (store, kept) = spawn_blocking(move || JobStore::start(&dir)).await??;
        let Kept { jobs, next_id } = kept;
        let jobs = jobs.into_iter().map(Arc::new);
        let (pending, ended): (Vec<_>, Vec<_>) = jobs.partition(|it| it.state == State::Pending);
        let state = Jobs {
            book: Book::new(next_id, ended),
            going_on: BTreeMap::new(),
            left: pending.into_iter().map(|it| (it.id, it)).collect(),
            claimed: BTreeSet::new(),
        };
        let it = Self(Arc::new(Inner {
            exchange: Exchange::new(means.sisters.clone(), means.dialer.clone()),
            means: Arc::new(means),
            store,
            tasks: ctx.tasks.clone(),
            metrics: PreheatMetrics::register(&ctx.metrics),
            state: Mutex::new(state),
            changed: watch::Sender::new(()),
        }));
        let (attending, stopping) = (it.clone().attend(), ctx.tasks.stopping());
        ctx.tasks.spawn_infallible("preheat sisters", async move {
            stopping.run_until_cancelled(attending).await;
        });
        Ok(it)
    }

    /// For what a gateway of the hub orders.
    pub(crate) fn ordered(&self) -> Ordered {
        Ordered::new(self.0.means.clone(), self.0.tasks.clone())
    }

    /// The configured registry that a host is a name of.
    pub(crate) fn registry_named(&self, host: &str) -> Option<RegistryName> {
        self.0.means.gate.registry_named(host)
    }

    /// Takes in a job, or joins it to the same one that goes on. It is written down when this returns, and also where
    /// nobody waits for that any more.
    pub(crate) async fn submit(&self, request: Request, asked_by: String) -> Result<JobView, Refused> {
        let (tell, told) = oneshot::channel();
        let this = self.clone();
        self.0.tasks.spawn_infallible("preheat request", async move {
            // Whoever asked may have gone.
            let _ = tell.send(this.take_in(request, asked_by).await);
        });
        told.await.unwrap_or(Err(Refused::Ending))
    }

    async fn take_in(&self, request: Request, asked_by: String) -> Result<JobView, Refused> {
        if let Some(id) = self.same_elsewhere(&request)
            && let Some(job) = self.get(id).await
            // It may have ended since it was told of.
            && job.state == State::Pending
        {
            return Ok(job);
        }
        let view = match self.enter(request, &asked_by).await? {
            TakenIn::New(view) => view,
            // It may have ended this moment.
            TakenIn::Joined(id) => return self.get(id).await.ok_or(Refused::NotKept),
        };
        let (id, image) = (view.id, &view.request.image);
        if !self.keep(view.clone()).await {
            self.drop_job(id);
            return Err(Refused::NotKept);
        }
        tracing::info!(id, image, asked_by = view.asked_by, "preheat job taken in");
        self.begin_more();
        Ok((*view).clone())
    }

    /// Gives a job its number, or finds the one that it joins.
    async fn enter(&self, request: Request, asked_by: &str) -> Result<TakenIn, Refused> {
        let sisters = &self.0.means.sisters;
        for _ in 0..NUMBERS {
            let sameness = Sameness::of(&request, self.holder(&request));
            let GoingOn { view, tenure, .. } = {
                let mut state = self.state();
                let id = match state.book.enter(sameness, sisters.number().unwrap_or(0)) {
                    Ok(Entered::New(id)) => id,
                    Ok(Entered::Joined(id)) => return Ok(TakenIn::Joined(id)),
                    Err(Full) => break,
                };
                let view = Arc::new(JobView::new(id, asked_by.to_owned(), &request, Timestamp::now()));
                let going_on = GoingOn::new(view, request.clone(), sisters.job(id));
                self.mind(id, &going_on);
                state.going_on.insert(id, going_on.clone());
                going_on
            };
            if tenure.confirm().await.is_some() {
                return Ok(TakenIn::New(view));
            }
            // Another gateway has given the same number at the same microsecond.
            self.forget(view.id);
        }
        self.0.metrics.refused();
        Err(Refused::Full)
    }

    /// The job of another gateway that a request joins. Whose credential a job came with only its own gateway can tell.
    fn same_elsewhere(&self, request: &Request) -> Option<u64> {
        let holder = self.holder(request);
        if matches!(holder, Holder::Caller(_))
            || self.state().book.same(&Sameness::of(request, holder)).is_some()
        {
            return None;
        }
        self.0.exchange.same(&request.to_asked(), holder != Holder::Gateway)
    }

    // === What there is ===

    /// A job as it is by now, whatever gateway has it.
    pub(crate) async fn get(&self, id: u64) -> Option<JobView> {
        if let Some(job) = self.get_own(id) {
            return Some(job);
        }
        match self.0.exchange.ask(id, None).await {
            Answer::Now(job) | Answer::AsTold(job) => Some(Arc::unwrap_or_clone(job)),
            Answer::Unknown => None,
        }
    }

    /// A job of this gateway as it is by now.
    fn get_own(&self, id: u64) -> Option<JobView> {
        self.look(id, |ended| (**ended).clone(), GoingOn::now)
    }

    /// The same without what became of each blob.
    fn get_brief(&self, id: u64) -> Option<JobView> {
        self.look(id, |kept| kept.brief(), GoingOn::brief)
    }

    fn look<T>(
        &self,
        id: u64,
        kept: impl FnOnce(&Arc<JobView>) -> T,
        going_on: impl FnOnce(&GoingOn) -> T,
    ) -> Option<T> {
        let found = {
            let state = self.state();
            if let Some(view) = state.book.get_ended(id).or_else(|| state.left.get(&id)) {
                return Some(kept(view));
            }
            state.going_on.get(&id)?.clone()
        };
        Some(going_on(&found))
    }

    /// How far each job of this gateway is.
    fn stages(&self) -> BTreeMap<u64, Stage> {
        let (mut stages, going_on): (BTreeMap<_, _>, Vec<_>) = {
            let state = self.state();
            let (ended, _) = state.book.ids();
            let ended = ended.map(|it| (it.id, Stage::Ended));
            let waiting = state.left.keys().map(|id| (*id, Stage::Waiting));
            (ended.chain(waiting).collect(), state.going_on.values().cloned().collect())
        };
        stages.extend(going_on.iter().map(|it| (it.view.id, it.stage())));
        stages
    }

    /// Jobs of this state, or of any, the latest first.
    pub(crate) fn list(&self, wanted: Option<State>, skip: usize, n_most: usize) -> Listed {
        let fits = |it: State| wanted.is_none_or(|wanted| wanted == it);
        let mut states: BTreeMap<u64, (State, Option<Arc<JobView>>)> =
            self.0.exchange.all().into_iter().map(|it| (it.id, (it.state, Some(it)))).collect();
        {
            let state = self.state();
            let (ended, going_on) = state.book.ids();
            states.extend(ended.map(|it| (it.id, (it.state, None))));
            let pending = going_on.chain(state.left.keys().copied());
            states.extend(pending.map(|id| (id, (State::Pending, None))));
        }
        states.retain(|_, (state, _)| fits(*state));
        let n_all = states.len();
        let wanted = states.into_iter().rev().skip(skip).take(n_most);
        let jobs = wanted.filter_map(|(id, (_, told))| match told {
            Some(told) => Some((*told).clone()),
            None => self.get_brief(id),
        });
        Listed { jobs: jobs.collect(), n_all }
    }

    /// Writes a job down; false where the disk does not take it.
    async fn keep(&self, view: Arc<JobView>) -> bool {
        let store = self.0.store.clone();
        self.written(spawn_blocking(move || store.put(&view))).await
    }

    /// Keeps these jobs no longer.
    async fn unkeep(&self, ids: Vec<u64>) {
        let store = self.0.store.clone();
        if !ids.is_empty() {
            self.written(spawn_blocking(move || store.remove(&ids))).await;
        }
    }

    async fn written(&self, writing: JoinHandle<Result<(), StoreError>>) -> bool {
        let written =
            writing.await.map_err(|it| it.to_string()).and_then(|it| it.map_err(|it| it.to_string()));
        if let Err(error) = &written {
            tracing::error!(error, "preheat jobs not written down");
        }
        written.is_ok()
    }

    fn asker(&self, request: &Request) -> Option<Asker> {
        self.0.means.gate.upstream(&request.image.registry).map(|it| it.mode.asker())
    }

    /// With whose right a job reads.
    fn holder(&self, request: &Request) -> Holder {
        let gate = &self.0.means.gate;
        let authorization = request.authorization.as_ref();
        let authorization = authorization.and_then(|it| http::HeaderValue::from_str(it.expose()).ok());
        match gate.upstream(&request.image.registry) {
            Some(upstream) => gate.right(upstream, &request.image.repository, authorization.as_ref()).holder,
            None => Holder::Anonymous,
        }
    }

    fn count(&self, state: &Jobs) {
        let (n_queued, n_running) = state.book.counts();
        self.0.metrics.going_on(n_queued, n_running);
    }

    /// The others are to hear of it.
    fn changed(&self) {
        self.0.changed.send_replace(());
    }

    fn state(&self) -> MutexGuard<'_, Jobs> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Jobs {
    /// Takes a job of before to see to it; none where somebody else does.
    fn claim(&mut self, id: u64) -> Option<Arc<JobView>> {
        let view = self.left.get(&id)?.clone();
        self.claimed.insert(id).then_some(view)
    }

    /// A job of before has been seen to.
    fn unleave(&mut self, id: u64) {
        self.left.remove(&id);
        self.claimed.remove(&id);
    }
}

impl GoingOn {
    fn new(view: Arc<JobView>, request: Request, tenure: Tenure) -> Self {
        Self { view, progressing: Arc::new(Progressing::new(request)), tenure: Arc::new(tenure) }
    }

    /// For how long it has been waited for. A clock that is set back costs the job nothing, one that is set forward
    /// time.
    fn waited(&self) -> Duration {
        Timestamp::now().since(self.view.created)
    }

    /// As it is by now, for whoever asks.
    fn now(&self) -> JobView {
        self.outcome().unended()
    }

    /// The same with its end, where it has come to that.
    fn outcome(&self) -> JobView {
        match &*self.progressing.job() {
            Some(job) => self.view.with(job, &self.progressing.request, Timestamp::now()),
            None => (*self.view).clone(),
        }
    }

    fn stage(&self) -> Stage {
        match &*self.progressing.job() {
            Some(job) => Stage::AtWork(job.doing(), view::progress(job)),
            None => Stage::Waiting,
        }
    }

    fn brief(&self) -> JobView {
        match &*self.progressing.job() {
            Some(job) => self.view.brief_with(job, Timestamp::now()).unended(),
            None => self.view.brief(),
        }
    }
}
