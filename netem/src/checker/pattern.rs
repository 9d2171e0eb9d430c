//! Patterns of sources, as subscribers write them.

/// Returns whether a pattern matches a source: `*` stands for one segment, and a last `**` for one or more. Neither
/// matches a segment at the beginning that starts with `$`.
pub(super) fn matches(pattern: &str, source: &str) -> bool {
    if source.starts_with('$') && pattern.starts_with('*') {
        return false;
    }
    let (mut parts, mut segments) = (pattern.split('/'), source.split('/'));
    loop {
        match (parts.next(), segments.next()) {
            (Some("**"), Some(_)) => return true,
            (Some("*"), Some(_)) => {}
            (Some(part), Some(segment)) if part == segment => {}
            (None, None) => return true,
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn segments_are_matched() {
        for (pattern, source) in
            [("a/b", "a/b"), ("a/*", "a/b"), ("**", "a"), ("a/**", "a/b/c"), ("*/b", "a/b")]
        {
            assert!(matches(pattern, source), "{pattern} {source}");
        }
        for (pattern, source) in
            [("a", "a/b"), ("a/*", "a"), ("a/**", "a"), ("**", "$x"), ("*", "$x"), ("a/*", "a/b/c")]
        {
            assert!(!matches(pattern, source), "{pattern} {source}");
        }
    }
}
