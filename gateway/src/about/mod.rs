//! What this gateway itself goes by: the settings that count, and its certificates.

pub(crate) mod api;

use std::path::PathBuf;

use shoal_identity::{Keychain, ShownCertificate};
use shoal_ops::settings::InForce;
use tokio::task::spawn_blocking;

/// Where both are known.
pub(crate) struct About {
    /// The settings, as the process read them at its start.
    pub(crate) settings: Vec<InForce>,
    /// The certificate that nodes see; none where nothing is secured.
    pub(crate) keychain: Option<Keychain>,
    /// The file of the one that callers of the management API see, if there is one.
    pub(crate) management: Option<PathBuf>,
}

/// What a certificate is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    /// Who this gateway is to nodes and other gateways.
    Own,
    /// Who the region's certificates are from.
    Authority,
    /// Who it is to callers of the management API.
    Management,
}

impl Purpose {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Own => "own",
            Self::Authority => "authority",
            Self::Management => "management",
        }
    }
}

impl About {
    /// All certificates as they are now.
    async fn certificates(&self) -> Vec<(Purpose, ShownCertificate)> {
        let current = self.keychain.as_ref().and_then(Keychain::current);
        let region = current.map(|it| it.shown()).unwrap_or_default().into_iter().map(|it| {
            let purpose = if it.is_root { Purpose::Authority } else { Purpose::Own };
            (purpose, it)
        });
        let files = self.management.clone();
        // What cannot be read is told of where it is used.
        let read = move || files.and_then(|it| ShownCertificate::in_file(&it).ok()).unwrap_or_default();
        let management = spawn_blocking(read).await.unwrap_or_default();
        region.chain(management.into_iter().map(|it| (Purpose::Management, it))).collect()
    }
}
