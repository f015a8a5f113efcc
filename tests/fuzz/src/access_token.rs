//! Tokens of a registry's token service: one that proves a right was signed by the service, is for this registry
//! and repository, and proves it for as long as it says.

use std::sync::LazyLock;
use std::time::{Duration, UNIX_EPOCH};

use arbitrary::{Result, Unstructured};
use ed25519_dalek::pkcs8::EncodePublicKey as _;
use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use http::HeaderValue;
use jsonwebtoken::{Algorithm, Header};
use serde_json::{Value, json};
use shoal_gateway::access_token::{AccessTokens, TokenRules};

use crate::input::{choices, word};
use crate::jwt::{KEY, altered, claims_of, signed, tampered};

const ISSUER: &str = "harbor-token-issuer";
const AUDIENCE: &str = "harbor-registry";
const REPOSITORY: &str = "prod/app";
const NOW: u64 = 1_800_000_000;
/// How far clocks may be apart, in seconds.
const LEEWAY: u64 = 60;

static TOKENS: LazyLock<AccessTokens> = LazyLock::new(|| {
    let rules = TokenRules { issuer: Some(ISSUER.to_owned()), audience: AUDIENCE.to_owned() };
    let pem =
        KEY.verifying_key().to_public_key_pem(LineEnding::LF).expect("a key that was made from a secret");
    AccessTokens::new(pem.as_bytes(), &rules).expect("a public key in PEM")
});

/// Takes the value of an `Authorization` header, or choices for one; and PEM.
pub fn check(data: &[u8]) {
    match choices(data) {
        None => {
            shown(data);
            let rules = TokenRules { issuer: None, audience: AUDIENCE.to_owned() };
            drop(AccessTokens::new(data, &rules));
        }
        Some(mut u) => {
            if let Ok(token) = token(&mut u) {
                shown(format!("Bearer {token}").as_bytes());
                // Where the choices have come to an end, so has the test.
                let altered = tampered(&mut u, &token).unwrap_or(token);
                shown(format!("bearer {altered}").as_bytes());
            }
        }
    }
}

fn shown(authorization: &[u8]) {
    let Ok(value) = HeaderValue::from_bytes(authorization) else { return };
    let repository = REPOSITORY.parse().expect("the name of a repository");
    let Some(proven) = TOKENS.proves(UNIX_EPOCH + Duration::from_secs(NOW), &value, &repository) else {
        return;
    };
    let token = value.to_str().ok().and_then(|it| it.split_once(' ')).map_or("", |(_, token)| token);
    let claims = claims_of(token).unwrap_or_else(|| panic!("nobody signed {token}"));
    let is = |value: &Value, text: &str| {
        value == text || value.as_array().is_some_and(|it| it.contains(&text.into()))
    };
    assert!(is(&claims["aud"], AUDIENCE) && is(&claims["iss"], ISSUER), "{claims}");
    let access = claims["access"].as_array().into_iter().flatten();
    let mut mine = access.filter(|it| it["type"] == "repository" && it["name"] == REPOSITORY);
    assert!(mine.any(|it| is(&it["actions"], "pull") || is(&it["actions"], "*")), "{claims}");
    assert!(claims["nbf"].as_u64().unwrap_or(0) <= NOW + LEEWAY, "{claims}");
    assert_eq!(claims["exp"].as_u64().map(|it| it + LEEWAY - NOW), Some(proven.as_secs()), "{claims}");
}

fn token(u: &mut Unstructured<'_>) -> Result<String> {
    let access = json!({
        "type": word(u, &["repository", "registry"])?,
        "name": word(u, &[REPOSITORY, "prod/*", "PROD/app"])?,
        "actions": [word(u, &["pull", "*", "push"])?],
    });
    let time = |u: &mut Unstructured<'_>| {
        let near = NOW + u.int_in_range(0..=200)?;
        Ok::<u64, arbitrary::Error>(if u.ratio(7, 8)? { near - 100 } else { u.arbitrary()? })
    };
    let claims = json!({
        "iss": word(u, &[ISSUER, ""])?,
        "aud": [word(u, &[AUDIENCE, ""])?],
        "exp": time(u)?,
        "nbf": time(u)?,
        "access": [altered(u, access)?],
    });
    let claims = altered(u, claims)?;
    signed(u, Header::new(Algorithm::EdDSA), &claims)
}
