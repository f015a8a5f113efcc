//! What can go wrong with a store.
//!
//! A damaged record or piece is never an error: it is a miss, `NotHeld` at most. Only the disk itself and
//! a caller's own mistake are errors.

use std::io;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use shoal_model::BlobKey;
use shoal_swarm::PieceIndex;

/// Why the store did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process uses the directory.
    #[error("store {}: another process holds it", dir.display())]
    Locked {
        /// The store's directory.
        dir: PathBuf,
    },
    /// The bytes asked for are not all here; wait for them or fetch the piece.
    #[error("blob {key}: piece {piece} is not held")]
    NotHeld {
        /// The blob.
        key: BlobKey,
        /// The first piece that is missing.
        piece: PieceIndex,
    },
    /// A size was stated that the sealed content contradicts; the fault is the stating party's.
    #[error("blob {key}: {stated} bytes stated, but the sealed content has {sealed}")]
    Size {
        /// The blob.
        key: BlobKey,
        /// The size stated, in bytes.
        stated: u64,
        /// The size of the sealed content, in bytes.
        sealed: u64,
    },
    /// The caller read past the blob's end.
    #[error("blob {key}: read up to byte {end}, but it has {size}")]
    PastEnd {
        /// The blob.
        key: BlobKey,
        /// The end of the interval asked for.
        end: u64,
        /// The blob's size in bytes.
        size: u64,
    },
    /// The caller handed or asked more than one call may carry.
    #[error("blob {key}: {asked} bytes in one call, but {allowed} are allowed")]
    TooLong {
        /// The blob.
        key: BlobKey,
        /// The bytes handed or asked.
        asked: u64,
        /// The most that one call may carry.
        allowed: u64,
    },
    /// The process is ending and takes no more disk work.
    #[error("blob {key}: the runtime is stopping")]
    Stopping {
        /// The blob.
        key: BlobKey,
    },
    /// The disk refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The operating system's answer.
        source: io::Error,
    },
}

impl StoreError {
    /// Whether the process or the system is short of something, so that another attempt may succeed and the disk is not
    /// to blame.
    pub fn is_shortage(&self) -> bool {
        self.is_any_of(&[Errno::MFILE, Errno::NFILE, Errno::NOMEM])
    }

    /// Whether the disk is full, read-only or broken.
    pub(crate) fn is_fault_of_disk(&self) -> bool {
        self.is_any_of(&[Errno::NOSPC, Errno::DQUOT, Errno::ROFS, Errno::IO])
    }

    fn is_any_of(&self, errors: &[Errno]) -> bool {
        let Self::Io { source, .. } = self else { return false };
        errors.iter().any(|it| source.raw_os_error() == Some(it.raw_os_error()))
    }

    /// Names the file that an operating-system error is about.
    pub(crate) fn io(path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { path: path.to_owned(), source }
    }
}
