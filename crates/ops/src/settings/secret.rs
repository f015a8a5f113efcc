//! A password, token or key that must not be shown.
//!
//! It prints as `…`, so that a forgotten log line or error is safe, and its memory is wiped when it is
//! dropped. In a document it is either the text itself or `file:/path`, which is read at the start.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};

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
    fn read_file(path: &str) -> io::Result<Self> {
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
            Some(path) => Self::read_file(path).map_err(|err| format!("cannot be read: {err}")),
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
}
