//! The driver around the swarm's fetch machine.
//!
//! The machine decides, this carries out: it dials, receives and stores in tasks of its own, and reports
//! what became of them. Its tasks are those that the machine knows of: when that loses a source, what was
//! asked there is cut. What the store has lost since, because content was dropped or found damaged, the
//! machine is told, and goes on from there.
//!
//! Where the disk does not take the pieces, they pass to the readers through memory, and the node leaves the swarm of
//! the blob: the scheduler is not to rely on what is not kept.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use shoal_blobstore::StoreError;
use shoal_model::{Node, NodeId, Rng, Tick};
use shoal_proto::{NodeMessage, SchedulerMessage, Want};
use shoal_swarm::fetch::{Action, Event, Fault, Fetch, Policy, Rung};
use shoal_swarm::{Algorithm, Owners, PieceIndex};
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep_until, timeout};
use tracing::Instrument as _;

use super::Tools;
use super::ask::Asking;
use super::direct::Direct;
use super::download::{End, Shared, Start};
use super::fresh::keep_fresh;
use super::report::Report;
use super::spans::Spans;
use crate::metrics::Step;

/// What was reported and not taken in yet.
const REPORTS: usize = 1024;
/// How long a complete blob waits for its gateway's seal before it is hashed here.
const SEAL_PATIENCE: Duration = Duration::from_secs(2);
/// How long the gateway may take to renew a ticket; nobody waits for that.
const RENEWAL: Duration = Duration::from_secs(2);
/// Why a read from the registry is left to the caller. Here its content could not be hashed as a whole, so that its
/// last byte would never be given.
const NOT_DIRECT: &str =
    "neither neighbours nor gateway served it, and what the registry has cannot be stored";

/// Carries out what the machine decides.
pub(super) struct Driver {
    tools: Tools,
    shared: Arc<Shared>,
    fetch: Fetch,
    began: Instant,
    heard: mpsc::Receiver<SchedulerMessage>,
    reports: mpsc::Receiver<Report>,
    reports_in: mpsc::Sender<Report>,
    ended: watch::Sender<Option<End>>,
    spans: Spans,
    nodes: BTreeMap<NodeId, Node>,
    tasks: JoinSet<()>,
    asks: BTreeMap<(NodeId, PieceIndex), AbortHandle>,
    watches: BTreeMap<NodeId, AbortHandle>,
    direct: Option<AbortHandle>,
    /// The scheduler that leads this download.
    leader: Option<Arc<str>>,
    /// When the ticket was granted that the scheduler was told.
    told_of: Instant,
    /// As the scheduler said last; without one it goes on.
    algorithm: Algorithm,
    /// Whether the disk takes the pieces, as the machine was told last.
    is_stored: bool,
}

impl Driver {
    pub(super) fn new(
        tools: Tools,
        shared: Arc<Shared>,
        (heard, ended): (mpsc::Receiver<SchedulerMessage>, watch::Sender<Option<End>>),
        spans: Spans,
    ) -> Self {
        let (reports_in, reports) = mpsc::channel(REPORTS);
        let policy = Policy::default();
        let (me, key) = (tools.node.id.clone(), shared.blob.key().clone());
        let fetch = Fetch::new(Tick(0), me, key, shared.blob.readable(), policy, Rng::new(rand::random()));
        Self {
            told_of: shared.start().granted_at,
            tools,
            shared,
            fetch,
            began: Instant::now(),
            heard,
            reports,
            reports_in,
            ended,
            spans,
            nodes: BTreeMap::new(),
            tasks: JoinSet::new(),
            asks: BTreeMap::new(),
            watches: BTreeMap::new(),
            direct: None,
            leader: None,
            algorithm: Algorithm::default(),
            is_stored: true,
        }
    }

    /// Fetches until the end.
    pub(super) async fn run(mut self) {
        let res = self.drive().await;
        let key = self.shared.blob.key();
        match &res {
            Ok(()) => {
                let millis = self.began.elapsed().as_millis() as u64;
                tracing::info!(%key, bytes = self.shared.blob.geometry().size(), millis, "blob complete");
            }
            Err(why) => {
                tracing::warn!(%key, why, "blob not complete");
                self.tools.schedulers.send(NodeMessage::Unwant(key.clone()));
            }
        }
        self.tools.reporter.hurry();
        self.spans.end(&res);
        self.ended.send_replace(Some(res));
    }

    async fn drive(&mut self) -> End {
        let mut owners = self.tools.schedulers.owners();
        let (mut seats, mut starts) = (self.shared.seats(), self.shared.starts());
        let (mut version, mut slots) = (self.shared.blob.version(), self.tools.slots.each());
        self.keep_fresh();
        self.want();
        let mut next = vec![Event::Slots(*slots.borrow_and_update())];
        self.follow(&owners.borrow_and_update());
        next.push(Event::Scheduler(self.leader.is_some()));
        next.extend(self.take_start());
        next.push(Event::Demand(self.shared.demand()));
        loop {
            for event in std::mem::take(&mut next) {
                if self.feed(event).await? {
                    return Ok(());
                }
            }
            // Looked at after each event, since one may tell of a piece that is gone by then.
            if let Some(event) = self.shrunk() {
                next.push(event);
                continue;
            }
            if self.is_stored != self.shared.blob.is_stored() {
                next.extend(self.turn_to_disk_or_memory()?);
                continue;
            }
            let deadline = self.fetch.next_deadline(self.now());
            let deadline = deadline.map(|it| self.began + Duration::from_micros(it.0));
            tokio::select! {
                Some(report) = self.reports.recv() => next.extend(self.take_in(report)?),
                Some(message) = self.heard.recv() => next.extend(self.hear(message)),
                Ok(()) = starts.changed() => next.extend(self.renewed()),
                Ok(()) = seats.changed() => next.push(Event::Demand(self.shared.demand())),
                Ok(()) = owners.changed() => next.extend(self.led_anew(&owners.borrow_and_update())),
                Ok(()) = slots.changed() => next.push(Event::Slots(*slots.borrow_and_update())),
                Ok(()) = version.changed() => {}
                () = until(deadline) => {
                    // Not at once: whoever begins a download has yet to sit down.
                    if !self.is_stored && self.shared.is_unattended() {
                        return Err("it cannot be stored, and nobody reads it".into());
                    }
                    next.push(Event::Deadline);
                }
            }
        }
    }

    fn now(&self) -> Tick {
        Tick(u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX))
    }

    // === To the machine ===

    /// Tells the machine and does what it says; true at the good end.
    async fn feed(&mut self, event: Event) -> Result<bool, String> {
        // What a reader waits for next depends on what is here.
        let demand = matches!(event, Event::Held { .. } | Event::Have(_));
        self.cut_what_is_lost(&event);
        let mut actions = Vec::new();
        let (n_leased, rung) = (self.fetch.n_leased(), self.fetch.rung());
        self.fetch.on_event(self.now(), event, &mut actions);
        if demand {
            let demand = Event::Demand(self.shared.demand());
            self.fetch.on_event(self.now(), demand, &mut actions);
            // Others wait for what this node brings in. What it has from its neighbours can wait a little: all
            // nodes together would drown the scheduler in reports.
            if self.fetch.n_leased() < n_leased {
                self.tools.reporter.hurry();
            }
        }
        if self.fetch.rung() != rung {
            self.spans.came_to(self.fetch.rung());
            if let Some(step) = Step::to(self.fetch.rung()) {
                self.shared.stepped(step, &self.tools.metrics);
            }
        }
        for action in actions {
            if self.act(action).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The machine takes these events for the end of what it had asked.
    fn cut_what_is_lost(&mut self, event: &Event) {
        match event {
            Event::Lost { from, .. } | Event::Failed { from, fault: Fault::Unvouched, .. } => {
                self.forget(from);
            }
            Event::Failed { from, piece, .. } => {
                self.asks.remove(&(from.clone(), *piece));
            }
            _ => {}
        }
    }

    fn forget(&mut self, source: &NodeId) {
        abort(self.watches.remove(source));
        self.asks.retain(|(from, _), ask| {
            let stays = from != source;
            if !stays {
                ask.abort();
            }
            stays
        });
    }

    /// The store has less than the machine was told.
    fn shrunk(&mut self) -> Option<Event> {
        let gone = self.fetch.held().minus(&self.shared.blob.readable());
        if gone.is_empty() {
            return None;
        }
        // A read that has come to its end does not come back for them.
        if self.fetch.rung() == Rung::Direct && self.direct.as_ref().is_some_and(AbortHandle::is_finished) {
            self.go_direct();
        }
        Some(Event::Have(self.fetch.held().minus(&gone)))
    }

    /// The disk takes the pieces no longer, or does again.
    fn turn_to_disk_or_memory(&mut self) -> Result<[Event; 2], String> {
        self.is_stored = !self.is_stored;
        if self.is_stored {
            self.want();
        } else {
            self.tools.schedulers.send(NodeMessage::Unwant(self.shared.blob.key().clone()));
            if self.fetch.rung() == Rung::Direct {
                return Err(NOT_DIRECT.into());
            }
        }
        Ok([Event::Stored(self.is_stored), Event::Demand(self.shared.demand())])
    }

    fn take_in(&self, report: Report) -> Result<Option<Event>, String> {
        match report {
            Report::Event(event) => Ok(Some(event)),
            Report::Watched(by, event) => Ok(self.watches.values().any(|it| it.id() == by).then_some(event)),
            Report::NoStore(error) => Err(error.to_string()),
        }
    }

    /// Who owns blobs has changed.
    fn led_anew(&mut self, owners: &Owners) -> Option<Event> {
        self.follow(owners).then(|| Event::Scheduler(self.leader.is_some()))
    }

    /// True where another scheduler leads from now on, or none.
    fn follow(&mut self, owners: &Owners) -> bool {
        let leader = owners.listener(self.shared.blob.key()).cloned();
        std::mem::replace(&mut self.leader, leader) != self.leader
    }

    fn hear(&mut self, message: SchedulerMessage) -> Vec<Event> {
        match message {
            SchedulerMessage::Neighbours(it) => {
                self.algorithm = it.algorithm;
                let gateway = it.gateway.map(|it| Event::Gateway(self.know(it)));
                gateway.into_iter().chain([self.neighbours(it.near, it.far)]).collect()
            }
            SchedulerMessage::Lease(it) => {
                let role = it.from.role;
                vec![Event::Leased { from: self.know(it.from), role, pieces: it.pieces }]
            }
            SchedulerMessage::GoDirect(_) => vec![Event::MayGoDirect],
            // For gateways only, or for newer builds.
            SchedulerMessage::Seed(_) | SchedulerMessage::Unknown => Vec::new(),
        }
    }

    /// What the gateway said when the blob was opened.
    fn take_start(&mut self) -> Vec<Event> {
        let Start { holders, gateway, .. } = self.shared.start();
        let gateway = Event::Gateway(self.know(gateway));
        // With a scheduler its list is better; without one these are all that there is.
        let holders = self.leader.is_none().then(|| self.neighbours(holders, Vec::new()));
        [gateway].into_iter().chain(holders).collect()
    }

    fn neighbours(&mut self, near: Vec<Node>, far: Vec<Node>) -> Event {
        let algorithm = self.algorithm;
        let mut know = |nodes: Vec<Node>| nodes.into_iter().map(|it| self.know(it)).collect();
        Event::Neighbours { near: know(near), far: know(far), algorithm }
    }

    fn know(&mut self, node: Node) -> NodeId {
        let id = node.id.clone();
        self.nodes.insert(id.clone(), node);
        id
    }

    // === From the machine ===

    async fn act(&mut self, action: Action) -> Result<bool, String> {
        match action {
            Action::Watch(id) => {
                if let Some(asking) = self.asking(&id) {
                    let watch = self.tasks.spawn(asking.watch());
                    abort(self.watches.insert(id, watch));
                }
            }
            Action::Leave(id) => {
                self.forget(&id);
                self.nodes.remove(&id);
            }
            Action::Ask { from, piece, is_urgent } => {
                if let Some(asking) = self.asking(&from) {
                    let span = self.spans.ask(&asking.node, piece);
                    let ask = self.tasks.spawn(asking.piece(piece, is_urgent).instrument(span));
                    abort(self.asks.insert((from, piece), ask));
                }
            }
            Action::Cancel { from, piece } => abort(self.asks.remove(&(from, piece))),
            Action::GoDirect if !self.is_stored => return Err(NOT_DIRECT.into()),
            Action::Strand => {
                self.tools.schedulers.send(NodeMessage::Stranded(self.shared.blob.key().clone()))
            }
            Action::GoDirect => self.go_direct(),
            Action::GiveUp => return Err("neither neighbours nor gateway nor registry served it".into()),
            Action::Finished => return self.finish().await,
        }
        while self.tasks.try_join_next().is_some() {}
        Ok(false)
    }

    fn asking(&self, id: &NodeId) -> Option<Asking> {
        Some(Asking {
            tools: self.tools.clone(),
            shared: self.shared.clone(),
            node: self.nodes.get(id)?.clone(),
            reports: self.reports_in.clone(),
        })
    }

    fn go_direct(&mut self) {
        let Start { wanted, authorization, .. } = self.shared.start();
        tracing::warn!(
            registry = wanted.source.registry, repository = wanted.source.repository,
            digest = %wanted.key.digest, "no neighbour and no gateway: reading from the registry"
        );
        let direct = Direct {
            tools: self.tools.clone(),
            shared: self.shared.clone(),
            source: wanted.source,
            authorization,
            reports: self.reports_in.clone(),
        };
        self.direct = Some(self.tasks.spawn(direct.run().instrument(self.spans.rung())));
    }

    /// Every piece is here: waits a moment for the gateway's word about the whole, else hashes it. False
    /// where pieces turned out to be damaged or were dropped meanwhile.
    async fn finish(&mut self) -> Result<bool, String> {
        let blob = self.shared.blob.clone();
        let mut version = blob.version();
        // Watches go on meanwhile and bring the seal; their reports wait.
        let sealed = async { version.wait_for(|_| blob.is_sealed()).await.is_ok() };
        // A piece that nobody has vouched for was read from the registry, where no gateway speaks of it.
        let is_vouched = (0..blob.geometry().n_pieces()).all(|it| blob.digest_of(it).is_some());
        let patience = if is_vouched { SEAL_PATIENCE } else { Duration::ZERO };
        if timeout(patience, sealed).await.is_ok() && blob.readable().is_full() {
            return Ok(true);
        }
        match blob.prove().await {
            Ok(true) => Ok(true),
            Ok(false) => Err("the content does not match its digest".into()),
            Err(StoreError::NotHeld { .. }) if !blob.readable().is_full() => Ok(false),
            Err(error) => Err(error.to_string()),
        }
    }

    // === The ticket ===

    fn keep_fresh(&mut self) {
        let (shared, opener) = (self.shared.clone(), self.tools.opener.clone());
        self.tasks.spawn(async move {
            let renew = async |start: Start| opener.renew(start, Instant::now() + RENEWAL).await;
            keep_fresh(&shared, renew).await;
        });
    }

    /// Each later request for the blob brings a ticket; the scheduler hears of one before its own runs out.
    fn renewed(&mut self) -> Vec<Event> {
        if self.told_of.elapsed() >= self.shared.start().ticket_lives / 2 {
            self.want();
        }
        self.take_start()
    }

    fn want(&mut self) {
        let Start { wanted, granted_at, .. } = self.shared.start();
        self.told_of = granted_at;
        if !self.is_stored {
            return;
        }
        self.tools.reporter.tell_of(&wanted.key, &self.tools.schedulers);
        let held = self.shared.blob.held().runs();
        self.tools.schedulers.send(NodeMessage::Want(Want { blob: wanted, held, moved: false }));
    }
}

fn abort(task: Option<AbortHandle>) {
    if let Some(task) = task {
        task.abort();
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}
