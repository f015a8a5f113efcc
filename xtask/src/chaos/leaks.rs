//! What is still there when nothing should be.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use shoal_tests::shoal::Service;
use shoal_tests::stored::{allocated, stored};
use tokio::time::{Instant, sleep};

/// How long services may take to close what they no longer use, and to count what they keep: they wait 120 s for a
/// client that has vanished without a word.
const QUIET: Duration = Duration::from_secs(180);
const LOOK: Duration = Duration::from_secs(1);
/// How many files and sockets more than before are no leak: what is kept for a while anyway comes and goes.
const SLACK: usize = 16;

/// How many files and sockets each service has open, by host.
pub(super) struct Held(BTreeMap<String, usize>);

/// What has leaked, all services together.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Leaked {
    pub(super) n_files: usize,
    pub(super) n_bytes: u64,
}

impl Held {
    pub(super) fn by<'a>(services: impl Iterator<Item = &'a Service>) -> Result<Self> {
        let held = services.map(|it| Ok((it.host.name().to_owned(), it.process.n_open_files()?)));
        held.collect::<Result<_>>().map(Self)
    }

    /// How many more there are than before, beyond the slack.
    fn beyond(&self, before: &Self) -> usize {
        let more = |(name, now): (&String, &usize)| {
            now.saturating_sub(before.0.get(name).copied().unwrap_or_default() + SLACK)
        };
        self.0.iter().map(more).sum()
    }
}

/// What is open beyond `before`, and on disk beyond what the stores know of, once that no longer shrinks to nothing.
pub(super) async fn leaked(
    before: &Held,
    now: impl AsyncFn() -> Result<Held>,
    stores: &[&Service],
) -> Result<Leaked> {
    let end = Instant::now() + QUIET;
    loop {
        let mut leaked = Leaked { n_files: now().await?.beyond(before), n_bytes: 0 };
        for store in stores {
            leaked.n_bytes += unknown_bytes(store).await?;
        }
        if (leaked.n_files == 0 && leaked.n_bytes == 0) || Instant::now() > end {
            return Ok(leaked);
        }
        sleep(LOOK).await;
    }
}

/// Bytes on disk that a service's store does not count: of blobs that it does not know, and of files that are
/// removed and still open.
async fn unknown_bytes(service: &Service) -> Result<u64> {
    let known = service.metric("shoal_store_bytes", &[]).await? as u64;
    let files = stored(service.host.dir())?;
    let on_disk: u64 = files.iter().filter_map(|it| allocated(it).ok()).sum();
    let open = fs::read_dir(format!("/proc/{}/fd", service.process.pid()?))?;
    let removed = open.filter_map(Result::ok).filter(|it| is_removed(&it.path()));
    let removed: u64 = removed.filter_map(|it| allocated(&it.path()).ok()).sum();
    Ok(on_disk.saturating_sub(known) + removed)
}

fn is_removed(open: &Path) -> bool {
    fs::read_link(open).is_ok_and(|it| it.to_string_lossy().ends_with(" (deleted)"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_more_than_before_and_slack_has_leaked() {
        let held = |n| Held(BTreeMap::from([("a".to_owned(), n), ("b".to_owned(), 10)]));
        assert_eq!(held(10 + SLACK).beyond(&held(10)), 0);
        assert_eq!(held(15 + SLACK).beyond(&held(10)), 5);
        assert_eq!(held(1).beyond(&held(10)), 0);
    }
}
