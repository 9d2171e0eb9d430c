//! Suggests what somebody meant who misspelt a name or a value.

/// Least similarity (Jaro and Winkler's, from 0 to 1) of something that may have been meant.
const SIMILARITY_MIN: f64 = 0.82;

/// Returns the most similar of the candidates, if any is similar enough to have been meant.
pub fn nearest<'a>(text: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let text = text.to_ascii_lowercase();
    let scored = candidates.map(|it| (strsim::jaro_winkler(&text, &it.to_ascii_lowercase()), it));
    let similar = scored.filter(|(similarity, _)| *similarity >= SIMILARITY_MIN);
    similar.max_by(|(one, _), (next, _)| one.total_cmp(next)).map(|(_, it)| it)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_meant_is_found_and_nothing_else() {
        let of =
            |text: &str| nearest(text, ["http", "history", "tombstones", "embedded", "memory"].into_iter());
        assert_eq!(of("htpt"), Some("http"));
        assert_eq!(of("tombstone"), Some("tombstones"));
        assert_eq!(of("Embeded"), Some("embedded"));
        assert_eq!(of("punchcards"), None);
        assert_eq!(of(""), None);
    }
}
