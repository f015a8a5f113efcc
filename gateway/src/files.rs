//! Follows the files of the registries' settings: passwords, authorities, client certificates.
//!
//! An operator, or Kubernetes on his behalf, replaces such a file while the process runs. There are few of
//! them and they are small, so they are read again every so often and compared: a watch would miss files behind
//! links that are switched. What cannot be read or makes no sense leaves things as they are and is told once,
//! not each time; it may be half written just now.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::upstream::Upstream;

/// How often files are read again.
const EVERY: Duration = Duration::from_secs(2);

/// Reads the files of all registries again and again.
pub(crate) async fn follow(upstreams: Vec<Arc<Upstream>>, stopping: CancellationToken) {
    let mut followed: Vec<_> = upstreams.into_iter().map(|it| (it, Faults::default())).collect();
    while stopping.run_until_cancelled(sleep(EVERY)).await.is_some() {
        for (upstream, faults) in &mut followed {
            let read = upstream.clone();
            let Ok(found) = tokio::task::spawn_blocking(move || read.reload()).await else { continue };
            tell(upstream, faults, found);
        }
    }
}

/// What was wrong with each kind of file when it was last read.
type Faults = [Option<String>; 3];

fn tell(upstream: &Upstream, faults: &mut Faults, found: [Result<bool, String>; 3]) {
    let registry = upstream.name();
    for ((what, last), found) in
        ["certificates", "credentials", "token key"].into_iter().zip(faults).zip(found)
    {
        match &found {
            Ok(true) => tracing::info!(%registry, what, "read again"),
            Err(fault) if last.as_ref() != Some(fault) => {
                tracing::warn!(%registry, what, %fault, "not read again, the old ones stay");
            }
            _ => {}
        }
        *last = found.err();
    }
}
