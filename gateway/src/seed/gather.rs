//! Pieces that others hold, so that they are not read from the registry again.
//!
//! A seed takes up where another was: what a gateway that is gone has read lies with the nodes, and what a sister reads
//! lies with her. Their pieces go into the store like any node's: verified against what a gateway signed, and held at
//! once. What nobody has is left to the registry, from the first byte on that is missing.
//!
//! Whoever does not answer costs a second at the most, all of them together. A seed that is followed is listened to for
//! as long as it gives signs of life, and these are passed on; a seed whose registry is silent gives none.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::BytesMut;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use shoal_blobstore::{Blob, Status, StoreError, Written};
use shoal_model::{Node, Role};
use shoal_peer::RegionKeys;
use shoal_peer::client::{Fault, FetchError, PeerClient};
use shoal_peer::epochs::{Epochs, HearError};
use shoal_proto::{BlobNews, Ticket};
use shoal_swarm::{Bitmap, PieceIndex};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::pulse::Pulse;

/// For how long nothing may come, from the beginning on.
const PATIENCE: Duration = Duration::from_secs(1);
/// For how long a seed that is followed may give no sign of life; one that waits on purpose does so each second.
const SILENCE: Duration = Duration::from_secs(3);
/// How long one without a free slot is left alone.
const BUSY: Duration = Duration::from_millis(50);
/// How many pieces are asked for at the same time.
const AHEAD: usize = 4;
/// News that wait to be taken in.
const NEWS: usize = 64;

/// Asks others for the pieces of one blob.
pub(super) struct Gatherer<'a> {
    peers: &'a PeerClient,
    blob: &'a Blob,
    keys: RegionKeys,
    ticket: Ticket,
    pulse: &'a Pulse,
    /// When bytes last came.
    moved: Mutex<Instant>,
}

/// What came of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Gathered {
    /// Bytes of pieces.
    pub(super) n_bytes: u64,
    /// Somebody seeds the blob.
    pub(super) is_seeded: bool,
    /// Pieces came, or a seed gave a sign of life.
    pub(super) was_alive: bool,
    /// There is nothing more to be taken: the blob is sealed, and each of its pieces is here or has passed through.
    pub(super) is_all: bool,
}

/// The pieces that are not asked for any more: what is here, and what has been. Where the disk does not take a piece, it
/// passes through memory, to whoever waits for it.
struct Taken {
    pieces: Bitmap,
    generation: u64,
}

impl Taken {
    fn of(blob: &Blob) -> Self {
        let Status { held, generation, .. } = blob.status();
        Self { pieces: held, generation }
    }

    /// Whether that is all of the blob, as it is now.
    fn is_all(&mut self, blob: &Blob) -> bool {
        let status = blob.status();
        if self.generation != status.generation {
            *self = Self { pieces: status.held, generation: status.generation };
        }
        status.sealed && self.pieces.is_full()
    }
}

/// One who is asked.
struct Source {
    node: Node,
    holds: Bitmap,
    state: Talk,
    /// It has told of a seed.
    seeds: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Talk {
    /// It has yet to say what it holds.
    Silent,
    On,
    /// Nothing more is to be taken from it.
    Over,
}

/// A piece that was asked of a source.
struct Asked {
    at: usize,
    piece: PieceIndex,
    res: Result<u64, Failure>,
}

#[derive(Debug)]
enum Failure {
    Busy,
    NotHeld,
    /// It does not do what it says.
    Broken(String),
    Store(StoreError),
}

impl<'a> Gatherer<'a> {
    /// Believes `keys`, and shows `ticket`.
    pub(super) fn new(
        peers: &'a PeerClient,
        blob: &'a Blob,
        keys: RegionKeys,
        ticket: Ticket,
        pulse: &'a Pulse,
    ) -> Self {
        Self { peers, blob, keys, ticket, pulse, moved: Mutex::new(Instant::now()) }
    }

    /// Takes what these hold and the store lacks, until there is nothing more. Where `follows`, they may get more: they
    /// are listened to for as long as something comes.
    pub(super) async fn gather(&self, nodes: &[Node], follows: bool) -> Result<Gathered, StoreError> {
        let mut gathered = Gathered::default();
        if nodes.is_empty() {
            return Ok(gathered);
        }
        let n_pieces = self.blob.geometry().n_pieces();
        let new = |node: &Node| Source {
            node: node.clone(),
            holds: Bitmap::new(n_pieces),
            state: Talk::Silent,
            seeds: false,
        };
        let mut sources: Vec<_> = nodes.iter().map(new).collect();
        let (_watches, mut news) = self.watch(&sources);
        let epochs = Epochs::new(self.blob.clone());
        let mut taken = Taken::of(self.blob);
        let (mut asked, mut pieces) = (FuturesUnordered::new(), Vec::new());
        self.moves();
        while !taken.is_all(self.blob) {
            while asked.len() < AHEAD
                && let Some((at, node, piece)) = self.choose(&sources, &pieces, &taken.pieces)
            {
                pieces.push(piece);
                asked.push(self.ask(at, node, piece));
            }
            let may_come = |it: &Source| it.state == Talk::Silent || follows && it.state == Talk::On;
            if asked.is_empty() && !sources.iter().any(may_come) {
                break;
            }
            let patience = if follows && gathered.is_seeded { SILENCE } else { PATIENCE };
            tokio::select! {
                Some(Asked { at, piece, res }) = asked.next() => {
                    pieces.retain(|it| *it != piece);
                    if let Ok(n_bytes) = res {
                        gathered.n_bytes += n_bytes;
                        gathered.was_alive = true;
                        taken.pieces.insert(piece);
                        self.show();
                    }
                    let Some(source) = sources.get_mut(at) else { continue };
                    take(source, piece, res)?;
                }
                Some((at, told)) = news.recv() => {
                    let Some(source) = sources.get_mut(at) else { continue };
                    gathered.was_alive |= self.hear(source, told, &epochs)?;
                    gathered.is_seeded |= source.seeds;
                }
                () = sleep_until(self.moved() + patience) => if self.moved().elapsed() >= patience {
                    break;
                },
            }
        }
        gathered.is_all = taken.is_all(self.blob);
        Ok(gathered)
    }

    /// Has all say what they hold, until the tasks are dropped; `None` is the last that comes of each.
    fn watch(&self, sources: &[Source]) -> (JoinSet<()>, mpsc::Receiver<(usize, Option<BlobNews>)>) {
        let (tell, told) = mpsc::channel(NEWS);
        let mut watches = JoinSet::new();
        for (at, source) in sources.iter().enumerate() {
            let (peers, node, tell) = (self.peers.clone(), source.node.clone(), tell.clone());
            let (key, ticket) = (self.blob.key().clone(), self.ticket.clone());
            let n_pieces = self.blob.geometry().n_pieces();
            watches.spawn(async move {
                let watching = async {
                    let mut watching = peers.watch(&node, &key, n_pieces, &ticket).await?;
                    while let Some(news) = watching.next().await? {
                        // Whoever listens no more has dropped the task.
                        let _ = tell.send((at, Some(news))).await;
                    }
                    Ok::<_, FetchError>(())
                };
                if let Err(error) = watching.await {
                    tracing::debug!(%error, "not heard what it holds");
                }
                let _ = tell.send((at, None)).await;
            });
        }
        (watches, told)
    }

    /// The first piece that is missing and that somebody offers, where it is among the next few.
    fn choose(
        &self,
        sources: &[Source],
        asked: &[PieceIndex],
        taken: &Bitmap,
    ) -> Option<(usize, Node, PieceIndex)> {
        let first = taken.first_missing(0)?;
        let mut missing = (first..taken.len()).filter(|it| !taken.contains(*it)).take(AHEAD);
        missing.find_map(|piece| {
            let offers = |it: &Source| it.state == Talk::On && it.holds.contains(piece);
            let is_free = !asked.contains(&piece);
            // In turn, so that no single one has to bring all.
            let from = piece as usize % sources.len();
            let mut in_turn = sources.iter().enumerate().cycle().skip(from).take(sources.len());
            let offering = in_turn.find(|(_, it)| is_free && offers(it));
            offering.map(|(at, it)| (at, it.node.clone(), piece))
        })
    }

    async fn ask(&self, at: usize, node: Node, piece: PieceIndex) -> Asked {
        let res = self.fetch(&node, piece).await;
        if matches!(res, Err(Failure::Busy)) {
            sleep(BUSY).await;
        }
        Asked { at, piece, res }
    }

    async fn fetch(&self, node: &Node, piece: PieceIndex) -> Result<u64, Failure> {
        let range = self.blob.geometry().range_of(piece);
        let n_bytes = range.end - range.start;
        let mut content = BytesMut::with_capacity(n_bytes as usize);
        let asking = self.peers.fetch_urgent(node, self.blob.key(), range, &self.ticket);
        let mut body = within(asking).await?;
        while let Some(bytes) = within(body.next()).await? {
            self.moves();
            content.extend_from_slice(&bytes);
        }
        if self.blob.digest_of(piece).is_none() {
            return Err(Failure::Broken("offers what nobody vouches for".to_owned()));
        }
        let chunks = vec![content.freeze()];
        // As what was read from the registry, so that others may have it where the disk does not take it.
        match self.blob.write_provisional(piece, chunks).await.map_err(Failure::Store)?.0 {
            Written::Mismatch => Err(Failure::Broken("sent wrong bytes".to_owned())),
            Written::NoDigest | Written::Busy => Err(Failure::Busy),
            Written::Held | Written::Provisional | Written::Kept | Written::AlreadyHeld => Ok(n_bytes),
        }
    }

    /// True where it is a sign of life: what comes first tells how things are, and not that they get on.
    fn hear(&self, source: &mut Source, told: Option<BlobNews>, epochs: &Epochs) -> Result<bool, StoreError> {
        let Some(news) = told else {
            source.state = Talk::Over;
            return Ok(false);
        };
        match epochs.hear(source.node.role, &news, &self.keys) {
            Ok(()) => {}
            Err(HearError::Store(error)) => return Err(error),
            Err(HearError::Attestation(error)) => {
                tracing::warn!(node = %source.node.id, blob = %self.blob.key(), %error, "not believed");
                source.state = Talk::Over;
                return Ok(false);
            }
        }
        if news.dropped {
            source.holds = Bitmap::new(source.holds.len());
        }
        let is_alive = source.state == Talk::On && (news.seed.is_some() || !news.gained.is_empty());
        // Pieces come after all that is signed about them, which may take several messages.
        if source.state == Talk::Silent && (!news.gained.is_empty() || news.attestations.is_empty()) {
            source.state = Talk::On;
        }
        for piece in news.lost.into_iter().flatten() {
            source.holds.remove(piece);
        }
        news.gained.into_iter().for_each(|it| source.holds.insert_range(it));
        source.seeds |= news.seed.is_some() && source.node.role == Role::Gateway;
        if is_alive {
            self.moves();
            self.show();
        }
        Ok(is_alive)
    }

    fn moves(&self) {
        *self.moved.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    fn moved(&self) -> Instant {
        *self.moved.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells those who wait here how far it is.
    fn show(&self) {
        let held = self.blob.held();
        let next = held.first_missing(0).unwrap_or(held.len());
        self.pulse.reached(self.blob.geometry().range_of(next).start);
    }
}

fn take(source: &mut Source, piece: PieceIndex, res: Result<u64, Failure>) -> Result<(), StoreError> {
    match res {
        Ok(_) | Err(Failure::Busy) => {}
        Err(Failure::NotHeld) => {
            source.holds.remove(piece);
        }
        Err(Failure::Broken(fault)) => {
            tracing::warn!(node = %source.node.id, piece, fault, "asked for no more pieces");
            source.state = Talk::Over;
        }
        Err(Failure::Store(error)) => return Err(error),
    }
    Ok(())
}

async fn within<T>(it: impl Future<Output = Result<T, FetchError>>) -> Result<T, Failure> {
    let res = timeout(PATIENCE, it).await;
    let res = res.map_err(|_| Failure::Broken("no progress in time".to_owned()))?;
    res.map_err(|it| match it.fault {
        Fault::Busy => Failure::Busy,
        Fault::NotHeld => Failure::NotHeld,
        fault => Failure::Broken(fault.to_string()),
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::SystemTime;

    use shoal_blobstore::{PieceDigest, Store, StoreSettings};
    use shoal_identity::{Clients, Dialer, Reception};
    use shoal_model::{BlobKey, ByteSize, Digest, NodeId, Place, TrustGroup};
    use shoal_ops::Context;
    use shoal_ops::serve::{Limits, Listener};
    use shoal_peer::attest::Signer;
    use shoal_peer::service::{PeerLimits, PeerService};
    use shoal_peer::shelf::{Shelf, ShelfBlob};
    use shoal_peer::ticket::{Issuer, TicketClaims, Verifier};
    use shoal_proto::{SeedProgress, Source as At, Statement};
    use shoal_swarm::Geometry;
    use tempfile::TempDir;
    use tokio::net::TcpListener;
    use tokio::sync::watch;

    use bytes::Bytes;

    use super::*;

    const PIECE: usize = 100_000;
    const N_PIECES: PieceIndex = 12;
    /// Whose word counts, and whose does not.
    const GOOD: [u8; 32] = [1; 32];
    const BAD: [u8; 32] = [2; 32];

    fn key() -> BlobKey {
        BlobKey { group: TrustGroup::new("g"), digest: Digest::from_sha256([7; 32]) }
    }

    fn geometry() -> Geometry {
        Geometry::stated(u64::from(N_PIECES) * PIECE as u64, PIECE as u64).unwrap()
    }

    fn piece(index: PieceIndex) -> Bytes {
        vec![index as u8; PIECE].into()
    }

    fn keys() -> RegionKeys {
        RegionKeys::parse(&[Signer::new(&GOOD).verifying_key()]).unwrap()
    }

    /// A part of the region that has a store of its own.
    struct Party {
        blob: Blob,
        store: Store,
        dir: TempDir,
    }

    impl Party {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let store = Store::open(StoreSettings {
                dir: dir.path().to_owned(),
                capacity: ByteSize(1 << 30),
                low_percent: 90,
                free_floor: ByteSize(0),
                expire_after: Duration::from_secs(3600),
            })
            .unwrap();
            Self { blob: store.create(&key(), geometry()).unwrap(), store, dir }
        }

        /// Holds these pieces, of which a gateway with this secret has signed these contents.
        async fn hold(&self, secret: &[u8; 32], pieces: &[(PieceIndex, Bytes)]) {
            for (first, content) in pieces {
                let digest = PieceDigest::of(std::slice::from_ref(content));
                let digests = vec![digest.0];
                let statement = Statement {
                    key: key(),
                    geometry: geometry(),
                    epoch: 1,
                    first: *first,
                    digests,
                    sealed: false,
                };
                self.blob.learn(*first, &[digest], Signer::new(secret).attest(statement).encode()).unwrap();
                self.blob.write(*first, vec![content.clone()]).await.unwrap();
            }
        }

        async fn hold_good(&self, pieces: impl IntoIterator<Item = PieceIndex>) {
            let pieces: Vec<_> = pieces.into_iter().map(|it| (it, piece(it))).collect();
            self.hold(&GOOD, &pieces).await;
        }

        fn seal(&self) {
            let digests: Vec<_> = (0..N_PIECES).map(|it| PieceDigest::of(&[piece(it)])).collect();
            let all = digests.iter().map(|it| it.0).collect();
            let statement = Statement {
                key: key(),
                geometry: geometry(),
                epoch: 1,
                first: 0,
                digests: all,
                sealed: true,
            };
            self.blob.seal(&digests, Signer::new(&GOOD).attest(statement).encode()).unwrap();
        }

        async fn online(&self, role: Role, shelf: Arc<dyn Shelf>) -> Node {
            let limits = PeerLimits { upload_slots: 2, watches: 8 };
            let ctx = Context::new("test", "0");
            let verifier = Arc::new(Verifier::new(keys()));
            let service = PeerService::new(shelf, verifier, limits, ctx.tasks.stopping());
            let listener = Listener::bind("peers", ([127, 0, 0, 1], 0).into()).await.unwrap();
            let address = listener.addr().to_string();
            ctx.serve(listener.with(Reception::new(None, Clients::Any)), service, Limits::new(64));
            node(role, &address)
        }

        async fn sidecar(&self) -> Node {
            self.online(Role::Sidecar, Arc::new(self.store.clone())).await
        }

        /// Takes what these hold; returns which pieces are held then.
        async fn gather(&self, nodes: &[Node], follows: bool) -> Vec<PieceIndex> {
            let (peers, pulse) = (PeerClient::new(Dialer::new(None)), Pulse::new().0);
            let gatherer = Gatherer::new(&peers, &self.blob, keys(), ticket(), &pulse);
            // Far above what it takes.
            let gathering = timeout(Duration::from_secs(60), gatherer.gather(nodes, follows));
            gathering.await.expect("it ends").unwrap();
            self.blob.held().iter().collect()
        }
    }

    /// A gateway with a seed at work.
    struct Seeding(Blob, watch::Receiver<SeedProgress>);

    impl Shelf for Seeding {
        fn open(&self, _: &BlobKey, _: &TicketClaims) -> Option<ShelfBlob> {
            Some(ShelfBlob { blob: self.0.clone(), seed: Some(self.1.clone()) })
        }
    }

    fn node(role: Role, address: &str) -> Node {
        Node { id: NodeId::new(address), address: address.into(), role, place: Place::default() }
    }

    fn ticket() -> Ticket {
        Issuer::new(&GOOD).issue(&TicketClaims {
            source: At { registry: "r".into(), repository: "a".into() },
            key: key(),
            geometry: None,
            node: NodeId::new("me"),
            granted: SystemTime::now(),
            expires: SystemTime::now() + Duration::from_secs(300),
        })
    }

    #[tokio::test]
    async fn all_that_lies_with_several_is_taken_up_to_what_nobody_has() {
        let (one, other, me) = (Party::new(), Party::new(), Party::new());
        one.hold_good([0, 1, 4, 5]).await;
        other.hold_good([2, 3, 5, 11]).await;
        me.hold_good([1]).await;
        let held = me.gather(&[one.sidecar().await, other.sidecar().await], false).await;
        assert_eq!(held, [0, 1, 2, 3, 4, 5], "the registry is read from there on");
        assert_eq!(me.blob.read_held(0..6 * PIECE as u64).await.unwrap().len(), 6 * PIECE);
        assert!(me.gather(&[], false).await.len() == 6);
    }

    #[tokio::test]
    async fn what_is_not_vouched_for_is_not_taken_and_neither_is_the_word_of_strangers() {
        let (honest, stranger, me) = (Party::new(), Party::new(), Party::new());
        honest.hold_good([0, 1]).await;
        stranger.hold(&BAD, &[(0, piece(9)), (2, piece(9))]).await;
        let held = me.gather(&[stranger.sidecar().await, honest.sidecar().await], false).await;
        assert_eq!(held, [0, 1]);
        assert_eq!(me.blob.digest_of(0), Some(PieceDigest::of(&[piece(0)])));
    }

    #[tokio::test]
    async fn whoever_does_not_answer_costs_a_moment_and_no_piece() {
        let (alive, me) = (Party::new(), Party::new());
        alive.hold_good([0, 1, 2]).await;
        // Connections are made, and nothing comes over them.
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let silent = (node(Role::Sidecar, &silent.local_addr().unwrap().to_string()), silent);
        let dead = node(Role::Sidecar, "127.0.0.1:1");
        let held = me.gather(&[dead, silent.0.clone(), alive.sidecar().await], false).await;
        assert_eq!(held, [0, 1, 2]);
        assert_eq!(me.gather(&[silent.0], true).await, [0, 1, 2], "nor for one that is followed");
    }

    #[tokio::test]
    async fn a_gateway_that_seeds_is_followed_to_the_seal() {
        let (sister, me) = (Party::new(), Party::new());
        let (_seed, progress) = watch::channel(SeedProgress::default());
        let shelf = Arc::new(Seeding(sister.blob.clone(), progress));
        let gateway = sister.online(Role::Gateway, shelf).await;
        let seeding = async {
            for index in 0..N_PIECES {
                sister.hold_good([index]).await;
                // Each comes only when the one before it has been taken.
                me.blob.version().wait_for(|_| me.blob.holds(index)).await.unwrap();
            }
            sister.seal();
        };
        let nodes = [gateway];
        let (held, ()) = tokio::join!(me.gather(&nodes, true), seeding);
        assert_eq!(held.len(), N_PIECES as usize);
        assert!(me.blob.is_complete());
    }

    #[tokio::test]
    async fn a_seed_that_gives_no_sign_of_life_is_passed_on_as_silent() {
        let (sister, me) = (Party::new(), Party::new());
        let (seed, progress) = watch::channel(SeedProgress::default());
        let shelf = Arc::new(Seeding(sister.blob.clone(), progress));
        let nodes = [sister.online(Role::Gateway, shelf).await];
        sister.hold_good([0, 1]).await;
        let (peers, (pulse, mut seen)) = (PeerClient::new(Dialer::new(None)), Pulse::new());
        let gatherer = Gatherer::new(&peers, &me.blob, keys(), ticket(), &pulse);
        let first = gatherer.gather(&nodes, true).await.unwrap();
        assert_eq!((first.was_alive, me.blob.held().count()), (true, 2));
        seen.mark_unchanged();
        let silent = gatherer.gather(&nodes, true).await.unwrap();
        assert_eq!(silent, Gathered { is_seeded: true, ..Gathered::default() });
        assert!(!seen.has_changed().unwrap());
        let beating = async {
            while !seen.has_changed().unwrap() {
                seed.send_modify(|it| it.heartbeat += 1);
                tokio::task::yield_now().await;
            }
            drop(seed);
        };
        let (alive, ()) = tokio::join!(gatherer.gather(&nodes, true), beating);
        assert!(alive.unwrap().was_alive);
    }

    #[tokio::test]
    async fn what_the_disk_does_not_take_passes_through_memory_to_others_and_is_not_asked_for_again() {
        let (sister, me) = (Party::new(), Party::new());
        sister.hold_good(0..N_PIECES).await;
        sister.seal();
        // No directory is made below a file.
        std::fs::remove_dir_all(me.dir.path()).unwrap();
        std::fs::write(me.dir.path(), "").unwrap();
        let (peers, pulse) = (PeerClient::new(Dialer::new(None)), Pulse::new().0);
        let gatherer = Gatherer::new(&peers, &me.blob, keys(), ticket(), &pulse);
        let gathered = gatherer.gather(&[sister.sidecar().await], false).await.unwrap();
        assert_eq!((gathered.is_all, me.blob.is_stored()), (true, false));
        assert_eq!(gathered.n_bytes, geometry().size());
        assert_eq!(me.blob.held().count(), N_PIECES, "others may have them for as long as they last");
    }

    #[tokio::test]
    async fn content_that_a_gateway_has_dropped_is_dropped_here() {
        let (sister, me) = (Party::new(), Party::new());
        let (seed, progress) = watch::channel(SeedProgress::default());
        let shelf = Arc::new(Seeding(sister.blob.clone(), progress));
        let gateway = sister.online(Role::Gateway, shelf).await;
        sister.hold_good([0, 1]).await;
        let poisoning = async {
            me.blob.version().wait_for(|_| me.blob.holds(1)).await.unwrap();
            sister.blob.clear("poisoned");
            drop(seed);
        };
        let nodes = [gateway];
        let (held, ()) = tokio::join!(me.gather(&nodes, true), poisoning);
        assert_eq!(held, [] as [PieceIndex; 0]);
    }
}
