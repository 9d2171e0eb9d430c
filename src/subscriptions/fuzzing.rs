//! The check of names and patterns, and of the search for the patterns that match a name.

use super::{Index, Role};
use crate::limits::{SOURCE_BYTES_MAX, SOURCE_SEGMENTS_MAX};
use crate::record::{Pattern, Source};

/// The input is text: a name in the first line, and a pattern in each of the others.
pub(crate) fn pattern(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let mut lines = text.split('\n');
    let name = lines.next().unwrap_or_default();
    assert_eq!(Source::check(name).is_ok(), is_name(name), "{name:?}");
    let mut index = Index::seeded(7);
    let mut expected = Vec::new();
    for (connection, line) in lines.take(40).enumerate() {
        let Ok(pattern) = Pattern::parse(line) else {
            assert!(!is_name(line), "a name is a pattern: {line:?}");
            continue;
        };
        assert_eq!(pattern.as_str(), line);
        let is_match = matches(&line.split('/').collect::<Vec<_>>(), &name.split('/').collect::<Vec<_>>());
        let is_match = is_match && (!name.starts_with('$') || line.starts_with('$'));
        if is_name(name) {
            assert_eq!(pattern.matches(name), is_match, "{line:?} and {name:?}");
        }
        assert!(!is_name(line) || pattern.matches(line), "a name matches itself: {line:?}");
        if index.insert(&[pattern], connection, Role::Whole).is_ok() && is_match {
            expected.push(connection);
        }
    }
    if let Ok(source) = Source::parse(name) {
        let mut found = Vec::new();
        index.matches(name, &mut found);
        assert_eq!(found, expected, "{name:?} among {text:?}");
        let remembered: Vec<usize> = index.audience(&source).to_vec();
        assert_eq!(remembered, expected, "{name:?} among {text:?}, by the cache");
    }
}

/// The definition of a name, as the protocol states it.
fn is_name(name: &str) -> bool {
    (1..=SOURCE_BYTES_MAX).contains(&name.len())
        && !name.chars().any(|c| c == '*' || c.is_control())
        && name.split('/').all(|segment| !matches!(segment, "" | "." | ".."))
        && name.split('/').count() <= SOURCE_SEGMENTS_MAX
}

/// The definition of a match, segment by segment.
fn matches(pattern: &[&str], name: &[&str]) -> bool {
    match (pattern, name) {
        ([], []) => true,
        (["**"], [_, ..]) => true,
        (["*", pattern @ ..], [_, name @ ..]) => matches(pattern, name),
        ([exact, pattern @ ..], [segment, name @ ..]) => exact == segment && matches(pattern, name),
        _ => false,
    }
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let seeds: [&str; 8] = [
        "sensors/7/temp\nsensors/*/temp\nsensors/**\n**\n*\nsensors/7/temp",
        "$sys/a\n**\n$sys/*\n*/a\n$sys/**",
        "a\n*\n**\na/**\na/*",
        "a/b/c/d/e/f/g/h/i/j/k/l/m/n/o/p\na/*/c/*/e/*/g/*/i/*/k/*/m/*/o/*\n*/*/*/*/**",
        "ä/ö\nä/*\n*/ö\nä/ö",
        "a/.../b\na/./b\na/../b\na//b\n/a\na/",
        "x\nx*\n***\n**/x\n*x/y\n\u{7f}\n",
        "a/b/c/d/e/f/g/h/i/j/k/l/m/n/o/p/q\na/b/c/d/e/f/g/h/i/j/k/l/m/n/o/p/q",
    ];
    seeds.iter().map(|seed| seed.as_bytes().to_vec()).collect()
}
