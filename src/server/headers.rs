//! The header fields of a request whose head an event loop has read.

use httparse::Header;

/// Returns the values of all headers of this name.
pub fn values_of<'a>(headers: &'a [Header<'a>], name: &'static str) -> impl Iterator<Item = &'a [u8]> {
    headers.iter().filter(move |header| header.name.eq_ignore_ascii_case(name)).map(|header| header.value)
}

/// Returns whether the lists in all headers of this name hold `token`.
pub fn has_token(headers: &[Header<'_>], name: &'static str, token: &str) -> bool {
    let is_it = |item: &[u8]| item.trim_ascii().eq_ignore_ascii_case(token.as_bytes());
    values_of(headers, name).any(|value| value.split(|byte| *byte == b',').any(is_it))
}

/// Returns whether the headers announce a body.
pub fn has_body(headers: &[Header<'_>]) -> bool {
    let is_none = |length: &[u8]| !length.is_empty() && length.iter().all(|digit| *digit == b'0');
    values_of(headers, "transfer-encoding").next().is_some()
        || values_of(headers, "content-length").any(|length| !is_none(length.trim_ascii()))
}
