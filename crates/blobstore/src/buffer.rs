//! Memory for reads, used over and over.
//!
//! A fresh buffer for each read would have to be zeroed, and large ones come from the kernel page by page:
//! together nearly the cost of the read. A used one also still lies in the processor's cache. What readers
//! ask for at once fits one size; the few longer reads get memory of their own.

use bytes::Bytes;
use parking_lot::Mutex;

/// The size of a buffer that is kept, in bytes.
const SIZE: usize = 256 << 10;

/// How many are kept: 8 MiB in all.
const KEPT: usize = 32;

static KEEP: Mutex<Vec<Box<[u8]>>> = Mutex::new(Vec::new());

/// Memory for one read.
pub(crate) struct Buffer {
    memory: Box<[u8]>,
    len: usize,
}

impl Buffer {
    /// A buffer of `len` bytes, whose content means nothing.
    pub(crate) fn take(len: usize) -> Self {
        let kept = if len <= SIZE { KEEP.lock().pop() } else { None };
        Self { memory: kept.unwrap_or_else(|| vec![0; len.max(SIZE)].into()), len }
    }

    /// The bytes, to be filled.
    #[expect(clippy::indexing_slicing, reason = "its memory was taken long enough")]
    pub(crate) fn bytes(&mut self) -> &mut [u8] {
        &mut self.memory[..self.len]
    }

    /// The filled bytes; the memory is used again when the last part of them is dropped.
    pub(crate) fn freeze(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for Buffer {
    #[expect(clippy::indexing_slicing, reason = "its memory was taken long enough")]
    fn as_ref(&self) -> &[u8] {
        &self.memory[..self.len]
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if self.memory.len() == SIZE {
            let mut keep = KEEP.lock();
            if keep.len() < KEPT {
                keep.push(std::mem::take(&mut self.memory));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_as_long_as_was_asked_whatever_its_memory_was_used_for() {
        for len in [0, 1, SIZE, SIZE + 1, 7] {
            let mut buffer = Buffer::take(len);
            buffer.bytes().fill(len as u8);
            assert_eq!(buffer.freeze(), vec![len as u8; len]);
        }
    }

    #[test]
    fn memory_is_not_used_again_before_all_parts_are_gone() {
        let mut buffer = Buffer::take(2);
        buffer.bytes().copy_from_slice(b"ab");
        let part = buffer.freeze().slice(1..);
        Buffer::take(2).bytes().fill(b'x');
        assert_eq!(part, "b");
    }
}
