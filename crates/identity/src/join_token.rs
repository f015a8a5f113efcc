//! The secret that lets a node into its region: `shoal-join.<SHA-256 of the region's root>.<secret>`.
//!
//! Naming the root, it works in both directions: the gateway knows the node by the secret, and the node
//! knows the gateway by its root before it tells the secret. An operator may also choose any secret of their
//! own; a node then needs the root in a file.

use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

const PREFIX: &str = "shoal-join.";
/// The shortest secret that is taken, in bytes.
const SHORTEST: usize = 16;

/// A shared secret for joining. Not shown by `Debug`.
#[derive(Clone)]
pub struct JoinToken {
    text: Zeroizing<String>,
    pin: Option<[u8; 32]>,
}

impl JoinToken {
    /// A new one for the region of this root, given in DER.
    pub fn random(root: &[u8]) -> Self {
        let secret: Zeroizing<[u8; 32]> = Zeroizing::new(rand::random());
        let pin: [u8; 32] = Sha256::digest(root).into();
        let text = format!("{PREFIX}{}.{}", hex::encode(pin), URL_SAFE_NO_PAD.encode(*secret));
        Self { text: Zeroizing::new(text), pin: Some(pin) }
    }

    /// Takes an operator's text.
    ///
    /// # Errors
    /// The end of a sentence that begins with the setting; it does not repeat the secret.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if text.len() < SHORTEST {
            return Err(format!("has {} bytes, {SHORTEST} are the least", text.len()));
        }
        let Some(rest) = text.strip_prefix(PREFIX) else {
            return Ok(Self { text: Zeroizing::new(text.to_owned()), pin: None });
        };
        let broken = || "begins like a join token and is cut or altered".to_owned();
        let (pin, secret) = rest.split_once('.').ok_or_else(broken)?;
        let mut bytes = [0; 32];
        hex::decode_to_slice(pin, &mut bytes).map_err(|_| broken())?;
        let n_secret = URL_SAFE_NO_PAD.decode(secret).map(|it| it.len());
        if n_secret != Ok(32) {
            return Err(broken());
        }
        Ok(Self { text: Zeroizing::new(text.to_owned()), pin: Some(bytes) })
    }

    /// The text itself, for the one file or request that it goes to.
    pub fn expose(&self) -> &str {
        &self.text
    }

    /// The SHA-256 of the region's root, where the token names it.
    pub const fn pin(&self) -> Option<&[u8; 32]> {
        self.pin.as_ref()
    }

    /// Whether somebody showed this very token; takes as long for a wrong one.
    pub fn is(&self, shown: &str) -> bool {
        Sha256::digest(self.text.as_bytes()).ct_eq(&Sha256::digest(shown.trim().as_bytes())).into()
    }
}

impl std::fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("JoinToken(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_written_and_read_and_names_its_root() {
        let token = JoinToken::random(b"root");
        let read = JoinToken::parse(&format!("{}\n", token.expose())).unwrap();
        assert_eq!(read.pin(), Some(&Sha256::digest(b"root").into()));
        assert!(token.is(read.expose()) && !token.is(JoinToken::random(b"root").expose()));
        assert_eq!(format!("{token:?}"), "JoinToken(…)");
    }

    #[test]
    fn an_operators_own_secret_is_taken_if_it_is_long_enough() {
        assert!(JoinToken::parse("correct horse battery").unwrap().pin().is_none());
        assert!(JoinToken::parse("hunter2").unwrap_err().contains("7 bytes"));
    }

    #[test]
    fn a_damaged_token_is_told_and_not_repeated() {
        let text = JoinToken::random(b"root").expose().to_owned();
        for damaged in [&text[..text.len() - 1], &text[..40], &text.replace('.', "-")[..]] {
            if let Err(error) = JoinToken::parse(damaged) {
                assert!(error.contains("cut or altered") && !error.contains(&text[80..]), "{error}");
            } else {
                // Without its dots it is a secret like any other.
                assert!(!damaged.contains('.'));
            }
        }
    }
}
