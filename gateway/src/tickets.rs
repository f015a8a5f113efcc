//! Tickets: given to a node for a blob that was decided about, and renewed for a transfer that goes on.
//!
//! A renewal asks nobody: it goes back to the proof that the first ticket was given for, and only so far. So
//! a transfer outlives the caller's short token, and a right that was withdrawn ends with [`RENEWABLE`].
//! Nobody reads a blob through a renewal: each reader is decided about for itself.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use shoal_identity::{Caller, Impostor};
use shoal_model::{BlobKey, NodeId};
use shoal_peer::ticket::{TicketClaims, TicketError, Verifier};
use shoal_proto::{Source, Ticket};
use shoal_swarm::Geometry;

use crate::signing::Keyring;

/// How long after the proof a ticket may be renewed.
const RENEWABLE: Duration = Duration::from_secs(60 * 60);

/// Gives tickets and renews them.
pub(crate) struct Tickets {
    keyring: Arc<Keyring>,
    verifier: Arc<Verifier>,
    lives: Duration,
}

/// Why a ticket is not renewed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RenewError {
    #[error(transparent)]
    Ticket(#[from] TicketError),
    #[error("ticket: {0}")]
    Caller(#[from] Impostor),
}

/// A ticket and for how long it is good.
pub(crate) struct Fresh {
    pub(crate) ticket: Ticket,
    pub(crate) lives: Duration,
}

impl Tickets {
    pub(crate) const fn new(keyring: Arc<Keyring>, verifier: Arc<Verifier>, lives: Duration) -> Self {
        Self { keyring, verifier, lives }
    }

    /// How long a ticket is good.
    pub(crate) const fn lives(&self) -> Duration {
        self.lives
    }

    /// A ticket for a right that has just been proven.
    pub(crate) fn give(
        &self,
        now: SystemTime,
        source: Source,
        (key, cut): (BlobKey, Geometry),
        node: NodeId,
    ) -> Fresh {
        let (geometry, expires) = (Some(cut), now + self.lives);
        let claims = TicketClaims { source, key, geometry, node, granted: now, expires };
        Fresh { ticket: self.keyring.issue(&claims), lives: self.lives }
    }

    /// A ticket in place of one that is still good, and that was given to the caller.
    pub(crate) fn renew(
        &self,
        now: SystemTime,
        key: &BlobKey,
        ticket: &Ticket,
        caller: &Caller,
    ) -> Result<Fresh, RenewError> {
        let old = self.verifier.check(now, ticket, key)?;
        caller.must_be_holder(&old.node)?;
        let age = now.duration_since(old.granted).unwrap_or_default();
        // No ticket outlives that, so one that is still good has some of it left.
        let lives = self.lives.min(RENEWABLE.saturating_sub(age));
        let claims = TicketClaims { expires: now + lives, ..(*old).clone() };
        Ok(Fresh { ticket: self.keyring.issue(&claims), lives })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shoal_identity::{Identity, Role};
    use shoal_model::{Digest, TrustGroup};
    use shoal_peer::RegionKeys;

    const MINUTE: Duration = Duration::from_secs(60);

    fn key(byte: u8) -> BlobKey {
        BlobKey { group: TrustGroup::new("g"), digest: Digest::from_sha256([byte; 32]) }
    }

    fn tickets() -> Tickets {
        let dir = tempfile::tempdir().unwrap();
        let keyring = Keyring::open(&dir.path().join("signing.key")).unwrap();
        let keys = RegionKeys::parse(&keyring.public()).unwrap();
        Tickets::new(Arc::new(keyring), Arc::new(Verifier::new(keys)), 5 * MINUTE)
    }

    fn begin() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000)
    }

    fn caller(node: &str) -> Caller {
        let identity = Identity {
            role: Role::Sidecar,
            node: NodeId::new(node),
            addresses: Vec::new(),
            until: begin() + 600 * MINUTE,
        };
        Caller { address: [127, 0, 0, 1].into(), identity: Some(identity), is_secured: true }
    }

    fn first(it: &Tickets) -> Ticket {
        let source = Source { registry: "r".into(), repository: "a".into() };
        it.give(begin(), source, (key(1), Geometry::by_rule(1)), NodeId::new("n")).ticket
    }

    #[test]
    fn a_transfer_is_renewed_for_an_hour_and_no_longer() {
        let it = tickets();
        let (mut ticket, mut at) = (first(&it), begin());
        let mut lives = Vec::new();
        loop {
            at += 4 * MINUTE;
            match it.renew(at, &key(1), &ticket, &caller("n")) {
                Ok(fresh) => {
                    lives.push(fresh.lives.as_secs() / 60);
                    ticket = fresh.ticket;
                }
                Err(error) => break assert!(matches!(error, RenewError::Ticket(_)), "{error}"),
            }
        }
        assert_eq!(lives, [vec![5; 13], vec![4]].concat());
    }

    #[test]
    fn a_clock_that_is_set_makes_no_renewal_longer() {
        let it = tickets();
        let ticket = first(&it);
        let lives = |at| it.renew(at, &key(1), &ticket, &caller("n")).map(|it| it.lives).ok();
        assert_eq!(lives(begin() - 60 * MINUTE), Some(5 * MINUTE));
        assert_eq!(lives(begin() + 60 * MINUTE), None, "its caller is decided about anew");
    }

    #[test]
    fn only_a_good_ticket_of_the_same_blob_is_renewed() {
        let it = tickets();
        let ticket = first(&it);
        let renew = |at, key, ticket: &Ticket, node| it.renew(at, &key, ticket, &caller(node)).is_ok();
        assert!(renew(begin(), key(1), &ticket, "n"));
        assert!(!renew(begin() + 5 * MINUTE, key(1), &ticket, "n"));
        assert!(!renew(begin(), key(2), &ticket, "n"));
        assert!(!renew(begin(), key(1), &ticket, "another"));
        assert!(!renew(begin(), key(1), &Ticket("x".into()), "n"));
    }
}
