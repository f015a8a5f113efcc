//! The region's verifying keys, kept beside the scheduler's certificate.
//!
//! Whose tickets count, only a gateway says. A scheduler that starts while none answers goes by what it heard last:
//! the nodes are there, with tickets of that time, and can go on helping each other. As soon as a gateway answers, its
//! word counts.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use shoal_ops::private_file;
use shoal_peer::RegionKeys;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Within the directory of the certificate.
const NAME: &str = "region.keys";
/// More than the longest list takes.
const LONGEST: u64 = 4096;

/// The file: each key as a line of hex.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyFile(PathBuf);

impl KeyFile {
    /// The file in this directory.
    pub fn within(dir: &Path) -> Self {
        Self(dir.join(NAME))
    }

    /// The keys that were kept, if any were. Ones that cannot be used are as good as none.
    pub(crate) fn read(&self) -> Option<RegionKeys> {
        match self.try_read() {
            Ok(keys) => Some(keys),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                tracing::warn!(file = %self.0.display(), %error, "kept region keys cannot be used");
                None
            }
        }
    }

    fn try_read(&self) -> io::Result<RegionKeys> {
        if self.0.metadata()?.len() > LONGEST {
            return Err(io::Error::other(format!("longer than {LONGEST} bytes")));
        }
        let text = std::fs::read_to_string(&self.0)?;
        let key = |line: &str| {
            let mut key = [0; 32];
            hex::decode_to_slice(line, &mut key).map(|()| key)
        };
        let keys: Vec<_> = text.lines().map(key).collect::<Result<_, _>>().map_err(io::Error::other)?;
        if keys.is_empty() {
            return Err(io::Error::other("holds no key"));
        }
        RegionKeys::parse(&keys).map_err(io::Error::other)
    }

    fn write(&self, keys: &RegionKeys) -> io::Result<()> {
        let lines = keys.to_bytes().into_iter().map(|it| hex::encode(it) + "\n");
        self.0.parent().map(private_file::create_dir).transpose()?;
        private_file::replace(&self.0, lines.collect::<String>().as_bytes())
    }

    /// Keeps what gateways say, until `stopping`.
    pub(crate) async fn follow(
        self,
        mut told: watch::Receiver<Arc<RegionKeys>>,
        stopping: CancellationToken,
    ) {
        while let Some(Ok(())) = stopping.run_until_cancelled(told.changed()).await {
            let (keys, file) = (told.borrow_and_update().clone(), self.clone());
            let written = tokio::task::spawn_blocking(move || file.write(&keys)).await;
            if let Err(error) = written.map_err(io::Error::other).flatten() {
                tracing::warn!(file = %self.0.display(), %error, "region keys not kept");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shoal_peer::attest::Signer;

    fn keys(secrets: &[u8]) -> RegionKeys {
        let keys: Vec<_> = secrets.iter().map(|it| Signer::new(&[*it; 32]).verifying_key()).collect();
        RegionKeys::parse(&keys).unwrap()
    }

    #[tokio::test]
    async fn what_a_gateway_said_last_is_there_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let file = KeyFile::within(&dir.path().join("identity"));
        assert_eq!(file.read(), None);
        let (tell, told) = watch::channel(Arc::default());
        let following = tokio::spawn(file.clone().follow(told, CancellationToken::new()));
        tell.send_replace(Arc::new(keys(&[1])));
        tell.send_replace(Arc::new(keys(&[2, 3])));
        drop(tell);
        following.await.unwrap();
        assert_eq!(file.read(), Some(keys(&[2, 3])));
    }

    #[test]
    fn what_is_no_list_of_keys_is_as_good_as_none() {
        let dir = tempfile::tempdir().unwrap();
        let file = KeyFile::within(dir.path());
        for content in ["", "\n", "abcd\n", &"00".repeat(32), &"not hex\n".repeat(9), &"0".repeat(5000)] {
            std::fs::write(&file.0, content).unwrap();
            assert_eq!(file.read(), None, "{content:?}");
        }
    }
}
