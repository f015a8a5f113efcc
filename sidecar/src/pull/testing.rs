//! What the tests of pulls have in common: one blob, and a region of nodes on this host without a gateway
//! or a scheduler.

use std::convert::Infallible;
use std::fs;
use std::ops::Range;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::stream;
use http::Request;
use http_body::Frame;
use http_body_util::StreamBody;
use hyper::body::Incoming;
use sha2::{Digest as _, Sha256};
use shoal_blobstore::{Blob, PieceDigest, Store, StoreSettings};
use shoal_identity::{Clients, Dialer, Reception};
use shoal_model::{BlobKey, ByteSize, Digest, Node, NodeId, Place, Rng, Role, TrustGroup};
use shoal_ops::Context;
use shoal_ops::serve::{HttpService, Limits, Listener};
use shoal_ops::settings::Reader as SettingsReader;
use shoal_peer::RegionKeys;
use shoal_peer::attest::Signer;
use shoal_peer::client::PeerClient;
use shoal_peer::report::Reporter;
use shoal_peer::schedulers::Schedulers;
use shoal_peer::service::{PeerLimits, PeerService};
use shoal_peer::ticket::{Issuer, TicketClaims, Verifier};
use shoal_proto::{OpenedBlob, Source, Statement};
use shoal_swarm::{Geometry, PieceIndex};
use tempfile::TempDir;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, interval};
use tonic::body::Body;
use tower::{Service as _, service_fn};

use super::download::{Shared, Start};
use super::{Grant, Opener, Pulls, Rates, Room, Slots, Tools};
use crate::metrics::SidecarMetrics;
use crate::registries::Registries;
use crate::settings::{DEFAULT, Settings};
use shoal_peer::region::Region;

/// How long tickets are good.
pub(super) const TICKET_LIVES: Duration = Duration::from_secs(300);
/// Where no registry is.
const NOWHERE: &str = "http://127.0.0.1:1";
pub(super) const N_PIECES: PieceIndex = 4;
/// Fewer than pieces: while no more are missing, every ask is doubled at once.
const SLOTS: usize = 2;
const REGISTRY: &str = "registry.example:5000";
/// The secret of the region's gateway.
const SEED: [u8; 32] = [1; 32];

/// Ends a test that would otherwise wait for ever. Far above what any of them takes.
pub(super) async fn soon<T>(it: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), it).await.expect("nothing happened for 30 s")
}

// === The blob ===

pub(super) fn content() -> Bytes {
    (0..1_000_000u32).map(|it| (it / 7) as u8).collect::<Vec<_>>().into()
}

pub(super) fn geometry() -> Geometry {
    Geometry::stated(1_000_000, 300_000).unwrap()
}

pub(super) fn key() -> BlobKey {
    let digest = Digest::from_sha256(Sha256::digest(content()).into());
    BlobKey { group: TrustGroup::new(REGISTRY), digest }
}

pub(super) fn source() -> Source {
    Source { registry: REGISTRY.into(), repository: "team/app".into() }
}

/// A fresh grant of the blob.
pub(super) fn grant() -> Grant {
    let claims = TicketClaims {
        source: source(),
        key: key(),
        geometry: Some(geometry()),
        node: NodeId::new("me"),
        granted: SystemTime::now(),
        expires: SystemTime::now() + TICKET_LIVES,
    };
    let blob = OpenedBlob {
        key: key(),
        geometry: geometry(),
        ticket: Issuer::new(&SEED).issue(&claims),
        ticket_lives: TICKET_LIVES,
        content: None,
        holders: Vec::new(),
        gateway: Node { role: Role::Gateway, ..node("127.0.0.1:1") },
    };
    Grant { blob, at: Instant::now() }
}

// === A node ===

/// A node at an address, which is its name as well.
pub(super) fn node(address: &str) -> Node {
    Node { id: NodeId::new(address), address: address.into(), role: Role::Sidecar, place: Place::default() }
}

/// A store in a directory of its own.
pub(super) fn store() -> (TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = store_at(dir.path());
    (dir, store)
}

fn store_at(dir: &Path) -> Store {
    let settings = StoreSettings {
        dir: dir.to_owned(),
        capacity: ByteSize(1 << 30),
        low_percent: 90,
        free_floor: ByteSize(0),
        expire_after: Duration::from_secs(3600),
    };
    Store::open(settings).unwrap()
}

/// The blob in a store that has nothing of it.
pub(super) fn blob(store: &Store) -> Blob {
    store.create(&key(), geometry()).unwrap()
}

/// What a download of the blob shares.
pub(super) fn shared(blob: Blob) -> Shared {
    let start = Start::new(&grant(), geometry(), &source(), None);
    Shared::new(blob, start)
}

/// The node under test.
pub(super) struct Me {
    pub pulls: Pulls,
    pub store: Store,
    pub dir: TempDir,
}

impl Me {
    /// With a registry at `url`.
    pub(super) fn at(url: &str) -> Self {
        let (dir, store) = store();
        Self::with(dir, store, url)
    }

    /// With a disk that has these pieces, gives zeros in their place, and takes nothing any more.
    pub(super) async fn with_broken_disk(held: Range<PieceIndex>) -> Self {
        let ((_, good), bad) = (holder(held).await, tempfile::tempdir().unwrap());
        let data = data_file(good.path());
        let its = bad.path().join(data.strip_prefix(good.path()).unwrap());
        fs::create_dir_all(its.parent().unwrap()).unwrap();
        fs::copy(data.with_extension("pieces"), its.with_extension("pieces")).unwrap();
        symlink("/dev/full", its).unwrap();
        let store = store_at(bad.path());
        Self::with(bad, store, NOWHERE)
    }

    fn with(dir: TempDir, store: Store, url: &str) -> Self {
        let ctx = Context::new("test", "0");
        let settings =
            format!("proxy: {{registries: [{{name: '{REGISTRY}', url: '{url}', insecure: true}}]}}");
        let settings = Settings::read(&SettingsReader::new(&settings, DEFAULT, |_| None));
        let region = Region::without_gateway(keys());
        let me = node("me");
        let reporter = Reporter::new(store.clone());
        let nowhere = watch::channel(Vec::new()).1;
        let (schedulers, ..) =
            Schedulers::new(me.clone(), &Dialer::new(None), nowhere, reporter.clone(), Rng::new(1));
        let tools = Tools {
            store: store.clone(),
            peers: PeerClient::new(Dialer::new(None)),
            registries: Registries::new(&settings.proxy),
            opener: Opener::new(region.clone(), me.clone()),
            region,
            schedulers,
            rates: Rates::new(None, None),
            metrics: SidecarMetrics::register(&ctx),
            reporter,
            slots: Slots::new(SLOTS),
            room: Room::new(),
            node: me,
        };
        Self { pulls: Pulls::new(ctx, tools), store, dir }
    }

    /// With no registry.
    pub(super) fn new() -> Self {
        Self::at(NOWHERE)
    }

    /// Has the disk refuse whatever is written to a store that is empty yet, or take it again.
    pub(super) fn break_disk(&self, is_broken: bool) {
        let dir = self.dir.path().join("v1");
        if is_broken {
            fs::remove_dir(&dir).unwrap();
            fs::write(&dir, "in the way").unwrap();
        } else {
            fs::remove_file(&dir).unwrap();
        }
    }

    /// Flips a byte of the blob on the disk, and has the store look at all bytes again before it reads them.
    pub(super) fn damage(&self, offset: u64) {
        use std::os::unix::fs::FileExt as _;
        let file = fs::OpenOptions::new().write(true).open(data_file(self.dir.path())).unwrap();
        let byte = content()[offset as usize] ^ 1;
        file.write_all_at(&[byte], offset).unwrap();
        blob(&self.store).mark_suspect();
    }
}

fn keys() -> RegionKeys {
    RegionKeys::parse(&[Signer::new(&SEED).verifying_key()]).unwrap()
}

/// The file with the content of the only blob below a directory.
fn data_file(dir: &Path) -> PathBuf {
    let journal = |dir: &Path| {
        let mut dirs = vec![dir.to_owned()];
        while let Some(dir) = dirs.pop() {
            for entry in fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                match path.extension() {
                    Some(it) if it == "pieces" => return Some(path),
                    _ if path.is_dir() => dirs.push(path),
                    _ => {}
                }
            }
        }
        None
    };
    journal(dir).expect("a blob").with_extension("data")
}

/// Another node, which serves the whole blob.
pub(super) async fn neighbour() -> (Node, TempDir) {
    let (service, dir) = holder(0..N_PIECES).await;
    (online(service).await, dir)
}

/// What a node serves that holds these pieces of the blob.
pub(super) async fn holder(held: Range<PieceIndex>) -> (PeerService, TempDir) {
    let (dir, store) = store();
    let blob = blob(&store);
    let pieces: Vec<_> = (0..N_PIECES).map(|it| geometry().range_of(it)).collect();
    let pieces = pieces.iter().map(|it| content().slice(it.start as usize..it.end as usize));
    let pieces: Vec<_> = pieces.collect();
    let digests: Vec<_> = pieces.iter().map(|it| PieceDigest::of(std::slice::from_ref(it))).collect();
    let statement = Statement {
        key: key(),
        geometry: geometry(),
        epoch: 1,
        first: 0,
        digests: digests.iter().map(|it| it.0).collect(),
        sealed: true,
    };
    blob.seal(&digests, Signer::new(&SEED).attest(statement).encode()).unwrap();
    for (piece, content) in (0..).zip(pieces).filter(|(piece, _)| held.contains(piece)) {
        blob.write(piece, vec![content]).await.unwrap();
    }
    let limits = PeerLimits { upload_slots: 8, watches: 8 };
    let verifier = Arc::new(Verifier::new(keys()));
    let stopping = Context::new("test", "0").tasks.stopping();
    (PeerService::new(Arc::new(store), verifier, limits, stopping), dir)
}

/// A node that serves this to others.
pub(super) async fn online(service: impl HttpService) -> Node {
    let listener = Listener::bind("peers", ([127, 0, 0, 1], 0).into()).await.unwrap();
    let node = node(&listener.addr().to_string());
    let listener = listener.with(Reception::new(None, Clients::Any));
    Context::new("test", "0").serve(listener, service, Limits::new(64));
    node
}

/// The same service, which sends a piece a byte at a time: fast enough to count as alive, and never done.
/// Each piece that it is asked for is noted.
pub(super) fn dawdling(service: PeerService, asked: Arc<Notify>) -> impl HttpService {
    service_fn(move |request: Request<Incoming>| {
        let is_piece = request.uri().path().starts_with("/pieces/");
        let (answer, asked) = (service.clone().call(request), asked.clone());
        async move {
            let answer = answer.await?;
            if !is_piece {
                return Ok(answer);
            }
            asked.notify_one();
            Ok::<_, Infallible>(answer.map(|_| byte_by_byte()))
        }
    })
}

fn byte_by_byte() -> Body {
    let ticks = stream::unfold(interval(Duration::from_millis(500)), async |mut ticks| {
        ticks.tick().await;
        Some((Ok::<_, Infallible>(Frame::data(Bytes::from_static(b"?"))), ticks))
    });
    Body::new(StreamBody::new(ticks))
}
