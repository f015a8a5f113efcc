//! The keys that sign tickets and piece digests.
//!
//! The file has one key on each line, as 64 hex digits. The first signs; all are believed, so that what an
//! earlier one signed stays good while another takes its place. A key that is to sign no more can be left as
//! `public:` and its public half. The file is read again when it changes, and nodes hear of the keys at once:
//! to rotate, add the new key below the old, then move it up, and take the old one away when nothing that
//! it sealed is kept any more.
//!
//! Without a file a key is made at the first start and kept in one that only this user may read: nodes must
//! still believe, after a restart, what was signed before.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use shoal_ops::private_file;
use shoal_peer::attest::Signer;
use shoal_peer::keys::MAX_KEYS;
use shoal_peer::ticket::{Issuer, TicketClaims};
use shoal_proto::Ticket;
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

/// The secret half of an Ed25519 key.
type Seed = Zeroizing<[u8; 32]>;

/// The most bytes of the file: room for all keys and remarks.
const MAX_LEN: u64 = 8 << 10;
/// How often the file is looked at.
const LOOK: Duration = Duration::from_secs(2);

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
#[error("signing key {}: {fault}", path.display())]
pub(crate) struct KeyError {
    path: PathBuf,
    fault: String,
}

/// The keys as they are now; everything that is signed goes through here.
pub(crate) struct Keyring {
    keys: ArcSwap<Keys>,
    /// The file's text when it was first read.
    opened: Zeroizing<String>,
}

struct Keys {
    signer: Arc<Signer>,
    issuer: Issuer,
    public: Vec<[u8; 32]>,
}

impl Keyring {
    /// Reads the keys, or makes one where the file does not exist.
    pub(crate) fn open(path: &Path) -> Result<Self, KeyError> {
        let fail = |fault: String| KeyError { path: path.to_owned(), fault };
        let opened = match read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => create(path),
            read => read,
        };
        let opened = opened.map_err(|it| fail(it.to_string()))?;
        let keys = parse(&opened).map_err(fail)?;
        Ok(Self { keys: ArcSwap::from_pointee(keys), opened })
    }

    /// Signs with the first key.
    pub(crate) fn signer(&self) -> Arc<Signer> {
        self.keys.load().signer.clone()
    }

    /// Makes a ticket with the first key.
    pub(crate) fn issue(&self, claims: &TicketClaims) -> Ticket {
        self.keys.load().issuer.issue(claims)
    }

    /// The public halves of all, the first one's first.
    pub(crate) fn public(&self) -> Vec<[u8; 32]> {
        self.keys.load().public.clone()
    }

    /// Reads the file again whenever it changes, until `stopping`, and tells the public halves. A file that
    /// makes no sense leaves things as they are.
    pub(crate) async fn follow(
        self: Arc<Self>,
        path: PathBuf,
        told: watch::Sender<Vec<[u8; 32]>>,
        stopping: CancellationToken,
    ) {
        let mut seen = Some(self.opened.clone());
        while stopping.run_until_cancelled(sleep(LOOK)).await.is_some() {
            let now = read(&path).ok();
            if now == seen {
                continue;
            }
            seen = now;
            match seen.as_deref().map_or_else(|| Err("cannot be read".to_owned()), |it| parse(it)) {
                Ok(keys) => {
                    let public = keys.public.clone();
                    tracing::info!(n_keys = public.len(), "signing keys read again");
                    told.send_replace(public);
                    // Nodes have time to hear of a key before they are shown what it signed.
                    sleep(LOOK).await;
                    self.keys.store(Arc::new(keys));
                }
                Err(fault) => {
                    tracing::warn!(path = %path.display(), fault, "signing keys not read again, the old ones stay");
                }
            }
        }
    }
}

impl Keys {
    fn of(first: &Seed, others: Vec<[u8; 32]>) -> Self {
        let signer = Signer::new(first);
        let public = [vec![signer.verifying_key()], others].concat();
        Self { signer: Arc::new(signer), issuer: Issuer::new(first), public }
    }
}

fn read(path: &Path) -> io::Result<Zeroizing<String>> {
    let mut text = Zeroizing::new(String::new());
    // One byte more than allowed tells a large file from one that just fits.
    File::open(path)?.take(MAX_LEN + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_LEN {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("more than {MAX_LEN} bytes")));
    }
    Ok(text)
}

/// The keys of a file's text; the error is the end of a sentence and repeats nothing of it.
fn parse(text: &str) -> Result<Keys, String> {
    let lines = text.lines().map(str::trim).filter(|it| !it.is_empty() && !it.starts_with('#'));
    let mut first = None;
    let mut others = Vec::new();
    for (line, number) in lines.zip(1..) {
        let wrong = |_| format!("line {number} is neither 64 hex digits nor public: and 64 hex digits");
        let mut bytes = Zeroizing::new([0; 32]);
        match line.strip_prefix("public:") {
            Some(public) => {
                hex::decode_to_slice(public.trim(), &mut *bytes).map_err(wrong)?;
                others.push(*bytes);
            }
            None => {
                hex::decode_to_slice(line, &mut *bytes).map_err(wrong)?;
                match first {
                    None => first = Some(bytes),
                    Some(_) => others.push(Signer::new(&bytes).verifying_key()),
                }
            }
        }
    }
    let first = first.ok_or("holds no key that could sign")?;
    match others.len() + 1 {
        ..=MAX_KEYS => Ok(Keys::of(&first, others)),
        n_keys => Err(format!("holds {n_keys} keys, {MAX_KEYS} are allowed")),
    }
}

/// Makes a key and returns the text of its file.
fn create(path: &Path) -> io::Result<Zeroizing<String>> {
    let seed: Seed = Zeroizing::new(rand::random());
    let text = Zeroizing::new(format!("{}\n", hex::encode(*seed)));
    private_file::replace(path, text.as_bytes())?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn public(byte: u8) -> [u8; 32] {
        Signer::new(&[byte; 32]).verifying_key()
    }

    fn secret(byte: u8) -> String {
        hex::encode([byte; 32])
    }

    #[test]
    fn a_key_is_made_once_and_for_this_user_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("signing.key");
        let made = Keyring::open(&path).unwrap().public();
        assert_eq!(Keyring::open(&path).unwrap().public(), made);
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn the_first_key_signs_and_all_are_believed() {
        let text = format!("# old\npublic: {}\n\n{}\n{}\n", hex::encode(public(3)), secret(1), secret(2));
        let keys = parse(&text).unwrap();
        assert_eq!(keys.public, [public(1), public(3), public(2)]);
        assert_eq!(keys.signer.verifying_key(), public(1));
    }

    #[test]
    fn a_file_that_is_no_key_is_refused_and_not_repeated() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("signing.key");
        let many = vec![secret(1); MAX_KEYS + 1].join("\n");
        for text in ["", "hunter2", &"ab".repeat(33), &format!("public:{}", secret(1)), &many] {
            std::fs::write(&path, text).unwrap();
            let error = Keyring::open(&path).err().unwrap().to_string();
            assert!(error.contains("signing.key") && !error.contains("hunter2"), "{error}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_changed_file_is_followed_and_a_broken_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("signing.key");
        std::fs::write(&path, secret(1)).unwrap();
        let keyring = Arc::new(Keyring::open(&path).unwrap());
        let (told, mut heard) = watch::channel(keyring.public());
        let stopping = CancellationToken::new();
        let following = tokio::spawn(keyring.clone().follow(path.clone(), told, stopping.clone()));
        tokio::task::yield_now().await;
        std::fs::write(&path, "broken").unwrap();
        sleep(LOOK * 2).await;
        assert_eq!(keyring.public(), [public(1)]);
        std::fs::write(&path, format!("{}\n{}", secret(2), secret(1))).unwrap();
        heard.changed().await.unwrap();
        assert_eq!(*heard.borrow(), [public(2), public(1)]);
        assert_eq!(keyring.signer().verifying_key(), public(1), "others are told first");
        sleep(LOOK * 2).await;
        assert_eq!(keyring.signer().verifying_key(), public(2));
        stopping.cancel();
        following.await.unwrap();
    }
}
