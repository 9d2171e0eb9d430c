//! Sets of patterns, and whether a set includes every name that another pattern matches.
//!
//! A name has at most [`SOURCE_SEGMENTS_MAX`] segments, so a pattern that ends with `**` is the same as one
//! pattern of each length: `a/**` is `a/*`, `a/*/*`, and so on. Of patterns of the same length, a set includes
//! another pattern exactly if one of its patterns alone does: where the other pattern has a wildcard, a name may
//! have a segment that no pattern of the set spells out, and only a wildcard matches that segment. So the test
//! is exact, also where several patterns together include what none does alone.

use crate::limits::SOURCE_SEGMENTS_MAX;
use crate::record::{Pattern, Segment};

/// A set of patterns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PatternSet(Vec<Pattern>);

/// A pattern as it stands for names of one length: a segment for each of the name.
struct OfLength<'a> {
    segments: [Segment<'a>; SOURCE_SEGMENTS_MAX],
    count: usize,
}

impl<'a> OfLength<'a> {
    /// Returns `None` if the pattern matches no name of `count` segments.
    fn new(pattern: &'a Pattern, count: usize) -> Option<OfLength<'a>> {
        let mut segments = [Segment::One; SOURCE_SEGMENTS_MAX];
        let mut length = 0;
        let mut is_open = false;
        for segment in pattern.segments() {
            is_open = segment == Segment::Rest;
            *segments.get_mut(length)? = if is_open { Segment::One } else { segment };
            length += 1;
        }
        let is_fine = count <= SOURCE_SEGMENTS_MAX && (length == count || is_open && length < count);
        is_fine.then_some(OfLength { segments, count })
    }

    fn segments(&self) -> &[Segment<'a>] {
        self.segments.get(..self.count).unwrap_or_default()
    }

    /// Returns whether every name that `other`, of the same length, matches is matched by this pattern.
    fn includes(&self, other: &OfLength<'_>) -> bool {
        let mut pairs = self.segments().iter().zip(other.segments()).enumerate();
        pairs.all(|(at, pair)| match pair {
            // A wildcard matches no first segment that begins with `$`.
            (Segment::One, Segment::Exact(name)) => at > 0 || !name.starts_with('$'),
            (Segment::One, _) => true,
            (Segment::Exact(name), Segment::Exact(other)) => name == other,
            _ => false,
        })
    }
}

impl PatternSet {
    /// Makes a set.
    pub fn new(patterns: Vec<Pattern>) -> PatternSet {
        PatternSet(patterns)
    }

    /// Returns whether no pattern is in the set.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The patterns of the set.
    pub fn patterns(&self) -> &[Pattern] {
        &self.0
    }

    /// Returns whether any pattern of the set matches the name `source`.
    pub fn matches(&self, source: &str) -> bool {
        self.0.iter().any(|pattern| pattern.matches(source))
    }

    /// Returns whether the set matches every name that `other` matches.
    pub fn includes(&self, other: &Pattern) -> bool {
        let least = other.segments().count();
        let is_open = other.segments().last() == Some(Segment::Rest);
        let most = if is_open { SOURCE_SEGMENTS_MAX } else { least };
        // Most often one pattern includes the other one at all lengths, and the last length tells least.
        (least..=most).all(|count| self.includes_length(other, count))
    }

    fn includes_length(&self, other: &Pattern, count: usize) -> bool {
        // A pattern that matches no name of this length has nothing that would have to be included.
        let Some(other) = OfLength::new(other, count) else { return true };
        let mut own = self.0.iter().filter_map(|pattern| OfLength::new(pattern, count));
        own.any(|pattern| pattern.includes(&other))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn set(patterns: &[&str]) -> PatternSet {
        PatternSet::new(patterns.iter().map(|text| Pattern::parse(text).expect(text)).collect())
    }

    fn includes(patterns: &[&str], other: &str) -> bool {
        set(patterns).includes(&Pattern::parse(other).expect(other))
    }

    #[test]
    fn patterns_include_what_is_narrower() {
        for (own, other) in [
            ("public/**", "public/a"),
            ("public/**", "public/*/x"),
            ("public/**", "public/**"),
            ("**", "a/**"),
            ("**", "*"),
            ("*/x", "a/x"),
            ("$sys/**", "$sys/a"),
            ("a/**", "a/*/**"),
        ] {
            assert!(includes(&[own], other), "{own} {other}");
        }
        for (own, other) in [
            ("public/**", "**"),
            ("public/**", "*/a"),
            ("public/**", "public"),
            ("a/*", "a/**"),
            ("a/*/**", "a/**"),
            ("**", "$sys/a"),
            ("*", "$sys"),
            ("$sys/**", "**"),
            ("a/b", "a/*"),
        ] {
            assert!(!includes(&[own], other), "{own} {other}");
        }
        assert!(!includes(&[], "a"));
    }

    #[test]
    fn several_patterns_may_include_what_none_does_alone() {
        assert!(includes(&["a/*", "a/*/**"], "a/**"));
        assert!(includes(&["*", "*/*", "*/*/**"], "**"));
        assert!(!includes(&["a/*", "a/*/*/**"], "a/**"));
        assert!(!includes(&["a/x", "a/y"], "a/*"));
    }

    #[test]
    fn lengths_end_with_the_longest_name() {
        let long = vec!["a"; 16].join("/");
        assert!(includes(&[&long], &long));
        // The `**` of the other pattern can only stand for the sixteenth segment.
        let other = format!("{}/**", vec!["a"; 15].join("/"));
        assert!(includes(&[&format!("{}/*", vec!["a"; 15].join("/"))], &other));
    }

    /// A pattern over few words, so that patterns often overlap.
    fn pattern() -> impl Strategy<Value = Pattern> {
        let first = prop_oneof![Just("a"), Just("b"), Just("*"), Just("$s")];
        let word = prop_oneof![Just("a"), Just("b"), Just("*"), Just("$s")];
        (first, prop::collection::vec(word, 0..4), any::<bool>()).prop_map(|(first, rest, is_open)| {
            let mut words = vec![first];
            words.extend(rest);
            if is_open {
                words.push("**");
            }
            let text = if words == ["*", "**"] { "**".to_owned() } else { words.join("/") };
            Pattern::parse(&text).expect("a pattern")
        })
    }

    /// Every name of up to six segments of these words.
    fn names() -> Vec<String> {
        let words = ["a", "b", "$s", "other"];
        let mut all: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        let mut last = all.clone();
        for _ in 1..6 {
            last =
                last.iter().flat_map(|name| words.iter().map(move |word| format!("{name}/{word}"))).collect();
            all.extend(last.iter().cloned());
        }
        all
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]

        /// Inclusion is the same as matching every name that the other pattern matches. The word `other` stands
        /// for all that no pattern spells out; of longer names the patterns here say nothing new.
        #[test]
        fn inclusion_is_what_matching_says(own in prop::collection::vec(pattern(), 0..4), other in pattern()) {
            let names = names();
            let own = PatternSet::new(own);
            let is_matched = names.iter().filter(|name| other.matches(name)).all(|name| own.matches(name));
            prop_assert_eq!(own.includes(&other), is_matched, "{:?} {:?}", own, other);
        }
    }
}
