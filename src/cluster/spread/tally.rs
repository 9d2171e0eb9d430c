//! A set of members in twelve bytes.

/// How many members, and the XOR of their lives' hashes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    /// How many.
    pub count: u32,
    /// Which.
    pub members: u64,
}

impl Tally {
    /// One member.
    pub fn of(member: u64) -> Tally {
        Tally { count: 1, members: member }
    }

    /// Both together.
    #[must_use]
    pub fn plus(self, other: Tally) -> Tally {
        Tally { count: self.count.saturating_add(other.count), members: self.members ^ other.members }
    }

    /// Without one that is in it.
    #[must_use]
    pub fn less(self, member: u64) -> Tally {
        Tally { count: self.count.saturating_sub(1), members: self.members ^ member }
    }
}
