//! A range that this node is asked to serve, and a part of one that it handed to a member.

use std::sync::Arc;

use super::batch::{Announced, Batch};
use super::places::Places;
use super::span::Span;

/// The request to serve a range with a batch, which makes a node the holder of that range.
#[derive(Clone, Debug)]
pub(super) struct RangeTask {
    /// The range of the ring to serve.
    pub span: Span,
    /// Only members of this zone are served.
    pub zone: Arc<str>,
    /// Places of members in the range that are served already.
    pub without: Places,
    /// Place of the member that this holder stands in for, after that one did not answer.
    pub instead_of: Option<u64>,
    /// Number of hand-overs from the origin to this holder.
    pub hops: u32,
    /// Time since the origin packed the batch, in microseconds.
    pub age_us: u64,
    /// Whether a holder nearer to the origin was silent: then one timeout is enough here.
    pub is_hurried: bool,
    /// Whether this node is the batch's origin.
    pub is_own: bool,
}

impl RangeTask {
    /// The request that an origin begins with: to serve a range of its own zone or another.
    pub fn of_origin(span: Span, zone: Arc<str>) -> RangeTask {
        RangeTask {
            span,
            zone,
            without: Places::None,
            instead_of: None,
            hops: 0,
            age_us: 0,
            is_hurried: false,
            is_own: true,
        }
    }
}

/// A part of a range that was handed to one member, and is not settled.
#[derive(Debug)]
pub(super) struct Duty {
    /// The batch that is handed over.
    pub batch: Arc<Batch>,
    /// The request to the member. Its hops count this hand-over; its age is that at `since_us`.
    pub part: RangeTask,
    /// Time at which the part was taken on or last handed to another member, in microseconds.
    pub since_us: u64,
    /// Whether the batch fills a gap of the member: nothing is to be passed on then.
    pub is_repair: bool,
    /// Number of members in the part.
    pub members: usize,
    /// In a part of two members, the place of the member that the part was not handed to.
    pub other: Option<u64>,
    /// Place of the member that the part was handed to.
    pub delegate: u64,
    /// Number of the link to that member.
    pub link: usize,
    /// Number of the part's first fragment on that link.
    pub first_number: u64,
    /// Most bytes of the batch in one fragment.
    pub fragment_bytes: usize,
    /// Number of fragments; 1 if the batch fits into one, or is announced.
    pub fragments: u32,
    /// Number of fragments that are not acknowledged.
    pub left: u32,
    /// Places of the members that were tried in vain in this round.
    pub tried: Vec<u64>,
    /// Number of times that all members of the part were tried in vain.
    pub rounds: u32,
    /// Number of times that the part was handed over.
    pub handovers: u32,
    /// Whether the first try only asks whether the member has the batch already.
    pub ask_first: bool,
    /// Index among the counted parts of its batch, if the batch is counted.
    pub counted: Option<usize>,
}

impl Duty {
    /// Returns whether the second try only asks whether the batch arrived: with a single member that is
    /// cheaper than to send it again, since perhaps only the receipt was lost.
    pub fn asks_second(&self) -> bool {
        self.members <= 1 && self.fragments == 1 && !self.ask_first && Announced::of(&self.batch).is_none()
    }

    /// A part that no member has so far.
    pub fn new(batch: Arc<Batch>, part: RangeTask, now_us: u64) -> Duty {
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
