//! Counts the requests of one connection, to tell a busy connection from a quiet one, and one whose client takes
//! its responses from one whose client does not.
//!
//! A request is in flight until its response body has been dropped: hyper's own idle timers do not see that,
//! and would either cut long downloads or let quiet connections stay.
//!
//! Over HTTP/2 a client can leave a response where it is by granting it no window, on a connection that is well
//! otherwise, so the socket shows nothing of it. The response's body does: nobody asks it for more.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use http_body::{Body, Frame, SizeHint};
use tokio::sync::watch;
use tokio::time::{Instant, timeout, timeout_at};

/// The requests of one connection; clones count together.
#[derive(Clone, Default)]
pub(super) struct Requests(Arc<Shared>);

#[derive(Default)]
struct Shared {
    counts: watch::Sender<Counts>,
    /// Since when the client has had a part of a response to take, by the request's number.
    handed: Mutex<BTreeMap<u64, Instant>>,
}

#[derive(Clone, Copy)]
struct Counts {
    begun: u64,
    ended: u64,
    /// When either changed.
    changed: Instant,
}

impl Default for Counts {
    fn default() -> Self {
        Self { begun: 0, ended: 0, changed: Instant::now() }
    }
}

impl Requests {
    /// Counts a request until the guard is dropped.
    pub(super) fn begin(&self) -> InFlight {
        let mut number = 0;
        self.0.counts.send_modify(|it| {
            number = it.begun;
            (it.begun, it.changed) = (it.begun + 1, Instant::now());
        });
        InFlight { shared: self.0.clone(), number }
    }

    /// Waits until nothing has been in flight for `first`, or, once there has been a request, for `idle`.
    pub(super) async fn quiet_for(&self, first: Duration, idle: Duration) {
        let mut counts = self.0.counts.subscribe();
        loop {
            let Counts { begun, ended, .. } = *counts.borrow_and_update();
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

    /// Since when the client has been to act: to bring a request, or to take something of each response.
    pub(super) fn rest_since(&self) -> Option<Instant> {
        let Counts { begun, ended, changed } = *self.0.counts.borrow();
        let handed = self.0.handed();
        match usize::try_from(begun - ended) {
            Ok(0) => Some(changed),
            Ok(n_in_flight) if n_in_flight == handed.len() => handed.values().max().copied(),
            _ => None,
        }
    }

    /// Waits until the client has left a part of a response where it is for `patience`.
    pub(super) async fn left_for(&self, patience: Duration) {
        let mut counts = self.0.counts.subscribe();
        loop {
            let Counts { begun, ended, .. } = *counts.borrow_and_update();
            if begun == ended {
                let _ = counts.changed().await;
                continue;
            }
            let oldest = self.0.handed().values().min().copied();
            if oldest.is_some_and(|it| it.elapsed() >= patience) {
                return;
            }
            // What is handed over meanwhile has at least as much time.
            let next = oldest.unwrap_or_else(Instant::now) + patience;
            let _ = timeout_at(next, counts.changed()).await;
        }
    }
}

impl Shared {
    fn handed(&self) -> MutexGuard<'_, BTreeMap<u64, Instant>> {
        self.handed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request that has not been answered to the end.
pub(super) struct InFlight {
    shared: Arc<Shared>,
    number: u64,
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.shared.handed().remove(&self.number);
        self.shared.counts.send_modify(|it| (it.ended, it.changed) = (it.ended + 1, Instant::now()));
    }
}

/// A response body that keeps its request in flight.
pub(super) struct Counted<B> {
    body: Pin<Box<B>>,
    request: InFlight,
    /// Whether it is noted since when the client has a part of it to take.
    is_watched: bool,
}

impl<B> Counted<B> {
    pub(super) fn new(body: B, request: InFlight, is_watched: bool) -> Self {
        Self { body: Box::pin(body), request, is_watched }
    }
}

impl<B: Body> Body for Counted<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        if !self.is_watched {
            return self.body.as_mut().poll_frame(cx);
        }
        self.request.shared.handed().remove(&self.request.number);
        let frame = self.body.as_mut().poll_frame(cx);
        if frame.is_ready() {
            self.request.shared.handed().insert(self.request.number, Instant::now());
        }
        frame
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
    use http_body_util::channel::Channel;
    use http_body_util::{BodyExt as _, Full};
    use tokio::time::advance;

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

    #[tokio::test(start_paused = true)]
    async fn a_client_is_waited_for_only_while_it_has_something_to_take() {
        let hour = Duration::from_secs(3600);
        let requests = Requests::default();
        let is_left = async || timeout(hour, requests.left_for(IDLE)).await.is_ok();
        assert!(!is_left().await, "nothing is in flight");

        let (mut sender, body) = Channel::<bytes::Bytes>::new(1);
        let mut body = Counted::new(body, requests.begin(), true);
        assert!(timeout(FIRST, body.frame()).await.is_err());
        assert!(!is_left().await, "nothing has come yet");

        sender.send_data("part".into()).await.unwrap();
        body.frame().await.unwrap().unwrap();
        let start = Instant::now();
        requests.left_for(IDLE).await;
        assert_eq!(start.elapsed(), IDLE);
        assert!(timeout(FIRST, body.frame()).await.is_err());
        assert!(!is_left().await, "the client has asked for more");
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_rests_while_its_client_is_to_act() {
        let requests = Requests::default();
        let rested = || requests.rest_since().map(|it| it.elapsed());
        advance(FIRST).await;
        assert_eq!(rested(), Some(FIRST), "no request has come");

        let (mut sender, body) = Channel::<bytes::Bytes>::new(1);
        let mut body = Counted::new(body, requests.begin(), true);
        assert_eq!(rested(), None, "nothing has been answered yet");
        sender.send_data("part".into()).await.unwrap();
        body.frame().await.unwrap().unwrap();
        advance(FIRST).await;
        assert_eq!(rested(), Some(FIRST), "a part of a response is to be taken");
        let other = requests.begin();
        assert_eq!(rested(), None, "another is not");

        drop((body, other));
        advance(FIRST).await;
        assert_eq!(rested(), Some(FIRST), "there might be another request");
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_socket_watches_is_not_waited_for() {
        let requests = Requests::default();
        let mut body = Counted::new(Full::new(bytes::Bytes::from("x")), requests.begin(), false);
        body.frame().await.unwrap().unwrap();
        assert!(timeout(Duration::from_secs(3600), requests.left_for(IDLE)).await.is_err());
    }
}
