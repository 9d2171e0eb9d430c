//! The roles in which a connection has a pattern, and the search for those in which it wants one source.
//!
//! A connection that starts a subscription must know for each record which of its subscriptions match. The index
//! knows that as well as it knows the connection, if each pattern is listed with the role of its subscription. So
//! the connection needs no index of its own, and the search has the same bound as the one for all connections.

/// The role of a subscription that a pattern belongs to. Numbers tell subscriptions of one role apart: the search
/// finds the least or the greatest of them, whichever the session needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A live subscription that had a snapshot.
    Whole,
    /// A live subscription without a snapshot, with the number of the epoch that began with it.
    Bare(u32),
    /// A subscription that is not live yet, with its number.
    Starting(u32),
    /// A subscription with a snapshot that ended while others were starting, with the number of the last of these.
    Ghost(u32),
    /// The same for a subscription without a snapshot.
    BareGhost(u32),
    /// A subscription without a snapshot that ended while others were starting, with the number of its epoch.
    BareGhostEpoch(u32),
}

/// The place of a filter among those of its connection: 0 for no filter, and from 1 to [`SLOT_MAX`] for one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FilterSlot(u8);

/// Greatest number of a slot.
pub const SLOT_MAX: u8 = 31;

impl FilterSlot {
    /// Returns the slot of this number, if it is none too great.
    pub fn new(number: usize) -> Option<FilterSlot> {
        u8::try_from(number).ok().filter(|number| *number <= SLOT_MAX).map(FilterSlot)
    }

    /// Returns whether the slot stands for a filter.
    pub fn is_filter(self) -> bool {
        self.0 > 0
    }

    /// The number of the slot.
    pub fn number(self) -> usize {
        usize::from(self.0)
    }
}

/// Filters of one connection, by their slots.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SlotSet(u32);

impl SlotSet {
    /// The subscriptions without a filter alone.
    pub const UNFILTERED: SlotSet = SlotSet(1);

    /// Adds a slot to the set.
    pub fn insert(&mut self, slot: FilterSlot) {
        self.0 |= 1 << slot.0;
    }

    /// Takes a slot out of the set.
    pub fn remove(&mut self, slot: FilterSlot) {
        self.0 &= !(1 << slot.0);
    }

    /// Returns whether the slot is in the set.
    pub fn contains(self, slot: FilterSlot) -> bool {
        self.0 & (1 << slot.0) != 0
    }

    /// Returns whether the set has any slot.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Returns the slots that are in both sets.
    #[must_use]
    pub fn both(self, other: SlotSet) -> SlotSet {
        SlotSet(self.0 & other.0)
    }

    /// The slots of the set, in increasing order.
    pub fn iter(self) -> impl Iterator<Item = FilterSlot> {
        let mut left = self.0;
        std::iter::from_fn(move || {
            let least = (left != 0).then(|| FilterSlot(left.trailing_zeros() as u8));
            left &= left.saturating_sub(1);
            least
        })
    }
}

/// The role of a subscription, and the slot of its filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FilteredRole {
    /// The role of the subscription.
    pub role: Role,
    /// The filter of the subscription.
    pub slot: FilterSlot,
}

/// The role of a subscription without a filter.
impl From<Role> for FilteredRole {
    fn from(role: Role) -> FilteredRole {
        FilteredRole { role, slot: FilterSlot::default() }
    }
}

/// A connection in a role, as it stands in the lists of the index: ordered by connection, role and number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Listed(u64);

/// Number of bits of a [`Listed`] below those of the connection: five for the slot of the filter, three for the role,
/// and those of its number.
const ROLE_BITS: u32 = 8 + u32::BITS;

const _: () = assert!((SLOT_MAX as u32) < 1 << 5);

impl Listed {
    pub(super) fn new(connection: usize, role: impl Into<FilteredRole>) -> Listed {
        let FilteredRole { role, slot } = role.into();
        debug_assert!(
            (connection as u64) < 1 << (u64::BITS - ROLE_BITS),
            "a number of a connection is small"
        );
        let (kind, number) = match role {
            Role::Whole => (0, 0),
            Role::Bare(epoch) => (1, epoch),
            Role::Starting(number) => (2, number),
            Role::Ghost(last) => (3, last),
            Role::BareGhost(last) => (4, last),
            Role::BareGhostEpoch(epoch) => (5, epoch),
        };
        let kind = u64::from(slot.0) << 3 | kind;
        Listed((connection as u64) << ROLE_BITS | kind << u32::BITS | u64::from(number))
    }

    #[inline]
    pub(super) fn connection(self) -> usize {
        (self.0 >> ROLE_BITS) as usize
    }

    fn number(self) -> u32 {
        self.0 as u32
    }
}

/// The roles in which a connection wants one source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wants {
    /// Whether a live subscription that had a snapshot matches.
    pub whole: bool,
    /// Least epoch of the live subscriptions without a snapshot that match.
    pub bare: Option<u32>,
    /// Least number of the starting subscriptions that match.
    pub starting: Option<u32>,
    /// Greatest number of the ghosts of subscriptions with a snapshot that match.
    pub ghost: Option<u32>,
    /// Greatest number of the ghosts of subscriptions without a snapshot that match.
    pub bare_ghost: Option<u32>,
    /// Least epoch of the ghosts of subscriptions without a snapshot that match.
    pub ghost_epoch: Option<u32>,
}

impl Wants {
    /// Returns whether a subscription that has not ended matches.
    pub fn any(&self) -> bool {
        self.whole || self.bare.is_some() || self.starting.is_some()
    }

    /// Adds the roles in which a list of the index has the connection, of subscriptions with the filter of this slot.
    /// `ends_in` returns the first and the last entry of the list from one to another.
    pub(super) fn add(
        &mut self,
        connection: usize,
        slot: FilterSlot,
        ends_in: impl Fn(Listed, Listed) -> Option<(Listed, Listed)>,
    ) {
        let ends = |role: fn(u32) -> Role| {
            let listed = |number| Listed::new(connection, FilteredRole { role: role(number), slot });
            let [least, most] = [0, u32::MAX].map(listed);
            ends_in(least, most).map(|(first, last)| (first.number(), last.number()))
        };
        self.whole |= ends(|_| Role::Whole).is_some();
        let least = |held: &mut Option<u32>, role: fn(u32) -> Role| {
            *held = [*held, ends(role).map(|(first, _)| first)].into_iter().flatten().min();
        };
        least(&mut self.bare, Role::Bare);
        least(&mut self.starting, Role::Starting);
        least(&mut self.ghost_epoch, Role::BareGhostEpoch);
        let most = |held: &mut Option<u32>, role: fn(u32) -> Role| {
            *held = (*held).max(ends(role).map(|(_, last)| last));
        };
        most(&mut self.ghost, Role::Ghost);
        most(&mut self.bare_ghost, Role::BareGhost);
    }
}

#[cfg(test)]
mod tests {
    use std::slice::from_ref;

    use proptest::prelude::*;

    use super::*;
    use crate::record::Pattern;
    use crate::subscriptions::{Index, LeavingPattern};

    fn role() -> impl Strategy<Value = Role> {
        (0..6, 0u32..3).prop_map(|(kind, number)| match kind {
            0 => Role::Whole,
            1 => Role::Bare(number),
            2 => Role::Starting(number),
            3 => Role::Ghost(number),
            4 => Role::BareGhost(number),
            _ => Role::BareGhostEpoch(number),
        })
    }

    proptest! {
        #[test]
        fn what_a_connection_wants_is_what_its_patterns_say(
            listed in proptest::collection::vec(("([ab*]/){0,2}([ab*]|\\*\\*)", 0usize..3, role(), role()), 0..30),
            sources in proptest::collection::vec("([ab]/){0,2}[ab]", 1..8),
            moved in any::<bool>(),
        ) {
            let mut index = Index::seeded(3);
            let mut held = Vec::new();
            for (text, connection, first, second) in listed {
                let pattern = Pattern::parse(&text).expect("a pattern");
                prop_assert!(index.insert(from_ref(&pattern), connection, first).is_ok());
                let role = if moved {
                    index.change_role(from_ref(&pattern), connection, first.into(), second.into());
                    second
                } else {
                    index.add_role(from_ref(&pattern), connection, second.into());
                    held.push((pattern.clone(), connection, second));
                    first
                };
                held.push((pattern, connection, role));
            }
            for source in &sources {
                for connection in 0..3 {
                    let mut naive = Wants::default();
                    let matching = held.iter().filter(|(pattern, of, _)| *of == connection && pattern.matches(source));
                    for (_, _, role) in matching {
                        let least = |held: &mut Option<u32>, new: u32| *held = Some(held.map_or(new, |old| old.min(new)));
                        match *role {
                            Role::Whole => naive.whole = true,
                            Role::Bare(epoch) => least(&mut naive.bare, epoch),
                            Role::Starting(number) => least(&mut naive.starting, number),
                            Role::Ghost(last) => naive.ghost = naive.ghost.max(Some(last)),
                            Role::BareGhost(last) => naive.bare_ghost = naive.bare_ghost.max(Some(last)),
                            Role::BareGhostEpoch(epoch) => least(&mut naive.ghost_epoch, epoch),
                        }
                    }
                    prop_assert_eq!(index.wants(source, connection, SlotSet::UNFILTERED), naive);
                }
                let mut found = Vec::new();
                index.matches(source, &mut found);
                let naive: std::collections::BTreeSet<usize> =
                    held.iter().filter(|(pattern, ..)| pattern.matches(source)).map(|(_, of, _)| *of).collect();
                prop_assert_eq!(found, naive.into_iter().collect::<Vec<_>>());
            }
            for connection in 0..3 {
                let of = |is_extra: bool| {
                    held.iter().enumerate().filter(move |(at, (_, of, _))| {
                        *of == connection && is_extra == (!moved && at % 2 == 0)
                    })
                };
                let gone = of(false).map(|held| (held, false)).chain(of(true).map(|held| (held, true)));
                let gone = gone.map(|((_, (pattern, _, role)), is_extra)| {
                    LeavingPattern { pattern: pattern.clone(), role: (*role).into(), is_extra }
                });
                index.leave(connection, gone.collect());
            }
            while index.sweep(2) {}
            prop_assert!(index.is_empty() && index.bytes() == 0);
        }
    }
}
