//! How a process comes by its certificate and keeps it fresh.
//!
//! A certificate of one's own ([`files`]) is read again when its files change; whoever keeps them does the rest.
//! One from the gateway ([`gateway`]) is asked for at the first start, kept with its key, and renewed at two
//! thirds of its life.

mod files;
mod gateway;

use std::net::IpAddr;

use shoal_model::NodeId;
use shoal_ops::Context;
use tokio::sync::watch;

use crate::expiry::show_expiry;
use crate::keychain::Keychain;
use crate::settings::Source;
use crate::spiffe::Role;
pub use files::follow;

/// Who wants a certificate.
#[derive(Clone, Debug)]
pub struct Applicant {
    /// What it is for.
    pub role: Role,
    /// What it is called where nothing is secured.
    pub unproven: NodeId,
    /// The address that it tells others; none for one that nobody dials back.
    pub address: Option<IpAddr>,
    /// Where certificates are issued, `https://host:port` each.
    pub gateways: Vec<String>,
}

/// Who this process is.
pub struct Enrolment {
    /// What it is called.
    pub node: NodeId,
    /// Its certificate, as it comes and is replaced; none where nothing is secured.
    pub keychain: Option<Keychain>,
    enrolled: watch::Receiver<bool>,
}

impl Enrolment {
    /// Waits until there is a certificate, if there is to be one.
    pub async fn complete(&self) {
        // The sender lives as long as the task that would make it true.
        let _ = self.enrolled.clone().wait_for(|it| *it).await;
    }
}

/// Begins to get and keep a certificate.
///
/// # Errors
/// Where files that are there already cannot be used.
pub fn enrol(ctx: &Context, source: Source, applicant: Applicant) -> anyhow::Result<Enrolment> {
    let enrolled = watch::channel(true).1;
    let enrolment = match source {
        Source::Off => Enrolment { node: applicant.unproven, keychain: None, enrolled },
        Source::Files(files) => {
            let keychain = follow(ctx, files, applicant.role)?;
            let node = keychain.current().map_or(applicant.unproven, |it| it.id.node.clone());
            Enrolment { node, keychain: Some(keychain), enrolled }
        }
        Source::Gateway(joining) => gateway::join(ctx, joining, applicant)?,
    };
    enrolment.keychain.iter().for_each(|it| show_expiry(ctx, it));
    Ok(enrolment)
}
