//! Waiting for a time of day, which is not the same as waiting for so long: clocks are set.

use std::ops::Range;
use std::time::{Duration, SystemTime};

use tokio::time::sleep;

/// How often the clock is looked at.
const LOOK: Duration = Duration::from_secs(60);

/// Waits until it is `at`, at most a minute longer where the clock is set forward meanwhile.
pub async fn wait_until(at: SystemTime) {
    wait_outside(&(SystemTime::UNIX_EPOCH..at)).await;
}

/// Waits until it is none of these `times`: until they are over, or the clock is set to before they began. At most a
/// minute longer where it is set meanwhile.
pub async fn wait_outside(times: &Range<SystemTime>) {
    while let Some(pause) = next_look(SystemTime::now(), times) {
        sleep(pause).await;
    }
}

/// How long the clock need not be looked at, where it shows one of these `times`.
fn next_look(now: SystemTime, times: &Range<SystemTime>) -> Option<Duration> {
    let left = times.contains(&now).then(|| times.end.duration_since(now).unwrap_or_default());
    left.map(|it| it.min(LOOK))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn a_clock_that_is_set_is_looked_at_within_a_minute() {
        let begin = SystemTime::UNIX_EPOCH + 1000 * HOUR;
        let check = |now, expected| assert_eq!(next_look(now, &(begin..begin + 2 * HOUR)), expected);
        check(begin, Some(LOOK));
        check(begin + 2 * HOUR - LOOK / 2, Some(LOOK / 2));
        check(begin + 2 * HOUR, None);
        // Set an hour forward, and an hour back.
        check(begin + HOUR + HOUR, None);
        check(begin + HOUR / 2 - HOUR, None);
    }
}
