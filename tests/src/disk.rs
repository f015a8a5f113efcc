//! Disks that fill up, turn read-only, break or stop answering: real file systems, mounted below a lab's directory.
//!
//! A disk is made before the programs that are to use it, because each program keeps the mounts that it was started
//! with. It goes with its lab, like everything else there.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use memchr::memmem;
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use nix::sys::stat::{major, minor};
use shoal_model::ByteSize;

use crate::command::Launch;

const DEADLINE: Duration = Duration::from_secs(30);
/// What a file system needs of its disk, in bytes, to know itself again; nothing else is readable on a broken one.
const LEFT_OF_BROKEN: u64 = 64 << 10;
/// Takes all the room that there is.
const FILLING: &str = "filling";

/// A mounted file system.
#[derive(Debug)]
pub struct Disk {
    dir: PathBuf,
    size: ByteSize,
    /// The file that stands for the disk; none where it is memory.
    image: Option<PathBuf>,
}

impl Disk {
    /// A small disk in memory, mounted at `dir`.
    pub async fn in_memory(dir: impl Into<PathBuf>, size: ByteSize) -> Result<Self> {
        let disk = Self { dir: dir.into(), size, image: None };
        let size = format!("size={},mode=755", size.0);
        disk.mount(["-t", "tmpfs", "-o", &size, "tmpfs"]).await?;
        Ok(disk)
    }

    /// A disk that can break and stop answering, mounted at `dir`: a file beside that is its content.
    pub async fn on_file(dir: impl Into<PathBuf>, size: ByteSize) -> Result<Self> {
        let dir = dir.into();
        let image = dir.with_extension("disk");
        if let Some(parent) = image.parent() {
            fs::create_dir_all(parent)?;
        }
        let disk = Self { dir, size, image: Some(image) };
        disk.make().await?;
        Ok(disk)
    }

    /// Puts an empty disk in place of a broken one. Whoever is to use it has to be started anew.
    pub async fn replace(&self) -> Result<()> {
        Launch::new("umount").arg("--lazy").arg(&self.dir).run(DEADLINE).await?;
        self.make().await
    }

    async fn make(&self) -> Result<()> {
        let image = self.image.as_ref().context("a disk in memory is not made anew")?;
        // Whoever still has the one before goes on with that.
        let _none = fs::remove_file(image);
        File::create(image)?.set_len(self.size.0)?;
        Launch::new("mkfs.ext4").arg("-q").arg(image).run(DEADLINE).await?;
        // Room is found when something is written, so that whoever writes hears of what is wrong.
        let options: [&OsStr; 3] = ["-o".as_ref(), "loop,nodelalloc".as_ref(), image.as_ref()];
        self.mount(options).await
    }

    async fn mount(&self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Result<()> {
        fs::create_dir_all(&self.dir)?;
        Launch::new("mount").args(arguments).arg(&self.dir).run(DEADLINE).await?;
        Ok(())
    }

    /// Where it is mounted.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The number by which the kernel knows it.
    pub(crate) fn device(&self) -> Result<String> {
        let device = fs::metadata(&self.dir)?.dev();
        Ok(format!("{}:{}", major(device), minor(device)))
    }

    /// Takes all the room that is left.
    pub fn fill(&self) -> Result<()> {
        let mut filling = File::create(self.dir.join(FILLING))?;
        // The last bytes are gone in the smallest steps.
        for step in [1 << 20, 4 << 10, 1] {
            while filling.write_all(&vec![1; step]).is_ok() {}
        }
        Ok(())
    }

    /// Gives the room back.
    pub fn make_room(&self) -> Result<()> {
        Ok(fs::remove_file(self.dir.join(FILLING))?)
    }

    /// Has every write go to the disk at once, so that no bytes wait in memory for it.
    pub async fn write_through(self) -> Result<Self> {
        Launch::new("mount").args(["-o", "remount,sync"]).arg(&self.dir).run(DEADLINE).await?;
        Ok(self)
    }

    /// Turns a disk on a file read-only for good, as the kernel does when it finds a fault, whoever is writing.
    pub async fn turn_read_only(&self) -> Result<()> {
        Launch::new("mount").args(["-o", "remount,abort"]).arg(&self.dir).run(DEADLINE).await.map(drop)
    }

    /// Breaks the disk: nothing can be read from it any more. What lies in the page cache of `files` is forgotten.
    pub fn break_down(&self, files: &[PathBuf]) -> Result<()> {
        let image = self.image.as_ref().context("a disk in memory does not break")?;
        files.iter().try_for_each(|it| forget(&File::open(it)?))?;
        let image = File::options().write(true).open(image)?;
        Ok(image.set_len(LEFT_OF_BROKEN)?)
    }

    /// Flips a byte of a file's content where it lies on the disk, behind the back of the file system.
    pub fn rot(&self, path: &Path, at: u64) -> Result<()> {
        let image = self.image.as_ref().context("a disk in memory does not rot")?;
        let file = File::open(path)?;
        let mut sample = [0; 512];
        file.read_exact_at(&mut sample, at)?;
        forget(&file)?;
        let content = fs::read(image)?;
        let lies_at = memmem::find(&content, &sample).context("the content is not on the disk")?;
        let image = File::options().write(true).open(image)?;
        Ok(image.write_all_at(&[!sample[0]], lies_at as u64)?)
    }

    /// The disk stops answering: whoever writes to it waits.
    pub async fn freeze(&self) -> Result<()> {
        Launch::new("fsfreeze").arg("--freeze").arg(&self.dir).run(DEADLINE).await.map(drop)
    }

    /// It answers again.
    pub async fn thaw(&self) -> Result<()> {
        Launch::new("fsfreeze").arg("--unfreeze").arg(&self.dir).run(DEADLINE).await.map(drop)
    }
}

/// Has a file's content on the disk, and no longer in the page cache.
fn forget(file: &File) -> Result<()> {
    file.sync_all()?;
    Ok(posix_fadvise(file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)?)
}
