//! Preheat jobs: having an image where it will be wanted, before it is.
//!
//! Somebody asks for it ([`request`]): a person by [`api`], Harbor, a schedule. The job is written down ([`store`]),
//! waits for its turn ([`book`]) and is carried out ([`run`]) as its machine says ([`job`]): the image is resolved
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

pub(crate) mod api;
mod book;
mod branch;
mod choice;
pub mod image;
mod job;
mod metrics;
mod ordered;
pub mod request;
mod resolve;
mod run;
pub mod schedule;
mod store;
mod telling;
mod view;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use shoal_identity::Dialer;
use shoal_oci::RegistryName;
use shoal_ops::Context;
use shoal_ops::tasks::Tasks;
use shoal_peer::client::PeerClient;
use tokio::sync::oneshot;
use tokio::task::spawn_blocking;
use tokio::time::sleep;

pub(crate) use ordered::Ordered;
pub use view::{Held, JobView, LayerView, Progress, RegionView, Row, State};

use crate::authority::Holder;
use crate::gate::Gate;
use crate::mirror::Manifests;
use crate::mode::Asker;
use crate::open::Opener;
use crate::regions::{Desk, RegionName};
use crate::seed::Seeder;
use crate::shelf::SeedingShelf;
use crate::sisters::Sisters;
use crate::tickets::Tickets;
use crate::timestamp::Timestamp;
use book::{Book, Entered, Full, Sameness};
use metrics::PreheatMetrics;
use request::{Elsewhere, MAX_REGIONS, Request};
use run::{Origin, Progressing, Runner};
use store::{JobStore, Kept};

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
    pub(crate) dialer: Dialer,
    /// Where it is known which nodes there are.
    pub(crate) schedulers: Vec<String>,
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
}

struct Jobs {
    book: Book,
    /// Those that go on: as they were asked for, and as they are.
    going_on: BTreeMap<u64, GoingOn>,
}

#[derive(Clone)]
struct GoingOn {
    view: Arc<JobView>,
    progressing: Arc<Progressing>,
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

/// Part of a list of jobs.
pub(crate) struct Listed {
    pub(crate) jobs: Vec<JobView>,
    /// How many there are in all.
    pub(crate) n_all: usize,
}

impl Preheats {
    /// Opens what was kept in `dir` and goes on with the jobs of before.
    pub(crate) async fn start(means: Means, dir: &Path, ctx: &Context) -> anyhow::Result<Self> {
        let dir = dir.to_owned();
        let (store, kept) = spawn_blocking(move || JobStore::start(&dir)).await??;
        let Kept { jobs, next_id } = kept;
        let (pending, ended): (Vec<_>, Vec<_>) = jobs.into_iter().partition(|it| it.state == State::Pending);
        let it = Self(Arc::new(Inner {
            means: Arc::new(means),
            store,
            tasks: ctx.tasks.clone(),
            metrics: PreheatMetrics::register(&ctx.metrics),
            state: Mutex::new(Jobs { book: Book::new(next_id, ended), going_on: BTreeMap::new() }),
        }));
        for view in pending {
            it.resume(view).await;
        }
        it.begin_more();
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
        let sameness = Sameness::of(&request, self.holder(&request));
        let view = {
            let mut state = self.state();
            match state.book.enter(sameness) {
                Ok(Entered::Joined(id)) => {
                    drop(state);
                    // It may have ended this moment.
                    return self.get(id).ok_or(Refused::NotKept);
                }
                Ok(Entered::New(id)) => {
                    let view = Arc::new(JobView::new(id, asked_by, &request, Timestamp::now()));
                    let going_on = GoingOn::new(view.clone(), request);
                    self.mind(id, &going_on);
                    state.going_on.insert(id, going_on);
                    view
                }
                Err(Full) => {
                    self.0.metrics.refused();
                    return Err(Refused::Full);
                }
            }
        };
        let (id, image) = (view.id, &view.request.image);
        if !self.keep(view.clone(), Vec::new()).await {
            self.drop_job(id);
            return Err(Refused::NotKept);
        }
        tracing::info!(id, image, asked_by = view.asked_by, "preheat job taken in");
        self.begin_more();
        Ok((*view).clone())
    }

    /// A job as it is by now.
    pub(crate) fn get(&self, id: u64) -> Option<JobView> {
        let going_on = {
            let state = self.state();
            if let Some(ended) = state.book.get_ended(id) {
                return Some((**ended).clone());
            }
            state.going_on.get(&id)?.clone()
        };
        Some(going_on.now())
    }

    /// Jobs of this state, or of any, the latest first.
    pub(crate) fn list(&self, wanted: Option<State>, skip: usize, n_most: usize) -> Listed {
        let mut ids: Vec<u64> = {
            let state = self.state();
            let (ended, going_on) = state.book.ids();
            let fits = |it: State| wanted.is_none_or(|wanted| wanted == it);
            let ended = ended.filter(|it| fits(it.state)).map(|it| it.id);
            ended.chain(going_on.filter(|_| fits(State::Pending))).collect()
        };
        ids.sort_unstable_by(|one, other| other.cmp(one));
        let n_all = ids.len();
        let jobs = ids.into_iter().skip(skip).take(n_most).filter_map(|id| self.get(id)).collect();
        Listed { jobs, n_all }
    }

    /// Has a job end, in the name of `by`. One that has ended stays as it is.
    pub(crate) async fn cancel(&self, id: u64, by: &str) -> Option<JobView> {
        let going_on = self.state().going_on.get(&id).cloned();
        let Some(GoingOn { view, progressing }) = going_on else { return self.get(id) };
        let is_queued = self.state().book.unqueue(id);
        if is_queued {
            self.ended(view.failed(format!("cancelled by {by}"), Timestamp::now())).await;
        } else {
            progressing.cancel(by);
        }
        self.get(id)
    }

    /// Goes on with a job from before this process.
    async fn resume(&self, view: JobView) {
        let asked = view.request.clone();
        let request = match Request::new(asked, |it| self.registry_named(it)) {
            Ok(request) => request,
            Err(faults) => return self.ended(view.failed(faults.join("; "), Timestamp::now())).await,
        };
        if view.has_credential && self.asker(&request) != Some(Asker::Gateway) {
            let why = "the gateway was restarted before the job had ended, and the credential that came with it \
                       is not kept: ask again";
            return self.ended(view.failed(why.to_owned(), Timestamp::now())).await;
        }
        let sameness = Sameness::of(&request, self.holder(&request));
        tracing::info!(id = view.id, image = view.request.image, "preheat job begins anew");
        let (id, going_on) = (view.id, GoingOn::new(Arc::new(view), request));
        self.mind(id, &going_on);
        let mut state = self.state();
        state.book.resume(id, sameness);
        state.going_on.insert(id, going_on);
    }

    fn begin_more(&self) {
        loop {
            let begun = {
                let mut state = self.state();
                let id = state.book.begin();
                let begun = id.and_then(|id| state.going_on.get(&id).cloned());
                self.count(&state);
                begun
            };
            let Some(going_on) = begun else { return };
            let this = self.clone();
            self.0.tasks.spawn_infallible("preheat", async move { this.run(going_on).await });
        }
    }

    async fn run(&self, going_on: GoingOn) {
        let stopping = self.0.tasks.stopping();
        let regions = self.regions(&going_on.progressing.request.elsewhere);
        going_on.progressing.begin(going_on.waited(), regions);
        let origin = Origin::Here(going_on.view.id);
        let running = Runner::run(self.0.means.clone(), going_on.progressing.clone(), origin);
        // One that is cut short goes on after the restart.
        if stopping.run_until_cancelled(running).await.is_some() {
            self.ended(going_on.now()).await;
        }
    }

    /// The other regions that a job is for.
    fn regions(&self, elsewhere: &Elsewhere) -> Vec<RegionName> {
        match elsewhere {
            Elsewhere::In(regions) => regions.clone(),
            Elsewhere::Everywhere => self.0.means.desk.regions().into_iter().take(MAX_REGIONS).collect(),
        }
    }

    async fn ended(&self, view: JobView) {
        let JobView { id, state: outcome, .. } = view;
        tracing::info!(
            id, image = view.request.image, outcome = outcome.as_str(), nodes = view.held.progress.nodes,
            nodes_done = view.held.progress.nodes_done, regions = view.regions.len(), errors = ?view.errors, "preheat job ended"
        );
        self.0.metrics.ended(outcome);
        let gone = {
            let mut state = self.state();
            let gone = state.book.ended(Timestamp::now(), view.clone());
            if let Some(it) = state.going_on.remove(&id) {
                it.progressing.end();
            }
            gone
        };
        // They need not wait for the disk.
        self.begin_more();
        self.keep(Arc::new(view), gone).await;
    }

    /// Writes a job down; false where the disk does not take it.
    async fn keep(&self, view: Arc<JobView>, gone: Vec<u64>) -> bool {
        let store = self.0.store.clone();
        let kept = spawn_blocking(move || store.put(&view, &gone)).await;
        let kept = kept.map_err(|it| it.to_string()).and_then(|it| it.map_err(|it| it.to_string()));
        if let Err(error) = &kept {
            tracing::error!(error, "preheat job not written down");
        }
        kept.is_ok()
    }

    /// Takes back a job that could not be written down.
    fn drop_job(&self, id: u64) {
        let mut state = self.state();
        if state.book.unqueue(id) {
            state.book.forget(id);
            state.going_on.remove(&id);
        } else if let Some(it) = state.going_on.get(&id) {
            it.progressing.cancel("the gateway, which cannot write it down");
        }
    }

    /// Ends a job that is not begun in time.
    fn mind(&self, id: u64, going_on: &GoingOn) {
        let timeout = going_on.progressing.request.timeout;
        let (this, view) = (self.clone(), going_on.view.clone());
        let (left, stopping) = (timeout.saturating_sub(going_on.waited()), self.0.tasks.stopping());
        let over = going_on.progressing.over();
        self.0.tasks.spawn_infallible("preheat queue", async move {
            tokio::select! {
                () = stopping.cancelled() => {}
                () = over => {}
                () = sleep(left) => {
                    let is_queued = this.state().book.unqueue(id);
                    if is_queued {
                        let why = format!("did not get its turn within {} s", timeout.as_secs());
                        this.ended(view.failed(why, Timestamp::now())).await;
                    }
                }
            }
        });
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

    fn state(&self) -> MutexGuard<'_, Jobs> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl GoingOn {
    fn new(view: Arc<JobView>, request: Request) -> Self {
        Self { view, progressing: Arc::new(Progressing::new(request)) }
    }

    /// For how long it has been waited for. A clock that is set back costs the job nothing, one that is set forward
    /// time.
    fn waited(&self) -> Duration {
        Timestamp::now().since(self.view.created)
    }

    fn now(&self) -> JobView {
        match &*self.progressing.job() {
            Some(job) => self.view.with(job, &self.progressing.request, Timestamp::now()),
            None => (*self.view).clone(),
        }
    }
}
