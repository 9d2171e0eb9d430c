//! A set of members, represented by their number and the XOR of their hashes.

/// A set of members as twelve bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    /// Number of members in the set.
    pub count: u32,
    /// XOR of the hashes of the members' lives.
    pub members: u64,
}

impl Tally {
    /// The set of one member.
    pub fn of(member: u64) -> Tally {
        Tally { count: 1, members: member }
    }

    /// The union of two sets that have no member in common.
    #[must_use]
    pub fn plus(self, other: Tally) -> Tally {
        Tally { count: self.count.saturating_add(other.count), members: self.members ^ other.members }
    }

    /// The set without a member that is in it.
    #[must_use]
    pub fn less(self, member: u64) -> Tally {
        Tally { count: self.count.saturating_sub(1), members: self.members ^ member }
    }
}
