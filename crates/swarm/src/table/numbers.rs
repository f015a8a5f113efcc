//! Numbers in place of names, inside the table.
//!
//! A table mentions each node for every blob that it holds, in lists of members, neighbours and holders: a million
//! times where ten thousand nodes hold a hundred blobs. A name takes 16 bytes each time, and a comparison of texts
//! that lie elsewhere. So whatever has a name gets a number while it is there: the name is looked up once for an
//! event, and put back where an order is made.
//!
//! The number of what has gone is given again. Whoever removes something takes its number out of everything first.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "whoever has a number has got it of this register, and no memory has room for too many"
)]

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::ops::{Bound, Index, IndexMut};

use slab::Slab;

/// The number of something that is called a `K`.
pub(super) struct Number<K>(u32, PhantomData<fn() -> K>);

/// Entries that have a name and a number.
#[derive(Debug)]
pub(super) struct Register<K, V> {
    numbers: BTreeMap<K, Number<K>>,
    entries: Slab<(K, V)>,
}

/// A set of few numbers, in ascending order.
pub(super) struct Numbers<K>(Vec<Number<K>>);

impl<K> Number<K> {
    /// What the first entry of a register gets.
    pub(super) const FIRST: Self = Self(0, PhantomData);
}

impl<K: Clone + Ord, V> Register<K, V> {
    pub(super) const fn new() -> Self {
        Self { numbers: BTreeMap::new(), entries: Slab::new() }
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The entry of this name; made, where there is none.
    pub(super) fn enter(&mut self, name: &K, make: impl FnOnce() -> V) -> Number<K> {
        if let Some(number) = self.number(name) {
            return number;
        }
        let at = self.entries.insert((name.clone(), make()));
        let number = Number(u32::try_from(at).expect("so many entries fit into no memory"), PhantomData);
        self.numbers.insert(name.clone(), number);
        number
    }

    /// The number may be given again from now on.
    pub(super) fn remove(&mut self, number: Number<K>) -> V {
        let (name, entry) = self.entries.remove(number.0 as usize);
        self.numbers.remove(&name);
        entry
    }

    pub(super) fn number(&self, name: &K) -> Option<Number<K>> {
        self.numbers.get(name).copied()
    }

    pub(super) fn name(&self, number: Number<K>) -> &K {
        &self.entries[number.0 as usize].0
    }

    /// All names from this one on with their numbers, in the order of names.
    pub(super) fn names_from(&self, first: Option<&K>) -> impl Iterator<Item = (&K, Number<K>)> {
        let from = first.map_or(Bound::Unbounded, Bound::Included);
        self.numbers.range((from, Bound::Unbounded)).map(|(name, number)| (name, *number))
    }

    /// All names with their entries, in the order of their numbers.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&K, &V)> + Clone {
        self.entries.iter().map(|(_, (name, entry))| (name, entry))
    }
}

impl<K, V> Index<Number<K>> for Register<K, V> {
    type Output = V;

    fn index(&self, number: Number<K>) -> &V {
        &self.entries[number.0 as usize].1
    }
}

impl<K, V> IndexMut<Number<K>> for Register<K, V> {
    fn index_mut(&mut self, number: Number<K>) -> &mut V {
        &mut self.entries[number.0 as usize].1
    }
}

impl<K> Numbers<K> {
    pub(super) const fn new() -> Self {
        Self(Vec::new())
    }

    pub(super) fn as_slice(&self) -> &[Number<K>] {
        &self.0
    }

    /// True where the number is new.
    pub(super) fn insert(&mut self, number: Number<K>) -> bool {
        let place = self.0.binary_search(&number);
        place.map_err(|at| self.0.insert(at, number)).is_err()
    }

    /// True where the number was there.
    pub(super) fn remove(&mut self, number: Number<K>) -> bool {
        let place = self.0.binary_search(&number);
        place.map(|at| self.0.remove(at)).is_ok()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = Number<K>> {
        self.0.iter().copied()
    }
}

// Derived, these would ask for the same of `K`.

impl<K> Clone for Number<K> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<K> Copy for Number<K> {}

impl<K> PartialEq for Number<K> {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl<K> Eq for Number<K> {}

impl<K> PartialOrd for Number<K> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<K> Ord for Number<K> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.cmp(&other.0)
    }
}

impl<K> fmt::Debug for Number<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

impl<K> fmt::Debug for Numbers<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(&self.0).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn a_number_is_given_again_once_its_holder_has_gone() {
        let mut it = Register::new();
        let [one, two] = ["one", "two"].map(|name| it.enter(&name, || name.len()));
        assert_eq!((one, it.enter(&"one", || 7)), (Number::FIRST, one), "it is there already");
        assert_eq!((it.remove(one), it.number(&"one")), (3, None));
        let three = it.enter(&"three", || 5);
        assert_eq!((three, it[three], *it.name(three)), (one, 5, "three"));
        assert_eq!((it.number(&"two"), it.len()), (Some(two), 2));
    }

    proptest! {
        #[test]
        fn numbers_behave_like_a_set(steps: Vec<(bool, u8)>) {
            let (mut numbers, mut set) = (Numbers::<()>::new(), BTreeSet::new());
            for (add, number) in steps {
                let number = Number(u32::from(number % 16), PhantomData);
                if add {
                    prop_assert_eq!(numbers.insert(number), set.insert(number));
                } else {
                    prop_assert_eq!(numbers.remove(number), set.remove(&number));
                }
                prop_assert!(numbers.as_slice().iter().eq(&set));
            }
        }
    }
}
