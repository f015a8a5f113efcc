//! A registry that lies: it says yes to everybody and everything.
//!
//! Every manifest that it is asked for is one of another registry's, word for word, and every blob is there, as
//! long as that one and made of zeros.

use std::sync::Arc;

use anyhow::Result;
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response};
use hyper::body::Incoming;
use serde_json::{Value, json};
use socket2::Socket;

use crate::image::Image;
use crate::lab::Lab;
use crate::server::{Answer, Body, Server, full};

const PORT: u16 = 5000;

/// A running liar.
#[derive(Debug)]
pub struct HostileRegistry {
    authority: String,
    _server: Server,
}

impl HostileRegistry {
    /// Starts one on a machine of its own that claims to have this image, in all repositories.
    pub async fn start(lab: &mut Lab, claimed: &Image) -> Result<Self> {
        let host = lab.host("hostile").await?;
        let server = Server::start(&host, PORT, None, Arc::new(Claims(claimed.clone())))?;
        Ok(Self { authority: format!("{}:{PORT}", host.name()), _server: server })
    }

    /// Host and port, as they stand in image references.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// The registry as sidecars are told of it, and gateways, which may be told its kind besides.
    pub fn settings(&self) -> Value {
        json!({ "name": self.authority, "url": format!("http://{}", self.authority), "insecure": true })
    }
}

struct Claims(Image);

impl Claims {
    fn content(&self, path: &str) -> (&'static str, Bytes) {
        if path.contains("/manifests/") {
            return (self.0.media_type(), self.0.manifest.bytes.clone());
        }
        let blob = self.0.blobs().find(|it| path.ends_with(&it.digest.to_string()));
        let len = blob.map_or(0, |it| it.bytes.len());
        ("application/octet-stream", vec![0; len].into())
    }
}

impl Answer for Claims {
    async fn answer(self: Arc<Self>, request: Request<Incoming>, _: Arc<Socket>) -> Response<Body> {
        let (media_type, content) = self.content(request.uri().path());
        let len = content.len();
        let mut response =
            Response::new(full(if request.method() == Method::HEAD { Bytes::new() } else { content }));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
        response.headers_mut().insert(CONTENT_LENGTH, len.into());
        response
    }
}
