//! The region's certificates: the gateway's own, and those that it issues to schedulers and sidecars.
//!
//! Who joins has no certificate yet, so this one service is open to everybody who reaches the port. It signs
//! for what a credential proves ([`proven`]) and for nothing that a request says: not the names in it, not
//! the host that it claims. A credential is a join token ([`tokens`]) or a Kubernetes service account's token
//! ([`token_review`]); renewing takes one as well, so that whoever stole a certificate cannot keep it alive.
//! How often anybody may fail, and anybody may succeed, is bounded ([`budget`]).
//!
//! Knows nothing of: blobs, registries, tickets, TLS on the port.

mod budget;
mod own;
mod proven;
mod service;
mod token_review;
mod tokens;

use std::sync::Arc;
use std::time::SystemTime;

use anyhow::Context as _;
use shoal_identity::enrol::follow;
use shoal_identity::settings::Files;
use shoal_identity::{Ca, Keychain, Role};
use shoal_ops::Context;

pub use own::Gateway;
pub use proven::Newcomer;
pub use service::Issuing;
pub(crate) use tokens::tokens_in;

use crate::audit::Audit;
use crate::settings::{AuthoritySettings, CaFiles, SecuritySettings};
use service::{Joins, Outcomes};
use token_review::TokenReviews;
use tokens::JoinTokens;

/// What secures the gateway's node side.
pub struct Secured {
    /// The gateway's certificate, as it is replaced; none where nothing is secured.
    pub keychain: Option<Keychain>,
    /// Issues certificates; none where somebody else does.
    pub issuing: Option<Issuing>,
}

/// Gets the gateway its certificate, keeps it fresh as a task of the process, and prepares to issue others.
///
/// # Errors
/// Where the files of the authority, of a certificate or of a token cannot be used.
pub fn start(
    settings: SecuritySettings,
    gateway: Gateway,
    audit: Audit,
    ctx: &Context,
) -> anyhow::Result<Secured> {
    match settings {
        SecuritySettings::Off => Ok(Secured { keychain: None, issuing: None }),
        SecuritySettings::Files(files) => {
            Ok(Secured { keychain: Some(follow(ctx, files, Role::Gateway)?), issuing: None })
        }
        SecuritySettings::Authority(settings) => authority(*settings, gateway, audit, ctx),
    }
}

fn authority(
    settings: AuthoritySettings,
    gateway: Gateway,
    audit: Audit,
    ctx: &Context,
) -> anyhow::Result<Secured> {
    let ca = Arc::new(match &settings.ca {
        CaFiles::Given { certificate, key } => Ca::read(settings.domain, certificate, key)?,
        CaFiles::Kept(dir) => Ca::read_or_create(settings.domain, dir)?,
    });
    let keychain = match settings.own {
        Some(files) => from_files(files, &settings.ca, &ca, ctx)?,
        None => own::keep(ca.clone(), gateway.grant(&ca, settings.lives)?, ctx)?,
    };
    let joins = Joins {
        tokens: JoinTokens::open(settings.join_tokens, &settings.join_dir, &ca)?,
        reviews: settings.kubernetes.map(TokenReviews::new).transpose()?,
    };
    let outcomes = Outcomes::register(&ctx.metrics);
    let issuing = Issuing::new(ca, settings.lives, joins, outcomes, audit);
    Ok(Secured { keychain: Some(keychain), issuing: Some(issuing) })
}

/// The gateway's own certificate, where others are issued next to it: whoever knows the region by the root of
/// the one has to believe the other.
fn from_files(files: Files, issuing: &CaFiles, ca: &Ca, ctx: &Context) -> anyhow::Result<Keychain> {
    let (own, issuing) = (files.chain.display().to_string(), issuing.certificate());
    let keychain = follow(ctx, files, Role::Gateway)?;
    let current = keychain.current();
    current.map_or(Ok(()), |it| ca.check_own(SystemTime::now(), &it)).with_context(|| {
        format!("security.certFile {own}: does not go with security.ca.certFile {}", issuing.display())
    })?;
    Ok(keychain)
}
