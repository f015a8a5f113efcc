//! Where nodes stand: the region, a zone, a rack, each by its number.

use shoal_model::Place;

use super::numbers::{Number, Register};

pub(super) type PlaceNumber = Number<Place>;

/// The place that all others lie in.
pub(super) const REGION: PlaceNumber = Number::FIRST;

/// The places that a node stands in, from the widest. Where it knows no zone or no rack, the wider one is repeated.
#[derive(Clone, Copy, Debug)]
pub(super) struct Around([PlaceNumber; 3]);

/// All places that some node stands in, and how many do.
#[derive(Debug)]
pub(super) struct Places(Register<Place, usize>);

impl Around {
    /// Each place once.
    pub(super) fn iter(self) -> impl DoubleEndedIterator<Item = PlaceNumber> {
        let Self([region, zone, rack]) = self;
        [Some(region), (zone != region).then_some(zone), (rack != zone).then_some(rack)].into_iter().flatten()
    }

    pub(super) fn contains(self, place: PlaceNumber) -> bool {
        self.0.contains(&place)
    }
}

impl Places {
    pub(super) fn new() -> Self {
        let mut it = Self(Register::new());
        it.0.enter(&Place::default(), || 0);
        it
    }

    /// One more node stands in this place.
    pub(super) fn enter(&mut self, place: &Place) -> Around {
        let zone = Place { zone: place.zone.clone(), ..Place::default() };
        let around = Around([&Place::default(), &zone, place].map(|it| self.0.enter(it, || 0)));
        around.iter().for_each(|it| self.0[it] += 1);
        around
    }

    /// A node leaves; a place that nobody stands in any more is forgotten.
    pub(super) fn leave(&mut self, around: Around) {
        for place in around.iter() {
            self.0[place] -= 1;
            if self.0[place] == 0 && place != REGION {
                self.0.remove(place);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_has_one_number_while_somebody_stands_there() {
        let place = |zone: &str, rack: &str| Place { zone: zone.into(), rack: rack.into() };
        let mut it = Places::new();
        let around = |it: &mut Places, zone, rack| it.enter(&place(zone, rack));
        let first = around(&mut it, "z", "r");
        let [region, zone, rack] = first.0;
        assert_eq!(region, REGION);
        assert_eq!(around(&mut it, "z", "").iter().collect::<Vec<_>>(), [region, zone]);
        assert_eq!(around(&mut it, "", "").iter().collect::<Vec<_>>(), [region]);
        let same_name = around(&mut it, "y", "r");
        assert!(!same_name.contains(rack) && !same_name.contains(zone), "another zone's rack");
        it.leave(first);
        assert_eq!((it.0.number(&place("z", "r")), it.0.number(&place("z", ""))), (None, Some(zone)));
        assert!(around(&mut it, "x", "").contains(rack), "its number is free");
    }
}
