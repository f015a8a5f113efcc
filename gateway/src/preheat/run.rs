//! One job at work: carries out what the machine decides, and tells it what became of that.
//!
//! Each target has a task of its own, which has the node store its blobs and hands on what it says. Ending the task
//! ends the wish, so nothing goes on at a node that the job does not know of.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, SystemTime};

use futures_util::StreamExt as _;
use http::HeaderValue;
use shoal_model::{BlobKey, Digest, Node, NodeId, Rng, Tick};
use shoal_peer::client::{Fault, PeerClient};
use shoal_peer::store::{Storer, store};
use shoal_proto::{NodesRequest, PreheatWish, Source, StoreBlob, StoreProgress, StoreRequest, Stored};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::Means;
use super::choice::choose;
use super::image::Image;
use super::job::{Action, Event, Job, Layer, Limits, Setback};
use super::request::{Elsewhere, Request, Scope};
use super::resolve::{Blob, CREDENTIAL_NEEDED, Resolver, not_admitted};
use super::target::Assignment;
use super::view;
use crate::authority::Right;
use crate::census::Counted;
use crate::mode::Asker;
use crate::regions::{Order, RegionName, Reply};

/// What happened and was not taken in yet.
const EVENTS: usize = 1024;
/// What is taken in at one go.
const BATCH: usize = 128;

/// A job that goes on, as those see it who ask for it.
pub(super) struct Progressing {
    pub(super) request: Request,
    /// None before its turn.
    job: Mutex<Option<Job>>,
    /// Who wants it to end.
    cancelled: watch::Sender<Option<String>>,
    over: CancellationToken,
}

impl Progressing {
    pub(super) fn new(request: Request) -> Self {
        let (cancelled, over) = (watch::Sender::new(None), CancellationToken::new());
        Self { request, job: Mutex::new(None), cancelled, over }
    }

    /// Its turn has come, after so long; these other regions are to do the same.
    pub(super) fn begin(&self, waited: Duration, regions: Vec<RegionName>) {
        let Request { concurrency, timeout, .. } = &self.request;
        let limits = Limits { targets: concurrency.nodes as usize, timeout: *timeout };
        *self.job() = Some(Job::new(Tick::default(), limits, waited, regions));
    }

    pub(super) fn job(&self) -> MutexGuard<'_, Option<Job>> {
        self.job.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nothing more is done about it.
    pub(super) fn end(&self) {
        self.over.cancel();
    }

    /// Waits until nothing more is done about it.
    pub(super) fn over(&self) -> impl Future<Output = ()> + Send + use<> {
        self.over.clone().cancelled_owned()
    }

    /// Has it end.
    pub(super) fn cancel(&self, by: &str) {
        self.cancelled.send_replace(Some(by.to_owned()));
    }
}

/// From where a job comes.
pub(super) enum Origin {
    /// It is this gateway's, by its number.
    Here(u64),
    /// The hub has ordered it, which says of what blobs the image is made, in bytes each.
    Hub(Vec<(Digest, u64)>),
}

/// What drives a job.
pub(super) struct Runner {
    means: Arc<Means>,
    origin: Arc<Origin>,
    progressing: Arc<Progressing>,
    began: Instant,
    events_in: mpsc::Sender<Event>,
    /// Those of the image, once it is resolved.
    blobs: Arc<OnceLock<Vec<Blob>>>,
    tasks: JoinSet<()>,
}

impl Runner {
    /// Drives a job to its end.
    pub(super) async fn run(means: Arc<Means>, progressing: Arc<Progressing>, origin: Origin) {
        let (events_in, mut events) = mpsc::channel(EVENTS);
        let mut cancelled = progressing.cancelled.subscribe();
        let mut it = Self {
            means,
            origin: Arc::new(origin),
            progressing,
            began: Instant::now(),
            events_in,
            blobs: Arc::default(),
            tasks: JoinSet::new(),
        };
        let mut batch = vec![Event::Tick];
        loop {
            if it.feed(&mut batch) {
                return;
            }
            let deadline = it.progressing.job().as_ref().and_then(Job::next_deadline);
            let deadline = deadline.map(|at| it.began + Duration::from_micros(at.0));
            tokio::select! {
                _ = events.recv_many(&mut batch, BATCH) => {}
                () = until(deadline) => batch.push(Event::Tick),
                Ok(by) = cancelled.wait_for(Option::is_some) => {
                    batch.extend(by.clone().map(Event::Cancelled));
                }
                // Nothing to do but to drop what is over.
                Some(_) = it.tasks.join_next() => {}
            }
        }
    }

    /// Takes in what happened; true at the end.
    fn feed(&mut self, batch: &mut Vec<Event>) -> bool {
        let now = Tick::default().after(self.began.elapsed());
        let mut actions = Vec::new();
        {
            let mut job = self.progressing.job();
            let Some(job) = &mut *job else { return true };
            batch.drain(..).for_each(|event| job.on_event(now, event, &mut actions));
        }
        actions.into_iter().any(|it| self.act(it))
    }

    fn act(&mut self, action: Action) -> bool {
        match action {
            Action::Resolve => {
                let (means, progressing, blobs) =
                    (self.means.clone(), self.progressing.clone(), self.blobs.clone());
                let origin = self.origin.clone();
                self.spawn(async move {
                    let res = match &*origin {
                        Origin::Here(_) => means.resolve(&progressing.request).await,
                        Origin::Hub(given) => means.accept(&progressing.request, given),
                    };
                    Event::Resolved(res.map(|found| {
                        let layers = found.iter().map(Layer::from).collect();
                        // It is resolved once.
                        blobs.get_or_init(|| found);
                        layers
                    }))
                });
            }
            Action::Assign => {
                let (means, progressing, blobs) =
                    (self.means.clone(), self.progressing.clone(), self.blobs.clone());
                self.spawn(async move {
                    let blobs = blobs.get().map_or(&[][..], Vec::as_slice);
                    Event::Assigned(means.assign(&progressing.request, blobs).await)
                });
            }
            Action::Order => self.order(),
            Action::Begin { target, layers } => self.begin(target, &layers),
            Action::End => return true,
        }
        false
    }

    fn begin(&mut self, target: usize, layers: &[usize]) {
        let node = {
            let job = self.progressing.job();
            job.as_ref().and_then(|it| it.targets().get(target)).map(|it| it.node.clone())
        };
        let Some(node) = node else { return };
        let blobs = self.blobs.get().map_or(&[][..], Vec::as_slice);
        let telling = Telling {
            means: self.means.clone(),
            source: source(&self.progressing.request),
            at_once: self.progressing.request.concurrency.layers,
            blobs: layers.iter().filter_map(|it| blobs.get(*it).cloned()).collect(),
            node,
            target,
            events: self.events_in.clone(),
        };
        self.tasks.spawn(telling.run());
    }

    /// Has other regions do the same, until this ends.
    fn order(&mut self) {
        // What the hub has ordered, it orders of all regions itself.
        let Origin::Here(number) = *self.origin else { return };
        let now = Tick::default().after(self.began.elapsed());
        let (left, max_rows, regions) = {
            let job = self.progressing.job();
            let Some(job) = &*job else { return };
            let regions: Vec<_> = job.branches().iter().map(|it| it.region.clone()).collect();
            (job.time_left(now), view::max_rows(job), regions)
        };
        let blobs = self.blobs.get().map_or(&[][..], Vec::as_slice);
        let order = Order {
            wish: wish(&self.progressing.request),
            source: source(&self.progressing.request),
            blobs: blobs.iter().map(|it| (it.key.clone(), it.geometry)).collect(),
            until: Instant::now() + left,
            max_rows: u32::try_from(max_rows).unwrap_or(u32::MAX),
        };
        let (mut placed, events) = (self.means.desk.place(number, order, regions), self.events_in.clone());
        self.tasks.spawn(async move {
            loop {
                let event = match placed.next().await {
                    Reply::Links(links) => Event::Linked(links),
                    Reply::Told(told) => Event::Branch(told),
                };
                // The job has ended where nobody takes it.
                if events.send(event).await.is_err() {
                    return;
                }
            }
        });
    }

    fn spawn(&mut self, work: impl Future<Output = Event> + Send + 'static) {
        let events = self.events_in.clone();
        self.tasks.spawn(async move {
            // The job has ended where nobody takes it.
            let _ = events.send(work.await).await;
        });
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

fn source(request: &Request) -> Source {
    Source { registry: request.image.registry.to_string(), repository: request.image.repository.to_string() }
}

/// What other regions are asked to do, which is the same.
fn wish(request: &Request) -> PreheatWish {
    let asked = request.to_asked();
    PreheatWish {
        image: asked.image,
        scope: request.scope.name().to_owned(),
        zone: asked.zone,
        ips: asked.ips,
        count: asked.count,
        percentage: asked.percentage,
        blobs_at_once: request.concurrency.layers.into(),
        nodes_at_once: request.concurrency.nodes.into(),
    }
}

impl Means {
    /// The blobs that the hub says a request's image has, where it may say so.
    fn accept(&self, request: &Request, given: &[(Digest, u64)]) -> Result<Vec<Blob>, Setback> {
        let Image { registry, repository, .. } = &request.image;
        let upstream = self.gate.upstream(registry).filter(|it| it.is_behind_hub());
        let upstream = upstream.ok_or_else(|| {
            Setback::lasting(format!("registry {registry}: this region does not read it by way of the hub"))
        })?;
        if !upstream.mode.admits(repository) {
            return Err(not_admitted(upstream, repository));
        }
        let blob = |(digest, size): &(Digest, u64)| {
            let key = BlobKey { group: upstream.group.clone(), digest: *digest };
            Blob { geometry: self.shelf.cuts.say(&key, *size), key }
        };
        Ok(given.iter().map(blob).collect())
    }

    /// The blobs of a request's image.
    async fn resolve(&self, request: &Request) -> Result<Vec<Blob>, Setback> {
        let image = &request.image;
        let unknown = || Setback::lasting(format!("registry {}: is no longer configured", image.registry));
        let upstream = self.gate.upstream(&image.registry).ok_or_else(unknown)?.clone();
        let given = request.authorization.as_ref().map(|it| HeaderValue::from_str(it.expose()));
        // A request's credential fits into a header.
        let mut authorization = given.and_then(Result::ok);
        if let Some(value) = &mut authorization {
            value.set_sensitive(true);
        }
        match (upstream.mode.asker(), &authorization) {
            (Asker::Gateway, _) => authorization = None,
            (Asker::Caller, Some(_)) => {}
            (Asker::Caller, None) => {
                let login = upstream.authorization_of_nobody(&image.repository).await;
                authorization = login.map_err(|it| match it.is_refusal() {
                    true => Setback::lasting(format!("image {image}: {CREDENTIAL_NEEDED}")),
                    false => Setback::passing(it.to_string()),
                })?;
            }
        }
        let right: Right = self.gate.right(&upstream, &image.repository, authorization.as_ref());
        let (manifests, opener) = (self.manifests.clone(), self.opener.clone());
        Resolver { manifests, opener, upstream, right, authorization }.resolve(request).await
    }

    /// Who shall hold which of the blobs.
    async fn assign(&self, request: &Request, blobs: &[Blob]) -> Result<Vec<Assignment>, Setback> {
        let all: Vec<_> = (0..blobs.len()).collect();
        let whole = |node| Assignment { node, layers: all.clone() };
        Ok(match request.scope {
            Scope::SingleSeed => {
                let mut owners: BTreeMap<NodeId, Assignment> = BTreeMap::new();
                for (number, blob) in blobs.iter().enumerate() {
                    let node = self.sisters.owner(&blob.key);
                    let owner = owners.entry(node.id.clone());
                    owner.or_insert(Assignment { node, layers: Vec::new() }).layers.push(number);
                }
                owners.into_values().collect()
            }
            Scope::AllSeeds => {
                [self.sisters.myself()].into_iter().chain(self.sisters.answering()).map(whole).collect()
            }
            // One that has no nodes of its own has it done elsewhere.
            Scope::AllPeers
                if !self.census.has_schedulers() && request.elsewhere != Elsewhere::In(Vec::new()) =>
            {
                Vec::new()
            }
            Scope::AllPeers => {
                let nodes = self.nodes().await?;
                let chosen = choose(nodes, &request.selector, &mut Rng::new(rand::random()));
                chosen.into_iter().map(whole).collect()
            }
        })
    }

    /// Every node of the region.
    async fn nodes(&self) -> Result<Vec<Node>, Setback> {
        if !self.census.has_schedulers() {
            return Err(Setback::lasting("schedulers: none is configured, so no node is known"));
        }
        let Counted { found, silent, is_known } = self.census.nodes(&NodesRequest::default()).await;
        if !is_known {
            let faults: Vec<_> = silent.iter().map(|it| format!("{}: {}", it.scheduler, it.cause)).collect();
            return Err(Setback::passing(format!("no scheduler answers: {}", faults.join("; "))));
        }
        Ok(found.into_iter().map(|it| it.node).collect())
    }
}

/// One target being told what to store.
struct Telling {
    means: Arc<Means>,
    source: Source,
    at_once: u32,
    blobs: Vec<Blob>,
    node: Node,
    target: usize,
    events: mpsc::Sender<Event>,
}

impl Telling {
    async fn run(self) {
        let request = self.request();
        let event = match self.tell(request).await {
            Ok(()) => Event::Finished { target: self.target },
            Err(why) => Event::Lost { target: self.target, why },
        };
        self.say(event).await;
    }

    async fn tell(&self, request: StoreRequest) -> Result<(), String> {
        if self.node.id == self.means.sisters.me() {
            let storer: Arc<dyn Storer> = self.means.shelf.clone();
            let mut progress = std::pin::pin!(store(storer, request, None));
            while let Some(StoreProgress(stored)) = progress.next().await {
                self.told(stored).await;
            }
            return Ok(());
        }
        let peers: &PeerClient = &self.means.peers;
        let mut progress = peers.store(&self.node, request).await.map_err(|it| match it {
            Fault::Busy => "as many jobs as are allowed are at work there".to_owned(),
            fault => fault.to_string(),
        })?;
        while let Some(StoreProgress(stored)) = progress.next().await.map_err(|it| it.to_string())? {
            self.told(stored).await;
        }
        Ok(())
    }

    /// A node cannot know why a seed failed; this gateway does, where it was its own.
    async fn told(&self, mut stored: Vec<Stored>) {
        for it in &mut stored {
            let Some(Err(why)) = &mut it.end else { continue };
            let key = self.blobs.get(it.index).map(|it| &it.key);
            if let Some(cause) = key.and_then(|it| self.means.seeder.failure(it))
                && !why.contains(&*cause)
            {
                *why = format!("{why}; the gateway: {cause}");
            }
        }
        if !stored.is_empty() {
            let is_excused = self.is_excused();
            self.say(Event::Told { target: self.target, stored, is_excused }).await;
        }
    }

    /// Whether the hub is away by way of which the blobs are read.
    fn is_excused(&self) -> bool {
        let registry = self.source.registry.parse().ok();
        let upstream = registry.and_then(|it| self.means.gate.upstream(&it));
        upstream.is_some_and(|it| it.is_behind_hub() && it.listens().is_err())
    }

    async fn say(&self, event: Event) {
        // The job has ended where nobody takes it.
        let _ = self.events.send(event).await;
    }

    fn request(&self) -> StoreRequest {
        let now = SystemTime::now();
        let grant = |Blob { key, geometry }: &Blob| {
            let cut = (key.clone(), *geometry);
            let fresh = self.means.tickets.give(now, self.source.clone(), cut, self.node.id.clone());
            StoreBlob {
                key: key.clone(),
                geometry: *geometry,
                ticket: fresh.ticket,
                ticket_lives: fresh.lives,
                gateway: self.means.sisters.owner(key),
            }
        };
        let blobs = self.blobs.iter().map(grant).collect();
        StoreRequest { source: self.source.clone(), blobs, at_once: self.at_once }
    }
}
