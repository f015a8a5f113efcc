//! The journal's text: a header that names the blob, then records, each of which stands for itself.
//!
//! Each record is framed as `length: u32, checksum: 8 bytes, body`, integers little-endian, the checksum
//! the first 8 bytes of the body's BLAKE3. Reading stops at the first frame that is cut, does not match its
//! checksum or is of a kind unknown here; what follows is lost, which is a miss and never a mistake.
//! Without a good header there is no blob.

use bytes::{Buf, BufMut, Bytes};
use shoal_model::{BlobKey, Digest, TrustGroup};
use shoal_swarm::{Geometry, PieceIndex};

use crate::PieceDigest;

/// Marks a journal and its version.
const MAGIC: &[u8; 8] = b"shoal-p1";
/// The bytes of a frame before its body.
const FRAME: usize = 12;

const PARTIAL: u8 = 1;
const WHOLE: u8 = 2;
const HELD: u8 = 3;
const PROVEN: u8 = 4;

/// What a journal is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) key: BlobKey,
    pub(crate) geometry: Geometry,
}

/// Piece digests that a gateway vouches for, and its signed statement of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DigestList {
    /// The piece of the first digest.
    pub(crate) first: PieceIndex,
    pub(crate) digests: Vec<PieceDigest>,
    /// Signed bytes that the store keeps for relaying and does not understand.
    pub(crate) attestation: Bytes,
    /// Whether the gateway saw the whole digest match: such a list is complete.
    pub(crate) seals: bool,
}

/// One change of a blob's state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Record {
    /// A gateway vouched for these digests.
    Listed(DigestList),
    /// The piece's bytes are in the data file.
    Held { piece: PieceIndex, digest: PieceDigest },
    /// This node saw the whole digest match.
    Proven,
}

/// A journal as far as it can be believed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Parsed {
    pub(crate) header: Header,
    pub(crate) records: Vec<Record>,
    /// The length of the good part in bytes.
    pub(crate) len: u64,
}

/// Reads a journal; `None` where the header is not good.
pub(crate) fn parse(bytes: &[u8]) -> Option<Parsed> {
    let (body, mut rest) = split(bytes.strip_prefix(MAGIC)?)?;
    let header = Header::decode(body)?;
    let mut records = Vec::new();
    while let Some((record, after)) = next(rest) {
        records.push(record);
        rest = after;
    }
    let len = (bytes.len() - rest.len()) as u64;
    Some(Parsed { header, records, len })
}

fn next(bytes: &[u8]) -> Option<(Record, &[u8])> {
    let (body, rest) = split(bytes)?;
    Some((Record::decode(body)?, rest))
}

/// Takes the first frame off: its body, and what follows.
fn split(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (mut frame, rest) = bytes.split_at_checked(FRAME)?;
    let (body, rest) = rest.split_at_checked(frame.get_u32_le() as usize)?;
    (checksum(body) == frame).then_some((body, rest))
}

/// Appends a framed body. Callers keep bodies far below 4 GiB: a geometry bounds the digests, the blob's
/// `learn` and `seal` the attestation.
fn put_framed(out: &mut Vec<u8>, body: &[u8]) {
    out.put_u32_le(body.len() as u32);
    out.put_slice(&checksum(body));
    out.put_slice(body);
}

fn checksum(body: &[u8]) -> [u8; 8] {
    let [a, b, c, d, e, f, g, h, ..] = *blake3::hash(body).as_bytes();
    [a, b, c, d, e, f, g, h]
}

impl Header {
    /// The first bytes of a journal.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut body = Vec::new();
        body.put_slice(self.key.digest.as_bytes());
        body.put_u64_le(self.geometry.size());
        body.put_u64_le(self.geometry.piece_length());
        body.put_slice(self.key.group.as_str().as_bytes());
        let mut out = MAGIC.to_vec();
        put_framed(&mut out, &body);
        out
    }

    fn decode(body: &[u8]) -> Option<Self> {
        let (digest, mut rest) = body.split_first_chunk::<32>()?;
        let geometry = Geometry::stated(rest.try_get_u64_le().ok()?, rest.try_get_u64_le().ok()?)?;
        let key = BlobKey {
            group: TrustGroup::new(str::from_utf8(rest).ok()?),
            digest: Digest::from_sha256(*digest),
        };
        Some(Self { key, geometry })
    }
}

impl Record {
    /// The record as a journal carries it.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut body = Vec::new();
        match self {
            Self::Listed(list) => {
                body.put_u8(if list.seals { WHOLE } else { PARTIAL });
                body.put_u32_le(list.first);
                body.put_u32_le(list.digests.len() as u32);
                for digest in &list.digests {
                    body.put_slice(&digest.0);
                }
                body.put_slice(&list.attestation);
            }
            Self::Held { piece, digest } => {
                body.put_u8(HELD);
                body.put_u32_le(*piece);
                body.put_slice(&digest.0);
            }
            Self::Proven => body.put_u8(PROVEN),
        }
        let mut out = Vec::with_capacity(FRAME + body.len());
        put_framed(&mut out, &body);
        out
    }

    fn decode(mut body: &[u8]) -> Option<Self> {
        match body.try_get_u8().ok()? {
            kind @ (PARTIAL | WHOLE) => {
                let first = body.try_get_u32_le().ok()?;
                let n_digests = body.try_get_u32_le().ok()? as usize;
                let (digests, attestation) = body.split_at_checked(n_digests.checked_mul(32)?)?;
                Some(Self::Listed(DigestList {
                    first,
                    digests: digests.as_chunks().0.iter().copied().map(PieceDigest).collect(),
                    attestation: Bytes::copy_from_slice(attestation),
                    seals: kind == WHOLE,
                }))
            }
            HELD => Some(Self::Held {
                piece: body.try_get_u32_le().ok()?,
                digest: PieceDigest(body.try_into().ok()?),
            }),
            PROVEN => body.is_empty().then_some(Self::Proven),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn digests() -> impl Strategy<Value = PieceDigest> {
        any::<[u8; 32]>().prop_map(PieceDigest)
    }

    fn records() -> impl Strategy<Value = Record> {
        let list = (
            any::<u32>(),
            prop::collection::vec(digests(), 0..4),
            prop::collection::vec(any::<u8>(), 0..40),
            any::<bool>(),
        );
        prop_oneof![
            list.prop_map(|(first, digests, attestation, seals)| Record::Listed(DigestList {
                first,
                digests,
                attestation: attestation.into(),
                seals,
            })),
            (any::<u32>(), digests()).prop_map(|(piece, digest)| Record::Held { piece, digest }),
            Just(Record::Proven),
        ]
    }

    fn header(group: &str) -> Header {
        Header {
            key: BlobKey { group: TrustGroup::new(group), digest: Digest::from_sha256([7; 32]) },
            geometry: Geometry::by_rule(1 << 20),
        }
    }

    /// A journal, and the length after the header and after each record.
    fn journal(header: &Header, records: &[Record]) -> (Vec<u8>, Vec<usize>) {
        let mut bytes = header.encode();
        let mut ends = vec![bytes.len()];
        for record in records {
            bytes.extend(record.encode());
            ends.push(bytes.len());
        }
        (bytes, ends)
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(group: String, records in prop::collection::vec(records(), 0..6)) {
            let header = header(&group);
            let (bytes, _) = journal(&header, &records);
            let len = bytes.len() as u64;
            prop_assert_eq!(parse(&bytes), Some(Parsed { header, records, len }));
        }

        #[test]
        fn a_cut_journal_loses_the_cut_record_only(
            records in prop::collection::vec(records(), 0..6),
            at: prop::sample::Index,
        ) {
            let (bytes, ends) = journal(&header("g"), &records);
            let cut = at.index(bytes.len() + 1);
            let whole = ends.iter().rev().position(|end| *end <= cut).map(|it| records.len() - it);
            let parsed = parse(&bytes[..cut]);
            prop_assert_eq!(parsed.as_ref().map(|it| &it.records[..]), whole.map(|it| &records[..it]));
            prop_assert_eq!(parsed.map(|it| it.len as usize), whole.map(|it| ends[it]));
        }

        #[test]
        fn a_changed_byte_ends_the_journal_where_it_stands(
            records in prop::collection::vec(records(), 0..6),
            at: prop::sample::Index,
            flip in 1u8..,
        ) {
            let (mut bytes, ends) = journal(&header("g"), &records);
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
            let before = ends.iter().rev().position(|end| *end <= at).map(|it| records.len() - it);
            prop_assert_eq!(parse(&bytes).map(|it| it.records), before.map(|it| records[..it].to_vec()));
        }

        #[test]
        fn no_bytes_make_the_parser_panic(mut bytes: Vec<u8>, kind in 0u8..6) {
            parse(&bytes);
            bytes.insert(0, kind);
            Record::decode(&bytes);
            Header::decode(&bytes);
        }
    }
}
