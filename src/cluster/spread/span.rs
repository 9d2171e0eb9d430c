//! Ranges of the ring, and sets of them.
//!
//! A range is two places, never two indices: nodes whose views differ may miss a member for a
//! moment, but never disagree about who answers for a place.

/// The places from `from` up to, but without, `to`, going round; the whole ring where they are equal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Span {
    /// The first place.
    pub from: u64,
    /// The first place after it.
    pub to: u64,
}

impl Span {
    /// One place.
    pub fn of_place(place: u64) -> Span {
        Span { from: place, to: place.wrapping_add(1) }
    }

    /// The whole ring, from just after `place` to `place` itself.
    pub fn whole_after(place: u64) -> Span {
        let next = place.wrapping_add(1);
        Span { from: next, to: next }
    }

    /// Whether `place` is in it.
    pub fn contains(self, place: u64) -> bool {
        place.wrapping_sub(self.from) <= self.last_offset()
    }

    /// Whether all places of `other` are in it.
    pub fn includes(self, other: Span) -> bool {
        let offset = other.from.wrapping_sub(self.from);
        offset <= self.last_offset() && other.last_offset() <= self.last_offset() - offset
    }

    /// Offset of its last place from `from`; so that the whole ring, 2^64 places, needs no wider type.
    fn last_offset(self) -> u64 {
        self.to.wrapping_sub(self.from).wrapping_sub(1)
    }
}

/// Places a node answers for, of one batch, each with how deep in the tree it was asked.
///
/// A range that is asked for deeper than it is held is no repeat: who stands in for another answers
/// for a range that its own place lies in, and may be handed a part of it by one of its delegates.
/// Were that taken for held, the delegate would rely on this node, and this node on the delegate.
#[derive(Clone, Debug, Default)]
pub(super) struct Spans {
    /// Nearly always there is but one: of every kept batch it lies here, not elsewhere in memory.
    first: Option<(Span, u32)>,
    more: Vec<(Span, u32)>,
}

/// Most spans kept of one batch. What is not kept is served again should it be asked again.
const SPANS_MAX: usize = 32;

impl Spans {
    /// Puts `span` in, asked for after so many hops, and returns what of it was not in.
    pub fn insert(&mut self, span: Span, hops: u32) -> Rest {
        if self.first.is_none() {
            self.first = Some((span, hops));
            return Rest::whole(span);
        }
        let mut rest = vec![span];
        for (held, _) in self.first.iter().chain(&self.more).filter(|held| held.1 >= hops) {
            rest = rest.into_iter().flat_map(|span| without(span, *held)).collect();
        }
        if !rest.is_empty() && self.more.len() + 1 < SPANS_MAX {
            self.more.push((span, hops));
        }
        Rest { first: None, more: rest.into_iter() }
    }
}

/// What is left of a span: nearly always all of it.
#[derive(Debug)]
pub(super) struct Rest {
    first: Option<Span>,
    more: std::vec::IntoIter<Span>,
}

impl Rest {
    /// All of it.
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

/// What of `span` is not in `held`: none, one or two spans.
fn without(span: Span, held: Span) -> Vec<Span> {
    let last = span.last_offset();
    // In offsets from `span.from`, `held` is one run, or two where it goes over the seam.
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
        // Held are 0..=end and start..=MAX: between them is what remains.
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
        // Sixteen places round the seam and round the middle.
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
