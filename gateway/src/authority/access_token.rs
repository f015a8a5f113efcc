//! A caller's token, looked at as the registry itself would look at it.
//!
//! Registries with a token service believe whoever shows a token that the service signed. Where the
//! operator has given the service's public key, the gateway can do the same, and saves the question. What it
//! proves ends with the token: the registry, too, believes it until then, whatever happens to the right in
//! the meantime. The algorithms allowed follow from the key alone, never from the token, so that neither an
//! unsigned one nor one that is "signed" with the public key as a shared secret passes.
//!
//! Whatever is wrong with a token, the answer is that it proves nothing here: the registry is asked then, and
//! its refusal is the one that the caller can do something about.
//!
//! Knows nothing of: files, clocks, the registry.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::HeaderValue;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde::Deserialize;
use shoal_oci::Repository;

/// How far the clocks of registry and gateway may be apart; what registries allow as well.
const LEEWAY: Duration = Duration::from_secs(60);
/// The longest token that is looked at, in bytes.
const MAX_TOKEN: usize = 16 << 10;
const RSA: [Algorithm; 6] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
];

/// What must be true of a token besides its signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenRules {
    /// Whom it must be from, where that matters.
    pub issuer: Option<String>,
    /// Whom it must be for: the `service` of the registry's challenge.
    pub audience: String,
}

/// Looks at tokens.
pub struct AccessTokens {
    key: DecodingKey,
    validation: Validation,
}

#[derive(Deserialize)]
struct Claims {
    exp: u64,
    #[serde(default)]
    nbf: u64,
    #[serde(default)]
    access: Vec<Access>,
}

/// What may be done with one thing.
#[derive(Deserialize)]
struct Access {
    r#type: String,
    name: String,
    actions: Vec<String>,
}

impl AccessTokens {
    /// Takes a public key or a certificate in PEM: RSA, Ed25519, or ECDSA over P-256 or P-384. `None` where
    /// it is none.
    pub fn new(pem: &[u8], rules: &TokenRules) -> Option<Self> {
        let (key, algorithms) = read_key(pem)?;
        let mut validation = Validation::new(*algorithms.first()?);
        validation.algorithms = algorithms;
        validation.set_audience(&[&rules.audience]);
        let mut required = vec!["aud"];
        if let Some(issuer) = &rules.issuer {
            validation.set_issuer(&[issuer]);
            required.push("iss");
        }
        validation.set_required_spec_claims(&required);
        // Checked against the caller's time, not against the clock that the library would read.
        validation.validate_exp = false;
        Some(Self { key, validation })
    }

    /// For how long from `now` on the `Authorization` proves the right to pull from `repository`; `None` where
    /// it proves nothing.
    pub fn proves(
        &self,
        now: SystemTime,
        authorization: &HeaderValue,
        repository: &Repository,
    ) -> Option<Duration> {
        let (scheme, token) = authorization.to_str().ok()?.split_once(' ')?;
        if !scheme.eq_ignore_ascii_case("Bearer") || token.len() > MAX_TOKEN {
            return None;
        }
        let claims = jsonwebtoken::decode::<Claims>(token, &self.key, &self.validation).ok()?.claims;
        let now = now.duration_since(UNIX_EPOCH).ok()?;
        if now + LEEWAY < Duration::from_secs(claims.nbf)
            || !claims.access.iter().any(|it| it.opens(repository))
        {
            return None;
        }
        Duration::from_secs(claims.exp).checked_add(LEEWAY)?.checked_sub(now).filter(|it| !it.is_zero())
    }
}

impl Access {
    fn opens(&self, repository: &Repository) -> bool {
        self.r#type == "repository"
            && self.name == repository.as_str()
            && self.actions.iter().any(|it| it == "pull" || it == "*")
    }
}

fn read_key(pem: &[u8]) -> Option<(DecodingKey, Vec<Algorithm>)> {
    // A private RSA key would be taken, but as something that no signature fits.
    if std::str::from_utf8(pem).ok()?.contains("PRIVATE KEY") {
        return None;
    }
    if let Ok(key) = DecodingKey::from_rsa_pem(pem) {
        return Some((key, RSA.to_vec()));
    }
    if let Ok(key) = DecodingKey::from_ed_pem(pem) {
        return Some((key, vec![Algorithm::EdDSA]));
    }
    let key = DecodingKey::from_ec_pem(pem).ok()?;
    let algorithm = match key.try_get_as_bytes().ok()?.len() {
        // An uncompressed point: a tag and two coordinates.
        65 => Algorithm::ES256,
        97 => Algorithm::ES384,
        _ => return None,
    };
    Some((key, vec![algorithm]))
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::{EncodingKey, Header};
    use rcgen::{KeyPair, PublicKeyData as _};
    use serde_json::{Value, json};

    use super::*;

    const NOW: u64 = 1_800_000_000;
    const MINUTE: u64 = 60;
    /// What `openssl req -x509 -newkey rsa:2048` makes, as it is Harbor's way.
    const RSA_CERTIFICATE: &[u8] = include_bytes!("testdata/token-service.crt");
    /// A token of that service (RS256) with the claims below.
    const RSA_TOKEN: &str = include_str!("testdata/token.jwt");

    fn rules() -> TokenRules {
        TokenRules { issuer: Some("harbor-token-issuer".into()), audience: "harbor-registry".into() }
    }

    fn claims() -> Value {
        json!({
            "iss": "harbor-token-issuer",
            "aud": "harbor-registry",
            "sub": "ann",
            "exp": NOW + 30 * MINUTE,
            "nbf": NOW - MINUTE,
            "access": [
                { "type": "repository", "name": "prod/other", "actions": ["push"] },
                { "type": "repository", "name": "prod/app", "actions": ["pull", "push"] },
            ],
        })
    }

    /// The claims with one of them replaced, or taken away.
    fn with(name: &str, value: Value) -> Value {
        let mut claims = claims();
        let fields = claims.as_object_mut().unwrap();
        match value {
            Value::Null => drop(fields.remove(name)),
            value => drop(fields.insert(name.to_owned(), value)),
        }
        claims
    }

    fn with_access(kind: &str, name: &str, action: &str) -> Value {
        with("access", json!([{ "type": kind, "name": name, "actions": [action] }]))
    }

    fn key_pair() -> KeyPair {
        KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap()
    }

    fn pem(tag: &str, der: &[u8]) -> String {
        use base64::Engine as _;
        let text = base64::engine::general_purpose::STANDARD.encode(der);
        format!("-----BEGIN {tag}-----\n{text}\n-----END {tag}-----\n")
    }

    fn public_pem(pair: &KeyPair) -> String {
        pem("PUBLIC KEY", &pair.subject_public_key_info())
    }

    fn signed(pair: &KeyPair, algorithm: Algorithm, claims: &Value) -> String {
        let key = match algorithm {
            Algorithm::EdDSA => EncodingKey::from_ed_der(pair.serialized_der()),
            _ => EncodingKey::from_ec_der(pair.serialized_der()),
        };
        jsonwebtoken::encode(&Header::new(algorithm), claims, &key).unwrap()
    }

    fn proves(tokens: &AccessTokens, authorization: &str) -> Option<u64> {
        let now = UNIX_EPOCH + Duration::from_secs(NOW);
        let value = HeaderValue::from_str(authorization).unwrap();
        tokens.proves(now, &value, &"prod/app".parse().unwrap()).map(|it| it.as_secs())
    }

    #[track_caller]
    fn check(claims: &Value, expected: Option<u64>) {
        let pair = key_pair();
        let tokens = AccessTokens::new(public_pem(&pair).as_bytes(), &rules()).unwrap();
        let bearer = format!("Bearer {}", signed(&pair, Algorithm::ES256, claims));
        assert_eq!(proves(&tokens, &bearer), expected, "{claims}");
    }

    #[test]
    fn a_good_token_is_a_right_until_it_ends() {
        check(&claims(), Some(31 * MINUTE));
        check(&with("aud", json!(["other", "harbor-registry"])), Some(31 * MINUTE));
        check(&with("nbf", Value::Null), Some(31 * MINUTE));
        check(&with_access("repository", "prod/app", "*"), Some(31 * MINUTE));
    }

    #[test]
    fn clocks_may_be_a_minute_apart() {
        check(&with("exp", json!(NOW - MINUTE + 1)), Some(1));
        check(&with("exp", json!(NOW - MINUTE)), None);
        check(&with("nbf", json!(NOW + MINUTE)), Some(31 * MINUTE));
        check(&with("nbf", json!(NOW + MINUTE + 1)), None);
    }

    #[test]
    fn a_token_for_something_else_proves_nothing() {
        for (name, value) in [
            ("aud", json!("other-registry")),
            ("aud", json!(["other-registry"])),
            ("aud", json!({})),
            ("aud", Value::Null),
            ("iss", json!("somebody")),
            ("iss", Value::Null),
            ("exp", Value::Null),
            ("exp", json!("soon")),
            ("exp", json!(u64::MAX)),
            ("access", Value::Null),
            ("access", json!("all")),
        ] {
            check(&with(name, value), None);
        }
        for (kind, name, action) in [
            ("repository", "prod", "pull"),
            ("repository", "prod/app/", "pull"),
            ("repository", "prod/app2", "pull"),
            ("repository", "prod/*", "pull"),
            ("repository", "PROD/app", "pull"),
            ("repository", "prod/app", "push"),
            ("repository(plugin)", "prod/app", "pull"),
            ("registry", "prod/app", "*"),
        ] {
            check(&with_access(kind, name, action), None);
        }
    }

    #[test]
    fn an_issuer_matters_only_where_it_is_named() {
        let pair = key_pair();
        let rules = TokenRules { issuer: None, ..rules() };
        let tokens = AccessTokens::new(public_pem(&pair).as_bytes(), &rules).unwrap();
        for claims in [with("iss", Value::Null), with("iss", json!("somebody"))] {
            let token = signed(&pair, Algorithm::ES256, &claims);
            assert_eq!(proves(&tokens, &format!("bearer {token}")), Some(31 * MINUTE));
        }
    }

    #[test]
    fn the_key_decides_which_algorithms_count() {
        let pair = key_pair();
        let public = public_pem(&pair);
        let tokens = AccessTokens::new(public.as_bytes(), &rules()).unwrap();
        let good = signed(&pair, Algorithm::ES256, &claims());
        assert!(proves(&tokens, &format!("Bearer {good}")).is_some());

        // Unsigned, in the spellings that have passed for that.
        let (_, rest) = good.split_once('.').unwrap();
        let (payload, _) = rest.split_once('.').unwrap();
        for alg in ["none", "None", "NONE", ""] {
            use base64::Engine as _;
            let header = json!({ "typ": "JWT", "alg": alg }).to_string();
            let header = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(header);
            assert_eq!(proves(&tokens, &format!("Bearer {header}.{payload}.")), None, "{alg}");
        }
        // "Signed" with what everybody knows, in the forms that a library may take for the secret.
        let point = pair.public_key_raw();
        for secret in [public.as_bytes(), &pair.subject_public_key_info(), point] {
            for algorithm in [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512] {
                let key = EncodingKey::from_secret(secret);
                let token = jsonwebtoken::encode(&Header::new(algorithm), &claims(), &key).unwrap();
                assert_eq!(proves(&tokens, &format!("Bearer {token}")), None, "{algorithm:?}");
            }
        }
        // Signed by somebody else, and altered after it was signed.
        let other = signed(&key_pair(), Algorithm::ES256, &claims());
        let (head, signature) = good.rsplit_once('.').unwrap();
        let (_, others) = other.rsplit_once('.').unwrap();
        assert_eq!(proves(&tokens, &format!("Bearer {other}")), None);
        assert_eq!(proves(&tokens, &format!("Bearer {head}.{others}")), None);
        assert_eq!(proves(&tokens, &format!("Bearer {}x.{signature}", &head[..head.len() - 1])), None);
    }

    #[test]
    fn harbors_own_kind_of_key_is_a_certificate_of_an_rsa_key() {
        let tokens = AccessTokens::new(RSA_CERTIFICATE, &rules()).unwrap();
        assert_eq!(proves(&tokens, &format!("Bearer {RSA_TOKEN}")), Some(31 * MINUTE));
        let (head, _) = RSA_TOKEN.rsplit_once('.').unwrap();
        assert_eq!(proves(&tokens, &format!("Bearer {head}.{}", "A".repeat(342))), None);
        for secret in [RSA_CERTIFICATE, tokens.key.try_get_as_bytes().unwrap()] {
            let key = EncodingKey::from_secret(secret);
            let token = jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims(), &key).unwrap();
            assert_eq!(proves(&tokens, &format!("Bearer {token}")), None);
        }
    }

    #[test]
    fn every_kind_of_key_is_read_with_and_without_certificate() {
        for (made_by, algorithm) in [
            (&rcgen::PKCS_ECDSA_P256_SHA256, Algorithm::ES256),
            (&rcgen::PKCS_ECDSA_P384_SHA384, Algorithm::ES384),
            (&rcgen::PKCS_ED25519, Algorithm::EdDSA),
        ] {
            let pair = KeyPair::generate_for(made_by).unwrap();
            let certificate = rcgen::CertificateParams::default().self_signed(&pair).unwrap();
            for text in [public_pem(&pair), certificate.pem()] {
                let tokens = AccessTokens::new(text.as_bytes(), &rules()).unwrap();
                let token = signed(&pair, algorithm, &claims());
                assert_eq!(proves(&tokens, &format!("Bearer {token}")), Some(31 * MINUTE), "{algorithm:?}");
            }
        }
    }

    #[test]
    fn what_is_no_key_or_no_token_is_refused() {
        let private = pem("PRIVATE KEY", key_pair().serialized_der());
        for text in ["", "key", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", &private] {
            assert!(AccessTokens::new(text.as_bytes(), &rules()).is_none(), "{text}");
        }
        let pair = key_pair();
        let tokens = AccessTokens::new(public_pem(&pair).as_bytes(), &rules()).unwrap();
        let good = signed(&pair, Algorithm::ES256, &claims());
        let long = format!("Bearer {}", "a".repeat(MAX_TOKEN + 1));
        for text in
            ["", "Bearer", "Bearer ", "Bearer ..", "Bearer a.b.c", &good, &format!("Basic {good}"), &long]
        {
            assert_eq!(proves(&tokens, text), None, "{text}");
        }
    }
}
