//! The second process: it serves one blob, and says how much CPU time it has used whenever it is asked.
//!
//! It prints its addresses as one line of JSON, then answers each line of its input with its CPU time in
//! microseconds. It ends with its input, hence with the process that started it.

use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use serde::{Deserialize, Serialize};
use shoal_identity::{Clients, Keychain, Reception};
use shoal_ops::serve::{Limits, Listener, ServeMetrics, serve};
use shoal_peer::service::{PeerLimits, PeerService, STALL};
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

use crate::setup;
use crate::work::{Extent, Security};
use crate::{cpu, reference};

/// More than the bench ever asks for at once: what is measured is bytes, not refusals.
const LIMITS: PeerLimits = PeerLimits { upload_slots: 64, watches: 1 };

/// Where the bench's servers listen.
#[derive(Serialize, Deserialize)]
pub(crate) struct Addresses {
    plain: Ports,
    tls: Ports,
}

/// The two servers of either security.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Ports {
    /// Serves pieces.
    pub(crate) pieces: SocketAddr,
    /// Serves the reference.
    pub(crate) stream: SocketAddr,
}

impl Addresses {
    /// Those of one security.
    pub(crate) const fn of(&self, security: Security) -> Ports {
        match security {
            Security::Plain => self.plain,
            Security::Tls => self.tls,
        }
    }
}

/// Serves from a store that it makes in `dir`, until its input ends.
pub(crate) fn run(dir: &Path, extent: &Extent) -> Result<()> {
    let runtime = Runtime::new()?;
    let keychain = setup::keychain(dir, setup::SERVER)?;
    let addresses = runtime.block_on(async {
        let service = service(dir, extent).await?;
        anyhow::Ok(Addresses {
            plain: open(dir, &service, None).await?,
            tls: open(dir, &service, Some(&keychain)).await?,
        })
    })?;
    println!("{}", serde_json::to_string(&addresses)?);
    for line in io::stdin().lines() {
        line?;
        println!("{}", cpu::used()?.as_micros());
    }
    Ok(())
}

async fn open(dir: &Path, service: &PeerService, keychain: Option<&Keychain>) -> Result<Ports> {
    let listener = Listener::bind("peer", (Ipv4Addr::LOCALHOST, 0).into()).await?;
    let pieces = listener.addr();
    let listener = listener.with(Reception::new(keychain, Clients::WithCertificate));
    let (service, limits) = (service.clone(), Limits { stall: STALL, ..Limits::new(64) });
    tokio::spawn(async move {
        serve(listener, service, limits, &ServeMetrics::default(), CancellationToken::new()).await;
    });
    let tls = keychain.map(|it| it.server(Clients::WithCertificate));
    let stream = reference::serve(File::open(content_path(dir))?, tls)?;
    Ok(Ports { pieces, stream })
}

/// A service that shares the blob, which is also written to a file of its own for the reference.
async fn service(dir: &Path, extent: &Extent) -> Result<PeerService> {
    let (store, blob) = setup::blob(&dir.join("store"), extent.blob_pieces)?;
    let mut content = Vec::new();
    for index in 0..extent.blob_pieces {
        let piece = setup::piece(index);
        piece.iter().for_each(|it| content.extend_from_slice(it));
        blob.write(index, piece).await?;
    }
    std::fs::write(content_path(dir), content)?;
    let verifier = Arc::new(setup::verifier()?);
    Ok(PeerService::new(Arc::new(store), verifier, LIMITS, CancellationToken::new()))
}

fn content_path(dir: &Path) -> std::path::PathBuf {
    dir.join("content")
}
