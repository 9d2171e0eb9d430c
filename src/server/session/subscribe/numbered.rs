//! Values by numbers that rise.

/// Values in the order of their numbers. Nearly every connection has one subscription, so the value takes no more memory than
/// it needs there: a tree would have places for eleven.
#[derive(Debug)]
pub(super) struct Numbered<T> {
    /// The values with their numbers, in rising order of the numbers.
    entries: Vec<(u32, T)>,
}

impl<T> Default for Numbered<T> {
    fn default() -> Numbered<T> {
        Numbered { entries: Vec::new() }
    }
}

impl<T> Numbered<T> {
    /// Adds a value under a number that is greater than all numbers before.
    pub(super) fn push(&mut self, number: u32, value: T) {
        debug_assert!(self.entries.last().is_none_or(|(last, _)| *last < number), "numbers rise");
        if self.entries.is_empty() {
            self.entries.reserve_exact(1);
        }
        self.entries.push((number, value));
    }

    /// The value of this number.
    pub(super) fn get_mut(&mut self, number: u32) -> Option<&mut T> {
        let at = self.place(number)?;
        self.entries.get_mut(at).map(|(_, value)| value)
    }

    /// Takes the value of this number out. The memory is given back with the last value.
    pub(super) fn remove(&mut self, number: u32) -> Option<T> {
        let at = self.place(number)?;
        let (_, value) = self.entries.remove(at);
        if self.entries.is_empty() {
            self.entries = Vec::new();
        }
        Some(value)
    }

    /// The values in the order of their numbers.
    pub(super) fn values(&self) -> impl Iterator<Item = &T> {
        self.entries.iter().map(|(_, value)| value)
    }

    /// Takes all values out, in the order of their numbers.
    pub(super) fn take_values(&mut self) -> impl Iterator<Item = T> + use<T> {
        std::mem::take(&mut self.entries).into_iter().map(|(_, value)| value)
    }

    /// Number of values.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Memory of the values, in bytes, without what they hold elsewhere.
    pub(super) fn held_bytes(&self) -> usize {
        self.entries.capacity() * size_of::<(u32, T)>()
    }

    fn place(&self, number: u32) -> Option<usize> {
        self.entries.binary_search_by_key(&number, |(known, _)| *known).ok()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Values are found, changed and taken out as in a map of the standard library.
        #[test]
        fn it_does_as_a_map(acts in proptest::collection::vec((0u8..4, 0u32..20), 0..60)) {
            let (mut numbered, mut map, mut next) = (Numbered::default(), BTreeMap::new(), 0);
            for (act, number) in acts {
                match act {
                    0 | 1 => {
                        next += 1 + number % 2;
                        numbered.push(next, number);
                        map.insert(next, number);
                    }
                    2 => prop_assert_eq!(numbered.remove(number), map.remove(&number)),
                    _ => {
                        let known = map.get_mut(&number).map(|value| std::mem::replace(value, 100));
                        let found = numbered.get_mut(number).map(|value| std::mem::replace(value, 100));
                        prop_assert_eq!(found, known);
                    }
                }
                prop_assert!(numbered.values().eq(map.values()));
                prop_assert_eq!(numbered.len(), map.len());
            }
            prop_assert!(numbered.take_values().eq(map.into_values()));
            prop_assert_eq!((numbered.len(), numbered.held_bytes()), (0, 0));
        }
    }

    #[test]
    fn one_value_takes_one_place() {
        let mut numbered = Numbered::default();
        numbered.push(7, [0u8; 28]);
        assert_eq!(numbered.held_bytes(), 32);
        numbered.remove(7);
        assert_eq!(numbered.held_bytes(), 0);
    }
}
