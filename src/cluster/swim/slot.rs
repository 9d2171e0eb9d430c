//! The numbers of members in the table.

/// Number of a member in this node's table. It is given to another member once this one is forgotten. It has two
/// bytes, because several indexes hold it for every member.
pub(super) type Slot = u16;

/// Number of this node itself.
pub(super) const ME: Slot = 0;
