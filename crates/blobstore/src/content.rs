//! An open content file, and how it is read: never further than asked, so that nothing comes from the disk unseen.

use std::fs::File;
use std::io::{self, IoSliceMut};
use std::num::NonZeroU64;
use std::ops::{Deref, Range};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use nix::sys::statfs::{TMPFS_MAGIC, fstatfs};
use rustix::fs::{Advice, fadvise};
use rustix::io::{Errno, ReadWriteFlags, preadv2, retry_on_intr};
use shoal_pagecache::PageCache;

use crate::PieceDigest;

/// The buffer for hashing what lies on disk: large enough that a read call costs nothing beside the hash,
/// small enough to stay in the cache between the two.
pub(crate) const HASH_BUFFER: u64 = 256 << 10;

#[derive(Debug)]
pub(crate) struct Content {
    file: Arc<File>,
    /// Nothing where the file system cannot tell.
    cache: Option<PageCache>,
}

impl Deref for Content {
    type Target = Arc<File>;

    fn deref(&self) -> &Self::Target {
        &self.file
    }
}

impl Content {
    /// The content of a blob of `size` bytes.
    pub(crate) fn new(file: File, size: u64) -> Self {
        // The kernel would read ahead of whoever reads, and then it could not be told any more what is as it was
        // written and what has come from the disk. Where it does not listen, less is found out.
        let _ = fadvise(&file, 0, None, Advice::Random);
        let cache = PageCache::of(&file, size).ok();
        Self { file: Arc::new(file), cache }
    }

    /// Whether these bytes are in the page cache; nothing where the file system cannot tell.
    pub(crate) fn is_cached(&self, range: Range<u64>) -> Option<bool> {
        self.cache.as_ref().map(|it| it.holds(range))
    }

    /// Fills the buffer from the page cache; false where not all of it is there.
    pub(crate) fn read_cached(&self, buffer: &mut [u8], at: u64) -> bool {
        if self.is_cached(at..at + buffer.len() as u64) != Some(true) {
            return false;
        }
        let wanted = buffer.len();
        let slices = &mut [IoSliceMut::new(buffer)];
        match retry_on_intr(|| preadv2(&self.file, slices, at, ReadWriteFlags::NOWAIT)) {
            Ok(len) => len == wanted,
            // Files in memory know of no other way to be read.
            Err(Errno::OPNOTSUPP) if self.is_in_memory() => self.read_exact_at(buffer, at).is_ok(),
            Err(_) => false,
        }
    }

    fn is_in_memory(&self) -> bool {
        fstatfs(&self.file).is_ok_and(|it| it.filesystem_type() == TMPFS_MAGIC)
    }

    /// The digest of the bytes in `range`.
    #[expect(clippy::indexing_slicing, reason = "a chunk is no longer than the buffer")]
    pub(crate) fn digest(&self, range: Range<u64>) -> io::Result<PieceDigest> {
        // All of it is needed: the disk can be asked at once.
        let _ = fadvise(&self.file, range.start, NonZeroU64::new(range.end - range.start), Advice::WillNeed);
        let mut hasher = blake3::Hasher::new();
        let mut buffer = vec![0; (range.end - range.start).min(HASH_BUFFER) as usize];
        let mut at = range.start;
        while at < range.end {
            let len = (range.end - at).min(HASH_BUFFER);
            let chunk = &mut buffer[..len as usize];
            self.read_exact_at(chunk, at)?;
            hasher.update(chunk);
            at += len;
        }
        Ok(PieceDigest(*hasher.finalize().as_bytes()))
    }
}
