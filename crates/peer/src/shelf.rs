//! From a ticket to a blob: the one door through which other nodes get at content.
//!
//! Pieces and watches both come through here, so that neither can be had without a ticket that this region
//! signed for that very blob. What lies behind the door is the service's own: a sidecar looks into its
//! store, a gateway may begin to seed.

use std::sync::Arc;
use std::time::SystemTime;

use http::Extensions;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use shoal_blobstore::{Blob, Store};
use shoal_identity::{Caller, Impostor};
use shoal_model::BlobKey;
use shoal_proto::{SeedProgress, Ticket};
use tokio::sync::watch;

use crate::ticket::{TicketClaims, TicketError, Verifier};

/// Where a service keeps the blobs that it shares.
pub trait Shelf: Send + Sync + 'static {
    /// The blob that a node may have by what its ticket says; `None` where there is none. Returns at once:
    /// a blob that has yet to be fetched is handed out empty and fills up.
    fn open(&self, key: &BlobKey, claims: &TicketClaims) -> Option<ShelfBlob>;

    /// So many bytes of a blob's pieces go out.
    fn sends(&self, _key: &BlobKey, _n_bytes: u64) {}
}

/// A blob to be shared.
pub struct ShelfBlob {
    /// The content.
    pub blob: Blob,
    /// How far its seed is, while one is at work here.
    pub seed: Option<watch::Receiver<SeedProgress>>,
}

/// Shares what is there and nothing else, as a sidecar does.
impl Shelf for Store {
    fn open(&self, key: &BlobKey, _: &TicketClaims) -> Option<ShelfBlob> {
        self.get(key).map(|blob| ShelfBlob { blob, seed: None })
    }
}

/// Why a node gets nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refused {
    #[error(transparent)]
    Ticket(#[from] TicketError),
    #[error("ticket: {0}")]
    Caller(#[from] Impostor),
    #[error("blob {0}: not here")]
    NotHere(BlobKey),
}

/// Counts of refused nodes, by what was wrong with their tickets.
pub(crate) type Refusals = Family<[(&'static str, &'static str); 1], Counter>;

/// The shelf, behind the check of tickets.
#[derive(Clone)]
pub(crate) struct Door {
    shelf: Arc<dyn Shelf>,
    verifier: Arc<Verifier>,
    refused: Refusals,
}

impl Door {
    pub(crate) fn new(shelf: Arc<dyn Shelf>, verifier: Arc<Verifier>) -> Self {
        let refused = Refusals::default();
        // A counter that is not there yet would hide its first step from `rate`.
        for reason in REASONS {
            drop(refused.get_or_create(&[("reason", reason)]));
        }
        Self { shelf, verifier, refused }
    }

    /// Counts those that were not let in.
    pub(crate) const fn refused(&self) -> &Refusals {
        &self.refused
    }

    /// Lets the node that `ticket` was given to at the blob `key`, and returns what the ticket says. `from` are the
    /// extensions of its request.
    pub(crate) fn open(
        &self,
        now: SystemTime,
        key: &BlobKey,
        ticket: &Ticket,
        from: &Extensions,
    ) -> Result<(ShelfBlob, Arc<TicketClaims>), Refused> {
        let claims = self.check(now, key, ticket, from).inspect_err(|it| {
            self.refused.get_or_create(&[("reason", reason(it))]).inc();
        })?;
        let blob = self.open_again(&claims).ok_or_else(|| Refused::NotHere(key.clone()))?;
        Ok((blob, claims))
    }

    /// So many bytes of a blob's pieces go out.
    pub(crate) fn sends(&self, key: &BlobKey, n_bytes: u64) {
        self.shelf.sends(key, n_bytes);
    }

    /// The blob as it is by now, for a node that has been let in.
    pub(crate) fn open_again(&self, claims: &TicketClaims) -> Option<ShelfBlob> {
        self.shelf.open(&claims.key, claims)
    }

    fn check(
        &self,
        now: SystemTime,
        key: &BlobKey,
        ticket: &Ticket,
        from: &Extensions,
    ) -> Result<Arc<TicketClaims>, Refused> {
        let claims = self.verifier.check(now, ticket, key)?;
        Caller::of(from)?.must_be_holder(&claims.node)?;
        Ok(claims)
    }
}

/// What [`reason`] gives for whoever is not let in.
const REASONS: [&str; 5] = ["expired", "other_blob", "unsigned", "malformed", "other_node"];

fn reason(refused: &Refused) -> &'static str {
    match refused {
        Refused::Ticket(TicketError::Expired { .. }) => "expired",
        Refused::Ticket(TicketError::OtherBlob { .. }) => "other_blob",
        Refused::Ticket(TicketError::Unsigned) => "unsigned",
        Refused::Ticket(TicketError::Malformed(_)) => "malformed",
        Refused::Caller(_) => "other_node",
        Refused::NotHere(_) => "not_here",
    }
}
