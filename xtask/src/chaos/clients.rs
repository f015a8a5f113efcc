//! Those who pull: one runtime and one reader on each node, each until it is told to stop.

use std::ops::AddAssign;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use shoal_model::Rng;
use shoal_tests::command::Launch;
use shoal_tests::host::Host;
use shoal_tests::image::{Blob, Image};
use shoal_tests::raw::{Ended, Exchange};
use shoal_tests::runtime::containerd::Containerd;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

/// How long a pull may take. What takes longer has failed.
const PULL: Duration = Duration::from_secs(60);
/// What takes longer is told at once.
const SLOW: Duration = Duration::from_secs(8);
/// The longest rest between two pulls of one client, in milliseconds.
const REST: usize = 1500;

/// An image as one node's clients ask for it.
pub(super) struct Wanted {
    pub(super) image: Arc<Image>,
    pub(super) fetch: Launch,
    pub(super) forget: Launch,
    /// Path and query of each layer at the mirror.
    pub(super) layers: Vec<String>,
}

/// A runtime's pull that came to its good end.
#[derive(Clone, Copy)]
pub(super) struct Pull {
    /// The node's number.
    pub(super) node: usize,
    /// From the beginning of the run.
    pub(super) began: Duration,
    pub(super) took: Duration,
}

/// What came of the pulls.
#[derive(Default)]
pub(super) struct Pulled {
    pub(super) good: Vec<Pull>,
    /// Those that failed, when in the run and why.
    pub(super) failed: Vec<String>,
    /// Blobs that the readers got whole from their mirrors.
    pub(super) n_read: usize,
    /// Bytes that were others than those pushed.
    pub(super) n_wrong: u64,
}

impl AddAssign for Pulled {
    fn add_assign(&mut self, other: Self) {
        self.good.extend(other.good);
        self.failed.extend(other.failed);
        self.n_read += other.n_read;
        self.n_wrong += other.n_wrong;
    }
}

/// When and how long clients go on.
#[derive(Clone)]
pub(super) struct Shift {
    pub(super) began: Instant,
    pub(super) over: CancellationToken,
}

impl Shift {
    /// A moment of rest; false when the shift is over.
    async fn goes_on(&self, rng: &mut Rng) -> bool {
        let rest = sleep(Duration::from_millis(rng.below(REST) as u64));
        self.over.run_until_cancelled(rest).await.is_some()
    }
}

/// The containerd of the node with this number pulls one image after the other, and forgets each before the next.
pub(super) async fn pull(
    node: usize,
    containerd: Arc<Containerd>,
    wanted: Arc<Vec<Wanted>>,
    mut rng: Rng,
    shift: Shift,
) -> Result<Pulled> {
    let mut pulled = Pulled::default();
    while shift.goes_on(&mut rng).await {
        let wanted = &wanted[rng.below(wanted.len())];
        let began = Instant::now();
        let fetched = containerd.host.run(wanted.fetch.clone(), PULL).await.map(drop);
        let (took, began) = (began.elapsed(), began.duration_since(shift.began));
        let what = || {
            let (name, tag, at) = (containerd.host.name(), &wanted.image.tag, began.as_secs_f64());
            format!("{name} at {at:.1} s, {tag}, {:.1} s long", took.as_secs_f64())
        };
        if took > SLOW {
            eprintln!("SLOW: {}", what());
        }
        match fetched.and_then(|()| containerd.check_content(&wanted.image)) {
            Ok(()) => {
                pulled.good.push(Pull { node, began, took });
                containerd.host.run(wanted.forget.clone(), PULL).await?;
            }
            Err(error) => {
                let failed = format!("{}: {error:#}", what());
                eprintln!("FAILED: {failed}");
                pulled.failed.push(failed);
            }
        }
    }
    Ok(pulled)
}

/// A client of a node's mirror reads one layer after the other.
pub(super) async fn read(
    host: Host,
    wanted: Arc<Vec<Wanted>>,
    authorization: String,
    mut rng: Rng,
    shift: Shift,
) -> Result<Pulled> {
    let mut pulled = Pulled::default();
    while shift.goes_on(&mut rng).await {
        let wanted = &wanted[rng.below(wanted.len())];
        let layer = rng.below(wanted.layers.len());
        let (target, blob) = (&wanted.layers[layer], &wanted.image.layers[layer]);
        let (n_good, n_wrong) = read_layer(&host, target, blob, &authorization).await;
        pulled.n_wrong += n_wrong;
        pulled.n_read += usize::from(n_good == blob.bytes.len());
        if n_wrong > 0 {
            eprintln!("WRONG: {n_wrong} bytes of {} on {}", blob.digest, host.name());
        }
    }
    Ok(pulled)
}

/// Reads a layer and takes a stream that ended early up where it ended, as runtimes do, for as long as that
/// brings anything; how many bytes were right, and how many wrong. What a mirror does not answer a runtime would
/// read at the registry, which shows nothing of Shoal.
async fn read_layer(host: &Host, target: &str, blob: &Blob, authorization: &str) -> (usize, u64) {
    let (mut n_good, mut n_wrong) = (0, 0);
    while n_good < blob.bytes.len() {
        let headers = [format!("Authorization: {authorization}"), format!("Range: bytes={n_good}-")];
        let headers = headers.each_ref().map(String::as_str);
        let Ok(Ended { body, .. }) = exchange(host, target, &headers).await else { break };
        if body.is_empty() {
            break;
        }
        let expected = blob.bytes.get(n_good..).unwrap_or_default();
        n_wrong += differences(&body, expected);
        n_good += body.len();
    }
    (n_good, n_wrong)
}

async fn exchange(host: &Host, target: &str, headers: &[&str]) -> Result<Ended> {
    let exchange = Exchange::send(host, "GET", target, headers).await?;
    let is_content = matches!(exchange.status, 200 | 206);
    is_content.then_some(()).with_context(|| format!("status {}", exchange.status))?;
    exchange.finish().await
}

/// How many bytes of `body` are not what is expected at their place.
fn differences(body: &[u8], expected: &[u8]) -> u64 {
    let surplus = body.len().saturating_sub(expected.len());
    (body.iter().zip(expected).filter(|(is, should)| is != should).count() + surplus) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_wrong_byte_counts_and_each_that_is_too_many() {
        assert_eq!(differences(b"", b"abc"), 0);
        assert_eq!(differences(b"ab", b"abc"), 0);
        assert_eq!(differences(b"xbz", b"abc"), 2);
        assert_eq!(differences(b"abcd", b"abc"), 1);
    }
}
