//! Pushing an image with plain HTTP requests, byte for byte as it was built.
//!
//! Tools for pushing repack layers on the way, which changes their digests; this client does not.

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, LOCATION};
use http::request::Builder;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::Full;

use crate::host::Host;
use crate::image::{Blob, Image, Index};

/// A user of a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// User name.
    pub user: String,
    /// Password.
    pub password: String,
}

impl Credentials {
    /// The value of a Basic `Authorization` header.
    pub fn basic(&self) -> String {
        use base64::Engine as _;
        let pair = format!("{}:{}", self.user, self.password);
        format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair))
    }

    /// What a Basic `Authorization` header says.
    fn of_basic(header: &str) -> Option<Self> {
        use base64::Engine as _;
        let pair = base64::engine::general_purpose::STANDARD.decode(header.strip_prefix("Basic ")?).ok()?;
        let (user, password) = std::str::from_utf8(&pair).ok()?.split_once(':')?;
        Some(Self { user: user.into(), password: password.into() })
    }

    /// `user:password`, as command lines take it.
    pub fn pair(&self) -> String {
        format!("{}:{}", self.user, self.password)
    }
}

/// The user whose name and password a request carries.
pub(crate) fn user_of(headers: &HeaderMap) -> Option<Credentials> {
    Credentials::of_basic(headers.get(AUTHORIZATION)?.to_str().ok()?)
}

/// Pushes from a host to the registry at `base`, a URL without a path.
pub(crate) struct Pusher<'a> {
    pub(crate) host: &'a Host,
    pub(crate) base: String,
    pub(crate) authorization: Option<String>,
}

impl Pusher<'_> {
    /// Pushes blobs and manifest. Fails unless the registry takes all of it.
    pub(crate) async fn push(&self, image: &Image) -> Result<()> {
        for blob in image.blobs() {
            self.push_blob(&image.repository, blob)
                .await
                .with_context(|| format!("{}: blob {} not pushed", image.repository, blob.digest))?;
        }
        let url = format!("{}/v2/{}/manifests/{}", self.base, image.repository, image.tag);
        let put = Request::put(url).header(CONTENT_TYPE, image.media_type());
        self.send(put, image.manifest.bytes.clone(), StatusCode::CREATED).await?;
        Ok(())
    }

    /// Pushes an index, whose images are there.
    pub(crate) async fn push_index(&self, index: &Index) -> Result<()> {
        let url = format!("{}/v2/{}/manifests/{}", self.base, index.repository, index.tag);
        let put = Request::put(url).header(CONTENT_TYPE, Index::MEDIA_TYPE);
        self.send(put, index.bytes.clone(), StatusCode::CREATED).await.map(drop)
    }

    async fn push_blob(&self, repository: &str, blob: &Blob) -> Result<()> {
        let post = Request::post(format!("{}/v2/{repository}/blobs/uploads/", self.base));
        let begun = self.send(post, Bytes::new(), StatusCode::ACCEPTED).await?;
        let upload = begun.headers().get(LOCATION).context("upload without a Location")?.to_str()?;
        let put = Request::put(format!("{}{upload}&digest={}", self.base, blob.digest))
            .header(CONTENT_TYPE, "application/octet-stream");
        self.send(put, blob.bytes.clone(), StatusCode::CREATED).await?;
        Ok(())
    }

    async fn send(&self, mut request: Builder, body: Bytes, expected: StatusCode) -> Result<Response<Bytes>> {
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        let response = self.host.send(request.body(Full::new(body))?).await?;
        ensure!(
            response.status() == expected,
            "registry answered {} instead of {expected}: {}",
            response.status(),
            String::from_utf8_lossy(response.body())
        );
        Ok(response)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_basic_header_is_read_as_it_is_written() {
        let robot = Credentials { user: "robot$app".into(), password: "a:b".into() };
        assert_eq!(Credentials::of_basic(&robot.basic()), Some(robot));
        for other in ["Bearer x", "Basic", "Basic %", "Basic YWJj"] {
            assert_eq!(Credentials::of_basic(other), None, "{other}");
        }
    }
}
