//! What lies in the store's directory at start.
//!
//! Journals are read, content is not: pieces are verified when first used. Whatever has no good journal is
//! removed, because it can never be served. A file or directory that cannot be read is left alone and
//! logged, so that one bad sector does not keep a node from starting.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use prometheus_client::metrics::counter::Counter;

use crate::files::{Files, remove};
use crate::layout::{DATA, JOURNAL, Paths};
use crate::record::{Header, parse};
use crate::state::State;

/// The longest journal that is read, in bytes. A blob of the most pieces that a geometry allows needs about
/// 180 MiB: its digests in lists and again with each held piece, and the signed statements.
const MAX_JOURNAL: u64 = 256 << 20;

/// A blob on disk.
pub(crate) struct Found {
    pub(crate) header: Header,
    pub(crate) paths: Paths,
    pub(crate) state: State,
    pub(crate) files: Files,
    pub(crate) last_used: SystemTime,
}

/// Finds the blobs below `root` and removes the remains of others. Journals that cannot be read to their end are
/// counted.
pub(crate) fn scan(root: &Path, n_damaged: &Counter) -> Vec<Found> {
    let mut found = Vec::new();
    for file in children(root).flat_map(|it| children(&it)).flat_map(|it| children(&it)) {
        let journal = file.with_extension(JOURNAL);
        let res = match file.extension().and_then(|it| it.to_str()) {
            Some(JOURNAL) => recover(root, &file, n_damaged).map(|it| found.extend(it)),
            Some(DATA) if !journal.exists() => remove(&file),
            _ => Ok(()),
        };
        if let Err(error) = res {
            tracing::warn!(path = %file.display(), %error, "blob not recovered");
        }
    }
    found
}

fn children(dir: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    let entries = fs::read_dir(dir)
        .inspect_err(|error| tracing::warn!(path = %dir.display(), %error, "directory not read"));
    entries.into_iter().flatten().flatten().map(|it| it.path())
}

/// Reads one journal; `None` where it was no good and the blob has been removed.
fn recover(root: &Path, journal: &Path, n_damaged: &Counter) -> io::Result<Option<Found>> {
    let metadata = fs::metadata(journal)?;
    let parsed = match metadata.len() {
        ..=MAX_JOURNAL => parse(&fs::read(journal)?),
        _ => None,
    };
    let paths = parsed.as_ref().map(|it| Paths::new(root, &it.header.key));
    let (Some(parsed), Some(paths)) = (parsed, paths.filter(|it| it.journal == journal)) else {
        n_damaged.inc();
        tracing::warn!(path = %journal.display(), "journal not readable, blob removed");
        remove(journal)?;
        remove(&journal.with_extension(DATA))?;
        return Ok(None);
    };
    if parsed.len < metadata.len() {
        n_damaged.inc();
    }
    Ok(Some(Found {
        state: State::restored(parsed.header.geometry, parsed.records),
        header: parsed.header,
        files: Files::found(paths.clone(), parsed.len),
        paths,
        // One in the future was noted by a clock that has been set back since, and would outlast all others.
        last_used: metadata.modified()?.min(SystemTime::now()),
    }))
}
