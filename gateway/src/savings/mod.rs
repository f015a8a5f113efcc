//! What the region saves: how much has arrived at nodes, and how much was read from outside for that.
//!
//! Schedulers count what arrives ([`Census`]), and each gateway what it brings in ([`Ledger`]). All of them are looked at
//! every few seconds, by every gateway for itself, and what has come since is noted ([`series`]) and kept in a file. What
//! comes while this gateway is down is noted only as far as it was counted by what started later.
//!
//! What is noted is for people. A file that cannot be read is put aside, and one that cannot be written costs the past
//! when the gateway ends, but no pull.

pub(crate) mod api;
mod series;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use shoal_identity::Dialer;
use shoal_ops::{Context, private_file};
use shoal_peer::fleet;
use shoal_proto::TotalReply;
use tokio::task::{JoinError, spawn_blocking};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::census::Census;
use crate::ledger::Ledger;
use crate::sisters::Sisters;
use crate::timestamp::Timestamp;
use series::{Counts, Moved, STEP, Series};

/// The file, in the storage directory.
const FILE: &str = "savings.json";
/// The largest file that is read, in bytes; a month takes a third of it.
const MAX_LEN: usize = 1 << 20;
/// How often everybody is looked at.
const LOOK: Duration = Duration::from_secs(5);

/// Who knows what moves.
pub(crate) struct Means {
    pub(crate) census: Arc<Census>,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) sisters: Sisters,
    pub(crate) dialer: Dialer,
}

/// What the region has saved; clones are of the same.
#[derive(Clone)]
pub(crate) struct Savings(Arc<Mutex<Series>>);

impl Savings {
    /// Reads what was kept in `dir`, and notes what moves as a task of the process.
    pub(crate) async fn start(means: Means, dir: &Path, ctx: &Context) -> Result<Self, JoinError> {
        let path = dir.join(FILE);
        let kept = path.clone();
        let series = spawn_blocking(move || read(&kept, Timestamp::now())).await?;
        let savings = Self(Arc::new(Mutex::new(series)));
        let noting = savings.clone().note(means, path, ctx.tasks.stopping());
        ctx.tasks.spawn("savings", noting);
        Ok(savings)
    }

    fn series(&self) -> MutexGuard<'_, Series> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks again and again, and writes when a step has ended and at the end of all.
    async fn note(self, means: Means, path: PathBuf, stopping: CancellationToken) -> Result<(), JoinError> {
        let (mut arrived, mut read) = (Counts::default(), Counts::default());
        let begin = Instant::now();
        let (mut looks, mut is_news, mut written) = (interval(LOOK), false, Timestamp::now());
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while stopping.run_until_cancelled(looks.tick()).await.is_some() {
            let Some(totals) = stopping.run_until_cancelled(means.look(begin)).await else { break };
            let since = begin.elapsed();
            let sum = |counts: &mut Counts, totals: Vec<(String, TotalReply)>| {
                totals.into_iter().map(|(who, total)| counts.look(since, who, total)).sum()
            };
            let moved =
                Moved { arrived: sum(&mut arrived, totals.arrived), read: sum(&mut read, totals.read) };
            let now = Timestamp::now();
            is_news |= self.series().add(now, moved);
            if is_news && now.since(written) >= STEP {
                self.write(&path).await?;
                (is_news, written) = (false, now);
            }
        }
        if is_news { self.write(&path).await } else { Ok(()) }
    }

    async fn write(&self, path: &Path) -> Result<(), JoinError> {
        let (series, path) = (self.series().clone(), path.to_owned());
        spawn_blocking(move || {
            let written = serde_json::to_vec(&series).map_err(Into::into);
            if let Err(error) = written.and_then(|it| private_file::replace(&path, &it)) {
                tracing::warn!(file = %path.display(), %error, "what the region has saved is not written down");
            }
        })
        .await
    }
}

/// What everybody has counted since they started, by who they are.
struct Totals {
    arrived: Vec<(String, TotalReply)>,
    read: Vec<(String, TotalReply)>,
}

impl Means {
    async fn look(&self, begin: Instant) -> Totals {
        let others = self.sisters.answering().into_iter().map(async |it| {
            let total = fleet::brought_in(&self.dialer, &it).await;
            total.map(|total| (it.id.to_string(), total))
        });
        let (arrived, others) = tokio::join!(self.census.arrived(), join_all(others));
        let own = TotalReply { bytes: self.ledger.total().brought_in(), counted_for: begin.elapsed() };
        Totals { arrived, read: others.into_iter().flatten().chain([(String::new(), own)]).collect() }
    }
}

/// What was kept, or nothing yet.
fn read(path: &Path, now: Timestamp) -> Series {
    let kept = match std::fs::read(path) {
        Ok(bytes) if bytes.len() > MAX_LEN => Err(format!("has {} bytes", bytes.len())),
        Ok(bytes) => serde_json::from_slice(&bytes).map_err(|it| it.to_string()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Series::new(now),
        Err(error) => Err(error.to_string()),
    };
    kept.unwrap_or_else(|error| {
        let aside = path.with_extension("damaged");
        tracing::warn!(file = %path.display(), error, aside = %aside.display(), "what the region has saved cannot be read, and is put aside");
        if let Err(error) = std::fs::rename(path, aside) {
            tracing::warn!(file = %path.display(), %error, "it cannot be put aside");
        }
        Series::new(now)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        let now = Timestamp::of_millis(1_000_000_000_000);
        let mut series = read(&path, now);
        series.add(now, Moved { arrived: 5, read: 1 });
        std::fs::write(&path, serde_json::to_vec(&series).unwrap()).unwrap();
        assert_eq!(read(&path, Timestamp::now()), series);
    }

    #[test]
    fn a_file_that_cannot_be_read_is_put_aside() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        let now = Timestamp::of_millis(1_000_000_000_000);
        for bad in ["{", "{}", &format!("\"{}\"", "x".repeat(MAX_LEN))] {
            std::fs::write(&path, bad).unwrap();
            assert_eq!(read(&path, now), Series::new(now));
            assert_eq!(std::fs::read_to_string(path.with_extension("damaged")).unwrap(), bad);
            assert!(!path.exists());
        }
    }
}
