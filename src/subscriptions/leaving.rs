//! The patterns of connections that are gone, until they are removed from the index.
//!
//! A connection may have tens of thousands of patterns. Removing them takes a few microseconds each, so a
//! worker removes a bounded number in every turn.

use std::collections::{BTreeSet, VecDeque};

use super::FilteredRole;
use crate::record::Pattern;

/// A pattern of a connection that is gone, in one of its roles.
#[derive(Debug)]
pub struct LeavingPattern {
    /// The pattern that is to be removed, or to lose a role.
    pub pattern: Pattern,
    /// The role in which the connection has it.
    pub role: FilteredRole,
    /// Whether the role was added to another one, with which the pattern itself is removed. Such roles stand behind
    /// all others in a list, because they are taken away first.
    pub is_extra: bool,
}

/// The connections that are gone.
#[derive(Debug, Default)]
pub(super) struct Leaving {
    /// In the order in which they left, each with the patterns that are still to be removed, at least one.
    queue: VecDeque<(usize, Vec<LeavingPattern>)>,
    connections: BTreeSet<usize>,
}

impl Leaving {
    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    pub(super) fn add(&mut self, connection: usize, patterns: Vec<LeavingPattern>) {
        if !patterns.is_empty() {
            let is_new = self.connections.insert(connection);
            debug_assert!(is_new, "a connection leaves once");
            self.queue.push_back((connection, patterns));
        }
    }

    pub(super) fn has(&self, connection: usize) -> bool {
        self.connections.contains(&connection)
    }

    /// Takes the next pattern that is to be removed.
    pub(super) fn next(&mut self) -> Option<(usize, LeavingPattern)> {
        let (connection, patterns) = self.queue.front_mut()?;
        let connection = *connection;
        let next = patterns.pop();
        if patterns.is_empty() {
            self.queue.pop_front();
            self.connections.remove(&connection);
        }
        next.map(|pattern| (connection, pattern))
    }
}
