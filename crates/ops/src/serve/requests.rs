//! Counts the requests of one connection, to tell a busy connection from a quiet one.
//!
//! A request is in flight until its response body has been dropped: hyper's own idle timers do not see that,
//! and would either cut long downloads or let quiet connections stay.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http_body::{Body, Frame, SizeHint};
use tokio::sync::watch;
use tokio::time::timeout;

/// The requests of one connection; clones count together.
#[derive(Clone, Default)]
pub(super) struct Requests(watch::Sender<Counts>);

#[derive(Clone, Copy, Default)]
struct Counts {
    begun: u64,
    ended: u64,
}

impl Requests {
    /// Counts a request until the guard is dropped.
    pub(super) fn begin(&self) -> InFlight {
        self.0.send_modify(|it| it.begun += 1);
        InFlight(self.0.clone())
    }

    /// Waits until nothing has been in flight for `first`, or, once there has been a request, for `idle`.
    pub(super) async fn quiet_for(&self, first: Duration, idle: Duration) {
        let mut counts = self.0.subscribe();
        loop {
            let Counts { begun, ended } = *counts.borrow_and_update();
            let changed = counts.changed();
            if begun != ended {
                // It can only fail when the sender is gone, and `self` holds it.
                let _ = changed.await;
                continue;
            }
            let patience = if begun == 0 { first } else { idle };
            if timeout(patience, changed).await.is_err() {
                return;
            }
        }
    }
}

/// A request that has not been answered to the end.
pub(super) struct InFlight(watch::Sender<Counts>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.send_modify(|it| it.ended += 1);
    }
}

/// A response body that keeps its request in flight.
pub(super) struct Counted<B> {
    body: Pin<Box<B>>,
    _request: InFlight,
}

impl<B> Counted<B> {
    pub(super) fn new(body: B, request: InFlight) -> Self {
        Self { body: Box::pin(body), _request: request }
    }
}

impl<B: Body> Body for Counted<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        self.body.as_mut().poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::{Instant, advance};

    const FIRST: Duration = Duration::from_secs(10);
    const IDLE: Duration = Duration::from_secs(60);

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_quiet_while_nothing_is_in_flight() {
        let (requests, start) = (Requests::default(), Instant::now());
        requests.quiet_for(FIRST, IDLE).await;
        assert_eq!(start.elapsed(), FIRST);

        let one = requests.begin();
        let hour = Duration::from_secs(3600);
        assert!(timeout(hour, requests.quiet_for(FIRST, IDLE)).await.is_err());

        let two = requests.begin();
        drop(one);
        assert!(timeout(hour, requests.quiet_for(FIRST, IDLE)).await.is_err());
        drop(two);

        let start = Instant::now();
        requests.quiet_for(FIRST, IDLE).await;
        assert_eq!(start.elapsed(), IDLE);
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_starts_the_wait_anew() {
        let (requests, start) = (Requests::default(), Instant::now());
        let quiet = requests.quiet_for(FIRST, IDLE);
        let busy = async {
            advance(FIRST / 2).await;
            drop(requests.begin());
        };
        tokio::join!(quiet, busy);
        assert_eq!(start.elapsed(), FIRST / 2 + IDLE);
    }
}
