//! A password, token or key that must not be shown.
//!
//! It prints as `…`, so that a forgotten log line or error is safe, and its memory is wiped when it is
//! dropped. In a document it is either the text itself or `file:/path`, which is read at the start.
//!
//! A [`SecretSource`] remembers the path, so that a secret that was replaced can be read again. The path is
//! followed anew each time, since the file behind it may be a link that now leads elsewhere. A file that is
//! missing or empty is one that is just being written: the last text stays.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::Setting;

/// The largest secret that is read from a file, in bytes.
const MAX_BYTES: u64 = 64 << 10;

/// A text that is never shown; see [`Secret::expose`].
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Keeps a text from now on.
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// The text itself, for the one place that must send it.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Reads a file's text without the line break at its end.
    fn read_file(path: &Path) -> io::Result<Self> {
        let mut text = Zeroizing::new(String::new());
        // One byte more than allowed tells a large file from one that just fits.
        File::open(path)?.take(MAX_BYTES + 1).read_to_string(&mut text)?;
        if text.len() as u64 > MAX_BYTES {
            let message = format!("more than {MAX_BYTES} bytes");
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, message));
        }
        let len = text.trim_end_matches(['\n', '\r']).len();
        text.truncate(len);
        Ok(Self(text))
    }
}

impl Setting for Secret {
    fn read(text: &str) -> Result<Self, String> {
        match text.strip_prefix("file:") {
            Some(path) => Self::read_file(path.as_ref()).map_err(|err| format!("cannot be read: {err}")),
            None => Ok(Self::new(text.to_owned())),
        }
    }

    /// A path helps to find the mistake and is no secret; anything else may be.
    fn shown(text: &str) -> String {
        if text.starts_with("file:") { text } else { "…" }.to_owned()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

/// A secret, and the file to read it from again if it came from one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretSource {
    secret: Secret,
    file: Option<PathBuf>,
}

impl SecretSource {
    /// The secret as it was last read.
    pub const fn secret(&self) -> &Secret {
        &self.secret
    }

    /// Reads the file again, if there is one; returns whether the secret is another now.
    ///
    /// # Errors
    /// Where the file, which is named, cannot be read or is empty; the secret stays what it was.
    pub fn read_again(&mut self) -> io::Result<bool> {
        let Some(file) = &self.file else { return Ok(false) };
        let named = |err: io::Error| io::Error::new(err.kind(), format!("{}: {err}", file.display()));
        let found = Secret::read_file(file).map_err(named)?;
        if found.expose().is_empty() {
            return Err(named(io::Error::new(io::ErrorKind::InvalidData, "empty")));
        }
        let is_other = found != self.secret;
        self.secret = found;
        Ok(is_other)
    }
}

impl Setting for SecretSource {
    fn read(text: &str) -> Result<Self, String> {
        Ok(Self { secret: Secret::read(text)?, file: text.strip_prefix("file:").map(PathBuf::from) })
    }

    fn shown(text: &str) -> String {
        Secret::shown(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_read_from_text_or_file_and_never_printed() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("token");
        std::fs::write(&file, "hunter2\r\n").unwrap();
        for text in ["hunter2".to_owned(), format!("file:{}", file.display())] {
            let secret = Secret::read(&text).unwrap();
            assert_eq!(secret.expose(), "hunter2");
            assert_eq!(format!("{secret} {secret:?}"), "… …");
        }
    }

    #[test]
    fn a_file_that_cannot_be_read_tells_why_and_not_what() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("token");
        let read = || Secret::read(&format!("file:{}", file.display())).unwrap_err();
        assert!(read().contains("No such file"));
        std::fs::write(&file, "x".repeat(70_000)).unwrap();
        assert_eq!(read(), "cannot be read: more than 65536 bytes");
        std::fs::write(&file, b"hunter2\xff").unwrap();
        assert!(!read().contains("hunter2"));
    }

    #[test]
    fn a_secret_from_a_file_follows_it_and_survives_its_replacement() {
        let dir = tempfile::tempdir().unwrap();
        let [link, old, new] = ["link", "old", "new"].map(|it| dir.path().join(it));
        std::fs::write(&old, "hunter2").unwrap();
        std::os::unix::fs::symlink(&old, &link).unwrap();
        let mut source = SecretSource::read(&format!("file:{}", link.display())).unwrap();
        assert!(!source.read_again().unwrap());

        std::fs::remove_file(&link).unwrap();
        assert!(source.read_again().is_err());
        std::fs::write(&new, "").unwrap();
        std::os::unix::fs::symlink(&new, &link).unwrap();
        let error = source.read_again().unwrap_err().to_string();
        assert_eq!(error, format!("{}: empty", link.display()));
        assert_eq!(source.secret().expose(), "hunter2");

        std::fs::write(&new, "hunter3\n").unwrap();
        assert!(source.read_again().unwrap());
        assert_eq!(source.secret().expose(), "hunter3");
        assert!(!format!("{source:?}").contains("hunter"));
    }

    #[test]
    fn a_secret_that_was_written_out_stays() {
        let mut source = SecretSource::read("hunter2").unwrap();
        assert!(!source.read_again().unwrap());
        assert_eq!(source.secret().expose(), "hunter2");
    }
}
