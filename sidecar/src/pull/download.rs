//! One blob's fetch, as everybody who reads the blob shares it.
//!
//! A download has no owner among the clients; it ends when the blob is complete and vouched for, or when
//! nothing is left to try. One that no client has ever asked for, but a gateway, ends with the gateway's wish. The
//! [`Driver`] does the work; readers tell it where they stand, later requests bring fresher tickets, and the scheduler's
//! word is handed on.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use shoal_blobstore::Blob;
use shoal_model::{Authorization, Node, TraceParent};
use shoal_ops::traces;
use shoal_peer::epochs::Epochs;
use shoal_proto::{SchedulerMessage, Source, Ticket, WantedBlob};
use shoal_swarm::fetch::next_needed;
use shoal_swarm::{Geometry, PieceIndex};
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::Instant;

use super::Tools;
use super::driver::Driver;
use super::open::Grant;
use super::spans::Spans;
use crate::metrics::{Origin, SidecarMetrics, Step, Tally};

/// What the scheduler said and was not taken in yet.
const HEARD: usize = 64;
/// How many bytes ahead of a reader are fetched where pieces pass through memory; two pieces at least.
const AHEAD: u64 = 4 << 20;

/// What a download begins with, and what each later request for the blob brings anew.
#[derive(Clone)]
pub(super) struct Start {
    pub wanted: WantedBlob,
    pub holders: Vec<Node>,
    pub gateway: Node,
    /// The latest caller's credential, for the last rung; gone with the download.
    pub authorization: Option<Authorization>,
    /// The ticket lives from then on.
    pub granted_at: Instant,
    /// For so long.
    pub ticket_lives: Duration,
}

/// Why a blob is fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    /// A client asked for it. It is fetched to the end, whether the client stays or not.
    Pull,
    /// A gateway wants it to be here, for as long as it does.
    Store,
}

/// Who wants a download.
#[derive(Default)]
struct Wishes {
    is_pulled: bool,
    n_stores: u32,
}

impl Wishes {
    const fn is_none(&self) -> bool {
        !self.is_pulled && self.n_stores == 0
    }
}

/// A gateway's wish, which ends when it is dropped.
pub(super) struct Kept(Arc<Shared>);

impl Drop for Kept {
    fn drop(&mut self) {
        self.0.wishes.send_modify(|it| it.n_stores = it.n_stores.saturating_sub(1));
    }
}

/// How a download ended.
pub(super) type End = Result<(), String>;

/// A running fetch; clones are of the same.
#[derive(Clone)]
pub(crate) struct Download {
    shared: Arc<Shared>,
    heard: mpsc::Sender<SchedulerMessage>,
    end: watch::Receiver<Option<End>>,
}

/// What a download's readers and tasks know of each other.
pub(super) struct Shared {
    pub blob: Blob,
    pub epochs: Epochs,
    start: watch::Sender<Start>,
    /// Where each reader is: a number of its own, and the piece that it needs next.
    seats: watch::Sender<BTreeMap<u64, PieceIndex>>,
    refused: Notify,
    wishes: watch::Sender<Wishes>,
    tally: Tally,
    removed: watch::Sender<bool>,
}

/// A reader's place: what it needs next is fetched first.
pub(crate) struct Seat {
    download: Arc<Shared>,
    number: u64,
    piece: PieceIndex,
}

impl Start {
    /// What was granted to a caller whose span is the one at hand.
    pub(super) fn new(
        grant: &Grant,
        geometry: Geometry,
        source: &Source,
        authorization: Option<&Authorization>,
    ) -> Self {
        let opened = &grant.blob;
        Self {
            wanted: WantedBlob {
                key: opened.key.clone(),
                geometry,
                source: source.clone(),
                ticket: opened.ticket.clone(),
                trace: traces::here(),
            },
            holders: opened.holders.clone(),
            gateway: opened.gateway.clone(),
            authorization: authorization.cloned(),
            granted_at: grant.at,
            ticket_lives: opened.ticket_lives,
        }
    }

    /// The same for the same caller, by a later grant of the blob.
    pub(super) fn granted_again(self, grant: Grant) -> Self {
        let opened = grant.blob;
        let (holders, gateway) = (opened.holders, opened.gateway);
        Self { holders, gateway, ..self.renewed(opened.ticket, opened.ticket_lives, grant.at) }
    }

    /// The same for a download that stands there in a trace.
    fn standing(self, trace: Option<TraceParent>) -> Self {
        Self { wanted: WantedBlob { trace, ..self.wanted }, ..self }
    }

    /// The same with a fresher ticket.
    pub(super) fn renewed(self, ticket: Ticket, ticket_lives: Duration, granted_at: Instant) -> Self {
        Self { wanted: WantedBlob { ticket, ..self.wanted }, granted_at, ticket_lives, ..self }
    }
}

impl Download {
    /// A download and what drives it.
    pub(super) fn new(tools: Tools, blob: Blob, start: Start) -> (Self, Driver) {
        let (heard, hearing) = mpsc::channel(HEARD);
        let (ended, end) = watch::channel(None);
        let spans = Spans::begin(&blob, start.wanted.trace);
        let shared = Arc::new(Shared::new(blob, start.standing(spans.place())));
        let driver = Driver::new(tools, shared.clone(), (hearing, ended), spans);
        (Self { shared, heard, end }, driver)
    }

    /// The blob that it fills.
    pub(crate) fn blob(&self) -> &Blob {
        &self.shared.blob
    }

    /// What it has taken in.
    pub(crate) fn tally(&self) -> &Tally {
        &self.shared.tally
    }

    /// Where it stands in a trace: in that of whoever began it.
    pub(crate) fn trace(&self) -> Option<TraceParent> {
        self.shared.start.borrow().wanted.trace
    }

    /// Whether it has not ended yet.
    pub(crate) fn is_running(&self) -> bool {
        self.end.borrow().is_none() && self.end.has_changed().is_ok()
    }

    /// What it was begun with, as it is by now.
    pub(super) fn start(&self) -> Start {
        self.shared.start()
    }

    /// A later request for the blob brings a fresher ticket.
    pub(super) fn renew(&self, start: Start) {
        self.shared.renew(start);
    }

    /// The scheduler said something about the blob.
    pub(super) fn hear(&self, message: SchedulerMessage) {
        // A driver that far behind has news enough; lists are told again, and pieces come without leases.
        let _ = self.heard.try_send(message);
    }

    /// Takes a place for a reader at `offset`.
    pub(super) fn sit_down(&self, offset: u64) -> Seat {
        self.shared.sit_down(offset)
    }

    /// Somebody wants it. A wish to store counts until what [`Self::kept`] gives is dropped.
    pub(super) fn wished(&self, wish: Wish) {
        self.shared.wishes.send_modify(|it| match wish {
            Wish::Pull => it.is_pulled = true,
            Wish::Store => it.n_stores = it.n_stores.saturating_add(1),
        });
    }

    /// Ends one wish to store when it is dropped.
    pub(super) fn kept(&self) -> Kept {
        Kept(self.shared.clone())
    }

    /// Whether nobody wants it.
    pub(super) fn is_abandoned(&self) -> bool {
        self.shared.wishes.borrow().is_none()
    }

    /// Waits until nobody wants it.
    pub(super) async fn abandoned(&self) {
        // The sender lives as long as this handle.
        let _ = self.shared.wishes.subscribe().wait_for(Wishes::is_none).await;
    }

    /// The blob is to be removed: the download ends, whoever wants it.
    pub(super) fn remove(&self) {
        self.shared.removed.send_replace(true);
    }

    /// Waits until the blob is to be removed.
    pub(super) async fn removed(&self) {
        // The sender lives as long as this handle.
        let _ = self.shared.removed.subscribe().wait_for(|it| *it).await;
    }

    /// Waits until nobody reads the blob.
    pub(super) async fn unattended(&self) {
        // The sender lives as long as this handle.
        let _ = self.shared.seats.subscribe().wait_for(BTreeMap::is_empty).await;
    }

    /// Waits for the end; the error says why it came to nothing.
    pub(super) async fn ended(&self) -> End {
        let mut end = self.end.clone();
        let ended = end.wait_for(Option::is_some).await.ok().and_then(|it| it.clone());
        ended.unwrap_or_else(|| Err("it was stopped".into()))
    }
}

impl Shared {
    pub(super) fn new(blob: Blob, start: Start) -> Self {
        Self {
            epochs: Epochs::new(blob.clone()),
            blob,
            start: watch::Sender::new(start),
            seats: watch::Sender::default(),
            refused: Notify::new(),
            wishes: watch::Sender::default(),
            tally: Tally::default(),
            removed: watch::Sender::new(false),
        }
    }

    /// The store took in so many bytes.
    pub(super) fn took(&self, origin: Origin, n_bytes: u64, metrics: &SidecarMetrics) {
        self.tally.took(origin, n_bytes);
        metrics.took(origin, n_bytes);
    }

    /// It has come down the ladder.
    pub(super) fn stepped(&self, step: Step, metrics: &SidecarMetrics) {
        self.tally.stepped(step);
        metrics.fell_back(step);
    }

    pub(super) fn start(&self) -> Start {
        self.start.borrow().clone()
    }

    /// What each renewal brings.
    pub(super) fn starts(&self) -> watch::Receiver<Start> {
        self.start.subscribe()
    }

    /// Takes a fresher ticket; an older one, recalled from before, changes nothing.
    pub(super) fn renew(&self, start: Start) {
        self.start.send_if_modified(|it| {
            let is_fresher = start.granted_at > it.granted_at;
            if is_fresher {
                // It stays what it was begun for.
                *it = start.standing(it.wanted.trace);
            }
            is_fresher
        });
    }

    /// Some node did not accept the ticket.
    pub(super) fn refused(&self) {
        self.refused.notify_one();
    }

    pub(super) async fn was_refused(&self) {
        self.refused.notified().await;
    }

    pub(super) fn sit_down(self: &Arc<Self>, offset: u64) -> Seat {
        let piece = self.blob.geometry().piece_at(offset);
        let mut number = 0;
        self.seats.send_modify(|seats| {
            number = seats.last_key_value().map_or(0, |(number, _)| number + 1);
            seats.insert(number, piece);
        });
        Seat { download: self.clone(), number, piece }
    }

    /// Where readers are, as that changes.
    pub(super) fn seats(&self) -> watch::Receiver<BTreeMap<u64, PieceIndex>> {
        self.seats.subscribe()
    }

    /// Whether nobody reads the blob.
    pub(super) fn is_unattended(&self) -> bool {
        self.seats.borrow().is_empty()
    }

    /// The next piece that each reader waits for. Where pieces pass through memory, all that it needs soon: further
    /// ones would be gone before it comes to them.
    pub(super) fn demand(&self) -> Vec<PieceIndex> {
        let (geometry, readable) = (self.blob.geometry(), self.blob.readable());
        let seats = self.seats.borrow();
        if self.blob.is_stored() {
            let next =
                |piece: &PieceIndex| next_needed(&geometry, &readable, geometry.range_of(*piece).start);
            return seats.values().filter_map(next).collect();
        }
        let n_ahead = (AHEAD / geometry.piece_length().max(1)).max(2) as PieceIndex;
        let soon = |piece: &PieceIndex| *piece..geometry.n_pieces().min(piece.saturating_add(n_ahead));
        seats.values().flat_map(soon).filter(|it| !readable.contains(*it)).collect()
    }
}

impl Seat {
    /// The reader has come to `offset`.
    pub(super) fn moved(&mut self, offset: u64) {
        let piece = self.download.blob.geometry().piece_at(offset);
        if piece != self.piece {
            self.piece = piece;
            self.download.seats.send_modify(|seats| {
                seats.insert(self.number, piece);
            });
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.download.seats.send_modify(|seats| {
            seats.remove(&self.number);
        });
    }
}
