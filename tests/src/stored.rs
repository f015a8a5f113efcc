//! What services have on disk, seen from outside.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// The files of all blobs in the stores below a machine's directory.
pub fn stored(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir)? {
        let (kind, path) = entry.and_then(|it| Ok((it.file_type()?, it.path())))?;
        if kind.is_dir() && !path.ends_with("containerd") {
            // A directory that is gone by now has nothing any more.
            files.extend(stored(&path).unwrap_or_default());
        } else if path.extension().is_some_and(|it| it == "data" || it == "pieces") {
            files.push(path);
        }
    }
    Ok(files)
}

/// How many bytes a file takes on disk.
pub fn allocated(file: &Path) -> io::Result<u64> {
    Ok(fs::metadata(file)?.blocks() * 512)
}
