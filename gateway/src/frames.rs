//! How a blob travels between regions: bytes, and signs of life while there are none.
//!
//! Who waits for a blob at one region has to tell a hub that waits on purpose (for its turn at the registry, for its
//! rate) from one whose registry is silent. So the body of the answer is made of frames: four bytes of length, most
//! significant first, and as many of content. A frame of length 0 says that the hub's seed lives. Whoever wants this form
//! accepts [`MEDIA_TYPE`].
//!
//! Knows nothing of: HTTP, who sends, what the content is.

use bytes::{BufMut as _, Bytes, BytesMut};

/// The type of a body in this form.
pub(crate) const MEDIA_TYPE: &str = "application/vnd.shoal.frames";

/// The most bytes of content in a frame.
pub(crate) const MAX_LEN: usize = 1 << 20;

/// A part of a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Content(Bytes),
    /// The seed lives.
    Life,
}

/// The length of a frame is more than there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a frame of {0} bytes, allowed are {MAX_LEN}")]
pub(crate) struct TooLong(u32);

/// What goes before `len` bytes of content, at most [`MAX_LEN`]; a sign of life where that is 0.
pub(crate) fn head(len: usize) -> Bytes {
    debug_assert!(len <= MAX_LEN, "{len}");
    let mut head = BytesMut::with_capacity(4);
    head.put_u32(u32::try_from(len).unwrap_or(u32::MAX));
    head.freeze()
}

/// Takes a body apart.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    /// The length that is coming, and how many of its four bytes have come.
    head: (u32, u8),
    /// Content of the frame that is to come.
    left: u32,
}

impl Reader {
    /// Takes the next part off the front of `body`; `None` where there is no more of it.
    pub(crate) fn take(&mut self, body: &mut Bytes) -> Result<Option<Part>, TooLong> {
        while self.left == 0 {
            let Some((next, _)) = body.split_first() else { return Ok(None) };
            let (len, n_bytes) = self.head;
            self.head = (len << 8 | u32::from(*next), n_bytes + 1);
            drop(body.split_to(1));
            if self.head.1 == 4 {
                let len = std::mem::take(&mut self.head).0;
                if len as usize > MAX_LEN {
                    return Err(TooLong(len));
                }
                if len == 0 {
                    return Ok(Some(Part::Life));
                }
                self.left = len;
            }
        }
        if body.is_empty() {
            return Ok(None);
        }
        let content = body.split_to(body.len().min(self.left as usize));
        // At most `left`.
        self.left -= content.len() as u32;
        Ok(Some(Part::Content(content)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What a body says, in the chunks that it came in.
    fn read(chunks: &[Bytes]) -> Result<(Vec<u8>, usize), TooLong> {
        let (mut reader, mut content, mut n_lives) = (Reader::default(), Vec::new(), 0);
        for chunk in chunks {
            let mut chunk = chunk.clone();
            while let Some(part) = reader.take(&mut chunk)? {
                match part {
                    Part::Content(bytes) => content.extend_from_slice(&bytes),
                    Part::Life => n_lives += 1,
                }
            }
            assert!(chunk.is_empty());
        }
        Ok((content, n_lives))
    }

    proptest! {
        #[test]
        fn however_a_body_is_chunked_it_says_the_same(
            frames in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..20), 0..20),
            chunk_len in 1usize..30,
        ) {
            let body: Vec<u8> = frames.iter().flat_map(|it| [&head(it.len()), &it[..]].concat()).collect();
            let chunks: Vec<_> = body.chunks(chunk_len).map(Bytes::copy_from_slice).collect();
            let n_lives = frames.iter().filter(|it| it.is_empty()).count();
            prop_assert_eq!(read(&chunks), Ok((frames.concat(), n_lives)));
        }

        #[test]
        fn no_bytes_are_too_much_for_the_reader(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = read(&[body.into()]);
        }
    }

    #[test]
    fn a_frame_that_is_too_long_is_refused() {
        assert_eq!(read(&[head(MAX_LEN)]), Ok((Vec::new(), 0)));
        assert_eq!(read(&[Bytes::from_static(&[0, 0x10, 0, 1])]), Err(TooLong(0x10_0001)));
        assert_eq!(read(&[Bytes::from_static(b"HTTP/1.1")]), Err(TooLong(0x4854_5450)));
    }
}
