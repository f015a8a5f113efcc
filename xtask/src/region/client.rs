//! A plain HTTP client, for what the services tell about themselves.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http::{StatusCode, Uri};
use http_body_util::{BodyExt, Empty};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::time::timeout;

/// How long a whole answer may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// A client of one server.
pub(crate) struct Client {
    http: legacy::Client<HttpConnector, Empty<Bytes>>,
    server: String,
}

impl Client {
    /// A client of the server at `host:port`.
    pub(crate) fn new(server: impl ToString) -> Self {
        let http = legacy::Client::builder(TokioExecutor::new()).build_http();
        Self { http, server: server.to_string() }
    }

    /// The text at a path.
    pub(crate) async fn text(&self, path: &str) -> Result<String> {
        let url: Uri = format!("http://{}{path}", self.server).parse()?;
        let exchange = async {
            let response = self.http.get(url.clone()).await?;
            ensure!(response.status() == StatusCode::OK, "{}", response.status());
            Ok(response.into_body().collect().await?.to_bytes())
        };
        let body = timeout(PATIENCE, exchange).await.context("no whole answer").flatten();
        let body = body.with_context(|| format!("GET {url}"))?;
        String::from_utf8(body.into()).with_context(|| format!("GET {url}"))
    }
}
