//! Tickets: the only texts that open anything are those that the region's issuer makes, for the blob and as long
//! as they say.

use std::sync::LazyLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arbitrary::{Result, Unstructured};
use jsonwebtoken::{Algorithm, Header};
use serde_json::json;
use shoal_model::{BlobKey, Digest, NodeId, TrustGroup};
use shoal_peer::RegionKeys;
use shoal_peer::ticket::{Issuer, TicketClaims, TicketError, Verifier};
use shoal_proto::{Source, Ticket};
use shoal_swarm::Geometry;

use crate::input::{choices, word};
use crate::jwt::{KEY, SEED, altered, claims_of, signed, tampered};

static ISSUER: LazyLock<Issuer> = LazyLock::new(|| Issuer::new(&SEED));
static VERIFIER: LazyLock<Verifier> = LazyLock::new(|| {
    let keys = RegionKeys::parse(&[KEY.verifying_key().to_bytes()]);
    Verifier::new(keys.expect("a key that was made from a secret"))
});
const SECOND: Duration = Duration::from_secs(1);
/// Of a name in a ticket; the wire contracts take no much longer ones.
const LONGEST: usize = 64;

/// Takes the text of a ticket, or choices for one.
pub fn check(data: &[u8]) {
    match choices(data) {
        None => shown(std::str::from_utf8(data).unwrap_or_default()),
        Some(mut u) => {
            // Where the choices have come to an end, so has the test.
            let _ = issued(&mut u).and_then(|()| forged(&mut u));
        }
    }
}

/// What a ticket says, whichever blob it is for and however old it is.
fn opened(text: &str) -> Option<TicketClaims> {
    let ticket = Ticket(text.to_owned());
    let nothing = BlobKey { group: TrustGroup::new(""), digest: Digest::from_sha256([0; 32]) };
    let claims = match VERIFIER.check(UNIX_EPOCH, &ticket, &nothing) {
        Ok(claims) => claims,
        Err(TicketError::OtherBlob { stated, .. }) => VERIFIER.check(UNIX_EPOCH, &ticket, &stated).ok()?,
        Err(error) => {
            assert!(error.to_string().len() < 8192);
            return None;
        }
    };
    Some((*claims).clone())
}

/// A text that opens something says what its claims say, and somebody with the key has signed it.
fn shown(text: &str) {
    let Some(claims) = opened(text) else { return };
    let signed = claims_of(text).unwrap_or_else(|| panic!("nobody signed {text}"));
    let seconds = |it: SystemTime| it.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let TicketClaims { source, key, geometry, node, granted, expires } = claims;
    let mut said = json!({
        "sub": node.as_str(), "iat": seconds(granted), "exp": seconds(expires), "registry": source.registry,
        "repository": source.repository, "group": key.group.as_str(), "sha256": key.digest.hex(),
    });
    if let Some(it) = geometry {
        said["cut"] = json!([it.size(), it.piece_length()]);
    }
    for (name, value) in said.as_object().into_iter().flatten() {
        assert_eq!(signed.get(name), Some(value), "{name}");
    }
}

fn issued(u: &mut Unstructured<'_>) -> Result<()> {
    let text = |u: &mut Unstructured<'_>| {
        let text = word(u, &["registry.example:5000", "team/app", "n1", ""])?;
        Ok::<String, arbitrary::Error>(text.chars().take(LONGEST).collect())
    };
    let key =
        BlobKey { group: TrustGroup::new(&text(u)?), digest: Digest::from_sha256([u.arbitrary()?; 32]) };
    let expires = UNIX_EPOCH + Duration::from_secs(u.int_in_range(1..=1 << 40)?);
    let claims = TicketClaims {
        source: Source { registry: text(u)?, repository: text(u)? },
        key: key.clone(),
        geometry: Geometry::stated(u.arbitrary()?, u.arbitrary()?),
        node: NodeId::new(&text(u)?),
        granted: UNIX_EPOCH + Duration::from_secs(u.arbitrary::<u32>()?.into()),
        expires,
    };
    let ticket = ISSUER.issue(&claims);
    let open = |now, key: &BlobKey| VERIFIER.check(now, &ticket, key).map(|it| (*it).clone());
    assert_eq!(open(expires - SECOND, &key), Ok(claims.clone()));
    assert_eq!(open(expires, &key), Err(TicketError::Expired { late: Duration::ZERO }));
    let other = BlobKey { group: TrustGroup::new("another group"), ..key.clone() };
    assert_eq!(open(UNIX_EPOCH, &other), Err(TicketError::OtherBlob { stated: key, asked: other.clone() }));
    let altered = tampered(u, &ticket.0)?;
    assert!(altered == ticket.0 || opened(&altered).is_none(), "{altered}");
    Ok(())
}

/// Tokens that are no tickets, though the key may be right.
fn forged(u: &mut Unstructured<'_>) -> Result<()> {
    let mut header = Header::new(Algorithm::EdDSA);
    header.typ =
        Some(word(u, &["shoal-ticket+jwt", "shoal-ticket+jwt", "JWT", "SHOAL-TICKET+JWT"])?.to_owned());
    if u.ratio(15, 16)? {
        let id = KEY.verifying_key().to_bytes();
        header.kid = Some(id.iter().take(8).map(|it| format!("{it:02x}")).collect());
    }
    let body = json!({
        "sub": "n1", "iat": 1, "exp": u.arbitrary::<u64>()?, "registry": "r", "repository": "a/b", "group": "g",
        "sha256": "ab".repeat(32),
    });
    let claims = altered(u, body)?;
    shown(&signed(u, header, &claims)?);
    Ok(())
}
