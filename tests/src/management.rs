//! A gateway's management API, as a person calls it.

use anyhow::Result;
use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::{Method, Request, StatusCode};
use http_body_util::Full;
use serde_json::Value;

use crate::shoal::Service;

/// The API, as seen from the gateway's machine.
const API: &str = "http://127.0.0.1:65023/api/v1";

impl Service {
    /// Calls the management API, below `/api/v1`, with the token that the gateway's first start has made.
    pub async fn manage(&self, method: Method, path: &str, body: String) -> Result<(StatusCode, Value)> {
        let token = std::fs::read_to_string(self.host.dir().join("gateway/management-token"))?;
        let request = Request::builder()
            .method(method)
            .uri(format!("{API}{path}"))
            .header(AUTHORIZATION, format!("Bearer {}", token.trim()))
            .body(Full::new(Bytes::from(body)))?;
        let answer = self.host.send(request).await?;
        let value = serde_json::from_slice(answer.body()).unwrap_or_default();
        Ok((answer.status(), value))
    }

    /// What the management API shows below `/api/v1`.
    ///
    /// # Errors
    /// Where it does not.
    pub async fn seen(&self, path: &str) -> Result<Value> {
        let (status, value) = self.manage(Method::GET, path, String::new()).await?;
        anyhow::ensure!(status == StatusCode::OK, "{path}: the gateway answered {status}: {value}");
        Ok(value)
    }
}
