//! A plain registry client, as a runtime is one to its mirror: manifest, then config and layers in parallel.
//!
//! Every digest is computed while the bytes pass and nothing is kept. A digest that does not match is no
//! error here, it is counted, because it is what the demo is to show; everything else that goes wrong is.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use futures_util::future::try_join_all;
use http::header::ACCEPT;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Incoming;
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use indicatif::ProgressBar;
use sha2::{Digest as _, Sha256};
use shoal_model::Digest;
use shoal_oci::manifest::{self, Descriptor, IMAGE_TYPES, INDEX_TYPES, Manifest};
use shoal_oci::{AnyDigest, Reference};
use tokio::time::timeout;

use super::source::Source;

/// How long nothing may come before a pull counts as hung.
const PATIENCE: Duration = Duration::from_secs(60);
/// How many indexes may lead to the image: one usually, two where indexes are nested.
const MAX_INDEXES: usize = 2;

/// A client of one server.
pub(super) struct Client {
    http: legacy::Client<HttpConnector, Empty<Bytes>>,
    server: String,
}

/// What one node pulled.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pulled {
    /// Bytes of the config and the layers.
    pub(super) n_bytes: u64,
    /// Contents whose digests were compared: manifests, config and layers.
    pub(super) n_digests: usize,
    /// Those that matched.
    pub(super) n_verified: usize,
    /// From the first request to the last byte.
    pub(super) elapsed: Duration,
}

impl Pulled {
    /// Whether every digest matched.
    pub(super) fn is_verified(&self) -> bool {
        self.n_verified == self.n_digests
    }
}

impl Client {
    /// A client of the server at `host:port`.
    pub(super) fn new(server: impl ToString) -> Self {
        let http = legacy::Client::builder(TokioExecutor::new()).build_http();
        Self { http, server: server.to_string() }
    }

    /// The text at a path.
    pub(super) async fn text(&self, path: &str) -> Result<String> {
        let response = self.get(path).await?;
        let subject = || format!("GET {}{path}", self.server);
        let body = timeout(PATIENCE, response.into_body().collect()).await.with_context(subject)?;
        String::from_utf8(body.with_context(subject)?.to_bytes().into()).with_context(subject)
    }

    /// Pulls the image; `bar` gets its size and moves with the bytes.
    pub(super) async fn pull(&self, source: &Source, bar: &ProgressBar) -> Result<Pulled> {
        let start = Instant::now();
        let mut pulled = Pulled::default();
        let blobs = self.resolve(source, &mut pulled).await?;
        bar.set_length(blobs.iter().map(|it| it.size).sum());
        let matches = try_join_all(blobs.iter().map(|it| self.blob(source, it, bar))).await?;
        pulled.n_bytes = bar.position();
        pulled.n_digests += matches.len();
        pulled.n_verified += matches.into_iter().filter(|it| *it).count();
        pulled.elapsed = start.elapsed();
        Ok(pulled)
    }

    /// The config and layers of the image, of this machine's platform where there are several.
    async fn resolve(&self, source: &Source, pulled: &mut Pulled) -> Result<Vec<Descriptor>> {
        let mut reference = source.reference.clone();
        for _ in 0..=MAX_INDEXES {
            let (content, stated) = self.manifest(source, &reference).await?;
            let expected = match &reference {
                Reference::Digest(digest) => digest.sha256(),
                Reference::Tag(_) => stated,
            };
            pulled.n_digests += 1;
            pulled.n_verified += usize::from(Some(digest_of(&content)) == expected);
            match Manifest::parse(&content).with_context(|| format!("{}", source.repository))? {
                Manifest::Image { config, layers } => {
                    return Ok(std::iter::once(config).chain(layers).collect());
                }
                Manifest::Index { manifests } => reference = Reference::Digest(for_this_machine(manifests)?),
            }
        }
        bail!("{}: more than {MAX_INDEXES} indexes lead to the image", source.repository)
    }

    /// A manifest, and the digest that its headers state.
    async fn manifest(&self, source: &Source, reference: &Reference) -> Result<(Bytes, Option<Digest>)> {
        let path = source.path("manifests", &reference.to_string());
        let response = self.get(&path).await?;
        let stated = response.headers().get("docker-content-digest");
        let stated = stated.and_then(|it| it.to_str().ok()?.parse::<AnyDigest>().ok()?.sha256());
        let body = Limited::new(response.into_body(), manifest::MAX_LEN).collect();
        let body = timeout(PATIENCE, body).await.with_context(|| format!("{path}: no whole answer"))?;
        Ok((body.map_err(anyhow::Error::from_boxed)?.to_bytes(), stated))
    }

    /// Reads a blob and tells whether it is what its digest says.
    async fn blob(&self, source: &Source, blob: &Descriptor, bar: &ProgressBar) -> Result<bool> {
        let path = source.path("blobs", blob.digest.as_str());
        let mut body = self.get(&path).await?.into_body();
        let mut sha = Sha256::new();
        let mut n_bytes = 0;
        loop {
            let frame = timeout(PATIENCE, body.frame()).await;
            let frame = frame.with_context(|| format!("{path}: hung after {n_bytes} bytes"))?;
            let Some(frame) = frame else { break };
            let frame = frame.with_context(|| format!("{path}: broken after {n_bytes} bytes"))?;
            if let Some(bytes) = frame.data_ref() {
                sha.update(bytes);
                n_bytes += bytes.len() as u64;
                bar.inc(bytes.len() as u64);
            }
        }
        Ok(n_bytes == blob.size && Some(Digest::from_sha256(sha.finalize().into())) == blob.digest.sha256())
    }

    async fn get(&self, path: &str) -> Result<Response<Incoming>> {
        let url = format!("http://{}{path}", self.server);
        let request = Request::get(&url).header(ACCEPT, accepted()).body(Empty::new())?;
        let response = timeout(PATIENCE, self.http.request(request))
            .await
            .with_context(|| format!("GET {url}: no answer"))?
            .with_context(|| format!("GET {url}"))?;
        ensure!(response.status() == StatusCode::OK, "GET {url}: {}", response.status());
        Ok(response)
    }
}

/// All that may come: manifests by their types, blobs and metrics by the last.
fn accepted() -> String {
    let types = IMAGE_TYPES.into_iter().chain(INDEX_TYPES).chain(["*/*"]);
    types.collect::<Vec<_>>().join(", ")
}

fn digest_of(content: &[u8]) -> Digest {
    Digest::from_sha256(Sha256::digest(content).into())
}

/// The manifest for Linux on this machine's processor.
fn for_this_machine(manifests: Vec<Descriptor>) -> Result<AnyDigest> {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let fits = |it: &Descriptor| {
        it.platform.as_ref().is_some_and(|it| it.os == "linux" && it.architecture == architecture)
    };
    let found = manifests.into_iter().find(fits);
    Ok(found.with_context(|| format!("the image does not exist for linux/{architecture}"))?.digest)
}
