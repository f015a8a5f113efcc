//! A server that answers as it is told to.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use http::header::{AUTHORIZATION, RANGE};
use serde_json::Value;
use tokio::net::TcpListener;

/// A server that answers as it is told to, and remembers what it was asked.
pub(crate) struct Double {
    pub(crate) address: SocketAddr,
    pub(crate) asked: Arc<Mutex<Vec<Asked>>>,
}

/// A request: `GET /path?query`, and its credential.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) line: String,
    pub(crate) authorization: Option<String>,
    pub(crate) range: Option<String>,
}

impl Double {
    /// `answer` is told the request, and how many like it came before.
    pub(crate) async fn start(
        answer: impl Fn(&Asked, usize) -> Response + Clone + Send + Sync + 'static,
    ) -> Self {
        let asked: Arc<Mutex<Vec<Asked>>> = Arc::default();
        let (listener, noted) = (TcpListener::bind("127.0.0.1:0").await.unwrap(), asked.clone());
        let address = listener.local_addr().unwrap();
        let serve = move |request: Request| {
            let header =
                |name| request.headers().get(name).and_then(|it: &http::HeaderValue| it.to_str().ok());
            let this = Asked {
                line: format!("{} {}", request.method(), request.uri()),
                authorization: header(AUTHORIZATION).map(str::to_owned),
                range: header(RANGE).map(str::to_owned),
            };
            let mut noted = noted.lock().unwrap();
            let n_before = noted.iter().filter(|it| it.line == this.line).count();
            noted.push(this.clone());
            std::future::ready(answer(&this, n_before))
        };
        let router = Router::new().fallback(serve);
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { address, asked }
    }

    /// One that gives the same answer to everybody.
    pub(crate) async fn always(status: u16, body: Value) -> Self {
        Self::start(move |_, _| document(status, &body)).await
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        self.asked.lock().unwrap().iter().map(|it| it.line.clone()).collect()
    }
}

pub(crate) fn document(status: u16, body: &Value) -> Response {
    Response::builder().status(status).body(Body::from(body.to_string())).unwrap()
}
