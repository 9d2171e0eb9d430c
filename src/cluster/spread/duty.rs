//! What is to be served, and what was handed to whom.

use std::sync::Arc;

use super::batch::{Announced, Batch};
use super::span::Span;

/// A range to be served: what a holder was asked for.
#[derive(Clone, Debug)]
pub(super) struct Task {
    /// The range.
    pub span: Span,
    /// Members of this zone alone.
    pub zone: Arc<str>,
    /// Places in it that are served already.
    pub without: Vec<u64>,
    /// Whose place is taken after a failure.
    pub instead_of: Option<u64>,
    /// Hand-overs so far.
    pub hops: u32,
    /// Age of the batch just now, in microseconds.
    pub age_us: u64,
    /// Whether somebody above was found silent: then one timeout is enough here.
    pub is_hurried: bool,
    /// Whether the batch is this node's own.
    pub is_own: bool,
}

impl Task {
    /// What an origin asks of itself.
    pub fn of_origin(span: Span, zone: Arc<str>) -> Task {
        Task {
            span,
            zone,
            without: Vec::new(),
            instead_of: None,
            hops: 0,
            age_us: 0,
            is_hurried: false,
            is_own: true,
        }
    }
}

/// One part of a range, with one member.
#[derive(Debug)]
pub(super) struct Duty {
    /// What is handed over.
    pub batch: Arc<Batch>,
    /// The part: its range, and hops with this one counted; the age as it was at `since_us`.
    pub part: Task,
    /// When it was taken on.
    pub since_us: u64,
    /// An answer to a want: no range goes with it.
    pub is_repair: bool,
    /// How many members it has.
    pub members: usize,
    /// The other one, in a part of two.
    pub other: Option<u64>,
    /// Place of the member it is with.
    pub delegate: u64,
    /// Link to that member.
    pub link: usize,
    /// Number of its first fragment there.
    pub first_number: u64,
    /// Bytes of the batch in each fragment; all of it in one, if it fits.
    pub fragment_bytes: usize,
    /// How many fragments.
    pub fragments: u32,
    /// How many of them are not acknowledged.
    pub left: u32,
    /// Places of members tried in vain in this round.
    pub tried: Vec<u64>,
    /// How often all its members were tried, and how often it was handed over.
    pub rounds: u32,
    pub handovers: u32,
    /// The first question is whether it is there already.
    pub ask_first: bool,
    /// Which of the counted parts of its batch it is, if somebody waits for the count.
    pub counted: Option<usize>,
}

impl Duty {
    /// Whether the second try asks "have you it?": cheaper than sending it again to a single member,
    /// where only the receipt may have been lost.
    pub fn asks_second(&self) -> bool {
        self.members <= 1 && self.fragments == 1 && !self.ask_first && Announced::of(&self.batch).is_none()
    }

    /// A part nobody has yet.
    pub fn new(batch: Arc<Batch>, part: Task, now_us: u64) -> Duty {
        Duty {
            batch,
            part,
            since_us: now_us,
            is_repair: false,
            members: 0,
            other: None,
            delegate: 0,
            link: 0,
            first_number: 0,
            fragment_bytes: 0,
            fragments: 0,
            left: 0,
            tried: Vec::new(),
            rounds: 0,
            handovers: 0,
            ask_first: false,
            counted: None,
        }
    }
}
