//! The listener for those who watch over the process: `/metrics`, `/healthz`, `/readyz`, and what else a service shows.
//!
//! `/healthz` says that the runtime turns and nothing more: a process whose registry or neighbours are away
//! must not be restarted for it. `/readyz` names what is missing.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::{ConnectInfo, Request, State};
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};

use crate::metrics::{self, Metrics};
use crate::readiness::Readiness;

/// JSON documents that a service shows, by their paths; clones are of the same.
#[derive(Clone, Default)]
pub struct Pages(Arc<Mutex<BTreeMap<&'static str, Page>>>);

type Show = Arc<dyn Fn() -> Value + Send + Sync>;

#[derive(Clone)]
struct Page {
    show: Show,
    /// Whether only this machine's own processes are shown it.
    is_local: bool,
}

impl Pages {
    /// Shows at `path`, from now on, what `show` makes for each who asks. It must not block.
    pub fn add(&self, path: &'static str, show: impl Fn() -> Value + Send + Sync + 'static) {
        self.put(path, Page { show: Arc::new(show), is_local: false });
    }

    /// The same for what is not for everybody who may reach the listener: only who comes over loopback is shown it.
    pub fn add_local(&self, path: &'static str, show: impl Fn() -> Value + Send + Sync + 'static) {
        self.put(path, Page { show: Arc::new(show), is_local: true });
    }

    fn put(&self, path: &'static str, page: Page) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(path, page);
    }

    fn at(&self, path: &str) -> Option<Page> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(path).cloned()
    }
}

/// The routes of the admin listener.
pub fn router(metrics: Metrics, readiness: Readiness, pages: Pages) -> Router {
    Router::new()
        .route("/metrics", get(show_metrics).with_state(metrics))
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(show_readiness).with_state(readiness))
        .fallback_service(get(show_page).with_state(pages))
}

async fn show_metrics(State(metrics): State<Metrics>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], metrics.encode())
}

async fn show_readiness(State(readiness): State<Readiness>) -> impl IntoResponse {
    let unmet = readiness.unmet();
    let status = match unmet[..] {
        [] => StatusCode::OK,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    };
    (status, Json(json!({ "unmet": unmet })))
}

async fn show_page(State(pages): State<Pages>, request: Request) -> Result<Json<Value>, StatusCode> {
    let page = pages.at(request.uri().path()).ok_or(StatusCode::NOT_FOUND)?;
    if page.is_local && !comes_over_loopback(&request) {
        return Err(StatusCode::FORBIDDEN);
    }
    Ok(Json((page.show)()))
}

fn comes_over_loopback(request: &Request) -> bool {
    let client: Option<&ConnectInfo<SocketAddr>> = request.extensions().get();
    client.is_some_and(|it| it.0.ip().to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;
    use http::Request;
    use http_body_util::BodyExt;
    use tower::ServiceExt;

    async fn ask(readiness: &Readiness, path: &str) -> (u16, String) {
        ask_from("127.0.0.1:9", readiness, path).await
    }

    async fn ask_from(client: &str, readiness: &Readiness, path: &str) -> (u16, String) {
        let pages = Pages::default();
        pages.add("/stats.json", || json!({ "pulls": 7 }));
        pages.add_local("/pulls.json", || json!({ "pulls": [] }));
        let router = router(Metrics::new("test", "1"), readiness.clone(), pages);
        let mut req = Request::get(path).body(Body::empty()).unwrap();
        req.extensions_mut().insert(ConnectInfo::<SocketAddr>(client.parse().unwrap()));
        let res = router.oneshot(req).await.unwrap();
        let status = res.status().as_u16();
        let body = res.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn readiness_names_what_is_missing_and_health_does_not_depend_on_it() {
        let readiness = Readiness::new();
        let store = readiness.condition("store");
        assert_eq!(ask(&readiness, "/readyz").await, (503, r#"{"unmet":["store"]}"#.into()));
        assert_eq!(ask(&readiness, "/healthz").await, (200, "ok\n".into()));
        store.set(true);
        assert_eq!(ask(&readiness, "/readyz").await, (200, r#"{"unmet":[]}"#.into()));
        let (status, text) = ask(&readiness, "/metrics").await;
        assert_eq!(status, 200);
        assert!(text.contains("shoal_build_info"));
    }
    #[tokio::test]
    async fn a_service_shows_documents_of_its_own() {
        let readiness = Readiness::new();
        assert_eq!(ask(&readiness, "/stats.json").await, (200, r#"{"pulls":7}"#.into()));
        assert_eq!(ask(&readiness, "/nothing.json").await.0, 404);
    }

    #[tokio::test]
    async fn what_is_for_this_machine_nobody_else_is_shown() {
        let readiness = Readiness::new();
        for (client, expected) in
            [("127.0.0.1:9", 200), ("[::1]:9", 200), ("[::ffff:127.0.0.1]:9", 200), ("10.0.0.7:9", 403)]
        {
            assert_eq!(ask_from(client, &readiness, "/pulls.json").await.0, expected, "{client}");
            assert_eq!(ask_from(client, &readiness, "/stats.json").await.0, 200, "{client}");
        }
    }
}
