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
//! The generation counts how often everything was dropped. Bytes and hashes that belong to an earlier
//! generation change nothing.
//!
//! Invariants: a held piece has a digest; a provisional piece has none; only pieces that are there are
//! unverified.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ops::Range;

use bytes::Bytes;
use shoal_swarm::{Bitmap, Geometry, PieceIndex};

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
    Ready,
    Missing(PieceIndex),
    /// The piece has to be hashed first, and to match this.
    Unverified(PieceIndex, PieceDigest),
}

/// Which bytes are there, as far as the whole digest depends on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Contents {
    pub(crate) generation: u64,
    held: Bitmap,
    provisional: BTreeMap<PieceIndex, PieceDigest>,
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
        it.mark_suspect();
        it
    }

    /// Drops everything and starts over with a cut that may be another.
    pub(crate) fn reset(&mut self, geometry: Geometry) {
        *self = Self { generation: self.generation + 1, ..Self::new(geometry) };
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
        self.digests[at] = Some(digest);
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

    /// Held and provisional pieces together.
    pub(crate) fn readable(&self) -> Bitmap {
        let mut readable = self.held.clone();
        self.provisional.keys().for_each(|it| {
            readable.insert(*it);
        });
        readable
    }

    /// Takes a list that compared as fresh and returns the provisional pieces that are held by it.
    pub(crate) fn learn(&mut self, list: DigestList) -> Vec<Record> {
        let mut promoted = Vec::new();
        for (piece, digest) in (list.first..).zip(list.digests) {
            self.attested.insert(piece);
            self.set_digest(piece, digest);
            match self.provisional.get(&piece) {
                Some(own) if *own == digest => promoted.push(self.hold(piece, digest)),
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
        promoted
    }

    // === writing ===

    fn judge(&self, offer: &Offer) -> Written {
        let Offer { piece, digest, .. } = *offer;
        if self.held.contains(piece) {
            return Written::AlreadyHeld;
        }
        if piece >= self.geometry.n_pieces() || offer.len != self.geometry.len_of(piece) {
            return Written::Mismatch;
        }
        match (self.digest_of(piece), offer.origin) {
            (Some(known), _) if known == digest => Written::Held,
            (Some(_), _) => Written::Mismatch,
            (None, Origin::Peer) => Written::NoDigest,
            (None, Origin::Registry) if self.provisional.contains_key(&piece) => Written::AlreadyHeld,
            (None, Origin::Registry) => Written::Provisional,
        }
    }

    /// Claims a piece for its writer; the error says why it is not to be written.
    pub(crate) fn begin(&mut self, offer: &Offer) -> Result<(), Written> {
        match self.judge(offer) {
            Written::Held | Written::Provisional if self.writing.insert(offer.piece) => Ok(()),
            Written::Held | Written::Provisional => Err(Written::Busy),
            refused => Err(refused),
        }
    }

    /// Gives the claim up after a failed write.
    pub(crate) fn abandon(&mut self, piece: PieceIndex) {
        self.writing.remove(&piece);
    }

    /// Takes a piece whose bytes have reached the data file. Judges it anew, because a digest may have been
    /// learned since it was claimed.
    pub(crate) fn finish(&mut self, offer: &Offer) -> Written {
        self.writing.remove(&offer.piece);
        let verdict = self.judge(offer);
        match verdict {
            Written::Held => {
                self.hold(offer.piece, offer.digest);
            }
            Written::Provisional => {
                self.provisional.insert(offer.piece, offer.digest);
            }
            _ => {}
        }
        verdict
    }

    fn hold(&mut self, piece: PieceIndex, digest: PieceDigest) -> Record {
        if self.held.insert(piece) {
            self.provisional.remove(&piece);
            self.set_digest(piece, digest);
        }
        Record::Held { piece, digest }
    }

    // === reading ===

    /// Whether `reader` may read `pieces` now.
    pub(crate) fn access(&self, pieces: Range<PieceIndex>, reader: Reader) -> Access {
        for piece in pieces {
            let digest = match self.held.contains(piece) {
                true => self.digest_of(piece),
                false if reader == Reader::Local => self.provisional.get(&piece).copied(),
                false => None,
            };
            match digest {
                None => return Access::Missing(piece),
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
    }

    /// Has every piece hashed again before it is next read.
    pub(crate) fn mark_suspect(&mut self) {
        self.unverified = self.held.clone();
        for piece in self.provisional.keys() {
            self.unverified.insert(*piece);
        }
    }

    // === proving ===

    /// What the hash of the whole is about to cover.
    pub(crate) fn contents(&self) -> Contents {
        Contents {
            generation: self.generation,
            held: self.held.clone(),
            provisional: self.provisional.clone(),
        }
    }

    /// Seals the blob, whose whole digest has matched, and returns the provisional pieces that are held by
    /// that.
    pub(crate) fn prove(&mut self) -> Vec<Record> {
        if self.seal == Seal::Open {
            self.seal = Seal::Proven;
        }
        let provisional = std::mem::take(&mut self.provisional);
        provisional.into_iter().map(|(piece, digest)| self.hold(piece, digest)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

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
        let promoted = it.learn(list(0, &[0, 1, 2]));
        assert_eq!(promoted, [Record::Held { piece: 1, digest: digest(1) }]);
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
        assert_eq!(it.prove().len(), 4);
        assert!(it.status().is_complete());
    }

    #[test]
    fn suspect_pieces_are_verified_before_they_are_read() {
        let mut it = state();
        hold(&mut it, 1);
        write(&mut it, offer(2, 2, Origin::Registry));
        it.mark_suspect();
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
        it.mark_suspect();
        assert!(it.verified(1, false));
        assert_eq!(write(&mut it, offer(1, 1, Origin::Peer)), Written::Held);
        assert!(!it.verified(1, false));
        assert_eq!(it.access(1..2, Reader::Peer), Access::Ready);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Learn(PieceIndex, Vec<u8>, bool),
        Write(PieceIndex, u8, Origin),
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
            6 => (piece.clone(), 0u8..4, origin).prop_map(|(piece, of, origin)| Step::Write(piece, of, origin)),
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
            Step::MarkSuspect => it.mark_suspect(),
            Step::Prove => {
                it.prove();
            }
            Step::Reset => it.reset(it.geometry),
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
                    prop_assert!(!it.unverified.contains(piece) || held || provisional);
                }
                prop_assert!(it.attestations.len() <= N_PIECES as usize + 1);
            }
        }
    }
}
