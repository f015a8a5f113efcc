//! The client of all pulls: a node asks for a blob, and the bytes are dropped as they come.
//!
//! From Shoal all have to come with one request. A download from the registry goes on where it broke off, as runtimes
//! do: of fifty streams on one slow link some come to nothing.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use bytes::Bytes;
use futures_util::future::try_join_all;
use http::request::Builder;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use shoal_tests::host::Host;
use tokio::time::timeout;

/// How long the next bytes are waited for.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often a download is taken up again.
const RESUMES: usize = 10;

/// How a pull went.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pull {
    /// From the beginning of all pulls to this one's request.
    pub(super) joined: Duration,
    /// From there to the last byte.
    pub(super) took: Duration,
}

/// Pulls on all these nodes at the same time; fails where one does not get all `n_bytes` with its first request.
pub(super) async fn all(nodes: &[Host], n_bytes: u64, request: impl Fn() -> Builder) -> Result<Vec<Pull>> {
    pull(nodes, n_bytes, 0, request).await
}

/// The same, and what breaks off is asked for again from there.
pub(super) async fn all_resumed(
    nodes: &[Host],
    n_bytes: u64,
    request: impl Fn() -> Builder,
) -> Result<Vec<Pull>> {
    pull(nodes, n_bytes, RESUMES, request).await
}

async fn pull(
    nodes: &[Host],
    n_bytes: u64,
    resumes: usize,
    request: impl Fn() -> Builder,
) -> Result<Vec<Pull>> {
    let start = Instant::now();
    let pulls = nodes.iter().map(async |node| {
        let joined = start.elapsed();
        let (mut pulled, mut broken) = (0, None);
        for _ in 0..=resumes {
            let request = match pulled {
                0 => request(),
                _ => request().header(header::RANGE, format!("bytes={pulled}-")),
            };
            broken = drop_body(node, request.body(Full::default())?, &mut pulled).await.err();
            if pulled == n_bytes {
                return Ok(Pull { joined, took: start.elapsed() - joined });
            }
        }
        let broken = broken.unwrap_or_else(|| anyhow!("the body ended"));
        Err(broken.context(format!("pull on {}: {pulled} of {n_bytes} bytes came", node.name())))
    });
    try_join_all(pulls).await
}

/// The longest of these pulls.
pub(super) fn longest(pulls: &[Pull]) -> Duration {
    pulls.iter().map(|it| it.took).max().unwrap_or_default()
}

/// Adds what comes to `pulled`.
async fn drop_body(node: &Host, request: Request<Full<Bytes>>, pulled: &mut u64) -> Result<()> {
    let client = node.client();
    let response = timeout(PATIENCE, client.request(request)).await.context("no answer")??;
    let (status, expected) = (response.status(), [StatusCode::OK, StatusCode::PARTIAL_CONTENT]);
    ensure!(status == expected[usize::from(*pulled > 0)], "{status}");
    let mut body = response.into_body();
    while let Some(frame) = timeout(PATIENCE, body.frame()).await.context("the body stands still")? {
        *pulled += frame?.data_ref().map_or(0, |it| it.len() as u64);
    }
    Ok(())
}
