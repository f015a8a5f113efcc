//! What is known and held of one blob, and how that changes.
//!
//! A piece is *missing*, *provisional* or *held*. Held means that its bytes matched a digest that somebody
//! answerable vouched for: a gateway's list, or the whole digest.
//! Provisional bytes came straight from the registry with nobody vouching yet: local readers may have
//! them, nobody else, and a restart forgets them. The first digest learned for a provisional piece decides
//! it: held where they agree, missing where not.
//!
//! *Unverified* marks pieces whose bytes have to be hashed before they are read again: all of them after a
//! restart, and those that a client just failed on.
//!
//! A piece that the disk did not take may be in *memory* for a while. One that came from another node is for local
//! readers only, since others can have it there as well; one that came from the registry is held or provisional
//! like any other as long as it lasts.
//!
//! What the journal has to be told of all this is collected here, in the order of the changes, and written by
//! whoever may block.
//!
//! The generation counts how often everything was dropped. Bytes and hashes that belong to an earlier
//! generation change nothing.
//!
//! Invariants: a held piece has a digest; a provisional piece has none; only pieces that lie on the disk are
//! unverified.

mod memory;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ops::Range;

use bytes::Bytes;
use shoal_swarm::{Bitmap, Geometry, PieceIndex};
use tokio::time::Instant;

use self::memory::InMemory;
use crate::memory::Roomed;
use crate::record::{DigestList, Record};
use crate::{Learned, PieceDigest, Status, Written};

/// Where bytes came from, which decides what becomes of a piece that nobody has published a digest of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// Another node: the piece is refused.
    Peer,
    /// The registry, read by this node itself: the piece is provisional.
    Registry,
}

/// Bytes that want to become a piece.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Offer {
    pub(crate) piece: PieceIndex,
    pub(crate) len: u64,
    pub(crate) digest: PieceDigest,
    pub(crate) origin: Origin,
}

/// Who wants to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reader {
    /// The runtime of this node: provisional pieces, too.
    Local,
    /// Another node: held pieces only.
    Peer,
}

/// Whether pieces may be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// All of them, from the disk.
    Ready,
    /// Those before this one from the disk, this one from memory.
    InMemory(PieceIndex),
    Missing(PieceIndex),
    /// The piece has to be hashed first, and to match this.
    Unverified(PieceIndex, PieceDigest),
}

/// Which bytes are there, as far as the whole digest depends on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Contents {
    pub(crate) generation: u64,
    readable: Bitmap,
    provisional: BTreeMap<PieceIndex, PieceDigest>,
}

/// Changes that the journal has yet to be told.
#[derive(Debug, Default)]
pub(crate) struct Unwritten {
    /// First of all, everything was dropped.
    pub(crate) cleared: bool,
    pub(crate) records: Vec<Record>,
}

impl Unwritten {
    pub(crate) fn is_empty(&self) -> bool {
        !self.cleared && self.records.is_empty()
    }
}

/// Who vouches for the whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seal {
    Open,
    /// This node hashed all of it.
    Proven,
    /// A gateway signed the complete list, the only one of the attestations.
    Listed,
}

/// The state of one blob.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) geometry: Geometry,
    pub(crate) generation: u64,
    pub(crate) held: Bitmap,
    unverified: Bitmap,
    provisional: BTreeMap<PieceIndex, PieceDigest>,
    /// Pieces whose bytes are on their way to the disk. One writer at a time, because two whose bytes
    /// differ would leave a mixture.
    writing: BTreeSet<PieceIndex>,
    /// As long as the last digest known requires, so that a large geometry alone takes no memory.
    digests: Vec<Option<PieceDigest>>,
    /// The pieces whose digests the attestations cover; each attestation kept covered one more, which
    /// bounds their number.
    attested: Bitmap,
    attestations: Vec<Bytes>,
    /// The same, to be found.
    known: HashSet<Bytes>,
    seal: Seal,
    /// The pieces that the disk did not take.
    memory: BTreeMap<PieceIndex, InMemory>,
    /// The disk took the last piece, as far as one has come since the blob was last in nobody's use.
    pub(crate) is_stored: bool,
    pub(crate) unwritten: Unwritten,
}

impl State {
    /// Nothing known, nothing held.
    pub(crate) fn new(geometry: Geometry) -> Self {
        let none = Bitmap::new(geometry.n_pieces());
        Self {
            geometry,
            generation: 0,
            held: none.clone(),
            unverified: none.clone(),
            provisional: BTreeMap::new(),
            writing: BTreeSet::new(),
            digests: Vec::new(),
            attested: none,
            attestations: Vec::new(),
            known: HashSet::new(),
            seal: Seal::Open,
            memory: BTreeMap::new(),
            is_stored: true,
            unwritten: Unwritten::default(),
        }
    }

    /// What a journal says, all of it unverified.
    pub(crate) fn restored(geometry: Geometry, records: Vec<Record>) -> Self {
        let mut it = Self::new(geometry);
        for record in records {
            match record {
                Record::Listed(list) if it.compare(&list) == Learned::Fresh => {
                    it.learn(list);
                }
                Record::Held { piece, digest } if it.digest_of(piece).is_none_or(|known| known == digest) => {
                    it.hold(piece, digest);
                }
                Record::Proven => {
                    it.prove();
                }
                // Such records are never written; one that turns up is skipped like any other damage.
                Record::Listed(_) | Record::Held { .. } => {}
            }
        }
        it.mark_all_suspect();
        it.unwritten = Unwritten::default();
        it
    }

    /// Drops everything and starts over with a cut that may be another. Returns what was.
    pub(crate) fn reset(&mut self, geometry: Geometry) -> Self {
        let unwritten = Unwritten { cleared: true, records: Vec::new() };
        let fresh = Self { generation: self.generation + 1, unwritten, ..Self::new(geometry) };
        std::mem::replace(self, fresh)
    }

    /// The state as others may see it.
    pub(crate) fn status(&self) -> Status {
        Status {
            generation: self.generation,
            geometry: self.geometry,
            held: self.held.clone(),
            sealed: self.is_sealed(),
        }
    }

    /// Whether nothing is there or known.
    pub(crate) fn is_blank(&self) -> bool {
        self.readable().is_empty() && self.attestations.is_empty()
    }

    /// Whether the whole digest is vouched for.
    pub(crate) fn is_sealed(&self) -> bool {
        self.seal != Seal::Open
    }

    /// The signed lists to relay: the complete one alone once it is known.
    pub(crate) fn attestations(&self) -> &[Bytes] {
        &self.attestations
    }

    /// Whether the signed list brings nothing new: it is one of those to relay, or the complete one is known.
    pub(crate) fn knows(&self, attestation: &[u8]) -> bool {
        self.is_sealed() || self.known.contains(attestation)
    }

    /// The digest that was vouched for.
    pub(crate) fn digest_of(&self, piece: PieceIndex) -> Option<PieceDigest> {
        self.digests.get(piece as usize).copied().flatten()
    }

    fn set_digest(&mut self, piece: PieceIndex, digest: PieceDigest) {
        let at = piece as usize;
        if self.digests.len() <= at {
            self.digests.resize(at + 1, None);
        }
        if let Some(known) = self.digests.get_mut(at) {
            *known = Some(digest);
        }
    }

    // === learning ===

    /// Judges a list without taking it.
    pub(crate) fn compare(&self, list: &DigestList) -> Learned {
        let n_pieces = self.geometry.n_pieces();
        let end = u64::from(list.first) + list.digests.len() as u64;
        if end > u64::from(n_pieces) || (list.seals && list.digests.len() != n_pieces as usize) {
            return Learned::Conflict;
        }
        let mut listed = (list.first..n_pieces).zip(&list.digests);
        if listed.clone().any(|(piece, digest)| self.digest_of(piece).is_some_and(|known| known != *digest)) {
            return Learned::Conflict;
        }
        let known = match list.seals {
            true => self.seal == Seal::Listed,
            false => listed.all(|(piece, _)| self.attested.contains(piece)),
        };
        if known { Learned::Known } else { Learned::Fresh }
    }

    /// All pieces that local readers may have.
    pub(crate) fn readable(&self) -> Bitmap {
        let mut readable = self.held.clone();
        self.provisional.keys().chain(self.memory.keys()).for_each(|it| {
            readable.insert(*it);
        });
        readable
    }

    /// Takes a list that compared as fresh. Provisional pieces are held by it, or dropped.
    pub(crate) fn learn(&mut self, list: DigestList) {
        self.unwritten.records.push(Record::Listed(list.clone()));
        for (piece, digest) in (list.first..).zip(list.digests) {
            self.attested.insert(piece);
            self.set_digest(piece, digest);
            match self.provisional.get(&piece) {
                Some(own) if *own == digest => self.hold(piece, digest),
                Some(_) => self.drop_piece(piece),
                None => {}
            }
        }
        if list.seals {
            self.attestations.clear();
            self.known = HashSet::new();
            self.seal = Seal::Listed;
        }
        self.known.insert(list.attestation.clone());
        self.attestations.push(list.attestation);
    }

    // === writing ===

    /// What these bytes would be, were they there.
    fn judge(&self, offer: &Offer) -> Written {
        let Offer { piece, digest, .. } = *offer;
        if piece >= self.geometry.n_pieces() || offer.len != self.geometry.len_of(piece) {
            return Written::Mismatch;
        }
        match (self.digest_of(piece), offer.origin) {
            (Some(known), _) if known == digest => Written::Held,
            (Some(_), _) => Written::Mismatch,
            (None, Origin::Peer) => Written::NoDigest,
            (None, Origin::Registry) => Written::Provisional,
        }
    }

    /// What these bytes would be, where they are of any use.
    fn use_of(&self, offer: &Offer) -> Result<Written, Written> {
        let is_there = self.held.contains(offer.piece) || self.memory.contains_key(&offer.piece);
        match self.judge(offer) {
            _ if is_there => Err(Written::AlreadyHeld),
            Written::Provisional if self.provisional.contains_key(&offer.piece) => Err(Written::AlreadyHeld),
            written @ (Written::Held | Written::Provisional) => Ok(written),
            refused => Err(refused),
        }
    }

    /// Claims a piece for its writer; the error says why it is not to be written. One in memory has yet to be.
    pub(crate) fn begin(&mut self, offer: &Offer) -> Result<(), Written> {
        if !self.memory.contains_key(&offer.piece) {
            self.use_of(offer)?;
        } else if !matches!(self.judge(offer), Written::Held | Written::Provisional) {
            return Err(Written::AlreadyHeld);
        }
        if self.writing.insert(offer.piece) { Ok(()) } else { Err(Written::Busy) }
    }

    /// Gives the claim up after a failed write.
    pub(crate) fn abandon(&mut self, piece: PieceIndex) {
        self.writing.remove(&piece);
    }

    /// Takes a piece whose bytes have reached the data file. Judges it anew, because a digest may have been
    /// learned since it was claimed.
    pub(crate) fn finish(&mut self, offer: &Offer) -> Written {
        self.writing.remove(&offer.piece);
        self.is_stored = true;
        let verdict = self.judge(offer);
        match verdict {
            Written::Held => {
                self.memory.remove(&offer.piece);
                self.hold(offer.piece, offer.digest);
            }
            Written::Provisional => {
                self.memory.remove(&offer.piece);
                self.provisional.insert(offer.piece, offer.digest);
            }
            _ => {}
        }
        verdict
    }

    /// Takes a piece that the disk did not take.
    pub(crate) fn keep(&mut self, now: Instant, offer: &Offer, bytes: Roomed) -> Written {
        self.is_stored = false;
        let written = match self.use_of(offer) {
            Ok(written) => written,
            Err(refused) => return refused,
        };
        self.memory.insert(offer.piece, InMemory { bytes, used: now, is_read: false });
        match (written, offer.origin) {
            (_, Origin::Peer) => {}
            (Written::Provisional, Origin::Registry) => {
                self.provisional.insert(offer.piece, offer.digest);
            }
            (_, Origin::Registry) => self.hold(offer.piece, offer.digest),
        }
        Written::Kept
    }

    fn hold(&mut self, piece: PieceIndex, digest: PieceDigest) {
        if self.held.insert(piece) {
            self.provisional.remove(&piece);
            self.set_digest(piece, digest);
        }
        if !self.memory.contains_key(&piece) {
            self.unwritten.records.push(Record::Held { piece, digest });
        }
    }

    // === reading ===

    /// Whether `reader` may read `pieces` now.
    pub(crate) fn access(&self, pieces: Range<PieceIndex>, reader: Reader) -> Access {
        for piece in pieces {
            let digest = match self.held.contains(piece) {
                true => self.digest_of(piece),
                false if reader == Reader::Peer => None,
                false if self.provisional.contains_key(&piece) => self.provisional.get(&piece).copied(),
                false => self.memory.contains_key(&piece).then(|| self.digest_of(piece)).flatten(),
            };
            match digest {
                None => return Access::Missing(piece),
                Some(_) if self.memory.contains_key(&piece) => return Access::InMemory(piece),
                Some(digest) if self.unverified.contains(piece) => return Access::Unverified(piece, digest),
                Some(_) => {}
            }
        }
        Access::Ready
    }

    /// Takes the outcome of hashing an unverified piece; says whether the piece was dropped for it. An
    /// outcome that comes after somebody else's is void: the piece may have been written anew since.
    pub(crate) fn verified(&mut self, piece: PieceIndex, good: bool) -> bool {
        let dropped = self.unverified.contains(piece) && !good;
        if dropped {
            self.drop_piece(piece);
        }
        self.unverified.remove(piece);
        dropped
    }

    fn drop_piece(&mut self, piece: PieceIndex) {
        self.held.remove(piece);
        self.provisional.remove(&piece);
        self.unverified.remove(piece);
        self.memory.remove(&piece);
    }

    /// Has these pieces, as far as they lie on the disk, hashed again before they are next read.
    pub(crate) fn mark_suspect(&mut self, pieces: Range<PieceIndex>) {
        for piece in pieces {
            if self.lies_on_disk(piece) {
                self.unverified.insert(piece);
            }
        }
    }

    /// The same for all pieces.
    pub(crate) fn mark_all_suspect(&mut self) {
        self.mark_suspect(0..self.geometry.n_pieces());
    }

    fn lies_on_disk(&self, piece: PieceIndex) -> bool {
        let is_there = self.held.contains(piece) || self.provisional.contains_key(&piece);
        is_there && !self.memory.contains_key(&piece)
    }

    /// Whether the content file changes at this moment.
    pub(crate) fn is_being_written(&self) -> bool {
        !self.writing.is_empty()
    }

    // === proving ===

    /// What the hash of the whole is about to cover.
    pub(crate) fn contents(&self) -> Contents {
        Contents {
            generation: self.generation,
            readable: self.readable(),
            provisional: self.provisional.clone(),
        }
    }

    /// Seals the blob, whose whole digest has matched; the provisional pieces are held by that.
    pub(crate) fn prove(&mut self) {
        if self.seal == Seal::Open {
            self.seal = Seal::Proven;
        }
        let provisional = std::mem::take(&mut self.provisional);
        provisional.into_iter().for_each(|(piece, digest)| self.hold(piece, digest));
        self.unwritten.records.push(Record::Proven);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    const N_PIECES: u32 = 4;

    fn digest(of: u8) -> PieceDigest {
        PieceDigest([of; 32])
    }

    /// Four pieces of 10 bytes; the true digest of piece n is n.
    fn state() -> State {
        State::new(Geometry::stated(40, 10).unwrap())
    }

    fn list(first: PieceIndex, digests: &[u8]) -> DigestList {
        DigestList {
            first,
            digests: digests.iter().copied().map(digest).collect(),
            attestation: Bytes::from(digests.to_vec()),
            seals: false,
        }
    }

    fn whole(digests: &[u8]) -> DigestList {
        DigestList { seals: true, ..list(0, digests) }
    }

    fn learn(state: &mut State, list: DigestList) -> Learned {
        let res = state.compare(&list);
        if res == Learned::Fresh {
            state.learn(list);
        }
        res
    }

    fn offer(piece: PieceIndex, of: u8, origin: Origin) -> Offer {
        Offer { piece, len: 10, digest: digest(of), origin }
    }

    fn held(piece: u8) -> Record {
        Record::Held { piece: piece.into(), digest: digest(piece) }
    }

    /// The bytes of a piece, kept in memory.
    fn roomed(of: u8) -> Roomed {
        Roomed::anywhere(&[of; 10])
    }

    fn write(state: &mut State, offer: Offer) -> Written {
        match state.begin(&offer) {
            Ok(()) => state.finish(&offer),
            Err(refused) => refused,
        }
    }

    /// Has `piece` held, by a list that names it alone.
    #[track_caller]
    fn hold(state: &mut State, piece: u8) {
        assert_eq!(learn(state, list(piece.into(), &[piece])), Learned::Fresh);
        assert_eq!(write(state, offer(piece.into(), piece, Origin::Peer)), Written::Held);
    }

    /// What becomes of piece 1 with the digest `of`, for each origin.
    #[track_caller]
    fn check_write(prepare: &dyn Fn(&mut State), of: u8, [peer, registry]: [Written; 2]) {
        for (origin, expected) in [(Origin::Peer, peer), (Origin::Registry, registry)] {
            let mut it = state();
            prepare(&mut it);
            assert_eq!(write(&mut it, offer(1, of, origin)), expected, "{origin:?}");
        }
    }

    #[test]
    fn a_published_digest_decides_whoever_writes() {
        use Written::{AlreadyHeld, Held, Mismatch, NoDigest, Provisional};
        check_write(&|_| {}, 1, [NoDigest, Provisional]);
        let listed = |it: &mut State| assert_eq!(learn(it, list(0, &[0, 1])), Learned::Fresh);
        check_write(&listed, 1, [Held; 2]);
        check_write(&listed, 9, [Mismatch; 2]);
        check_write(&|it| hold(it, 1), 9, [AlreadyHeld; 2]);
        let provisional = |it: &mut State| assert_eq!(write(it, offer(1, 1, Origin::Registry)), Provisional);
        check_write(&provisional, 1, [NoDigest, AlreadyHeld]);
    }

    #[test]
    fn bytes_of_the_wrong_length_or_place_are_no_piece() {
        for (piece, len) in [(1, 9), (1, 11), (4, 10), (4, 0), (u32::MAX, 10)] {
            let offer = Offer { len, ..offer(piece, 1, Origin::Registry) };
            assert_eq!(write(&mut state(), offer), Written::Mismatch, "{piece} {len}");
        }
    }

    #[test]
    fn a_piece_has_one_writer_at_a_time() {
        let mut it = state();
        let offer = offer(2, 2, Origin::Registry);
        assert_eq!(it.begin(&offer), Ok(()));
        assert_eq!(it.begin(&offer), Err(Written::Busy));
        it.abandon(2);
        assert_eq!(it.begin(&offer), Ok(()));
        assert_eq!(it.finish(&offer), Written::Provisional);
        assert_eq!(it.begin(&offer), Err(Written::AlreadyHeld));
    }

    #[test]
    fn a_digest_learned_during_a_write_decides() {
        let mut it = state();
        let offer = offer(1, 9, Origin::Registry);
        assert_eq!(it.begin(&offer), Ok(()));
        it.learn(list(1, &[1]));
        assert_eq!(it.finish(&offer), Written::Mismatch);
        assert_eq!(it.access(1..2, Reader::Local), Access::Missing(1));
    }

    #[test]
    fn lists_are_fresh_known_or_in_conflict() {
        use Learned::{Conflict, Fresh, Known};
        let mut it = state();
        for (list, expected) in [
            (list(0, &[0, 1]), Fresh),
            (list(1, &[1]), Known),
            (list(1, &[1, 2]), Fresh),
            (list(1, &[9]), Conflict),
            (list(3, &[3, 4]), Conflict),
            (list(u32::MAX, &[3, 4]), Conflict),
            (whole(&[0, 1, 2]), Conflict),
            (whole(&[0, 1, 9, 3]), Conflict),
            (whole(&[0, 1, 2, 3]), Fresh),
            (whole(&[0, 1, 2, 3]), Known),
            (list(3, &[3]), Known),
        ] {
            assert_eq!(learn(&mut it, list.clone()), expected, "{list:?}");
        }
    }

    #[test]
    fn the_complete_list_replaces_the_partial_ones() {
        let mut it = state();
        learn(&mut it, list(0, &[0, 1]));
        learn(&mut it, list(2, &[2]));
        assert_eq!(it.attestations().len(), 2);
        assert!(!it.is_sealed());
        learn(&mut it, whole(&[0, 1, 2, 3]));
        assert_eq!(it.attestations(), [Bytes::from(vec![0, 1, 2, 3])]);
        assert!(it.is_sealed() && !it.status().is_complete());
    }

    #[test]
    fn a_learned_digest_settles_a_provisional_piece() {
        let mut it = state();
        write(&mut it, offer(1, 1, Origin::Registry));
        write(&mut it, offer(2, 9, Origin::Registry));
        assert_eq!(it.access(1..3, Reader::Local), Access::Ready);
        assert_eq!(it.access(1..2, Reader::Peer), Access::Missing(1));
        it.learn(list(0, &[0, 1, 2]));
        assert_eq!(it.unwritten.records, [Record::Listed(list(0, &[0, 1, 2])), held(1)]);
        assert_eq!(it.access(1..2, Reader::Peer), Access::Ready);
        assert_eq!(it.access(2..3, Reader::Local), Access::Missing(2));
    }

    #[test]
    fn the_whole_digest_makes_provisional_pieces_held() {
        let mut it = state();
        for piece in 0..N_PIECES {
            write(&mut it, offer(piece, piece as u8, Origin::Registry));
        }
        assert!(it.held.is_empty());
        it.prove();
        assert_eq!(it.unwritten.records, [held(0), held(1), held(2), held(3), Record::Proven]);
        assert!(it.status().is_complete());
    }

    #[test]
    fn suspect_pieces_are_verified_before_they_are_read() {
        let mut it = state();
        hold(&mut it, 1);
        write(&mut it, offer(2, 2, Origin::Registry));
        it.mark_all_suspect();
        assert_eq!(it.access(1..3, Reader::Local), Access::Unverified(1, digest(1)));
        assert!(!it.verified(1, true));
        assert_eq!(it.access(1..3, Reader::Local), Access::Unverified(2, digest(2)));
        assert!(it.verified(2, false));
        assert_eq!(it.access(1..3, Reader::Local), Access::Missing(2));
    }

    #[test]
    fn a_late_verdict_does_not_drop_a_piece_written_anew() {
        let mut it = state();
        hold(&mut it, 1);
        it.mark_all_suspect();
        assert!(it.verified(1, false));
        assert_eq!(write(&mut it, offer(1, 1, Origin::Peer)), Written::Held);
        assert!(!it.verified(1, false));
        assert_eq!(it.access(1..2, Reader::Peer), Access::Ready);
    }

    #[test]
    fn a_piece_in_memory_is_for_local_readers_unless_it_came_from_the_registry() {
        let now = Instant::now();
        let mut it = state();
        it.learn(list(0, &[0, 1]));
        assert_eq!(it.keep(now, &offer(0, 0, Origin::Peer), roomed(0)), Written::Kept);
        assert_eq!(it.keep(now, &offer(1, 1, Origin::Registry), roomed(1)), Written::Kept);
        assert_eq!(it.keep(now, &offer(2, 2, Origin::Registry), roomed(2)), Written::Kept);
        assert_eq!(it.keep(now, &offer(0, 0, Origin::Peer), roomed(0)), Written::AlreadyHeld);
        assert_eq!(it.keep(now, &offer(3, 3, Origin::Peer), roomed(3)), Written::NoDigest);
        let may_have =
            |it: &State, reader, piece| it.access(piece..piece + 1, reader) == Access::InMemory(piece);
        assert_eq!([0, 1, 2].map(|piece| may_have(&it, Reader::Local, piece)), [true; 3]);
        assert_eq!([0, 1, 2].map(|piece| may_have(&it, Reader::Peer, piece)), [false, true, false]);
        it.learn(list(2, &[2]));
        assert!(may_have(&it, Reader::Peer, 2), "vouched for by now");
        it.mark_all_suspect();
        assert!(may_have(&it, Reader::Local, 0), "memory does not rot");
        assert!(
            it.unwritten.records.iter().all(|it| matches!(it, Record::Listed(_))),
            "nothing is on the disk"
        );
        assert!(it.forget(0) && !it.forget(0) && it.forget_all() && !it.forget_all());
        assert_eq!((it.readable().count(), it.held.count()), (0, 0));
    }

    #[test]
    fn a_piece_that_reaches_the_disk_after_all_leaves_memory() {
        let mut it = state();
        it.learn(list(0, &[0]));
        let late = offer(0, 0, Origin::Peer);
        assert_eq!(it.begin(&late), Ok(()));
        assert_eq!(it.keep(Instant::now(), &late, roomed(0)), Written::Kept);
        assert!(!it.is_stored);
        assert_eq!(it.finish(&late), Written::Held);
        assert!(it.is_stored && it.memory.is_empty());
        assert_eq!(it.unwritten.records.last(), Some(&held(0)));
        assert_eq!(it.access(0..1, Reader::Peer), Access::Ready);
    }

    #[test]
    fn what_was_read_to_its_end_leaves_memory_first() {
        let (mut it, now) = (state(), Instant::now());
        let later = |seconds| now + Duration::from_secs(seconds);
        for piece in 0..3 {
            it.keep(later(piece), &offer(piece as u32, piece as u8, Origin::Registry), roomed(piece as u8));
        }
        assert_eq!(it.in_memory(later(3), 0, 9), Some(&[0; 10][..]));
        let spare = |it: &State| it.spare().map(|it| (it.piece, it.is_unread));
        assert_eq!(spare(&it), Some((1, true)), "used least recently");
        it.in_memory(later(4), 2, 30);
        assert_eq!(spare(&it), Some((2, false)));
        it.forget(2);
        assert_eq!(it.in_memory(later(5), 2, 30), None);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Learn(PieceIndex, Vec<u8>, bool),
        Write(PieceIndex, u8, Origin),
        Keep(PieceIndex, u8, Origin),
        Forget(PieceIndex),
        Verified(PieceIndex, bool),
        MarkSuspect,
        Prove,
        Reset,
    }

    fn steps() -> impl Strategy<Value = Step> {
        let piece = 0..N_PIECES + 1;
        let origin = prop::sample::select(&[Origin::Peer, Origin::Registry][..]);
        prop_oneof![
            3 => (piece.clone(), prop::collection::vec(0u8..4, 0..5), any::<bool>())
                .prop_map(|(first, digests, seals)| Step::Learn(first, digests, seals)),
            6 => (piece.clone(), 0u8..4, origin.clone())
                .prop_map(|(piece, of, origin)| Step::Write(piece, of, origin)),
            3 => (piece.clone(), 0u8..4, origin).prop_map(|(piece, of, origin)| Step::Keep(piece, of, origin)),
            1 => piece.clone().prop_map(Step::Forget),
            2 => (piece, any::<bool>()).prop_map(|(piece, good)| Step::Verified(piece, good)),
            1 => Just(Step::MarkSuspect),
            1 => Just(Step::Prove),
            1 => Just(Step::Reset),
        ]
    }

    fn take(it: &mut State, step: Step) {
        match step {
            Step::Learn(first, digests, seals) => {
                learn(it, DigestList { seals, ..list(first, &digests) });
            }
            Step::Write(piece, of, origin) => {
                write(it, offer(piece, of, origin));
            }
            Step::Verified(piece, good) => {
                it.verified(piece, good);
            }
            Step::MarkSuspect => it.mark_all_suspect(),
            Step::Keep(piece, of, origin) => {
                it.keep(Instant::now(), &offer(piece, of, origin), roomed(of));
            }
            Step::Forget(piece) => {
                it.forget(piece);
            }
            Step::Prove => {
                it.prove();
            }
            Step::Reset => {
                it.reset(it.geometry);
            }
        }
    }

    proptest! {
        #[test]
        fn the_invariants_hold_whatever_happens(steps in prop::collection::vec(steps(), 0..60)) {
            let mut it = state();
            for step in steps {
                take(&mut it, step);
                for piece in 0..N_PIECES {
                    let (held, provisional) = (it.held.contains(piece), it.provisional.contains_key(&piece));
                    prop_assert!(!held || it.digest_of(piece).is_some());
                    prop_assert!(!provisional || it.digest_of(piece).is_none());
                    prop_assert!(!it.unverified.contains(piece) || it.lies_on_disk(piece));
                    prop_assert!(!it.memory.contains_key(&piece) || it.readable().contains(piece));
                }
                prop_assert!(it.attestations.len() <= N_PIECES as usize + 1);
            }
        }
    }
}
