//! Tokens, signed by the one key that the targets believe and by others.

use std::sync::LazyLock;

use arbitrary::{Result, Unstructured};
use ed25519_dalek::pkcs8::EncodePrivateKey as _;
use ed25519_dalek::{Signature, SigningKey, Verifier as _};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

/// The secret of the key that is believed.
pub(crate) const SEED: [u8; 32] = [7; 32];

/// The key that is believed.
pub(crate) static KEY: LazyLock<SigningKey> = LazyLock::new(|| SigningKey::from_bytes(&SEED));

/// A token with these claims, mostly by the key that is believed.
pub(crate) fn signed(u: &mut Unstructured<'_>, mut header: Header, claims: &Value) -> Result<String> {
    let key = match u.int_in_range(0..=15)? {
        0 => private(&SigningKey::from_bytes(&[8; 32])),
        1 => {
            // What everybody knows, in the place of a secret.
            header.alg = Algorithm::HS256;
            EncodingKey::from_secret(KEY.verifying_key().as_bytes())
        }
        _ => private(&KEY),
    };
    jsonwebtoken::encode(&header, claims, &key).map_err(|_| arbitrary::Error::IncorrectFormat)
}

fn private(key: &SigningKey) -> EncodingKey {
    let der = key.to_pkcs8_der().expect("any 32 bytes are an Ed25519 secret");
    EncodingKey::from_ed_der(der.as_bytes())
}

/// The claims of a token that bears a signature of the key that is believed, found without the product's help.
pub(crate) fn claims_of(token: &str) -> Option<Value> {
    let (message, signature) = token.rsplit_once('.')?;
    let (_, claims) = message.split_once('.')?;
    let signature = Signature::from_slice(&base64(signature)?).ok()?;
    KEY.verifying_key().verify(message.as_bytes(), &signature).ok()?;
    serde_json::from_slice(&base64(claims)?).ok()
}

fn base64(text: &str) -> Option<Vec<u8>> {
    use base64::Engine as _;
    base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(text).ok()
}

/// An object with some of its values taken away or replaced by odd ones.
pub(crate) fn altered(u: &mut Unstructured<'_>, mut object: Value) -> Result<Value> {
    for (_, value) in object.as_object_mut().into_iter().flatten() {
        if u.ratio(1, 8)? {
            let odd = [
                json!(null),
                json!(""),
                json!(0),
                json!(-1),
                json!(u64::MAX),
                json!(1.5),
                json!([]),
                json!({}),
            ];
            *value = u.choose(&odd)?.clone();
        }
    }
    if u.ratio(1, 8)? {
        let keys: Vec<_> = object.as_object().into_iter().flatten().map(|(key, _)| key.clone()).collect();
        let gone = u.choose(&keys)?;
        object.as_object_mut().and_then(|it| it.remove(gone));
    }
    Ok(object)
}

/// The text with one character made another.
pub(crate) fn tampered(u: &mut Unstructured<'_>, text: &str) -> Result<String> {
    let mut bytes = text.as_bytes().to_vec();
    let at = u.choose_index(bytes.len())?;
    let other = *u.choose(b"AZaz09-_.")?;
    if let Some(byte) = bytes.get_mut(at) {
        *byte = other;
    }
    String::from_utf8(bytes).map_err(|_| arbitrary::Error::IncorrectFormat)
}
