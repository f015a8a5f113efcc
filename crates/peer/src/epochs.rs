//! Whose word about a blob's pieces counts.
//!
//! Every seeding of a blob is an epoch, and what gateways signed travels among nodes long after. Two epochs
//! whose lists differ are of different content, of which the registry served one as the other. The newer is
//! believed, whoever relays it: everything else is dropped, and what older ones said is passed over from then
//! on, which is no fault of the node that relays it. A seal beats them all, because its gateway has seen the
//! digest of the whole match.

use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use shoal_blobstore::{Blob, Learned, PieceDigest, StoreError};
use shoal_model::Role;
use shoal_proto::{Attestation, BlobNews, Statement};

use crate::RegionKeys;
use crate::attest::{self, AttestError};

/// What one blob's epochs are known by.
pub struct Epochs {
    blob: Blob,
    /// Held while the blob learns, so that two statements do not clear it for each other.
    state: Mutex<State>,
}

struct State {
    /// The newest epoch that was taken from.
    newest: u64,
    /// Older ones were contradicted.
    oldest: u64,
    /// The gateway's bytes have contradicted what was learned before.
    doubted: bool,
}

/// Why what a node says of a blob cannot be taken in.
#[derive(Debug, thiserror::Error)]
pub enum HearError {
    /// The node passes on what no gateway said.
    #[error(transparent)]
    Attestation(#[from] AttestError),
    /// The store is at fault.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Epochs {
    /// What the blob has learned already counts as well.
    pub fn new(blob: Blob) -> Self {
        let epoch = |it: &Bytes| {
            let attestation = Attestation::decode(it).ok()?;
            Statement::decode(&attestation.statement).ok().map(|it| it.epoch)
        };
        let newest = blob.attestations().iter().filter_map(epoch).max().unwrap_or(0);
        Self { blob, state: Mutex::new(State { newest, oldest: 0, doubted: false }) }
    }

    /// Takes in what a node of this role says that gateways with these keys have said.
    pub fn hear(&self, from: Role, news: &BlobNews, keys: &RegionKeys) -> Result<(), HearError> {
        // What it still vouches for comes again with the same news.
        if news.dropped && news.attestations.is_empty() && from == Role::Gateway {
            self.poisoned();
        }
        for attestation in &news.attestations {
            let signed = attestation.clone().encode();
            // Every neighbour brings what one has brought already.
            if !self.blob.knows(&signed) {
                let statement = attest::check(attestation, keys, self.blob.key(), &self.blob.geometry())?;
                self.take(&statement, &signed)?;
            }
        }
        Ok(())
    }

    /// Takes a statement about the blob whose signature has been checked; `signed` is what was signed.
    fn take(&self, statement: &Statement, signed: &Bytes) -> Result<(), StoreError> {
        let mut state = self.state();
        if statement.epoch < state.oldest && !statement.sealed {
            return Ok(());
        }
        if self.learn(statement, signed)? == Learned::Conflict {
            if self.blob.is_sealed() || (statement.epoch <= state.newest && !statement.sealed) {
                return Ok(());
            }
            self.blob.clear("it was seeded anew with other content");
            state.oldest = statement.epoch;
            self.learn(statement, signed)?;
        }
        state.newest = state.newest.max(statement.epoch);
        Ok(())
    }

    fn learn(&self, statement: &Statement, signed: &Bytes) -> Result<Learned, StoreError> {
        let digests: Vec<_> = statement.digests.iter().map(|it| PieceDigest(*it)).collect();
        if statement.sealed {
            self.blob.seal(&digests, signed.clone())
        } else {
            self.blob.learn(statement.first, &digests, signed.clone())
        }
    }

    /// A gateway has dropped the blob and vouches for nothing of it any more.
    fn poisoned(&self) {
        if !self.blob.is_sealed() {
            self.blob.clear("its seed was poisoned");
        }
    }

    /// A gateway sent bytes that are not what was vouched for while the blob was of this `generation`. It may
    /// have begun anew while this node learned of an older epoch: once, all is dropped for that. True where
    /// the gateway is to be heard from the beginning, false where it is at fault.
    pub fn doubt(&self, generation: u64) -> bool {
        let mut state = self.state();
        if self.blob.status().generation != generation {
            return true;
        }
        if state.doubted || self.blob.is_sealed() {
            return false;
        }
        state.doubted = true;
        self.blob.clear("the gateway sent other content than was vouched for");
        true
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attest::Signer;
    use crate::testing::{self, SEED, geometry, key, region_keys};
    use shoal_swarm::PieceIndex;
    use tempfile::TempDir;

    struct Script {
        epochs: Epochs,
        _dir: TempDir,
    }

    impl Script {
        fn new() -> Self {
            let (dir, store) = testing::store();
            Self { epochs: Epochs::new(store.create(&key(1), geometry()).unwrap()), _dir: dir }
        }

        /// Hears that pieces from `first` on have these digests, and says what is known of all pieces then.
        fn hear(&self, epoch: u64, first: PieceIndex, digests: &[u8], sealed: bool) -> String {
            let digests = digests.iter().map(|it| [*it; 32]).collect();
            let statement = Statement { key: key(1), geometry: geometry(), epoch, first, digests, sealed };
            let attestations = vec![Signer::new(&SEED).attest(statement)];
            self.told(&BlobNews { attestations, ..BlobNews::default() });
            self.known()
        }

        fn told(&self, news: &BlobNews) {
            self.epochs.hear(Role::Gateway, news, &region_keys(&[1])).unwrap();
        }

        fn known(&self) -> String {
            let digit = |it| self.epochs.blob.digest_of(it).map_or('-', |it| char::from(b'0' + it.0[0]));
            (0..geometry().n_pieces()).map(digit).collect()
        }
    }

    #[test]
    fn the_newer_epoch_wins_whoever_relays_it() {
        let it = Script::new();
        assert_eq!(it.hear(5, 0, &[1, 2], false), "12--");
        assert_eq!(it.hear(4, 2, &[3], false), "123-", "an older one that agrees adds what it knows");
        assert_eq!(it.hear(4, 1, &[9], false), "123-", "an older one that does not is passed over");
        assert_eq!(it.hear(6, 1, &[9], false), "-9--");
        assert_eq!(it.hear(5, 3, &[4], false), "-9--", "it was contradicted");
        assert_eq!(it.hear(6, 3, &[4], false), "-9-4");
    }

    #[test]
    fn a_newer_epoch_of_the_same_content_costs_nothing() {
        let it = Script::new();
        assert_eq!(it.hear(5, 0, &[1, 2], false), "12--");
        let generation = it.epochs.blob.status().generation;
        assert_eq!(it.hear(6, 1, &[2, 3], false), "123-");
        assert_eq!(it.hear(5, 3, &[4], false), "1234", "what the older one still says is as good");
        assert_eq!(it.hear(6, 0, &[1, 2, 3, 4], true), "1234");
        assert_eq!(it.epochs.blob.status().generation, generation, "nothing was dropped");
    }

    #[test]
    fn a_seal_beats_what_is_newer() {
        let it = Script::new();
        assert_eq!(it.hear(5, 0, &[1], false), "1---");
        assert_eq!(it.hear(4, 0, &[2, 2, 2, 2], true), "2222");
        assert_eq!(it.hear(6, 0, &[1], false), "2222");
        it.told(&BlobNews { dropped: true, ..BlobNews::default() });
        assert_eq!(it.known(), "2222");
        assert!(!it.epochs.doubt(it.epochs.blob.status().generation));
    }

    #[test]
    fn what_was_learned_before_counts() {
        let it = Script::new();
        it.hear(5, 0, &[1], false);
        let later = Script { epochs: Epochs::new(it.epochs.blob.clone()), _dir: it._dir };
        assert_eq!(later.hear(4, 0, &[2], false), "1---");
        assert_eq!(later.hear(6, 0, &[2], false), "2---");
    }

    #[test]
    fn a_gateway_that_contradicts_what_was_learned_is_heard_anew_once() {
        let it = Script::new();
        it.hear(5, 0, &[1], false);
        let asked_in = it.epochs.blob.status().generation;
        assert!(it.epochs.doubt(asked_in));
        assert_eq!(it.known(), "----");
        assert!(it.epochs.doubt(asked_in), "judged by what has been dropped");
        assert!(!it.epochs.doubt(asked_in + 1));
    }

    #[test]
    fn poisoned_content_is_dropped() {
        let it = Script::new();
        it.hear(5, 0, &[1], false);
        let dropped = BlobNews { dropped: true, ..BlobNews::default() };
        it.epochs.hear(Role::Sidecar, &dropped, &region_keys(&[1])).unwrap();
        assert_eq!(it.known(), "1---", "a node that has dropped it says nothing about the content");
        it.told(&dropped);
        assert_eq!(it.known(), "----");
    }
}
