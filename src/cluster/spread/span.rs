//! Ranges of the ring, and sets of them.
//!
//! A range is a pair of places, never of indices: nodes whose views of the members differ may miss a
//! member for a moment, but never disagree about who answers for a place.

/// The places from `from` up to, but not including, `to`, where zero follows the greatest place. If both are
/// equal, the range is the whole ring.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Span {
    /// The first place of the range.
    pub from: u64,
    /// The first place after the range.
    pub to: u64,
}

impl Span {
    /// The range that consists of one place.
    pub fn of_place(place: u64) -> Span {
        Span { from: place, to: place.wrapping_add(1) }
    }

    /// The whole ring, from just after `place` to `place` itself.
    pub fn whole_after(place: u64) -> Span {
        let next = place.wrapping_add(1);
        Span { from: next, to: next }
    }

    /// Returns whether `place` is in the range.
    pub fn contains(self, place: u64) -> bool {
        place.wrapping_sub(self.from) <= self.last_offset()
    }

    /// Returns whether all places of `other` are in the range.
    pub fn includes(self, other: Span) -> bool {
        let offset = other.from.wrapping_sub(self.from);
        offset <= self.last_offset() && other.last_offset() <= self.last_offset() - offset
    }

    /// Offset of the last place from `from`. It is used instead of a length, since the whole ring, 2^64
    /// places, would need a wider type.
    fn last_offset(self) -> u64 {
        self.to.wrapping_sub(self.from).wrapping_sub(1)
    }
}

/// The ranges that a node answers for with one batch, each with the depth in the tree at which it was asked.
///
/// A range that is asked for at a greater depth than it is held for is no repeat: a node that stands in for
/// another one answers for a range in which its own place lies, and may be handed a part of that range by one
/// of its own delegates. If that part were taken for held, the delegate would rely on this node, and this
/// node on the delegate.
#[derive(Clone, Debug, Default)]
pub(super) struct Spans {
    /// The first range, stored in place because it is nearly always the only one.
    first: Option<HeldSpan>,
    /// The ranges after the first, if there are any.
    more: Vec<HeldSpan>,
}

/// A range that a node answers for.
#[derive(Clone, Copy, Debug)]
struct HeldSpan {
    span: Span,
    /// Number of hand-overs after which the range was asked for.
    hops: u32,
}

/// Most ranges that are remembered for one batch. Others are served again if they are asked for again.
const SPANS_MAX: usize = 32;

impl Spans {
    /// Adds a range that was asked for after `hops` hand-overs. Returns the parts of it that were not held.
    pub fn insert(&mut self, span: Span, hops: u32) -> Rest {
        if self.first.is_none() {
            self.first = Some(HeldSpan { span, hops });
            return Rest::whole(span);
        }
        let mut rest = vec![span];
        for held in self.first.iter().chain(&self.more).filter(|held| held.hops >= hops) {
            rest = rest.into_iter().flat_map(|span| without(span, held.span)).collect();
        }
        if !rest.is_empty() && self.more.len() + 1 < SPANS_MAX {
            self.more.push(HeldSpan { span, hops });
        }
        Rest { first: None, more: rest.into_iter() }
    }
}

/// The ranges that are left of a range without those that were held before. Nearly always the whole range is
/// left.
#[derive(Debug)]
pub(super) struct Rest {
    /// The first range of what is left, if it needs no memory of its own.
    first: Option<Span>,
    /// All ranges that are left after the first.
    more: std::vec::IntoIter<Span>,
}

impl Rest {
    /// The rest that is the whole range.
    pub fn whole(span: Span) -> Rest {
        Rest { first: Some(span), more: Vec::new().into_iter() }
    }
}

impl Iterator for Rest {
    type Item = Span;

    fn next(&mut self) -> Option<Span> {
        self.first.take().or_else(|| self.more.next())
    }
}

/// The parts of `span` that are not in `held`: none, one or two ranges.
fn without(span: Span, held: Span) -> Vec<Span> {
    let last = span.last_offset();
    // In offsets from `span.from`, `held` is one run, or two where it passes the end of the ring.
    let start = held.from.wrapping_sub(span.from);
    let (end, wraps) = start.overflowing_add(held.last_offset());
    let mut rest = Vec::new();
    let mut keep = |first: u64, final_: u64| {
        if first <= final_ {
            let from = span.from.wrapping_add(first);
            rest.push(Span { from, to: span.from.wrapping_add(final_).wrapping_add(1) });
        }
    };
    if wraps {
        // The offsets 0..=end and start..=MAX are held: what remains lies between them.
        if end < u64::MAX && start > 0 && end < start - 1 {
            keep(end + 1, last.min(start - 1));
        }
        return rest;
    }
    if start > last {
        return vec![span];
    }
    if start > 0 {
        keep(0, start - 1);
    }
    if end < last {
        keep(end + 1, last);
    }
    rest
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn place(small: u64) -> u64 {
        // Sixteen places around the end of the ring, and sixteen around its middle.
        if small < 16 { small.wrapping_sub(8) } else { (1 << 63) + small - 24 }
    }

    proptest! {
        #[test]
        fn a_repeat_leaves_exactly_what_is_not_covered(
            spans in proptest::collection::vec((0u64..32, 0u64..32, 0u32..3), 1..6),
            last in (0u64..32, 0u64..32, 0u32..3),
        ) {
            let mut held = Spans::default();
            let spanned = |(from, to, hops)| (Span { from: place(from), to: place(to) }, hops);
            let all: Vec<(Span, u32)> = spans.into_iter().map(spanned).collect();
            for (span, hops) in &all {
                held.insert(*span, *hops);
            }
            let (span, hops) = spanned(last);
            let rest: Vec<Span> = held.insert(span, hops).collect();
            for small in 0..32 {
                let place = place(small);
                let before = all.iter().any(|(span, at)| *at >= hops && span.contains(place));
                let times = rest.iter().filter(|span| span.contains(place)).count();
                prop_assert_eq!(times, usize::from(span.contains(place) && !before));
            }
            prop_assert!(held.insert(span, hops).next().is_none());
        }
    }

    #[test]
    fn whole_and_single() {
        let whole = Span::whole_after(7);
        assert!(whole.contains(7) && whole.contains(8) && whole.contains(0) && whole.contains(u64::MAX));
        let single = Span::of_place(u64::MAX);
        assert!(single.contains(u64::MAX) && !single.contains(0) && !single.contains(u64::MAX - 1));
        assert!(without(single, whole).is_empty());
    }
}
