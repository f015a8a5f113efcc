//! Signs of life of a seed, for the nodes that wait for it.
//!
//! Busy is not sick: a seed that waits in line, for the registry's rate or for a registry that asked to be
//! left alone says so again and again. While it waits for the registry's answer or bytes, or to ask again after
//! these broke off, it says nothing, so that nodes notice a registry that hangs or is gone.

use std::time::Duration;

use shoal_proto::SeedProgress;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

/// How often a seed that waits on purpose says so; nodes lose patience after 3 s.
const BEAT: Duration = Duration::from_secs(1);

/// The telling side of a seed's progress.
pub(super) struct Pulse(watch::Sender<SeedProgress>);

impl Pulse {
    pub(super) fn new() -> (Self, watch::Receiver<SeedProgress>) {
        let (send, receive) = watch::channel(SeedProgress::default());
        (Self(send), receive)
    }

    /// Whether any node looks on, besides the seeder, which keeps an ear for those that come.
    pub(super) fn is_heard(&self) -> bool {
        self.0.receiver_count() > 1
    }

    /// The seed waits in line.
    pub(super) fn queued(&self, position: u32) {
        self.0.send_modify(|it| {
            it.queue_position = position;
            it.heartbeat += 1;
        });
    }

    /// The seed of the gateway that is read lives.
    pub(super) fn beat(&self) {
        self.0.send_modify(|it| it.heartbeat += 1);
    }

    /// The seed has read so many bytes.
    pub(super) fn reached(&self, offset: u64) {
        self.0.send_modify(|it| {
            it.queue_position = 0;
            it.offset = offset;
        });
    }

    /// Waits on purpose, and shows it.
    pub(super) async fn alive<T>(&self, wait: impl Future<Output = T>) -> T {
        let mut wait = std::pin::pin!(wait);
        let mut beats = interval(BEAT);
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                done = &mut wait => return done,
                _ = beats.tick() => self.beat(),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::sleep;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_wait_on_purpose_shows_life() {
        let (pulse, progress) = Pulse::new();
        pulse.queued(3);
        assert_eq!(*progress.borrow(), SeedProgress { queue_position: 3, offset: 0, heartbeat: 1 });
        pulse.reached(10);
        pulse.alive(sleep(Duration::from_millis(3500))).await;
        assert_eq!(*progress.borrow(), SeedProgress { queue_position: 0, offset: 10, heartbeat: 5 });
    }
}
