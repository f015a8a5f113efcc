//! Files that only this user may read and that are replaced as a whole, and directories for them.

use std::ffi::OsString;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// Puts `content` in the place of whatever `path` held. It is complete on the disk under another name before
/// it gets its own, and the change of names is on the disk as well when this returns: neither half a file
/// nor a withdrawn one comes back after a crash.
///
/// # Errors
/// The system's; the old content is there then.
pub fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut draft = OsString::from(path);
    draft.push(".new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
    file.write_all(content)?;
    file.sync_all()?;
    std::fs::rename(&draft, path)?;
    match path.parent() {
        Some(dir) => File::open(dir)?.sync_all(),
        None => Ok(()),
    }
}

/// Makes a directory, with those above it, that only this user may look into. One that is there stays as it is;
/// where others may, that is told.
///
/// # Errors
/// The system's.
pub fn create_dir(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    if path.metadata()?.permissions().mode() & 0o077 != 0 {
        tracing::warn!(dir = %path.display(), "other users may look into this directory of secrets: chmod 700 it");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_as_a_whole_and_for_this_user_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokens.json");
        for content in ["a long first content", "short"] {
            replace(&path, content.as_bytes()).unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), content);
            assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
