//! Decodes the query of a URL. HTTP requests and WebSocket upgrades share it.
//!
//! Queries are decoded like HTML forms: `+` is a space and `%XX` a byte. A `%` that is not followed by two
//! hex digits is refused, so that a mistyped name is never taken for another one.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

use super::refusal::{Code, Refusal};

/// The reason why a part of a URL cannot be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodingError {
    /// A `%` is not followed by two hex digits.
    #[error("\"%\" in the URL without two hex digits")]
    BadPercent,
    /// The decoded bytes are not UTF-8.
    #[error("the percent-encoding is no UTF-8")]
    NotUtf8,
}

/// Decodes a path, in which `+` stands for itself.
pub fn decode_path(text: &str) -> Result<Cow<'_, str>, EncodingError> {
    let digits_follow = |rest: &str| {
        let digits = rest.as_bytes().get(..2);
        digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    };
    if !text.split('%').skip(1).all(digits_follow) {
        return Err(EncodingError::BadPercent);
    }
    percent_decode_str(text).decode_utf8().map_err(|_| EncodingError::NotUtf8)
}

/// Decodes the name or the value of a query's parameter, in which `+` stands for a space.
fn decode_form(text: &str) -> Result<String, EncodingError> {
    Ok(decode_path(&text.replace('+', " "))?.into_owned())
}

/// Returns the decoded parameters (name and value) of a query without its `?`, in the order in which they
/// appear. A parameter without `=` has an empty value.
pub fn parameters(query: &str) -> impl Iterator<Item = Result<(String, String), Refusal>> {
    query.split('&').filter(|part| !part.is_empty()).map(|part| {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        let refuse = |error: EncodingError| Refusal::new(Code::BadRequest, error.to_string());
        Ok((decode_form(name).map_err(refuse)?, decode_form(value).map_err(refuse)?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_decoded_byte_by_byte() {
        assert_eq!(decode_path("a/b+c").as_deref(), Ok("a/b+c"));
        assert_eq!(decode_path("%C3%a4%2f%25").as_deref(), Ok("ä/%"));
        for bad in ["%", "%4", "%zz", "a%", "%+1", "%%41", "%é"] {
            assert_eq!(decode_path(bad), Err(EncodingError::BadPercent), "{bad}");
        }
        assert_eq!(decode_path("%ff"), Err(EncodingError::NotUtf8));
    }

    #[test]
    fn parameters_are_decoded_as_forms() {
        let read = |query: &str| parameters(query).collect::<Result<Vec<_>, _>>();
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(read("a=b+c&&d&e=%2B=f"), Ok(vec![pair("a", "b c"), pair("d", ""), pair("e", "+=f")]));
        assert_eq!(read("a=%zz").expect_err("percent").code, Code::BadRequest);
        assert_eq!(read("%ff=a").expect_err("name").code, Code::BadRequest);
    }
}
