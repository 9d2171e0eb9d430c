//! The names of a shard's sources in their order, and how a pattern is looked up in them.
//!
//! A lookup walks along the names. A name that does not match says which name can match next: for `a/*/temp`, the
//! name `a/7/hum` says that it is `a/7/temp`, and `a/7/wind` that it comes after all names that begin with `a/7/`.
//! The walk jumps there. So it looks at the names that match, at one for every text that stands in the place of
//! a `*`, and at nothing that does not begin like the pattern.
//!
//! The names are kept in a B-tree. Only a source that is new or leaves costs something there; a new record of a
//! known source does not touch it. Rejected: a trie of segments, which needs three times the memory and cannot
//! list names in their order without sorting; sorting all names for every page, which costs as much as there are
//! sources; one tree for all shards, whose lock every new source would take.

use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::Arc;

use crate::record::cost::allocated;
use crate::record::{Pattern, Segment, Source};

/// Steps that a jump counts as: it goes down the tree, which costs about as much as looking at this number of
/// names in a row.
const JUMP_STEPS: usize = 4;

/// Bytes of one key of a B-tree of 16-byte keys: a leaf of eleven keys, of which six are in use at worst while
/// keys come in order, and its part of the inner nodes. Measured: 27 to 44 bytes.
pub(super) const TREE_KEY_BYTES: usize = allocated(11 * 16 + 16) / 6 + 6;

/// How far a walk along the names of a shard has come.
#[derive(Clone, Debug, Default)]
pub struct Cursor(Place);

#[derive(Clone, Debug, Default)]
enum Place {
    #[default]
    Start,
    /// The names after this one are left.
    After(Source),
    /// The names after this text, which need not be the name of a source, are left.
    AfterText(Arc<str>),
    /// This text and the names after it are left.
    From(Arc<str>),
    /// Nothing is left.
    End,
}

impl Cursor {
    /// The names after `text`.
    pub fn after(text: Arc<str>) -> Cursor {
        Cursor(Place::AfterText(text))
    }

    /// Returns whether nothing is left.
    pub fn is_over(&self) -> bool {
        matches!(self.0, Place::End)
    }

    /// Moves the cursor behind all names.
    pub(super) fn finish(&mut self) {
        self.0 = Place::End;
    }

    /// Returns where the names begin that are left.
    fn bound(&self) -> Bound<&str> {
        match &self.0 {
            Place::Start | Place::End => Bound::Unbounded,
            Place::After(source) => Bound::Excluded(source.as_str()),
            Place::AfterText(text) => Bound::Excluded(text),
            Place::From(text) => Bound::Included(text),
        }
    }
}

/// The names of a shard's sources, in the order of their bytes.
#[derive(Debug, Default)]
pub(super) struct Names(BTreeSet<Source>);

impl Names {
    pub(super) fn insert(&mut self, source: Source) {
        self.0.insert(source);
    }

    pub(super) fn remove(&mut self, source: &str) {
        self.0.remove(source);
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Shows up to `count` names after `cursor` to `visit`, and moves the cursor behind them.
    pub(super) fn walk_all(&self, cursor: &mut Cursor, count: usize, visit: &mut dyn FnMut(&Source)) {
        if cursor.is_over() {
            return;
        }
        let mut names = self.0.range::<str, _>((cursor.bound(), Bound::Unbounded));
        let mut last = None;
        for name in names.by_ref().take(count) {
            visit(name);
            last = Some(name);
        }
        *cursor = match last {
            Some(last) if names.next().is_some() => Cursor(Place::After(last.clone())),
            _ => Cursor(Place::End),
        };
    }

    /// Shows the names after `cursor` that match the pattern to `visit`, in their order, until `visit` returns
    /// `false`, until `steps` are used up, or until none is left. Moves the cursor behind what was looked at, and
    /// takes the steps off `steps`: one for each name, and [`JUMP_STEPS`] for each jump.
    pub(super) fn walk(
        &self,
        pattern: &Pattern,
        cursor: &mut Cursor,
        steps: &mut usize,
        visit: &mut dyn FnMut(&Source) -> bool,
    ) {
        if cursor.is_over() {
            return;
        }
        let mut key = literal_beginning(pattern).to_owned();
        let from = match cursor.bound() {
            Bound::Included(from) | Bound::Excluded(from) if from >= key.as_str() => cursor.bound(),
            _ => Bound::Included(key.as_str()),
        };
        let mut names = self.0.range::<str, _>((from, Bound::Unbounded));
        *steps = steps.saturating_sub(JUMP_STEPS);
        while let Some(name) = names.next() {
            *steps = steps.saturating_sub(1);
            let fit = next_after(pattern, name.as_str(), &mut key);
            let goes_on = match fit {
                NameFit::Over => break,
                NameFit::Matches => visit(name),
                NameFit::Misses | NameFit::Jump => true,
            };
            if !goes_on || *steps == 0 {
                let is_jump = fit == NameFit::Jump;
                let place = if is_jump { Place::From(key.into()) } else { Place::After(name.clone()) };
                *cursor = Cursor(place);
                return;
            }
            // The name that is next often is the one wanted. Then nothing is to be jumped over.
            let is_far = || names.clone().next().is_some_and(|next| next.as_str() < key.as_str());
            if fit == NameFit::Jump && is_far() {
                names = self.0.range::<str, _>((Bound::Included(key.as_str()), Bound::Unbounded));
                *steps = steps.saturating_sub(JUMP_STEPS);
            }
        }
        cursor.finish();
    }
}

/// Returns the text that all names begin with that the pattern matches.
fn literal_beginning(pattern: &Pattern) -> &str {
    let text = pattern.as_str();
    let mut len = 0;
    for segment in pattern.segments() {
        match segment {
            Segment::Exact(exact) => len += exact.len() + 1,
            Segment::One | Segment::Rest => return &text[..len],
        }
    }
    text
}

/// What a name says about itself and the names after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum NameFit {
    /// The name matches.
    Matches,
    /// The name does not match, and the next one may.
    Misses,
    /// The name does not match, and no name before the key does.
    Jump,
    /// Neither this name nor any after it matches.
    Over,
}

/// Compares a name with a pattern. For [`NameFit::Jump`], `key` holds the least text that may match and is greater
/// than the name.
fn next_after(pattern: &Pattern, name: &str, key: &mut String) -> NameFit {
    if name.starts_with('$') && !pattern.as_str().starts_with('$') {
        // No wildcard matches a first segment that begins with `$`. The character after `$` is `%`.
        return jump(key, &["%"]);
    }
    // Where the last segment of the name that a `*` has matched ends. Only there can the pattern match another
    // text.
    let mut fork = None;
    let mut at = 0;
    let mut segments = pattern.segments().peekable();
    while let Some(segment) = segments.next() {
        let rest = name.get(at..).unwrap_or_default();
        let len = rest.find('/').unwrap_or(rest.len());
        let is_last = segments.peek().is_none();
        match segment {
            Segment::Rest => return NameFit::Matches,
            Segment::One => fork = Some(at + len),
            Segment::Exact(text) if rest.get(..len) == Some(text) => {}
            Segment::Exact(text) => {
                let slash = if is_last { "" } else { "/" };
                return match is_before(rest, text, slash) {
                    true => jump(key, &[name.get(..at).unwrap_or_default(), text, slash]),
                    false => jump_over(key, name, fork),
                };
            }
        }
        let end = at + len;
        match (end == name.len(), is_last) {
            (true, true) => return NameFit::Matches,
            // Names that differ in the segment of a `*` may stand between this name and those that continue it.
            (true, false) if segment == Segment::One => return NameFit::Misses,
            (true, false) => return jump(key, &[name, "/"]),
            (false, true) => return jump_over(key, name, Some(end)),
            (false, false) => at = end + 1,
        }
    }
    NameFit::Misses
}

/// Returns whether `rest` comes before the text that `text` and `slash` make together.
fn is_before(rest: &str, text: &str, slash: &str) -> bool {
    rest.bytes().lt(text.bytes().chain(slash.bytes()))
}

/// Jumps over all names that begin with the first `fork` bytes of `name` and a `/`. Without a fork nothing can
/// match any more.
fn jump_over(key: &mut String, name: &str, fork: Option<usize>) -> NameFit {
    match fork.and_then(|fork| name.get(..fork)) {
        // The character after `/` is `0`.
        Some(beginning) => jump(key, &[beginning, "0"]),
        None => NameFit::Over,
    }
}

fn jump(key: &mut String, parts: &[&str]) -> NameFit {
    key.clear();
    parts.iter().for_each(|part| key.push_str(part));
    NameFit::Jump
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn names<'a>(texts: impl IntoIterator<Item = &'a str>) -> Names {
        Names(texts.into_iter().map(|text| Source::parse(text).expect("a name")).collect())
    }

    fn pattern(text: &str) -> Pattern {
        Pattern::parse(text).expect("a pattern")
    }

    /// Returns the names that match and the number of steps, in slices of `slice` steps.
    fn found(names: &Names, text: &str, after: Option<&str>, slice: usize) -> (Vec<String>, usize) {
        let (mut found, mut used) = (Vec::new(), 0);
        let mut cursor = after.map_or_else(Cursor::default, |after| Cursor::after(after.into()));
        while !cursor.is_over() {
            let mut steps = slice;
            names.walk(&pattern(text), &mut cursor, &mut steps, &mut |name| {
                found.push(name.to_string());
                true
            });
            used += slice - steps;
        }
        (found, used)
    }

    proptest! {
        #[test]
        fn a_lookup_finds_what_a_filter_finds(
            texts in proptest::collection::btree_set("([ab!$]{1,2}/){0,3}[ab!0$]{1,2}", 0..60),
            text in "(([ab!$]{1,2}|\\*)/){0,3}([ab!0$]{1,2}|\\*|\\*\\*)",
            after in proptest::option::of("[ab!$/]{1,4}"),
            slice in 1usize..20,
        ) {
            let names = names(texts.iter().map(String::as_str));
            let pattern = pattern(&text);
            let is_wanted = |name: &&String| {
                pattern.matches(name) && after.as_ref().is_none_or(|after| *name > after)
            };
            let wanted: Vec<String> = texts.iter().filter(is_wanted).cloned().collect();
            let (found, used) = found(&names, &text, after.as_deref(), slice);
            prop_assert_eq!(found, wanted);
            let most = (texts.len() + 1) * (1 + 2 * JUMP_STEPS) * 2;
            prop_assert!(used <= most, "{} steps for {} names", used, texts.len());
        }

        #[test]
        fn a_walk_shows_every_name_once(
            texts in proptest::collection::btree_set("[a-c]{1,3}", 0..40),
            count in 1usize..9,
        ) {
            let names = names(texts.iter().map(String::as_str));
            let (mut shown, mut cursor) = (Vec::new(), Cursor::default());
            while !cursor.is_over() {
                let before = shown.len();
                names.walk_all(&mut cursor, count, &mut |name| shown.push(name.to_string()));
                prop_assert!(shown.len() - before <= count);
            }
            prop_assert_eq!(shown, texts.into_iter().collect::<Vec<_>>());
        }
    }

    /// A lookup of `zz/*/N` or `*/nomatch` looked at every source of the map.
    #[test]
    fn a_lookup_looks_only_at_what_may_match() {
        let texts: Vec<String> = (0..10_000).map(|n| format!("sensors/{n:05}/temp")).collect();
        let names = names(texts.iter().map(String::as_str));
        let steps = |text: &str| found(&names, text, None, usize::MAX).1;
        assert!(steps("zz/*/N") <= 2 * JUMP_STEPS + 1);
        assert!(steps("*/nomatch") <= 4 * JUMP_STEPS + 2);
        assert!(steps("sensors/00007/*") <= 4 * JUMP_STEPS + 2);
        assert!(steps("sensors/00007/temp") <= 4 * JUMP_STEPS + 2);
        assert!((10_000..10_010).contains(&steps("sensors/*/temp")));
        let (found, used) = found(&names, "sensors/*/temp", Some("sensors/09990/z"), usize::MAX);
        assert_eq!(found.len(), 9);
        assert!(used <= 2 * JUMP_STEPS + 10);
    }
}
