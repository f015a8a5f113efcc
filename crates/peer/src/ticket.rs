//! Tickets: a gateway's signed, short-lived word that one node may obtain one blob.
//!
//! A ticket is a JWT (EdDSA). Its type is stated in the header, so that no other token of the same key
//! passes for a ticket; `kid` says which key made it, so that a check costs one signature however many
//! keys the region has. A node shows the same ticket with every piece that it asks for, hence checked
//! tickets are remembered: only their expiry and blob are looked at again.
//!
//! The claims name the node that the ticket was issued to. They are handed back to the caller, which
//! compares the name with the identity that the connection proved, where connections prove one.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ed25519_dalek::SigningKey;
use ed25519_dalek::pkcs8::EncodePrivateKey as _;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use lru::LruCache;
use serde::{Deserialize, Serialize};
use shoal_model::{BlobKey, Digest, NodeId, TrustGroup};
use shoal_proto::{Source, Ticket};
use shoal_swarm::Geometry;

use crate::RegionKeys;
use crate::keys::key_id;

/// The longest that a ticket may be good after it was issued. Who still needs one when most of its time is
/// over asks for a fresh one.
pub const MAX_LIVES: Duration = Duration::from_secs(5 * 60);
/// The longest ticket that is looked at, in bytes of its text form.
pub const MAX_TICKET: usize = 4096;
/// How many checked tickets are remembered; with the longest tickets about 16 MiB, usually 3.
const REMEMBERED: NonZeroUsize = NonZeroUsize::new(4096).expect("not zero");
/// Says in the header what kind of token this is (RFC 8725, section 3.11).
const TYPE: &str = "shoal-ticket+jwt";

/// What a ticket says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TicketClaims {
    /// The registry and repository through which the right was proven.
    pub source: Source,
    /// The blob that may be obtained.
    pub key: BlobKey,
    /// How it is cut, for a gateway that has not opened it itself; a ticket from before this was told says nothing.
    pub geometry: Option<Geometry>,
    /// The node that may obtain it.
    pub node: NodeId,
    /// When the right was proven that the ticket and those before it go back to, in whole seconds.
    pub granted: SystemTime,
    /// From when on the ticket is void, in whole seconds.
    pub expires: SystemTime,
}

/// Why a ticket opens nothing. The caller is at fault, or its clock.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TicketError {
    /// It was good once; a fresh one has to be asked of the gateway.
    #[error("ticket: expired {} s ago", late.as_secs())]
    Expired {
        /// How long ago.
        late: Duration,
    },
    /// It opens something else.
    #[error("ticket: is for {stated}, not for {asked}")]
    OtherBlob {
        /// What the ticket opens.
        stated: BlobKey,
        /// What was asked with it.
        asked: BlobKey,
    },
    /// None of the region's keys made the signature.
    #[error("ticket: not signed by a gateway of this region")]
    Unsigned,
    /// Not a ticket.
    #[error("ticket: malformed: {0}")]
    Malformed(String),
}

/// The claims as the token carries them, in JWT's own terms where it has them.
#[derive(Serialize, Deserialize)]
struct Body {
    sub: String,
    iat: u64,
    exp: u64,
    registry: String,
    repository: String,
    group: String,
    sha256: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cut: Option<Cut>,
}

/// The size and the piece length, in bytes.
#[derive(Serialize, Deserialize)]
struct Cut(u64, u64);

/// Issues tickets, for a gateway.
pub struct Issuer {
    key: EncodingKey,
    header: Header,
}

impl Issuer {
    /// Takes the 32 secret bytes of an Ed25519 key.
    #[expect(clippy::expect_used, reason = "input cannot reach it")]
    pub fn new(seed: &[u8; 32]) -> Self {
        let key = SigningKey::from_bytes(seed);
        let mut header = Header::new(Algorithm::EdDSA);
        header.typ = Some(TYPE.to_owned());
        header.kid = Some(key_id(&key.verifying_key().to_bytes()));
        let der = key.to_pkcs8_der().expect("any 32 bytes are an Ed25519 secret");
        Self { key: EncodingKey::from_ed_der(der.as_bytes()), header }
    }

    /// Signs the claims.
    #[expect(clippy::expect_used, reason = "input cannot reach it")]
    pub fn issue(&self, claims: &TicketClaims) -> Ticket {
        let seconds = |it: SystemTime| it.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let body = Body {
            sub: claims.node.as_str().to_owned(),
            iat: seconds(claims.granted),
            exp: seconds(claims.expires),
            registry: claims.source.registry.clone(),
            repository: claims.source.repository.clone(),
            group: claims.key.group.as_str().to_owned(),
            sha256: claims.key.digest.hex(),
            cut: claims.geometry.map(|it| Cut(it.size(), it.piece_length())),
        };
        let text = jsonwebtoken::encode(&self.header, &body, &self.key)
            .expect("text and numbers become JSON, and the key was made from a valid secret");
        Ticket(text)
    }
}

/// Checks tickets, for every node that serves pieces and for schedulers.
pub struct Verifier {
    // Never held while a signature is checked.
    state: Mutex<State>,
}

struct State {
    keys: Arc<RegionKeys>,
    checked: LruCache<String, Arc<TicketClaims>>,
}

impl Verifier {
    /// Believes these keys, until [`Verifier::trust`] replaces them.
    pub fn new(keys: RegionKeys) -> Self {
        let state = State { keys: Arc::new(keys), checked: LruCache::new(REMEMBERED) };
        Self { state: Mutex::new(state) }
    }

    /// Believes these keys and no others from now on; what older ones signed is checked again.
    pub fn trust(&self, keys: RegionKeys) {
        let mut state = self.state();
        state.keys = Arc::new(keys);
        state.checked.clear();
    }

    /// What `ticket` says, where it opens `key` at the time `now`.
    pub fn check(
        &self,
        now: SystemTime,
        ticket: &Ticket,
        key: &BlobKey,
    ) -> Result<Arc<TicketClaims>, TicketError> {
        let claims = self.signed_claims(ticket)?;
        if let Ok(late) = now.duration_since(claims.expires) {
            return Err(TicketError::Expired { late });
        }
        if claims.key != *key {
            return Err(TicketError::OtherBlob { stated: claims.key.clone(), asked: key.clone() });
        }
        Ok(claims)
    }

    fn signed_claims(&self, ticket: &Ticket) -> Result<Arc<TicketClaims>, TicketError> {
        let keys = {
            let mut state = self.state();
            if let Some(claims) = state.checked.get(&ticket.0) {
                return Ok(claims.clone());
            }
            state.keys.clone()
        };
        let claims = Arc::new(decode(&ticket.0, &keys)?);
        let mut state = self.state();
        // A key that was withdrawn while its signature was checked must not be remembered as good.
        if Arc::ptr_eq(&keys, &state.keys) {
            state.checked.put(ticket.0.clone(), claims.clone());
        }
        Ok(claims)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn decode(text: &str, keys: &RegionKeys) -> Result<TicketClaims, TicketError> {
    let malformed = |it: &dyn std::fmt::Display| TicketError::Malformed(it.to_string());
    if text.len() > MAX_TICKET {
        return Err(malformed(&format_args!("{} bytes, {MAX_TICKET} allowed", text.len())));
    }
    let header = jsonwebtoken::decode_header(text).map_err(|it| malformed(&it))?;
    if header.typ.as_deref() != Some(TYPE) {
        return Err(malformed(&"not a ticket's type"));
    }
    let key = keys
        .iter()
        .find(|it| header.kid.as_deref() == Some(&key_id(it.as_bytes())))
        .ok_or(TicketError::Unsigned)?;
    // Expiry is checked against the caller's time, not against the clock that the library would read.
    let mut validation = Validation::new(Algorithm::EdDSA);
    validation.validate_exp = false;
    let key = DecodingKey::from_ed_der(key.as_bytes());
    let body = jsonwebtoken::decode::<Body>(text, &key, &validation)
        .map_err(|it| match it.kind() {
            jsonwebtoken::errors::ErrorKind::InvalidSignature => TicketError::Unsigned,
            _ => malformed(&it),
        })?
        .claims;
    Ok(TicketClaims {
        key: BlobKey {
            group: TrustGroup::new(&body.group),
            digest: Digest::from_hex(&body.sha256).map_err(|it| malformed(&it))?,
        },
        geometry: body.cut.and_then(|Cut(size, piece_length)| Geometry::stated(size, piece_length)),
        source: Source { registry: body.registry, repository: body.repository },
        node: NodeId::new(&body.sub),
        granted: time(body.iat)?,
        expires: time(body.exp)?,
    })
}

fn time(seconds: u64) -> Result<SystemTime, TicketError> {
    let time = UNIX_EPOCH.checked_add(Duration::from_secs(seconds));
    time.ok_or_else(|| TicketError::Malformed("a time beyond all calendars".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{self, key, region_keys};
    use proptest::prelude::*;

    const EXPIRES: u64 = 1_700_000_000;

    fn at(second: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(second)
    }

    fn claims() -> TicketClaims {
        testing::claims(key(1), at(EXPIRES))
    }

    fn ticket() -> Ticket {
        Issuer::new(&[1; 32]).issue(&claims())
    }

    #[track_caller]
    fn check(seeds: &[u8], second: u64, asked: &BlobKey, expected: Result<TicketClaims, TicketError>) {
        let verifier = Verifier::new(region_keys(seeds));
        // Twice, since the second answer comes from memory.
        for _ in 0..2 {
            let seen = verifier.check(at(second), &ticket(), asked);
            assert_eq!(seen.map(|it| (*it).clone()), expected);
        }
    }

    #[test]
    fn a_ticket_opens_its_blob_until_it_expires() {
        check(&[1], EXPIRES - 300, &key(1), Ok(claims()));
        check(&[2, 1], EXPIRES - 1, &key(1), Ok(claims()));
        let late = |seconds| TicketError::Expired { late: Duration::from_secs(seconds) };
        check(&[1], EXPIRES, &key(1), Err(late(0)));
        check(&[1], EXPIRES + 9, &key(1), Err(late(9)));
    }

    #[test]
    fn a_ticket_that_says_no_cut_is_as_good() {
        let claims = TicketClaims { geometry: None, ..claims() };
        let seen =
            Verifier::new(region_keys(&[1])).check(at(0), &Issuer::new(&[1; 32]).issue(&claims), &key(1));
        assert_eq!(seen.map(|it| (*it).clone()), Ok(claims));
    }

    #[test]
    fn a_clock_that_is_behind_takes_a_ticket_and_one_that_is_ahead_says_by_how_much() {
        let claims = TicketClaims { granted: at(EXPIRES - 300), ..claims() };
        let (ticket, verifier) = (Issuer::new(&[1; 32]).issue(&claims), Verifier::new(region_keys(&[1])));
        let seen = |second| verifier.check(at(second), &ticket, &key(1)).map(drop);
        assert_eq!(seen(EXPIRES - 300 - 3600), Ok(()));
        let late = Duration::from_secs(3600 - 300);
        assert_eq!(seen(EXPIRES - 300 + 3600), Err(TicketError::Expired { late }));
    }

    #[test]
    fn a_ticket_opens_nothing_else_and_nowhere_else() {
        let other = TicketError::OtherBlob { stated: key(1), asked: key(2) };
        check(&[1], EXPIRES - 300, &key(2), Err(other));
        check(&[2], EXPIRES - 300, &key(1), Err(TicketError::Unsigned));
        check(&[], EXPIRES - 300, &key(1), Err(TicketError::Unsigned));
    }

    #[test]
    fn a_withdrawn_key_opens_nothing_that_was_opened_before() {
        let verifier = Verifier::new(region_keys(&[1]));
        let now = at(EXPIRES - 300);
        assert!(verifier.check(now, &ticket(), &key(1)).is_ok());
        verifier.trust(region_keys(&[2]));
        assert_eq!(verifier.check(now, &ticket(), &key(1)), Err(TicketError::Unsigned));
    }

    #[test]
    fn another_kind_of_token_under_the_same_key_is_no_ticket() {
        let issuer = Issuer {
            header: Header { typ: Some("JWT".into()), ..Issuer::new(&[1; 32]).header },
            ..Issuer::new(&[1; 32])
        };
        let seen = Verifier::new(region_keys(&[1])).check(at(0), &issuer.issue(&claims()), &key(1));
        assert!(matches!(seen, Err(TicketError::Malformed(_))), "{seen:?}");
    }

    #[test]
    fn a_ticket_without_a_signature_is_refused() {
        let text = ticket().0;
        let unsigned = text.rsplit_once('.').unwrap().0;
        for forged in [format!("{unsigned}."), unsigned.to_owned(), String::new()] {
            let seen = Verifier::new(region_keys(&[1])).check(at(0), &Ticket(forged), &key(1));
            assert!(seen.is_err(), "{seen:?}");
        }
    }

    #[test]
    fn an_endless_ticket_is_refused_before_it_is_read() {
        let endless = Ticket("a".repeat(MAX_TICKET + 1));
        let seen = Verifier::new(region_keys(&[1])).check(at(0), &endless, &key(1));
        assert_eq!(seen, Err(TicketError::Malformed("4097 bytes, 4096 allowed".into())));
    }

    proptest! {
        #[test]
        fn no_altered_ticket_opens_the_blob(position: prop::sample::Index, to in "[A-Za-z0-9_.-]") {
            let mut text = ticket().0;
            let position = position.index(text.len());
            prop_assume!(text.get(position..=position) != Some(&to));
            text.replace_range(position..=position, &to);
            let seen = Verifier::new(region_keys(&[1])).check(at(EXPIRES - 300), &Ticket(text), &key(1));
            prop_assert!(seen.is_err());
        }

        #[test]
        fn no_text_makes_the_verifier_panic(text: String) {
            let seen = Verifier::new(region_keys(&[1])).check(at(0), &Ticket(text), &key(1));
            prop_assert!(seen.is_err());
        }
    }
}
