//! Views that are told again whenever they have changed, as server-sent events, to whoever asks for these.
//!
//! Somebody who has been let in is told for some minutes and then has to come again with the token, which may have been
//! withdrawn.
//!
//! Knows nothing of: what is looked at, who may look.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream::{self, Stream, StreamExt as _};
use http::header::ACCEPT;
use http::{HeaderMap, StatusCode};
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::management::{Message, Reply};

/// How often a view is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// How long somebody is told of a view.
const AT_MOST: Duration = Duration::from_secs(10 * 60);
/// A sign of life for whoever has been told nothing for so long.
const SIGN: Duration = Duration::from_secs(15);
/// So many may be told at once: some screens, some people.
const SEATS: usize = 64;

/// Tells of views; clones share their seats.
#[derive(Clone)]
pub(crate) struct Live {
    seats: Arc<Semaphore>,
    stopping: CancellationToken,
}

/// One that is told of a view.
struct Told<L> {
    look: L,
    /// What was told last.
    last: String,
    _seat: OwnedSemaphorePermit,
}

impl Live {
    /// Nobody is told anything any more once `stopping` is cancelled.
    pub(crate) fn new(stopping: CancellationToken) -> Self {
        Self { seats: Arc::new(Semaphore::new(SEATS)), stopping }
    }

    /// The view as it is now, or as it changes where that is what is asked for.
    pub(crate) async fn answer<T, R, L>(&self, headers: &HeaderMap, look: L) -> Response
    where
        T: Serialize + Send + 'static,
        R: Future<Output = Result<T, Reply>> + Send + 'static,
        L: Fn() -> R + Send + 'static,
    {
        let first = match look().await {
            Ok(view) => view,
            Err(reply) => return reply.into_response(),
        };
        if !wants_events(headers) {
            return Json(first).into_response();
        }
        let Ok(seat) = self.seats.clone().try_acquire_owned() else {
            let text = format!("{SEATS} are told already; ask without events, or later");
            return Reply::new(StatusCode::TOO_MANY_REQUESTS, text).into_response();
        };
        let last = text(&first);
        let first = stream::once(std::future::ready(Event::default().data(&last)));
        let later = Told { look, last, _seat: seat }.events();
        let end = self.stopping.clone().cancelled_owned();
        let events = first.chain(later).take_until(end).map(Ok::<_, std::convert::Infallible>);
        Sse::new(events).keep_alive(KeepAlive::new().interval(SIGN)).into_response()
    }
}

/// Why there is nothing to see at present, and the status that a plain answer would have.
#[derive(Serialize)]
struct Failed {
    status: u16,
    #[serde(flatten)]
    message: Message,
}

impl From<Reply> for Failed {
    fn from(reply: Reply) -> Self {
        let (status, message) = reply.into_parts();
        Self { status: status.as_u16(), message }
    }
}

impl<L> Told<L> {
    /// What has changed, as events.
    fn events<T, R>(self) -> impl Stream<Item = Event> + Send
    where
        T: Serialize + Send + 'static,
        R: Future<Output = Result<T, Reply>> + Send + 'static,
        L: Fn() -> R + Send + 'static,
    {
        let until = Instant::now() + AT_MOST;
        stream::unfold(self, move |mut told| async move {
            while Instant::now() < until {
                sleep(LOOK).await;
                let (name, text) = match (told.look)().await {
                    Ok(view) => (None, text(&view)),
                    Err(reply) => (Some("failed"), text(&Failed::from(reply))),
                };
                if text != told.last {
                    told.last.clone_from(&text);
                    let event = Event::default().data(text);
                    return Some((name.into_iter().fold(event, Event::event), told));
                }
            }
            None
        })
    }
}

#[expect(clippy::expect_used, reason = "input cannot reach it")]
fn text(view: &impl Serialize) -> String {
    serde_json::to_string(view).expect("a view has string keys, and memory takes all")
}

/// Whether the first thing that is accepted are events.
fn wants_events(headers: &HeaderMap) -> bool {
    let accepted = headers.get(ACCEPT).and_then(|it| it.to_str().ok()).unwrap_or_default();
    let first = accepted.split([',', ';']).next().unwrap_or_default();
    first.trim().eq_ignore_ascii_case("text/event-stream")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::ready;
    use std::sync::atomic::{AtomicU32, Ordering};

    use futures_util::FutureExt as _;
    use futures_util::future::BoxFuture;

    use http::HeaderValue;

    fn accepting(accepted: &'static str) -> HeaderMap {
        [(ACCEPT, HeaderValue::from_static(accepted))].into_iter().collect()
    }

    async fn body(response: Response) -> String {
        let bytes = axum::body::to_bytes(response.into_body(), 1 << 16).await.unwrap();
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    /// Counts looks in pairs: each number is seen twice; after three numbers there is nothing to see.
    fn counting() -> impl Fn() -> BoxFuture<'static, Result<u32, Reply>> {
        let looks = AtomicU32::new(0);
        move || {
            let number = looks.fetch_add(1, Ordering::Relaxed) / 2;
            let gone = || Reply::new(StatusCode::NOT_FOUND, "gone");
            ready((number < 3).then_some(number).ok_or_else(gone)).boxed()
        }
    }

    #[tokio::test]
    async fn a_view_is_told_once_unless_events_are_asked_for() {
        let live = Live::new(CancellationToken::new());
        for accepted in ["application/json", "*/*", "application/json, text/event-stream"] {
            assert_eq!(body(live.answer(&accepting(accepted), counting()).await).await, "0");
        }
        assert_eq!(live.seats.available_permits(), SEATS);
    }

    #[tokio::test(start_paused = true)]
    async fn events_tell_what_has_changed_and_end_after_a_time() {
        let live = Live::new(CancellationToken::new());
        let response = live.answer(&accepting("text/event-stream"), counting()).await;
        assert_eq!(live.seats.available_permits(), SEATS - 1);
        let told = body(response).await;
        let told: Vec<_> = told.split("\n\n").filter(|it| !it.is_empty() && *it != ":").collect();
        let failed = "event: failed\ndata: {\"status\":404,\"message\":\"gone\"}";
        let reversed = "data: {\"status\":404,\"message\":\"gone\"}\nevent: failed";
        assert_eq!(told[..3], ["data: 0", "data: 1", "data: 2"]);
        assert!(told[3..] == [failed] || told[3..] == [reversed], "{told:?}");
        assert_eq!(live.seats.available_permits(), SEATS);
    }

    #[tokio::test]
    async fn nobody_is_told_beyond_the_seats_or_the_end() {
        let stopping = CancellationToken::new();
        let live = Live { seats: Arc::new(Semaphore::new(1)), stopping: stopping.clone() };
        let events = accepting("text/event-stream");
        let told = live.answer(&events, counting()).await;
        assert_eq!(live.answer(&events, counting()).await.status(), StatusCode::TOO_MANY_REQUESTS);
        stopping.cancel();
        body(told).await;
        assert_eq!(live.answer(&events, counting()).await.status(), StatusCode::OK);
    }
}
