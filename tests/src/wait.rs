//! Waiting for a thing itself, never for a guess of how long it takes.
//!
//! The lab watches programs that cannot call back, so it looks again and again; every wait has a
//! deadline, after which it says what it waited for.

use std::future::Future;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::time::{interval, timeout};

/// How often the lab looks.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Looks until `look` sees something and returns that; fails when `deadline` passes first.
pub async fn until<T, F>(what: &str, deadline: Duration, mut look: impl FnMut() -> F) -> Result<T>
where
    F: Future<Output = Option<T>>,
{
    let looking = async {
        let mut ticks = interval(LOOK_EVERY);
        loop {
            ticks.tick().await;
            if let Some(seen) = look().await {
                return seen;
            }
        }
    };
    timeout(deadline, looking).await.with_context(|| format!("{what}: not seen within {deadline:?}"))
}
