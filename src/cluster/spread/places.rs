//! A short list of places of the ring.

use std::ops::Deref;

/// A list of places that takes no memory of its own while it is as short as it nearly always is: a part leaves
/// out only the members that lie inside of it, and few holders do.
#[derive(Clone, Debug, Default)]
pub(super) enum Places {
    /// The list is empty.
    #[default]
    None,
    /// A single place, as where this node hands on its own batch.
    One(u64),
    /// A pair of places, the first in the list first.
    Two([u64; 2]),
    /// Any number of places.
    Many(Vec<u64>),
}

const _: () = assert!(size_of::<Places>() == size_of::<Vec<u64>>());

impl Deref for Places {
    type Target = [u64];

    fn deref(&self) -> &[u64] {
        match self {
            Places::None => &[],
            Places::One(place) => std::slice::from_ref(place),
            Places::Two(places) => places,
            Places::Many(places) => places,
        }
    }
}

impl From<Vec<u64>> for Places {
    fn from(places: Vec<u64>) -> Places {
        match *places {
            [] => Places::None,
            [place] => Places::One(place),
            [one, two] => Places::Two([one, two]),
            _ => Places::Many(places),
        }
    }
}

impl FromIterator<u64> for Places {
    fn from_iter<I: IntoIterator<Item = u64>>(places: I) -> Places {
        let mut places = places.into_iter();
        let Some(one) = places.next() else { return Places::None };
        let Some(two) = places.next() else { return Places::One(one) };
        let Some(three) = places.next() else { return Places::Two([one, two]) };
        Places::Many([one, two, three].into_iter().chain(places).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_any_length_is_as_it_was_given() {
        for count in 0..6 {
            let list: Vec<u64> = (0..count).collect();
            assert_eq!(*Places::from_iter(0..count), *list);
            assert_eq!(*Places::from(list.clone()), *list);
        }
    }
}
