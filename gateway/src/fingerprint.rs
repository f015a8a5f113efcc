//! Tells credentials apart without keeping them.
//!
//! The fingerprint is a keyed hash with a key that only this process knows, so that a memory dump's
//! fingerprints cannot be tried against guessed passwords elsewhere.

use http::HeaderValue;

use crate::authority::Holder;

/// Makes fingerprints.
pub(crate) struct Fingerprints([u8; 32]);

impl Fingerprints {
    /// Takes a random key.
    pub(crate) const fn new(key: [u8; 32]) -> Self {
        Self(key)
    }

    /// The holder of an `Authorization` header's value, or of none.
    pub(crate) fn holder(&self, authorization: Option<&HeaderValue>) -> Holder {
        match authorization {
            None => Holder::Anonymous,
            Some(it) => Holder::Caller(*blake3::keyed_hash(&self.0, it.as_bytes()).as_bytes()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holders_differ_by_credential_and_by_process() {
        let [ann, bob] = ["Basic YW5u", "Basic Ym9i"].map(HeaderValue::from_static);
        let (here, there) = (Fingerprints::new([1; 32]), Fingerprints::new([2; 32]));
        assert_eq!(here.holder(Some(&ann)), here.holder(Some(&ann)));
        assert_ne!(here.holder(Some(&ann)), here.holder(Some(&bob)));
        assert_ne!(here.holder(Some(&ann)), there.holder(Some(&ann)));
        assert_eq!(here.holder(None), Holder::Anonymous);
    }
}
