//! Ends a process whose runtime has stalled.
//!
//! A process that accepts connections and never answers is worse than a dead one: some runtimes wait for
//! ever on it, while a dead one is passed over and restarted. So a task of the runtime beats, and an OS thread
//! looks: no beat for [`LIMIT`] ends the process.
//!
//! The edge case is time that passes without anybody running: the process was stopped (SIGSTOP), the machine
//! suspended or badly overloaded. Then the thread's own look comes late, too, and the missing beats say
//! nothing about the runtime; it gets the whole limit anew.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use tokio::task::AbortHandle;
use tokio::time::{MissedTickBehavior, interval};

use crate::systemd;

/// How long the runtime may be without a beat.
const LIMIT: Duration = Duration::from_secs(5);

/// How often the runtime beats and the thread looks.
const INTERVAL: Duration = Duration::from_millis(500);

/// How long writing the last line may take: standard error may be what the runtime is stuck on.
const LAST_WORD: Duration = Duration::from_secs(1);

/// Watches the runtime it was started in until it is dropped.
pub(crate) struct Watchdog {
    heart: AbortHandle,
    /// The thread ends when this is dropped.
    _stop: mpsc::Sender<()>,
}

impl Watchdog {
    /// Starts the beats and the thread.
    ///
    /// # Errors
    /// When there is no thread to be had.
    pub(crate) fn start() -> std::io::Result<Self> {
        let beats = Arc::new(AtomicU64::new(0));
        let (stop, stopped) = mpsc::channel();
        let seen = Arc::clone(&beats);
        thread::Builder::new().name("watchdog".into()).spawn(move || watch(&seen, &stopped))?;
        // Not in the group of tasks: the runtime must be watched while that group drains.
        let heart = tokio::spawn(beat(beats)).abort_handle();
        Ok(Self { heart, _stop: stop })
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.heart.abort();
    }
}

async fn beat(beats: Arc<AtomicU64>) {
    let alive_every = systemd::alive_interval();
    let mut ticks = interval(alive_every.unwrap_or(INTERVAL).min(INTERVAL));
    // After a pause, beats that were missed say nothing any more.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        beats.fetch_add(1, Ordering::Relaxed);
        if alive_every.is_some() {
            systemd::alive();
        }
    }
}

fn watch(beats: &AtomicU64, stopped: &mpsc::Receiver<()>) {
    let start = Instant::now();
    let mut pulse = Pulse::default();
    while stopped.recv_timeout(INTERVAL) == Err(RecvTimeoutError::Timeout) {
        if pulse.has_stopped(start.elapsed(), beats.load(Ordering::Relaxed)) {
            give_up();
        }
    }
}

/// Says why and ends the process, without running anything that could be stuck.
fn give_up() {
    let (said, hear) = mpsc::channel();
    let say = move || {
        let line = format!("the runtime has stalled for {LIMIT:?}: ending the process\n");
        // There is nobody left to tell of a failure.
        let _ = std::io::stderr().write_all(line.as_bytes());
        let _ = said.send(());
    };
    if thread::Builder::new().spawn(say).is_ok() {
        let _ = hear.recv_timeout(LAST_WORD);
    }
    std::process::abort();
}

/// What was seen of the beats so far. Times are since the start.
#[derive(Debug, Default)]
struct Pulse {
    beats: u64,
    /// When the runtime was last known, or last presumed, to turn.
    well_at: Duration,
    looked_at: Duration,
}

impl Pulse {
    /// Takes a look at `now`, when there have been `beats`, and decides whether the runtime has stalled.
    fn has_stopped(&mut self, now: Duration, beats: u64) -> bool {
        let late = now.saturating_sub(self.looked_at) > 2 * INTERVAL;
        if beats != self.beats || late {
            self.well_at = now;
        }
        self.beats = beats;
        self.looked_at = now;
        now.saturating_sub(self.well_at) >= LIMIT
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Looks at the given (milliseconds, beats) and returns the time of the first look that found a stall.
    #[track_caller]
    fn check(looks: impl IntoIterator<Item = (u64, u64)>, expected: Option<u64>) {
        let mut pulse = Pulse::default();
        let stall =
            looks.into_iter().find(|(ms, beats)| pulse.has_stopped(Duration::from_millis(*ms), *beats));
        assert_eq!(stall.map(|(ms, _)| ms), expected);
    }

    fn every_half_second(from: u64, to: u64, beats: impl Fn(u64) -> u64) -> Vec<(u64, u64)> {
        (from..=to).step_by(500).map(|ms| (ms, beats(ms))).collect()
    }

    #[test]
    fn a_beating_runtime_is_left_alone() {
        check(every_half_second(500, 60_000, |ms| ms / 500), None);
        check(every_half_second(500, 60_000, |ms| ms / 4_000), None);
    }

    #[test]
    fn a_runtime_without_beats_for_the_limit_has_stalled() {
        check(every_half_second(500, 60_000, |_| 0), Some(5_000));
        check(every_half_second(500, 60_000, |ms| ms.min(20_000) / 500), Some(25_000));
    }

    #[test]
    fn a_jump_in_time_gives_the_runtime_the_whole_limit_anew() {
        let mut looks = every_half_second(500, 10_000, |ms| ms / 500);
        looks.extend(every_half_second(100_000, 104_500, |_| 20));
        looks.extend(every_half_second(105_000, 110_000, |ms| ms / 500));
        check(looks, None);

        let mut looks = every_half_second(500, 10_000, |ms| ms / 500);
        looks.extend(every_half_second(100_000, 110_000, |_| 20));
        check(looks, Some(105_000));
    }
}
