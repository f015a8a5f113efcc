//! One rule each, told as a script of what happens and what the machine then does.

// A lease or an offer of one run of pieces is what the scripts are about.
#![allow(clippy::single_range_in_vec_init)]

mod choice;
mod ladder;
mod leases;
mod liars;
mod sources;

use super::*;
use crate::Algorithm;
use shoal_model::{Digest, TrustGroup};

const SECOND: u64 = 1_000_000;

struct Script {
    fetch: Fetch,
    now: u64,
}

fn id(name: &str) -> NodeId {
    NodeId::new(name)
}

fn ids(names: &[&str]) -> Vec<NodeId> {
    names.iter().map(|it| id(it)).collect()
}

fn news(from: &str, gained: Range<u32>) -> Event {
    Event::News { from: id(from), dropped: false, lost: vec![], gained: vec![gained], alive: false }
}

fn neighbours(near: &[&str]) -> Event {
    neighbours_by(Algorithm::Default, near)
}

fn neighbours_by(algorithm: Algorithm, near: &[&str]) -> Event {
    Event::Neighbours { near: ids(near), far: Vec::new(), algorithm }
}

/// A lease from a gateway, which is called so, or from a node.
fn leased(from: &str, pieces: Range<u32>) -> Event {
    let role = if from == "gw" { Role::Gateway } else { Role::Sidecar };
    Event::Leased { from: id(from), role, pieces: vec![pieces] }
}

fn failed(from: &str, piece: u32, fault: Fault) -> Event {
    Event::Failed { from: id(from), piece, fault }
}

/// The store has a piece, whoever brought it.
fn held(piece: u32) -> Event {
    Event::Held { piece, from: None }
}

fn held_by(from: &str, piece: u32) -> Event {
    Event::Held { piece, from: Some(id(from)) }
}

impl Script {
    /// A blob of `n_pieces`, one slot more than asked of a source, no scheduler trouble.
    fn new(n_pieces: u32, policy: Policy) -> Self {
        let key = BlobKey { group: TrustGroup::new("g"), digest: Digest::from_sha256([1; 32]) };
        let fetch = Fetch::new(Tick(0), id("me"), key, Bitmap::new(n_pieces), policy, Rng::new(5));
        Self { fetch, now: 0 }
    }

    /// What the machine does on an event, in words.
    fn on(&mut self, event: Event) -> Vec<String> {
        let mut out = Vec::new();
        self.fetch.on_event(Tick(self.now), event, &mut out);
        let mut words: Vec<_> = out
            .into_iter()
            .map(|it| match it {
                Action::Watch(node) => format!("watch {node}"),
                Action::Leave(node) => format!("leave {node}"),
                Action::Ask { from, piece, .. } => format!("ask {from} {piece}"),
                Action::Cancel { from, piece } => format!("cancel {from} {piece}"),
                other => format!("{other:?}").to_lowercase(),
            })
            .collect();
        words.sort();
        words
    }

    /// Lets time pass up to `micros`, waking the machine when it wants, and collects what it does.
    fn until(&mut self, micros: u64) -> Vec<String> {
        let mut words = Vec::new();
        while let Some(at) = self.fetch.next_deadline(Tick(self.now)).filter(|it| it.0 <= micros) {
            assert!(at.0 > self.now, "a deadline that is not ahead");
            self.now = at.0;
            words.extend(self.on(Event::Deadline));
        }
        self.now = micros;
        words
    }
}

fn two_slots() -> Policy {
    Policy { slots: 2, ..Policy::default() }
}
