//! Which bytes of a file the kernel has in memory.
//!
//! Every read brings into memory what is not there, and then says that it is: only `mincore` tells without reading.
//! It asks about addresses, so the file is mapped. Nobody ever reads or writes there: the mapping may not even be
//! accessed, its pages are never provided, and a file that shrinks or a disk that fails harms nobody.
//!
//! This is the one crate with unsafe code: three calls to the kernel, each with what makes it sound.
//!
//! Knows nothing of: blobs, pieces, what the bytes are for.

// Outside input gets here, and none may make a process panic.
#![cfg_attr(
    not(test),
    warn(clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::string_slice)
)]

use std::ffi::c_void;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::ptr;

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use rustix::param::page_size;

/// The pages that are asked about at once.
const BATCH: usize = 256;

/// The bytes of one file, as far as they are in memory.
#[derive(Debug)]
pub struct PageCache {
    /// Where the file is mapped, a multiple of the page size.
    start: *mut c_void,
    /// In bytes, not 0.
    len: usize,
}

#[allow(unsafe_code, reason = "a pointer is not sent by itself")]
// SAFETY: `start` is a number for the kernel. Nothing is ever accessed through it.
unsafe impl Send for PageCache {}
#[allow(unsafe_code, reason = "nor shared")]
// SAFETY: as above.
unsafe impl Sync for PageCache {}

impl PageCache {
    /// Looks at the first `len` bytes of the file, which may be shorter at times.
    ///
    /// # Errors
    /// Where the file cannot be mapped, or `len` is 0.
    pub fn of(file: &File, len: u64) -> io::Result<Self> {
        let len = usize::try_from(len).map_err(|_| io::ErrorKind::InvalidInput)?;
        #[allow(unsafe_code, reason = "maps memory")]
        // SAFETY: a new mapping at an address of the kernel's choice takes no memory from anybody.
        let start = unsafe { mmap(ptr::null_mut(), len, ProtFlags::empty(), MapFlags::SHARED, file, 0)? };
        Ok(Self { start, len })
    }

    /// Whether all of these bytes are in memory at this moment. What is past the end is not.
    #[expect(clippy::indexing_slicing, reason = "no more pages than a batch")]
    pub fn holds(&self, range: Range<u64>) -> bool {
        let (Ok(start), Ok(end)) = (usize::try_from(range.start), usize::try_from(range.end)) else {
            return false;
        };
        if end > self.len {
            return false;
        }
        let (page, mut pages) = (page_size(), [0; BATCH]);
        let mut at = start - start % page;
        while at < end {
            let pages = &mut pages[..(end - at).div_ceil(page).min(BATCH)];
            if !self.look(at, pages) || pages.iter().any(|it| it & 1 == 0) {
                return false;
            }
            at += pages.len() * page;
        }
        true
    }

    /// Looks at the pages from the byte `at` on, which is a multiple of the page size; false where that failed.
    fn look(&self, at: usize, pages: &mut [u8]) -> bool {
        let len = pages.len() * page_size();
        #[allow(unsafe_code, reason = "nobody offers this call in a safe way")]
        // SAFETY: the kernel writes one byte per page of `len` to `pages`, which has that many. It checks the
        // addresses by itself, and does not access them.
        let res = unsafe { libc::mincore(self.start.wrapping_byte_add(at), len, pages.as_mut_ptr()) };
        res == 0
    }
}

impl Drop for PageCache {
    fn drop(&mut self) {
        #[allow(unsafe_code, reason = "unmaps memory")]
        // SAFETY: this is the mapping that was made, whole, and nobody else knows of it.
        let _ = unsafe { munmap(self.start, self.len) };
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed step fails the test")]
mod tests {
    use super::*;
    use rustix::fs::{Advice, fadvise};
    use std::io::Write;
    use std::os::unix::fs::FileExt;

    /// Has the kernel forget what it has of the file, and not read ahead of whoever reads it then.
    fn forget(file: &File) {
        file.sync_all().unwrap();
        fadvise(file, 0, None, Advice::DontNeed).unwrap();
        fadvise(file, 0, None, Advice::Random).unwrap();
    }

    /// A file on a disk, of some pages and a bit.
    fn file(n_pages: u64) -> (File, u64, u64) {
        // Temporary directories may lie in memory.
        let mut file = tempfile::tempfile_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let page = page_size() as u64;
        let len = n_pages * page + 1;
        file.write_all(&vec![1; len as usize]).unwrap();
        (file, page, len)
    }

    #[test]
    fn what_was_written_is_there_until_it_is_forgotten() {
        let (file, page, len) = file(2 * BATCH as u64);
        let cache = PageCache::of(&file, len).unwrap();
        assert!(cache.holds(0..len) && cache.holds(len - 1..len) && cache.holds(5..5));
        forget(&file);
        assert!(!cache.holds(0..1) && !cache.holds(len - 1..len));
        assert!(!cache.holds(0..1), "looking has brought it back");
        let read = 300 * page..301 * page;
        file.read_exact_at(&mut vec![0; page as usize], read.start).unwrap();
        assert!(cache.holds(read.clone()) && cache.holds(read.start + 5..read.start + 6));
        assert!(!cache.holds(read.start - 1..read.end) && !cache.holds(read.start..read.end + 1));
        assert!(!cache.holds(0..len));
    }

    #[test]
    fn what_is_past_the_end_is_not_there() {
        let (file, page, len) = file(3);
        let cache = PageCache::of(&file, 2 * len).unwrap();
        assert!(cache.holds(0..len) && !cache.holds(0..4 * page + 1) && !cache.holds(0..2 * len + 1));
        assert!(!cache.holds(0..u64::MAX));
        file.set_len(page).unwrap();
        assert!(cache.holds(0..page) && !cache.holds(0..len));
        assert!(PageCache::of(&file, 0).is_err());
    }
}
