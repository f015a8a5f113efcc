//! The kubelet's way to a runtime: CRI over the runtime's unix socket, as far as pulling goes.

use std::path::Path;

use anyhow::{Context, Result};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio::time::timeout;
use tonic::transport::Endpoint;
use tower::service_fn;

use crate::registry::Credentials;
use crate::runtime::PULL_DEADLINE;

#[allow(missing_docs, unreachable_pub, reason = "generated")]
mod v1 {
    tonic::include_proto!("runtime.v1");
}

/// Pulls an image with `PullImage`.
pub(crate) async fn pull(socket: &Path, reference: &str, credentials: Option<&Credentials>) -> Result<()> {
    let request = v1::PullImageRequest {
        image: Some(v1::ImageSpec { image: reference.into() }),
        auth: credentials.cloned().map(|it| v1::AuthConfig { username: it.user, password: it.password }),
    };
    let pulling = async {
        let socket = socket.to_owned();
        let dial = service_fn(move |_| {
            let socket = socket.clone();
            async { UnixStream::connect(socket).await.map(TokioIo::new) }
        });
        // The URI only fills the authority header; the connector decides where it goes.
        let channel = Endpoint::from_static("http://cri").connect_with_connector(dial).await?;
        v1::image_service_client::ImageServiceClient::new(channel).pull_image(request).await?;
        anyhow::Ok(())
    };
    timeout(PULL_DEADLINE, pulling)
        .await
        .with_context(|| format!("{reference}: not pulled within {PULL_DEADLINE:?}"))?
        .with_context(|| format!("{reference}: not pulled"))
}
