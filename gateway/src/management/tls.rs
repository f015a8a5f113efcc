//! The management listener's own certificate, which may be replaced while the gateway runs.
//!
//! Its clients are people and Harbor, not nodes, so it has nothing to do with the region's identities. The
//! files are looked at now and then, and compared by content: whoever replaces them may do it by renaming,
//! by writing over them or by moving a link. What does not work is told once, and the old goes on.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use shoal_ops::Context;
use shoal_ops::serve::{Handshake, Introduction};
use tokio::time::{MissedTickBehavior, interval};
use zeroize::Zeroizing;

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(10);

/// The PEM files of a certificate and its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate, followed by what lies between it and a root.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// Files that make no certificate.
#[derive(Debug, thiserror::Error)]
#[error("management certificate {}, key {}: {fault}", files.certificate.display(), files.key.display())]
pub(super) struct TlsError {
    files: TlsFiles,
    fault: String,
}

/// The content of the files.
#[derive(PartialEq, Eq)]
struct Pem {
    certificate: Vec<u8>,
    key: Zeroizing<Vec<u8>>,
}

/// Every handshake takes the certificate that is there.
struct Current(ArcSwap<ServerConfig>);

impl Handshake for Current {
    fn tls(&self) -> Option<Arc<ServerConfig>> {
        Some(self.0.load_full())
    }

    fn introduce(&self, _: SocketAddr, _: Option<&CertificateDer<'_>>) -> Introduction {
        Introduction::default()
    }
}

/// Reads the files now, and again whenever they change, as a task of the process.
pub(super) fn follow(files: TlsFiles, ctx: &Context) -> Result<Arc<dyn Handshake>, TlsError> {
    let (follower, current) = Follower::new(files)?;
    let stopping = ctx.tasks.stopping();
    ctx.tasks.spawn("management-certificate", async move {
        stopping.run_until_cancelled(look_again(follower)).await.unwrap_or(Ok(()))
    });
    Ok(current)
}

async fn look_again(mut follower: Follower) -> Result<(), tokio::task::JoinError> {
    let mut ticks = interval(LOOK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        follower = tokio::task::spawn_blocking(move || follower.look()).await?;
    }
}

struct Follower {
    files: TlsFiles,
    current: Arc<Current>,
    /// What was read last, whether it works or not.
    seen: Result<Pem, String>,
}

impl Follower {
    fn new(files: TlsFiles) -> Result<(Self, Arc<Current>), TlsError> {
        let read = || {
            let pem = files.read().map_err(|it| it.to_string())?;
            Ok((pem.config()?, pem))
        };
        let (config, pem) = read().map_err(|fault| TlsError { files: files.clone(), fault })?;
        let current = Arc::new(Current(ArcSwap::new(config)));
        Ok((Self { files, current: current.clone(), seen: Ok(pem) }, current))
    }

    /// Takes the files' content if it is new and works.
    fn look(mut self) -> Self {
        let seen = self.files.read().map_err(|it| it.to_string());
        if seen == self.seen {
            return self;
        }
        match seen.as_ref().map_err(Clone::clone).and_then(Pem::config) {
            Ok(config) => {
                self.current.0.store(config);
                tracing::info!(path = %self.files.certificate.display(), "management certificate replaced");
            }
            Err(fault) => {
                let error = TlsError { files: self.files.clone(), fault };
                tracing::warn!(%error, "the management certificate stays as it was");
            }
        }
        self.seen = seen;
        self
    }
}

impl TlsFiles {
    fn read(&self) -> io::Result<Pem> {
        Ok(Pem {
            certificate: std::fs::read(&self.certificate)?,
            key: Zeroizing::new(std::fs::read(&self.key)?),
        })
    }
}

impl Pem {
    #[expect(clippy::expect_used, reason = "input cannot reach it")]
    fn config(&self) -> Result<Arc<ServerConfig>, String> {
        let chain = CertificateDer::pem_slice_iter(&self.certificate);
        let chain = chain.collect::<Result<Vec<_>, _>>().map_err(|it| it.to_string())?;
        // What the reader says of a file that is no PEM repeats its lines.
        let key = PrivateKeyDer::from_pem_slice(&self.key).map_err(|_| "holds no private key in PEM")?;
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("ring supports the default protocol versions")
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .map_err(|it| it.to_string())?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(files: &TlsFiles, host: &str) {
        let made = rcgen::generate_simple_self_signed([host.to_owned()]).unwrap();
        std::fs::write(&files.certificate, made.cert.pem()).unwrap();
        std::fs::write(&files.key, made.signing_key.serialize_pem()).unwrap();
    }

    fn files(dir: &tempfile::TempDir) -> TlsFiles {
        TlsFiles { certificate: dir.path().join("tls.crt"), key: dir.path().join("tls.key") }
    }

    #[test]
    fn a_new_certificate_is_taken_and_a_broken_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let files = files(&dir);
        write(&files, "one.example");
        let (follower, current) = Follower::new(files.clone()).unwrap();
        let first = current.tls().unwrap();
        let follower = follower.look();
        assert!(Arc::ptr_eq(&first, &current.tls().unwrap()));
        std::fs::write(&files.key, "half a k").unwrap();
        let follower = follower.look();
        std::fs::remove_file(&files.certificate).unwrap();
        let follower = follower.look();
        assert!(Arc::ptr_eq(&first, &current.tls().unwrap()));
        write(&files, "two.example");
        follower.look();
        assert!(!Arc::ptr_eq(&first, &current.tls().unwrap()));
    }

    #[test]
    fn what_cannot_work_is_told_at_the_start_without_the_key() {
        let dir = tempfile::tempdir().unwrap();
        let files = files(&dir);
        let told = || Follower::new(files.clone()).err().unwrap().to_string();
        assert!(told().contains("tls.key: No such file"));
        write(&files, "one.example");
        std::fs::write(&files.key, "hunter2").unwrap();
        assert!(told().contains("tls.crt") && !told().contains("hunter2"));
    }
}
