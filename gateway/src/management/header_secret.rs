//! A whole `Authorization` header that a caller and the gateway were both given.
//!
//! Hashes are compared, in constant time: neither how long the right one is shows, nor where a wrong one differs.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use sha2::{Digest as _, Sha256};
use shoal_ops::Context;
use shoal_ops::settings::{Secret, SecretSource};
use subtle::ConstantTimeEq as _;
use tokio::task::spawn_blocking;
use tokio::time::sleep;

/// How often the file is read again.
const EVERY: Duration = Duration::from_secs(2);

/// The header's hash; clones are of the same.
#[derive(Clone)]
pub(super) struct HeaderSecret(Arc<ArcSwap<[u8; 32]>>);

impl HeaderSecret {
    /// Follows the file that it comes from, if it does.
    pub(super) fn follow(mut source: SecretSource, ctx: &Context) -> Self {
        let secret = Self(Arc::new(ArcSwap::from_pointee(hash(source.secret()))));
        let (followed, stopping) = (secret.clone(), ctx.tasks.stopping());
        ctx.tasks.spawn_infallible("webhook secret", async move {
            let mut last = None;
            while stopping.run_until_cancelled(sleep(EVERY)).await.is_some() {
                let secret = followed.clone();
                let reading = spawn_blocking(move || {
                    let fault = secret.read_again(&mut source, last.as_deref());
                    (source, fault)
                });
                // It fails where the process ends.
                let Ok(read) = reading.await else { return };
                (source, last) = read;
            }
        });
        secret
    }

    /// Takes what the file holds now. What is wrong with it is returned, and told where it is not `last`.
    fn read_again(&self, source: &mut SecretSource, last: Option<&str>) -> Option<String> {
        match source.read_again() {
            Ok(false) => None,
            Ok(true) => {
                self.0.store(Arc::new(hash(source.secret())));
                tracing::info!("what webhooks come with was read again");
                None
            }
            Err(error) => {
                let fault = error.to_string();
                if last != Some(&fault) {
                    tracing::warn!(%fault, "what webhooks come with stays as it was");
                }
                Some(fault)
            }
        }
    }

    /// Whether a request comes with it. Two headers are as good as none.
    pub(super) fn is_in(&self, headers: &HeaderMap) -> bool {
        let mut values = headers.get_all(AUTHORIZATION).iter();
        let (Some(value), None) = (values.next(), values.next()) else { return false };
        let shown: [u8; 32] = Sha256::digest(value.as_bytes()).into();
        shown.ct_eq(self.0.load().as_slice()).into()
    }
}

fn hash(secret: &Secret) -> [u8; 32] {
    Sha256::digest(secret.expose()).into()
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use shoal_ops::settings::Setting as _;

    use super::*;

    fn headers(values: &[&str]) -> HeaderMap {
        values.iter().map(|it| (AUTHORIZATION, HeaderValue::from_str(it).unwrap())).collect()
    }

    fn is_in(secret: &HeaderSecret, values: &[&str]) -> bool {
        secret.is_in(&headers(values))
    }

    #[test]
    fn the_whole_header_counts_as_it_stands() {
        let secret =
            HeaderSecret(Arc::new(ArcSwap::from_pointee(hash(&Secret::new("Bearer hook".to_owned())))));
        assert!(is_in(&secret, &["Bearer hook"]));
        for wrong in
            [&[][..], &["Bearer hook", "Bearer hook"], &["bearer hook"], &["hook"], &["Bearer hook2"], &[""]]
        {
            assert!(!is_in(&secret, wrong), "{wrong:?}");
        }
    }

    #[test]
    fn a_file_that_was_replaced_is_read_and_a_missing_one_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("hook");
        std::fs::write(&file, "Bearer one\n").unwrap();
        let mut source = SecretSource::read(&format!("file:{}", file.display())).unwrap();
        let secret = HeaderSecret(Arc::new(ArcSwap::from_pointee(hash(source.secret()))));
        std::fs::remove_file(&file).unwrap();
        let fault = secret.read_again(&mut source, None).unwrap();
        assert!(fault.contains("No such file") && is_in(&secret, &["Bearer one"]));
        std::fs::write(&file, "Bearer two").unwrap();
        assert_eq!(secret.read_again(&mut source, Some(&fault)), None);
        assert!(is_in(&secret, &["Bearer two"]) && !is_in(&secret, &["Bearer one"]));
    }
}
