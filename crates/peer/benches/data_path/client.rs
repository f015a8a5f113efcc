//! The first process: it asks, and takes the time of both.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::{Bytes, BytesMut};
use futures_util::stream::{self, StreamExt as _};
use shoal_blobstore::{Blob, PieceDigest, Store};
use shoal_identity::{Dialer, Keychain};
use shoal_model::{BlobKey, Node};
use shoal_peer::client::{FetchError, PeerClient, PieceBytes};
use shoal_proto::Ticket;
use tokio::runtime::Runtime;

use crate::server::{Addresses, Ports};
use crate::setup::{self, PIECE};
use crate::work::{Extent, Sample, Security, Work};
use crate::{cpu, reference};

/// How many connections are made at once: as many as keep two processors busy.
const CONNECTING: usize = 4;

/// Asks the second process, which ends with it.
pub(crate) struct Client {
    runtime: Runtime,
    extent: Extent,
    server: Server,
    /// Where the asking node keeps pieces.
    blob: Blob,
    digests: Vec<PieceDigest>,
    _store: Store,
    plain: Link,
    tls: Link,
}

/// One way to the server.
struct Link {
    keychain: Option<Keychain>,
    ports: Ports,
    asker: Asker,
}

/// What a task needs to ask for bytes; clones share their connections.
#[derive(Clone)]
struct Asker {
    client: PeerClient,
    node: Node,
    key: BlobKey,
    ticket: Ticket,
}

impl Client {
    /// Starts the second process with its store in `dir`.
    pub(crate) fn start(dir: &Path, extent: Extent, quick: bool) -> Result<Self> {
        let keychain = setup::keychain(dir, setup::CLIENT)?;
        let (server, addresses) = Server::start(dir, quick)?;
        let (store, blob) = setup::blob(&dir.join("mine"), extent.blob_pieces)?;
        let link = |security, keychain| Link::new(addresses.of(security), keychain);
        Ok(Self {
            runtime: Runtime::new()?,
            extent,
            blob,
            digests: setup::digests(extent.blob_pieces),
            _store: store,
            plain: link(Security::Plain, None),
            tls: link(Security::Tls, Some(keychain)),
            server,
        })
    }

    /// Does the work once.
    pub(crate) fn measure(&mut self, work: Work, security: Security) -> Result<Sample> {
        let link = match security {
            Security::Plain => &self.plain,
            Security::Tls => &self.tls,
        };
        if let Work::Pieces { at_once } | Work::Stored { at_once } = work {
            // Dialling is another measurement.
            self.runtime.block_on(link.asker.pieces(&self.extent, at_once, at_once as u32))?;
        }
        let (server, client, began) = (self.server.cpu_used()?, cpu::used()?, Instant::now());
        let units = self.perform(work, link)?;
        Ok(Sample {
            units,
            wall: began.elapsed(),
            client_cpu: cpu::used()?.saturating_sub(client),
            server_cpu: self.server.cpu_used()?.saturating_sub(server),
        })
    }

    /// Does the work and says how much it was, in the work's unit.
    fn perform(&self, work: Work, link: &Link) -> Result<f64> {
        let (runtime, extent) = (&self.runtime, &self.extent);
        let n_bytes = u64::from(extent.n_pieces) * u64::from(PIECE);
        let gib = n_bytes as f64 / f64::from(1 << 30);
        match work {
            Work::Pieces { at_once } => {
                runtime.block_on(link.asker.pieces(extent, at_once, extent.n_pieces))?;
                Ok(gib)
            }
            Work::Stored { at_once } => {
                for _ in 0..extent.n_pieces / extent.blob_pieces {
                    self.blob.clear("to be fetched anew");
                    self.blob.learn(0, &self.digests, Bytes::new())?;
                    runtime.block_on(link.asker.fill(&self.blob, at_once))?;
                }
                Ok(gib)
            }
            Work::Stream => {
                let tls = link.keychain.as_ref().map(Keychain::client);
                reference::fetch(link.ports.stream, tls, n_bytes)?;
                Ok(gib)
            }
            Work::Connect => {
                let dialer = Dialer::new(link.keychain.as_ref());
                runtime.block_on(link.asker.connections(&dialer, extent.n_connections))?;
                Ok(extent.n_connections.into())
            }
        }
    }
}

impl Link {
    fn new(ports: Ports, keychain: Option<Keychain>) -> Self {
        let asker = Asker {
            client: PeerClient::new(Dialer::new(keychain.as_ref())),
            node: setup::server(&ports.pieces.to_string()),
            key: setup::key(),
            ticket: setup::ticket(),
        };
        Self { keychain, ports, asker }
    }
}

impl Asker {
    /// Fetches `n_pieces`, the blob's over and over.
    async fn pieces(&self, extent: &Extent, at_once: usize, n_pieces: u32) -> Result<()> {
        let indices = (0..n_pieces).map(|it| it % extent.blob_pieces);
        all(at_once, indices.map(|it| self.clone().fetch(it, PIECE))).await
    }

    /// Fetches the whole blob into a store.
    async fn fill(&self, blob: &Blob, at_once: usize) -> Result<()> {
        let pieces = 0..blob.geometry().n_pieces();
        all(at_once, pieces.map(|it| self.clone().store(it, blob.clone()))).await?;
        ensure!(blob.held().is_full(), "not all pieces were taken");
        Ok(())
    }

    /// Makes connections and asks for one byte over each.
    async fn connections(&self, dialer: &Dialer, n_connections: u32) -> Result<()> {
        let anew = |_| Self { client: PeerClient::new(dialer.clone()), ..self.clone() }.fetch(0, 1);
        all(CONNECTING, (0..n_connections).map(anew)).await
    }

    /// Asks for the first bytes of a piece and drops them as they come; the client sees to it that they are
    /// as many as asked.
    async fn fetch(self, index: u32, n_bytes: u32) -> Result<()> {
        let mut bytes = self.ask(index, n_bytes).await?;
        while bytes.next().await?.is_some() {}
        Ok(())
    }

    async fn store(self, index: u32, blob: Blob) -> Result<()> {
        let mut content = BytesMut::with_capacity(PIECE as usize);
        let mut bytes = self.ask(index, PIECE).await?;
        while let Some(part) = bytes.next().await? {
            content.extend_from_slice(&part);
        }
        blob.write(index, vec![content.freeze()]).await?;
        Ok(())
    }

    async fn ask(&self, index: u32, n_bytes: u32) -> Result<PieceBytes, FetchError> {
        let start = u64::from(index) * u64::from(PIECE);
        let range = start..start + u64::from(n_bytes);
        self.client.fetch(&self.node, &self.key, range, &self.ticket).await
    }
}

/// Runs all, so many at once, each as a task of its own as in a node.
async fn all<F>(at_once: usize, asks: impl Iterator<Item = F>) -> Result<()>
where
    F: Future<Output = Result<()>> + Send + 'static,
{
    let mut asked = stream::iter(asks).map(tokio::spawn).buffer_unordered(at_once);
    while let Some(done) = asked.next().await {
        done??;
    }
    Ok(())
}

/// The second process.
struct Server {
    process: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Server {
    /// Returns once it serves.
    fn start(dir: &Path, quick: bool) -> Result<(Self, Addresses)> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("--serve").arg(dir).args(quick.then_some("--quick"));
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let input = process.stdin.take().context("its input was asked for")?;
        let output = process.stdout.take().map(BufReader::new).context("its output was asked for")?;
        let mut server = Self { process, input, output };
        let addresses = serde_json::from_str(&server.line()?)?;
        Ok((server, addresses))
    }

    fn cpu_used(&mut self) -> Result<Duration> {
        writeln!(self.input)?;
        Ok(Duration::from_micros(self.line()?.trim_end().parse()?))
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        let len = self.output.read_line(&mut line)?;
        ensure!(len > 0, "the serving process ended");
        Ok(line)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It has the store open in a directory that is about to go. That it may have ended by itself is fine.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
