//! Waiting for a time of day, which is not the same as waiting for so long: clocks are set.

use std::time::{Duration, SystemTime};

use tokio::time::sleep;

/// How often the clock is looked at.
const LOOK: Duration = Duration::from_secs(60);

/// Waits until it is `at`, at most a minute longer where the clock is set forward meanwhile.
pub async fn wait_until(at: SystemTime) {
    while let Ok(left) = at.duration_since(SystemTime::now()) {
        sleep(left.min(LOOK)).await;
    }
}
