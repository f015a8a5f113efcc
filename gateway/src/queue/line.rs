//! Whose turn it is in a line before a bounded number of places.
//!
//! Live ones come before background ones, and within each those first that arrived first. One that becomes live
//! stands among the live as if it had been from the beginning.
//!
//! Knows nothing of: what is waited for, clocks, tasks.

use crate::priority::Priority;

/// Where somebody stands: the order of these is that of the line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Spot {
    priority: Priority,
    number: u64,
}

/// The places, and those who wait for one.
#[derive(Debug)]
pub(super) struct Line {
    n_free: usize,
    n_arrived: u64,
    /// In order.
    waiting: Vec<Spot>,
}

impl Line {
    pub(super) const fn new(n_places: usize) -> Self {
        Self { n_free: n_places, n_arrived: 0, waiting: Vec::new() }
    }

    pub(super) fn arrive(&mut self, priority: Priority) -> Spot {
        let spot = Spot { priority, number: self.n_arrived };
        self.n_arrived += 1;
        self.insert(spot);
        spot
    }

    /// Moves one to where somebody of this priority stands who came when it did.
    pub(super) fn change(&mut self, spot: &mut Spot, priority: Priority) {
        if spot.priority != priority {
            self.leave(*spot);
            spot.priority = priority;
            self.insert(*spot);
        }
    }

    pub(super) fn leave(&mut self, spot: Spot) {
        if let Ok(at) = self.waiting.binary_search(&spot) {
            self.waiting.remove(at);
        }
    }

    /// Whether it is this one's turn, which then has a place and waits no more.
    pub(super) fn take(&mut self, spot: Spot) -> bool {
        let is_next = self.n_free > 0 && self.waiting.first() == Some(&spot);
        if is_next {
            self.n_free -= 1;
            self.leave(spot);
        }
        is_next
    }

    pub(super) const fn give_back(&mut self) {
        self.n_free += 1;
    }

    /// The position in the line: 1 for the first.
    pub(super) fn position(&self, spot: Spot) -> u32 {
        let before = self.waiting.partition_point(|it| *it < spot);
        u32::try_from(before).unwrap_or(u32::MAX).saturating_add(1)
    }

    /// Whether somebody waits who is live, and there is no place.
    pub(super) fn keeps_live_waiting(&self) -> bool {
        self.n_free == 0 && self.waiting.first().is_some_and(|it| it.priority == Priority::Live)
    }

    fn insert(&mut self, spot: Spot) {
        let at = self.waiting.partition_point(|it| *it < spot);
        self.waiting.insert(at, spot);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Priority::{Background, Live};
    use super::*;

    /// Who gets the one place in which order, of those who arrive like this; the ones that are named become live.
    #[track_caller]
    fn check(arriving: &[Priority], rising: &[usize], expected: &[usize]) {
        let mut line = Line::new(1);
        let mut spots: Vec<_> = arriving.iter().map(|it| line.arrive(*it)).collect();
        rising.iter().for_each(|it| line.change(&mut spots[*it], Live));
        let mut order = Vec::new();
        while order.len() < spots.len() {
            let next: Vec<_> = (0..spots.len()).filter(|it| line.take(spots[*it])).collect();
            let [next] = next[..] else { panic!("one at a time: {next:?}") };
            assert!(!spots.iter().any(|it| line.take(*it)), "there is one place");
            order.push(next);
            line.give_back();
        }
        assert_eq!(order, expected, "{arriving:?} {rising:?}");
    }

    #[test]
    fn live_ones_come_first_and_each_kind_in_its_order() {
        check(&[Live, Live], &[], &[0, 1]);
        check(&[Background, Background], &[], &[0, 1]);
        check(&[Background, Live, Background, Live], &[], &[1, 3, 0, 2]);
        check(&[Background, Background, Live], &[1], &[1, 2, 0]);
        check(&[Background, Background, Live], &[1, 0], &[0, 1, 2]);
        check(&[Live, Live], &[1, 1], &[0, 1]);
    }

    #[test]
    fn whoever_leaves_is_passed_over() {
        let mut line = Line::new(1);
        let [one, other] = [Background, Background].map(|it| line.arrive(it));
        assert_eq!([line.position(one), line.position(other)], [1, 2]);
        line.leave(one);
        assert_eq!(line.position(other), 1);
        assert!(!line.take(one) && line.take(other));
    }

    proptest! {
        #[test]
        fn no_background_one_is_let_in_while_a_live_one_waits_and_places_are_never_exceeded(
            steps in proptest::collection::vec((0u8..5, 0usize..20), 1..200),
            n_places in 1usize..4,
        ) {
            let mut line = Line::new(n_places);
            let (mut waiting, mut n_in) = (Vec::<Spot>::new(), 0);
            for (step, at) in steps {
                match step {
                    0 => waiting.push(line.arrive(Live)),
                    1 => waiting.push(line.arrive(Background)),
                    2 if at < waiting.len() => line.change(&mut waiting[at], Live),
                    3 if at < waiting.len() => {
                        let had_live = waiting.iter().any(|it| it.priority == Live);
                        prop_assert_eq!(line.keeps_live_waiting(), had_live && n_in == n_places);
                        if line.take(waiting[at]) {
                            prop_assert!(!had_live || waiting[at].priority == Live);
                            waiting.remove(at);
                            n_in += 1;
                        }
                    }
                    4 if n_in > 0 => {
                        line.give_back();
                        n_in -= 1;
                    }
                    _ => {}
                }
                prop_assert!(n_in <= n_places);
            }
        }
    }
}
