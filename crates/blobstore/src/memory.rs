//! The memory for pieces that the disk does not take, of all blobs of a store together.
//!
//! A disk that is full, read-only, broken or stuck is to cost a pull its speed and nothing else: the bytes have been
//! verified, and somebody waits for them. So they are kept here for a moment. Where there is no room, the piece goes
//! that is needed least: one that was read to its end, else one that nobody has read for a while. As long as there
//! is neither, whoever brings the next piece waits, and asks for no more meanwhile. Once the disk takes a piece of a blob
//! again, it gets those of the blob that are here as well.

use std::ops::Deref;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep_until};

use crate::entry::Entry;

/// How many bytes there are for pieces. A single piece that is longer may be kept as well.
const ROOM: u32 = 16 << 20;

/// A piece that nobody has read for so long gives way to one that comes. Whoever needs a piece waits for it, and takes
/// it at once.
const KEPT_FOR: Duration = Duration::from_secs(5);

/// The memory of one store.
#[derive(Debug)]
pub(crate) struct Memory {
    room: Arc<Semaphore>,
    read: Notify,
    /// The blobs that have pieces here, and perhaps some that had.
    users: Mutex<Vec<Weak<Entry>>>,
}

/// A piece's bytes, and the room that they take.
#[derive(Debug)]
pub(crate) struct Roomed {
    bytes: Bytes,
    _room: OwnedSemaphorePermit,
}

impl Roomed {
    /// The same bytes, for as long as a write takes.
    pub(crate) fn share(&self) -> Bytes {
        self.bytes.clone()
    }
}

impl Deref for Roomed {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Memory {
    pub(crate) fn new() -> Self {
        let room = Arc::new(Semaphore::new(ROOM as usize));
        Self { room, read: Notify::new(), users: Mutex::default() }
    }

    /// Copies the chunks of a piece, as soon as there is room for them. They themselves may be small parts of large
    /// buffers, and take any amount of memory.
    pub(crate) async fn take(&self, chunks: &[Bytes]) -> Roomed {
        let len: usize = chunks.iter().map(Bytes::len).sum();
        let len = u32::try_from(len).unwrap_or(ROOM).min(ROOM);
        let room = loop {
            // Heard from here on, so that none falls between the look and the wait.
            let read = self.read.notified();
            if let Ok(room) = self.room.clone().try_acquire_many_owned(len) {
                break room;
            }
            let Err(spared_until) = self.make_room(Instant::now()) else { continue };
            tokio::select! {
                Ok(room) = self.room.clone().acquire_many_owned(len) => break room,
                () = read => {}
                () = sleep_until(spared_until) => {}
            }
        };
        Roomed { bytes: chunks.concat().into(), _room: room }
    }

    /// Somebody has read a piece to its end.
    pub(crate) fn was_read(&self) {
        self.read.notify_waiters();
    }

    /// The blob has a piece here.
    pub(crate) fn is_used_by(&self, user: &Arc<Entry>) {
        let mut users = self.users.lock();
        if !users.iter().any(|it| it.as_ptr() == Arc::as_ptr(user)) {
            users.push(Arc::downgrade(user));
        }
    }

    /// Drops what is needed least, or says when something may be dropped.
    fn make_room(&self, now: Instant) -> Result<(), Instant> {
        let mut users = self.users.lock();
        users.retain(|it| it.upgrade().is_some_and(|it| it.state.lock().spare().is_some()));
        let spares = users.iter().filter_map(Weak::upgrade).filter_map(|it| {
            let spare = it.state.lock().spare()?;
            Some((spare, it))
        });
        let Some((spare, user)) = spares.min_by_key(|(spare, _)| *spare) else { return Err(now + KEPT_FOR) };
        if spare.is_unread && spare.used + KEPT_FOR > now {
            return Err(spare.used + KEPT_FOR);
        }
        user.forget(spare.piece);
        Ok(())
    }
}

#[cfg(test)]
impl Roomed {
    /// Bytes that take room nowhere.
    pub(crate) fn anywhere(bytes: &[u8]) -> Self {
        let room = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
        Self { bytes: Bytes::copy_from_slice(bytes), _room: room }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Blob, Written, testing};

    /// A third of the room.
    const PIECE: u64 = ROOM as u64 / 3;

    /// A blob on a disk that refuses: its directory is a file.
    fn blob(dir: &tempfile::TempDir) -> Blob {
        let blob = testing::blob(dir.path(), PIECE * 8, PIECE);
        let below = blob.entry().paths.data.parent().unwrap().parent().unwrap();
        std::fs::write(below, "").unwrap();
        blob
    }

    async fn write(blob: &Blob, piece: u32) {
        let chunks = vec![Bytes::from(vec![piece as u8; PIECE as usize])];
        assert_eq!(blob.write_provisional(piece, chunks).await.unwrap().0, Written::Kept);
    }

    /// Reads a piece to its end.
    async fn read(blob: &Blob, piece: u32) {
        let range = blob.geometry().range_of(piece);
        assert_eq!(blob.read(range).await.unwrap(), vec![piece as u8; PIECE as usize]);
    }

    fn there(blob: &Blob) -> Vec<u32> {
        blob.readable().iter().collect()
    }

    // In these the clock is paused and runs ahead whenever nothing else is left to do.

    #[tokio::test(start_paused = true)]
    async fn what_the_disk_does_not_take_is_read_from_memory_and_makes_room() {
        let dir = tempfile::tempdir().unwrap();
        let blob = blob(&dir);
        for piece in 0..3 {
            write(&blob, piece).await;
        }
        read(&blob, 1).await;
        write(&blob, 3).await;
        assert_eq!(there(&blob), [0, 2, 3], "what was read goes first");
        let began = Instant::now();
        write(&blob, 4).await;
        assert!(began.elapsed() >= KEPT_FOR, "nothing was read");
        assert_eq!(there(&blob), [2, 3, 4], "what was used least recently goes then");
        assert_eq!(
            blob.read(PIECE * 4 - 2..PIECE * 4 + 2).await.unwrap().len(),
            2,
            "as much as is in one piece"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_piece_that_is_waited_for_comes_as_soon_as_another_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let blob = blob(&dir);
        for piece in 0..3 {
            write(&blob, piece).await;
        }
        let began = Instant::now();
        tokio::join!(write(&blob, 3), async {
            tokio::time::sleep(KEPT_FOR / 5).await;
            read(&blob, 0).await;
        });
        assert!(began.elapsed() < KEPT_FOR);
        assert_eq!(there(&blob), [1, 2, 3]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_in_memory_goes_to_the_disk_with_the_first_piece_that_it_takes_again() {
        let dir = tempfile::tempdir().unwrap();
        let blob = blob(&dir);
        write(&blob, 0).await;
        write(&blob, 1).await;
        std::fs::remove_file(blob.entry().paths.data.parent().unwrap().parent().unwrap()).unwrap();
        let chunks = vec![Bytes::from(vec![2; PIECE as usize])];
        assert_eq!(blob.write_provisional(2, chunks).await.unwrap().0, Written::Provisional);
        assert_eq!(blob.entry().common.memory.room.available_permits(), ROOM as usize);
        for piece in 0..3 {
            read(&blob, piece).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn memory_is_given_back_with_the_last_handle() {
        let dir = tempfile::tempdir().unwrap();
        let blob = blob(&dir);
        let common = Arc::clone(&blob.entry().common);
        write(&blob, 0).await;
        assert!(common.memory.room.available_permits() < ROOM as usize);
        drop(blob);
        assert_eq!(common.memory.room.available_permits(), ROOM as usize);
    }
}
