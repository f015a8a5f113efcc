//! Who the other gateways of the region are, and what follows from that: who owns a blob, whose signatures are
//! believed, by how many a registry's limits are divided, and how many of them borrow.
//!
//! A sister *answers* while a stream to her lives. That decides who owns a blob, because a sister that is heard of and
//! cannot be reached serves nobody. She is *counted* from her first word on until Redis no longer lists her: without
//! Redis nobody can tell one that has gone from one that is cut off and reads on, so the last known number stays. Her
//! keys are believed for as long as there is room, whether she answers or not: what she sealed lives on among the nodes.
//!
//! A gateway with a Redis *borrows* what it asks of registries; one without keeps to its part of the limits, and says so,
//! since the others have so much less to borrow then. One that answers no more is taken for dead, and so for one that needs
//! nothing.
//!
//! Knows nothing of: sockets, Redis, clocks.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use shoal_model::{BlobKey, Node, NodeId};
use shoal_peer::keys::MAX_KEYS;
use shoal_swarm::rendezvous;

/// The most other gateways of a region.
pub(super) const MAX_SISTERS: usize = 15;

/// A public key that signs tickets and attestations.
type Key = [u8; 32];

/// What a gateway says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Word {
    pub(super) node: Node,
    /// What it signs with.
    pub(super) own_keys: Vec<Key>,
    /// Whose signatures it believes, its own among them.
    pub(super) believed: Vec<Key>,
    pub(super) borrows: bool,
}

/// The region's gateways as this one knows them.
#[derive(Clone, Debug)]
pub(crate) struct Roll {
    me: Node,
    own_keys: Vec<Key>,
    borrows: bool,
    sisters: BTreeMap<NodeId, Sister>,
    /// The addresses that Redis last said gateways have.
    listed: BTreeSet<Arc<str>>,
    /// How often one of them has spoken.
    n_words: u64,
}

/// How a gateway is to this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Standing {
    /// She does not answer, and Redis lists her no more.
    Gone,
    /// She does not answer, and nobody knows why.
    Silent,
    /// A stream to her lives.
    Answers,
}

/// What follows from who there is, for those who have to know of each change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Company {
    /// Whose signatures are believed, this gateway's first.
    pub(crate) keys: Vec<Key>,
    /// Of these, this gateway's.
    pub(crate) own_keys: Vec<Key>,
    /// By how many gateways a registry's limits are divided.
    pub(crate) n_sharing: u32,
    /// How many of them keep to no part of their own.
    pub(crate) n_borrowing: u32,
    /// Whether this gateway is one of these.
    pub(crate) borrows: bool,
}

#[derive(Clone, Debug)]
struct Sister {
    word: Word,
    /// By how many ways she answers.
    n_streams: u32,
    is_counted: bool,
    /// Which of all words was her last.
    spoke: u64,
}

impl Roll {
    /// For a gateway that knows of no other.
    pub(super) fn new(me: Node, own_keys: Vec<Key>) -> Self {
        let (sisters, listed) = (BTreeMap::new(), BTreeSet::new());
        Self { me, own_keys, borrows: false, sisters, listed, n_words: 0 }
    }

    // === What is heard ===

    /// This gateway signs with these keys from now on; true where that is new.
    pub(super) fn sign_with(&mut self, own_keys: Vec<Key>) -> bool {
        let is_new = self.own_keys != own_keys;
        self.own_keys = own_keys;
        is_new
    }

    /// This gateway borrows from now on, or does so no more; true where that is new.
    pub(super) fn borrow(&mut self, borrows: bool) -> bool {
        std::mem::replace(&mut self.borrows, borrows) != borrows
    }

    /// A stream to a sister has begun, with this word. False where there are too many to take in another.
    pub(super) fn enter(&mut self, word: Word) -> bool {
        if !self.sisters.contains_key(&word.node.id) && !self.make_room() {
            return false;
        }
        let new = || Sister { word: word.clone(), n_streams: 0, is_counted: false, spoke: 0 };
        self.sisters.entry(word.node.id.clone()).or_insert_with(new).n_streams += 1;
        self.tell(word);
        true
    }

    /// A sister that has entered says something more; true where it is new.
    pub(super) fn tell(&mut self, word: Word) -> bool {
        self.n_words += 1;
        let Some(sister) = self.sisters.get_mut(&word.node.id) else { return false };
        let is_new = sister.word != word || !sister.is_counted;
        (sister.word, sister.spoke, sister.is_counted) = (word, self.n_words, true);
        is_new
    }

    /// A stream to a sister has ended.
    pub(super) fn leave(&mut self, id: &NodeId) {
        if let Some(sister) = self.sisters.get_mut(id) {
            sister.n_streams = sister.n_streams.saturating_sub(1);
        }
    }

    /// Redis says that the gateways with these addresses live; true where that is new.
    pub(super) fn list(&mut self, addresses: impl IntoIterator<Item = Arc<str>>) -> bool {
        let others = addresses.into_iter().filter(|it| *it != self.me.address);
        let listed = others.take(MAX_SISTERS).collect();
        let mut is_new = self.listed != listed;
        self.listed = listed;
        for sister in self.sisters.values_mut() {
            let is_there = sister.n_streams > 0 || self.listed.contains(&sister.word.node.address);
            is_new |= sister.is_counted && !is_there;
            sister.is_counted &= is_there;
        }
        is_new
    }

    /// The one that was heard of longest ago leaves, if it does not answer.
    fn make_room(&mut self) -> bool {
        if self.sisters.len() < MAX_SISTERS {
            return true;
        }
        let gone = self.sisters.iter().filter(|(_, it)| it.n_streams == 0);
        let oldest = gone.min_by_key(|(_, it)| it.spoke).map(|(id, _)| id.clone());
        oldest.and_then(|it| self.sisters.remove(&it)).is_some()
    }

    // === What follows ===

    /// This gateway.
    pub(super) const fn me(&self) -> &Node {
        &self.me
    }

    /// The addresses that Redis last named, without this gateway's own.
    pub(super) const fn listed(&self) -> &BTreeSet<Arc<str>> {
        &self.listed
    }

    /// All sisters that are known of, each with how she is to this gateway, by name.
    pub(super) fn all(&self) -> impl Iterator<Item = (&Node, Standing)> {
        self.sisters.iter().map(|(id, it)| (&it.word.node, self.standing(id)))
    }

    /// The sisters that answer.
    pub(super) fn answering(&self) -> impl Iterator<Item = &Node> {
        self.sisters.values().filter(|it| it.n_streams > 0).map(|it| &it.word.node)
    }

    /// A sister, if she answers.
    pub(super) fn answering_as(&self, id: &NodeId) -> Option<&Node> {
        self.sisters.get(id).filter(|it| it.n_streams > 0).map(|it| &it.word.node)
    }

    /// Whether a sister of this name has been heard of.
    pub(super) fn knows(&self, id: &NodeId) -> bool {
        self.sisters.contains_key(id)
    }

    /// How a gateway is to this one. Without Redis none is ever gone that was there.
    pub(crate) fn standing(&self, id: &NodeId) -> Standing {
        match self.sisters.get(id) {
            Some(it) if it.n_streams > 0 => Standing::Answers,
            Some(it) if it.is_counted => Standing::Silent,
            _ => Standing::Gone,
        }
    }

    /// Whose turn it is to seed the blob: by the same rule as schedulers go by.
    pub(super) fn owner(&self, key: &BlobKey) -> &Node {
        let ids = self.answering().chain([&self.me]).map(|it| &it.id);
        rendezvous::winner(key, ids).and_then(|it| self.answering_as(it)).unwrap_or(&self.me)
    }

    /// By how many gateways a registry's limits are divided.
    fn n_sharing(&self) -> u32 {
        let counted = self.sisters.values().filter(|it| it.is_counted).map(|it| &it.word.node.address);
        let others: BTreeSet<_> = counted.chain(&self.listed).collect();
        // The sisters have a cap, and so have the addresses.
        1 + others.len() as u32
    }

    /// How many of those keep to no part of their own, as far as they say.
    fn n_borrowing(&self) -> u32 {
        let apart = self.sisters.values().filter(|it| it.n_streams > 0 && !it.word.borrows).count() as u32;
        self.n_sharing().saturating_sub(apart).max(1)
    }

    /// All keys that are believed: this gateway's own first, then those of the sisters that answer, then those of
    /// whoever was heard of last.
    fn keys(&self) -> Vec<Key> {
        let mut sisters: Vec<_> = self.sisters.values().collect();
        sisters.sort_by_key(|it| Reverse((it.n_streams > 0, it.spoke)));
        let theirs = sisters.into_iter().flat_map(|it| &it.word.own_keys);
        let mut keys: Vec<Key> = Vec::new();
        for key in self.own_keys.iter().chain(theirs) {
            if keys.len() < MAX_KEYS && !keys.contains(key) {
                keys.push(*key);
            }
        }
        keys
    }

    /// What others have to know of.
    pub(crate) fn company(&self) -> Company {
        Company {
            keys: self.keys(),
            own_keys: self.own_keys.clone(),
            n_sharing: self.n_sharing(),
            n_borrowing: self.n_borrowing(),
            borrows: self.borrows,
        }
    }

    /// Whether every sister that answers believes what this gateway signs.
    pub(super) fn is_believed(&self) -> bool {
        let answering = self.sisters.values().filter(|it| it.n_streams > 0);
        let is_believed_by = |it: &Sister| self.own_keys.iter().all(|key| it.word.believed.contains(key));
        answering.into_iter().all(is_believed_by)
    }
}

#[cfg(test)]
mod tests {
    use shoal_model::{Digest, Place, Role, TrustGroup};

    use super::*;

    fn node(number: u8) -> Node {
        Node {
            id: NodeId::new(&format!("gateway-{number}")),
            address: address(number),
            role: Role::Gateway,
            place: Place::default(),
        }
    }

    fn address(number: u8) -> Arc<str> {
        format!("10.0.0.{number}:65003").into()
    }

    fn word(number: u8) -> Word {
        let key = [number; 32];
        Word { node: node(number), own_keys: vec![key], believed: vec![key], borrows: true }
    }

    fn key(byte: u8) -> BlobKey {
        BlobKey { group: TrustGroup::new("g"), digest: Digest::from_sha256([byte; 32]) }
    }

    /// The roll of gateway 1, to whom these answer.
    fn roll(sisters: &[u8]) -> Roll {
        let mut roll = Roll::new(node(1), vec![[1; 32]]);
        sisters.iter().for_each(|it| assert!(roll.enter(word(*it))));
        roll
    }

    fn list(roll: &mut Roll, addresses: &[u8]) {
        roll.list(addresses.iter().copied().map(address));
    }

    #[test]
    fn alone_a_gateway_owns_everything_and_shares_nothing() {
        let roll = roll(&[]);
        assert_eq!((roll.owner(&key(1)), roll.n_sharing()), (&node(1), 1));
        assert!(roll.is_believed());
    }

    #[test]
    fn all_gateways_agree_on_the_owner_of_a_blob_and_on_its_successor() {
        let mut moved = 0;
        for byte in 0..50 {
            let views = [(1, [2, 3]), (2, [1, 3]), (3, [1, 2])].map(|(me, others)| {
                let mut roll = Roll::new(node(me), vec![]);
                others.iter().for_each(|it| assert!(roll.enter(word(*it))));
                roll
            });
            let owners = views.each_ref().map(|it| it.owner(&key(byte)).id.clone());
            assert!(owners.iter().all(|it| *it == owners[0]), "{owners:?}");
            let [mut first, mut second, _] = views;
            for view in [&mut first, &mut second] {
                view.leave(&node(3).id);
            }
            let heir = first.owner(&key(byte)).id.clone();
            assert_eq!(heir, second.owner(&key(byte)).id);
            assert!(heir == owners[0] || owners[0] == node(3).id, "only what the lost one had moves");
            moved += usize::from(heir != owners[0]);
        }
        assert!((5..30).contains(&moved), "{moved} of 50 moved");
    }

    #[test]
    fn whoever_answers_by_two_ways_answers_until_both_are_lost() {
        let mut roll = roll(&[2, 2]);
        roll.leave(&node(2).id);
        assert_eq!(roll.answering().count(), 1);
        roll.leave(&node(2).id);
        roll.leave(&node(2).id);
        assert_eq!((roll.answering().count(), roll.knows(&node(2).id)), (0, true));
        assert!(roll.enter(word(2)));
        assert_eq!(roll.answering_as(&node(2).id), Some(&node(2)));
    }

    #[test]
    fn a_limit_is_shared_with_all_that_were_there_until_redis_says_otherwise() {
        let mut roll = roll(&[2]);
        assert_eq!(roll.n_sharing(), 2);
        // The one that answers is the one that is listed; a third one is not reached yet.
        list(&mut roll, &[1, 2, 3]);
        assert_eq!(roll.n_sharing(), 3);
        assert_eq!(roll.standing(&node(2).id), Standing::Answers);
        roll.leave(&node(2).id);
        assert_eq!(roll.n_sharing(), 3, "who knows what she reads");
        list(&mut roll, &[1, 2, 3]);
        assert_eq!(roll.standing(&node(2).id), Standing::Silent);
        list(&mut roll, &[1, 3]);
        assert_eq!((roll.n_sharing(), roll.standing(&node(2).id)), (2, Standing::Gone));
        assert!(roll.enter(word(2)));
        list(&mut roll, &[1]);
        assert_eq!(roll.n_sharing(), 2, "she answers, so she is there");
    }

    #[test]
    fn whoever_says_that_it_does_not_borrow_keeps_its_part_until_it_is_gone() {
        let mut roll = roll(&[2, 3]);
        list(&mut roll, &[1, 2, 3]);
        assert_eq!(roll.n_borrowing(), 3);
        assert!(roll.tell(Word { borrows: false, ..word(3) }));
        assert_eq!((roll.n_borrowing(), roll.n_sharing()), (2, 3));
        roll.leave(&node(3).id);
        assert_eq!((roll.n_borrowing(), roll.n_sharing()), (3, 3), "a dead one asks for nothing");
        assert!(roll.enter(word(3)));
        assert_eq!(roll.n_borrowing(), 3);
        assert!(roll.borrow(true));
        assert!(!roll.borrow(true));
        assert_eq!((roll.company().borrows, roll.company().n_borrowing), (true, 3));
    }

    #[test]
    fn what_a_sister_signed_is_believed_when_she_is_gone_but_not_what_she_signs_with_no_more() {
        let mut roll = roll(&[2, 3]);
        assert_eq!(roll.keys(), [[1; 32], [3; 32], [2; 32]]);
        roll.leave(&node(3).id);
        list(&mut roll, &[1, 2]);
        assert_eq!(roll.keys(), [[1; 32], [2; 32], [3; 32]]);
        assert!(roll.tell(Word { own_keys: vec![[9; 32]], ..word(2) }));
        assert_eq!(roll.keys(), [[1; 32], [9; 32], [3; 32]]);
    }

    #[test]
    fn there_is_room_for_so_many_and_those_that_are_gone_make_way() {
        let others: Vec<u8> = (2..2 + MAX_SISTERS as u8).collect();
        let mut roll = roll(&others);
        assert!(!roll.enter(word(100)));
        roll.leave(&node(5).id);
        assert!(roll.enter(word(100)));
        assert_eq!((roll.knows(&node(5).id), roll.keys().len()), (false, MAX_KEYS));
        list(&mut roll, &(2..200).collect::<Vec<_>>());
        assert!(roll.n_sharing() as usize <= 1 + 2 * MAX_SISTERS);
    }

    #[test]
    fn it_is_believed_once_all_that_answer_say_so() {
        let mut roll = roll(&[2, 3]);
        assert!(!roll.is_believed());
        let believing = |number| Word { believed: vec![[number; 32], [1; 32]], ..word(number) };
        roll.tell(believing(2));
        assert!(!roll.is_believed());
        roll.leave(&node(3).id);
        assert!(roll.is_believed());
        assert!(roll.sign_with(vec![[7; 32]]));
        assert!(!roll.is_believed());
    }
}
