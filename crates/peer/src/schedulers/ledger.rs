//! What one scheduler was told of this node, for as long as it is to know it.
//!
//! When a blob comes to belong to another scheduler, the one before has to be told that it no longer concerns it, and
//! for that it has to be known what it was told.

use std::collections::BTreeMap;

use shoal_model::BlobKey;
use shoal_proto::{BlobProgress, NodeMessage, Want};
use shoal_swarm::Geometry;

use crate::report::MAX_BLOBS;

/// The blobs that a scheduler believes this node to hold or to want.
#[derive(Debug, Default)]
pub(super) struct Ledger(BTreeMap<BlobKey, Known>);

#[derive(Debug, Default)]
struct Known {
    /// How what it holds is cut; none where it holds nothing.
    held: Option<Geometry>,
    is_wanted: bool,
}

impl Ledger {
    /// What whoever is told this knows.
    pub(super) fn of(messages: &[NodeMessage]) -> Self {
        let mut it = Self::default();
        messages.iter().for_each(|message| it.note(message));
        it
    }

    /// The scheduler is told this.
    pub(super) fn note(&mut self, message: &NodeMessage) {
        match message {
            NodeMessage::Progress(blobs) => {
                for it in blobs {
                    let is_gone = it.dropped && it.gained.is_empty();
                    self.change(&it.key, |known| known.held = (!is_gone).then_some(it.geometry));
                }
            }
            NodeMessage::Want(Want { blob, held, .. }) => self.change(&blob.key, |known| {
                known.is_wanted = true;
                known.held = known.held.or((!held.is_empty()).then_some(blob.geometry));
            }),
            NodeMessage::Unwant(key) => self.change(key, |known| known.is_wanted = false),
            NodeMessage::Hello(_)
            | NodeMessage::Stranded(_)
            | NodeMessage::Leaving
            | NodeMessage::Unknown => {}
        }
    }

    fn change(&mut self, key: &BlobKey, change: impl FnOnce(&mut Known)) {
        // Most messages are of blobs that are known: their names need not be copied.
        if let Some(known) = self.0.get_mut(key) {
            change(known);
            if known.held.is_none() && !known.is_wanted {
                self.0.remove(key);
            }
            return;
        }
        let mut known = Known::default();
        change(&mut known);
        if known.held.is_some() || known.is_wanted {
            self.0.insert(key.clone(), known);
        }
    }

    /// Whether the scheduler believes that this node holds something of the blob.
    pub(super) fn holds(&self, key: &BlobKey) -> bool {
        self.0.get(key).is_some_and(|it| it.held.is_some())
    }

    /// Whether the scheduler knows of a blob like this.
    pub(super) fn knows(&self, is_so: impl Fn(&BlobKey) -> bool) -> bool {
        self.0.keys().any(is_so)
    }

    /// Ends all wishes for such blobs; returns what to tell.
    pub(super) fn end_wishes(&mut self, is_so: impl Fn(&BlobKey) -> bool) -> Vec<NodeMessage> {
        let wanted = self.0.iter().filter(|(key, known)| known.is_wanted && is_so(key));
        let unwants: Vec<_> = wanted.map(|(key, _)| NodeMessage::Unwant(key.clone())).collect();
        unwants.iter().for_each(|it| self.note(it));
        unwants
    }

    /// What to tell in order to take back that this node holds such blobs.
    pub(super) fn held(&self, is_so: impl Fn(&BlobKey) -> bool) -> Vec<NodeMessage> {
        let dropped = |(key, known): (&BlobKey, &Known)| {
            let (key, geometry) = (key.clone(), known.held?);
            Some(BlobProgress { key, geometry, dropped: true, gained: Vec::new() })
        };
        let dropped: Vec<_> = self.0.iter().filter(|(key, _)| is_so(key)).filter_map(dropped).collect();
        dropped.chunks(MAX_BLOBS).map(|it| NodeMessage::Progress(it.to_vec())).collect()
    }

    /// Takes back that this node holds such blobs; returns what to tell.
    pub(super) fn take_back(&mut self, is_so: impl Fn(&BlobKey) -> bool) -> Vec<NodeMessage> {
        let messages = self.held(is_so);
        messages.iter().for_each(|it| self.note(it));
        messages
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{geometry, key, wish};
    use shoal_swarm::PieceIndex;

    fn progress(byte: u8, dropped: bool, gained: Option<PieceIndex>) -> NodeMessage {
        let (key, geometry) = (key(byte), geometry());
        let gained = gained.map(|it| it..it + 1).into_iter().collect();
        NodeMessage::Progress(vec![BlobProgress { key, geometry, dropped, gained }])
    }

    #[test]
    fn what_was_told_can_be_taken_back_once() {
        let mut it = Ledger::default();
        let said = [
            progress(1, false, Some(0)),
            progress(2, true, Some(1)),
            progress(3, false, Some(0)),
            progress(3, true, None),
            wish(4, None),
            wish(5, Some(0)),
            wish(6, None),
            NodeMessage::Unwant(key(6)),
            NodeMessage::Unwant(key(7)),
            wish(1, None),
        ];
        said.iter().for_each(|said| it.note(said));
        let unwants = |bytes: &[u8]| bytes.iter().map(|it| NodeMessage::Unwant(key(*it))).collect::<Vec<_>>();
        assert_eq!(it.end_wishes(|it| *it == key(4)), unwants(&[4]));
        assert_eq!(it.end_wishes(|_| true), unwants(&[1, 5]));
        assert_eq!(it.take_back(|it| *it == key(2)), [progress(2, true, None)]);
        assert!(it.knows(|it| *it == key(1)) && !it.knows(|it| *it == key(2)));
        let [NodeMessage::Progress(rest)] = &it.take_back(|_| true)[..] else { panic!("one message") };
        assert_eq!(rest.iter().map(|it| it.key.clone()).collect::<Vec<_>>(), [key(1), key(5)]);
        assert!(!it.knows(|_| true));
    }

    #[test]
    fn no_message_names_more_than_a_few_blobs() {
        let mut it = Ledger::default();
        (0..20).for_each(|byte| it.note(&progress(byte, false, Some(0))));
        let sizes = it.take_back(|_| true).into_iter().map(|it| match it {
            NodeMessage::Progress(blobs) => blobs.len(),
            other => panic!("{other:?}"),
        });
        assert_eq!(sizes.collect::<Vec<_>>(), [8, 8, 4]);
    }
}
