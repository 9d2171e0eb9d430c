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

/// A connection in a role, as it stands in the lists of the index: ordered by connection, role and number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Listed(u64);

/// Number of bits of a [`Listed`] below those of the connection: eight for the role, and those of its number.
const ROLE_BITS: u32 = 8 + u32::BITS;

impl Listed {
    pub(super) fn new(connection: usize, role: Role) -> Listed {
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

    /// Adds the roles in which a list of the index has the connection. `ends_in` returns the first and the last entry
    /// of the list from one to another.
    pub(super) fn add(
        &mut self,
        connection: usize,
        ends_in: impl Fn(Listed, Listed) -> Option<(Listed, Listed)>,
    ) {
        let ends = |role: fn(u32) -> Role| {
            let [least, most] = [0, u32::MAX].map(|number| Listed::new(connection, role(number)));
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
