//! The client of all pulls: one request from a node, and the bytes are dropped as they come.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use futures_util::future::try_join_all;
use http::request::Builder;
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use shoal_tests::host::Host;
use tokio::time::timeout;

/// How long the next bytes are waited for: among many on one slow link, a stream may have to stand back for long.
const PATIENCE: Duration = Duration::from_secs(240);

/// How a pull went.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pull {
    /// From the beginning of all pulls to this one's request.
    pub(super) joined: Duration,
    /// From there to the last byte.
    pub(super) took: Duration,
}

/// Pulls on all these nodes at the same time; fails where one does not get all `n_bytes`.
pub(super) async fn all(nodes: &[Host], n_bytes: u64, request: impl Fn() -> Builder) -> Result<Vec<Pull>> {
    let start = Instant::now();
    let pulls = nodes.iter().map(async |node| {
        let joined = start.elapsed();
        let pulled = drop_body(node, request().body(Full::default())?).await;
        let pulled = pulled.with_context(|| format!("pull on {}", node.name()))?;
        ensure!(pulled == n_bytes, "pull on {}: {pulled} of {n_bytes} bytes came", node.name());
        Ok(Pull { joined, took: start.elapsed() - joined })
    });
    try_join_all(pulls).await
}

/// The longest of these pulls.
pub(super) fn longest(pulls: &[Pull]) -> Duration {
    pulls.iter().map(|it| it.took).max().unwrap_or_default()
}

/// Returns how many bytes came.
async fn drop_body(node: &Host, request: Request<Full<Bytes>>) -> Result<u64> {
    let client = node.client();
    let response = timeout(PATIENCE, client.request(request)).await.context("no answer")??;
    ensure!(response.status() == StatusCode::OK, "{}", response.status());
    let (mut body, mut n_bytes) = (response.into_body(), 0);
    while let Some(frame) = timeout(PATIENCE, body.frame()).await.context("the body stands still")? {
        n_bytes += frame?.data_ref().map_or(0, |it| it.len() as u64);
    }
    Ok(n_bytes)
}
