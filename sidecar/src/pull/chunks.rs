//! The bytes of a piece, as they come.
//!
//! They are kept as the network hands them over. Each part costs memory beside its bytes, though, and whoever sends
//! chooses how many there are: short ones are put together.

use bytes::{Bytes, BytesMut};

/// A part that is shorter goes together with its neighbours.
const SHORT: usize = 4 << 10;

/// The parts so far.
#[derive(Default)]
pub(super) struct Chunks {
    long: Vec<Bytes>,
    /// What came after these.
    short: BytesMut,
}

impl Chunks {
    /// Adds what came next.
    pub(super) fn add(&mut self, bytes: Bytes) {
        if bytes.len() < SHORT {
            self.short.extend_from_slice(&bytes);
        } else {
            self.gather();
            self.long.push(bytes);
        }
    }

    /// All parts, in order.
    pub(super) fn all(mut self) -> Vec<Bytes> {
        self.gather();
        self.long
    }

    fn gather(&mut self) {
        if !self.short.is_empty() {
            self.long.push(self.short.split().freeze());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_parts_become_one_and_long_ones_stay_what_they_are() {
        let mut chunks = Chunks::default();
        let long = Bytes::from(vec![7; SHORT]);
        for part in [&b"a"[..], b"b", &long, b"c", &long, &long] {
            chunks.add(Bytes::copy_from_slice(part));
        }
        chunks.add(Bytes::from_static(b"d"));
        assert_eq!(chunks.all(), [&b"ab"[..], &long, b"c", &long, &long, b"d"]);
        assert!(Chunks::default().all().is_empty());
    }
}
