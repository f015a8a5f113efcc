//! The key that signs tickets and piece digests.
//!
//! It is made at the first start and kept in a file that only this user may read: nodes must still believe,
//! after a restart, what was signed before.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

/// The secret half of an Ed25519 key.
pub(crate) type Seed = Zeroizing<[u8; 32]>;

/// The length of the file: 64 hex digits, and a line break that may be missing.
const MAX_LEN: u64 = 66;

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
#[error("signing key {}: {fault}", path.display())]
pub(crate) struct KeyError {
    path: PathBuf,
    fault: String,
}

/// Reads the key, or makes it where the file does not exist.
pub(crate) fn load_or_create(path: &Path) -> Result<Seed, KeyError> {
    let fail = |fault: String| KeyError { path: path.to_owned(), fault };
    match File::open(path) {
        Ok(file) => {
            let mut text = Zeroizing::new(String::new());
            file.take(MAX_LEN).read_to_string(&mut text).map_err(|it| fail(it.to_string()))?;
            parse(&text).ok_or_else(|| fail("is not 64 hex digits".to_owned()))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            create(path).map_err(|it| fail(it.to_string()))
        }
        Err(error) => Err(fail(error.to_string())),
    }
}

fn parse(text: &str) -> Option<Seed> {
    let mut seed = Zeroizing::new([0; 32]);
    hex::decode_to_slice(text.trim_end(), &mut *seed).ok()?;
    Some(seed)
}

fn create(path: &Path) -> io::Result<Seed> {
    let seed: Seed = Zeroizing::new(rand::random());
    let text = Zeroizing::new(hex::encode(*seed));
    // Complete under its own name before it has the real one, so that a crash leaves no half key.
    let draft = path.with_extension("new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
    writeln!(file, "{}", *text)?;
    file.sync_all()?;
    std::fs::rename(&draft, path)?;
    Ok(seed)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_key_is_made_once_and_for_this_user_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("signing.key");
        let made = load_or_create(&path).unwrap();
        assert_eq!(load_or_create(&path).unwrap(), made);
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_file_that_is_no_key_is_refused_and_not_repeated() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("signing.key");
        for text in ["", "hunter2", &"ab".repeat(33)] {
            std::fs::write(&path, text).unwrap();
            let error = load_or_create(&path).unwrap_err().to_string();
            assert!(error.contains("signing.key") && !error.contains("hunter2"), "{error}");
        }
    }
}
