//! A JSON scanner that finds where values end without copying anything.
//!
//! The data of records is kept verbatim, so no tree is built: one pass checks the grammar (`grammar`) and
//! returns spans of the text. Flaws that make a value unacceptable but do not hide its end (nested too deep,
//! half of a surrogate pair) are reported beside the span, so that one bad item does not spoil its batch.
//! Rejected: `serde_json::RawValue`, which neither limits the depth by itself nor detects lone surrogates.

use std::borrow::Cow;

pub use super::grammar::{Flaw, KnownKey, SyntaxError};
use super::grammar::{Grammar, JsonSpan, Scan};

/// The span of a value in the text, and what the scanner found out about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JsonValue<'a> {
    /// The text of the value from its first to its last byte.
    pub text: &'a str,
    /// The first flaw that was found in the value.
    pub flaw: Option<Flaw>,
    /// Whether the value is a string without escapes.
    pub is_plain: bool,
}

/// Reads a JSON text from left to right.
#[derive(Debug)]
pub struct Scanner<'a> {
    text: &'a str,
    grammar: Grammar<'a>,
}

impl<'a> Scanner<'a> {
    /// Starts at the first byte of `text`.
    pub fn new(text: &'a str) -> Scanner<'a> {
        Scanner { text, grammar: Grammar { bytes: text.as_bytes(), at: 0 } }
    }

    /// Skips white space and returns the next byte without taking it; `None` at the end of the text.
    pub fn peek(&mut self) -> Option<u8> {
        self.grammar.peek()
    }

    /// Skips white space and takes `byte`. Returns an error with the description `expected` if another byte
    /// is next.
    pub fn take(&mut self, byte: u8, expected: &'static str) -> Scan<()> {
        self.grammar.take(byte, expected)
    }

    /// Skips white space and takes `byte` if it is next. Returns whether it was.
    pub fn take_if(&mut self, byte: u8) -> bool {
        self.grammar.take_if(byte)
    }

    /// Returns an error unless nothing but white space is left.
    pub fn end(&mut self) -> Scan<()> {
        self.grammar.end()
    }

    /// Takes one value of any kind and returns its span.
    #[inline]
    pub fn value(&mut self) -> Scan<JsonValue<'a>> {
        let JsonSpan { start, flaw, is_plain } = self.grammar.value()?;
        Ok(JsonValue { text: &self.text[start..self.grammar.at], flaw, is_plain })
    }
}

/// Returns the bytes of the single JSON value that `text` must be, without the white space around it, and the first
/// flaw of the value. The grammar does not depend on whether strings are UTF-8, which is not looked at.
pub fn single_value(text: &[u8]) -> Result<(&[u8], Option<Flaw>), SyntaxError> {
    let mut grammar = Grammar { bytes: text, at: 0 };
    let JsonSpan { start, flaw, .. } = grammar.value()?;
    let value = text.get(start..grammar.at).unwrap_or_default();
    grammar.end()?;
    Ok((value, flaw))
}

/// A key of an object, as [`object`] found it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ObjectKey<'a> {
    /// One of the keys that the reader expects, by its place among them.
    Known(usize),
    /// Any key, with its escapes resolved. It may be one of those expected, in an unusual form.
    Text(Cow<'a, str>),
}

/// Takes an object, which must be next, and calls `field` with every key and the span of its value. `known` are keys
/// that are recognized faster than others.
#[inline]
pub fn object<'a>(
    scanner: &mut Scanner<'a>,
    known: &[KnownKey],
    mut field: impl FnMut(ObjectKey<'a>, JsonValue<'a>),
) -> Result<(), SyntaxError> {
    scanner.take(b'{', "'{'")?;
    if scanner.take_if(b'}') {
        return Ok(());
    }
    loop {
        let key = match scanner.grammar.known_key(known) {
            Some(place) => ObjectKey::Known(place),
            None => ObjectKey::Text(text_key(scanner)?),
        };
        field(key, scanner.value()?);
        if !scanner.take_if(b',') {
            return scanner.take(b'}', "',' or '}'");
        }
    }
}

/// Takes a key of an object and its colon. Returns the key with its escapes resolved.
#[inline(never)]
fn text_key<'a>(scanner: &mut Scanner<'a>) -> Result<Cow<'a, str>, SyntaxError> {
    if scanner.peek() != Some(b'"') {
        return scanner.grammar.wrong("a string");
    }
    let start = scanner.grammar.at + 1;
    let is_plain = scanner.grammar.string(&mut None)?;
    let key = scanner.text.get(start..scanner.grammar.at - 1).unwrap_or_default();
    scanner.take(b':', "':'")?;
    Ok(unescape(key, is_plain))
}

/// Returns the text of a string with its escapes resolved; `None` if the value is not a string.
pub fn as_string<'a>(value: &JsonValue<'a>) -> Option<Cow<'a, str>> {
    let inner = value.text.strip_prefix('"')?.strip_suffix('"')?;
    Some(unescape(inner, value.is_plain))
}

/// Returns the number of an integer without fraction or exponent; `None` for any other value and for numbers
/// of more than 30 characters.
pub fn as_integer(value: &JsonValue<'_>) -> Option<i128> {
    let text = value.text;
    (text.len() <= 30).then(|| text.parse().ok()).flatten()
}

/// Resolves the escapes of a string that the scanner has taken. A lone surrogate becomes U+FFFD.
fn unescape(raw: &str, is_plain: bool) -> Cow<'_, str> {
    if is_plain {
        return Cow::Borrowed(raw);
    }
    let quoted = format!("\"{raw}\"");
    match serde_json::from_str::<String>(&quoted) {
        Ok(text) => Cow::Owned(text),
        Err(_) => Cow::Owned(raw.replace("\\u", "\u{fffd}")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn scan(text: &str) -> Result<Option<Flaw>, SyntaxError> {
        let mut scanner = Scanner::new(text);
        let value = scanner.value()?;
        scanner.end()?;
        Ok(value.flaw)
    }

    #[test]
    fn accepts_what_rfc_8259_accepts() {
        for good in
            ["1", "-0.5e+9", "\"a\\u00e9\\ud83d\\ude00\"", "[ ]", "{\"a\" : [1,{}]}", " null ", "[[],[[]]]"]
        {
            assert_eq!(scan(good), Ok(None), "{good}");
        }
    }

    #[test]
    fn refuses_what_it_refuses() {
        for bad in [
            "",
            "01",
            "1.",
            "+1",
            ".5",
            "tru",
            "[1,]",
            "{\"a\"}",
            "{a:1}",
            "\"\t\"",
            "\"\\x\"",
            "[1}",
            "1 2",
            "\"",
            "{\"a\":1,}",
            "]",
            "\"\\u12g4\"",
        ] {
            assert!(scan(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn flaws_do_not_hide_the_end() {
        let deep = |n: usize| "[".repeat(n) + &"]".repeat(n);
        assert_eq!(scan(&deep(64)), Ok(None));
        assert_eq!(scan(&deep(65)), Ok(Some(Flaw::TooDeep)));
        assert_eq!(scan(&deep(100_000)), Ok(Some(Flaw::TooDeep)));
        for lone in [r#""\ud800""#, r#""\udc00x""#, r#""\ud800\u0041""#, r#""\ud800\ud800\udc00""#] {
            assert_eq!(scan(lone), Ok(Some(Flaw::LoneSurrogate)), "{lone}");
        }
    }

    proptest! {
        /// Known keys have a fast path, which must agree with the general one.
        #[test]
        fn keys_are_read_as_they_were_written(
            keys in prop::collection::vec(("[a-zé\"\\\\\\n]{0,9}|id|source|t", " ?"), 0..4),
            end in " {0,9}",
        ) {
            const KNOWN: [&str; 3] = ["t", "id", "source"];
            let quoted = |key: &str| serde_json::to_string(key).expect("text");
            let fields: Vec<String> = keys.iter().map(|(key, gap)| format!("{}{gap}:1", quoted(key))).collect();
            let text = format!("{{{}}}{end}", fields.join(","));
            let (mut scanner, mut found) = (Scanner::new(&text), Vec::new());
            object(&mut scanner, &KNOWN.map(KnownKey::new), |key, value| {
                let key = match key {
                    ObjectKey::Known(place) => KNOWN[place].to_owned(),
                    ObjectKey::Text(text) => text.into_owned(),
                };
                found.push((key, value.text.to_owned()));
            })
            .expect("object");
            let want: Vec<_> = keys.into_iter().map(|(key, _)| (key, "1".to_owned())).collect();
            prop_assert_eq!(found, want);
            prop_assert!(scanner.end().is_ok());
        }

        #[test]
        fn agrees_with_serde_json(text in r#"[\[\]{}:,"\\a0-9eu\-. ]{0,24}"#) {
            let theirs = serde_json::from_str::<&serde_json::value::RawValue>(&text).is_ok();
            prop_assert_eq!(scan(&text).is_ok(), theirs, "{}", text);
        }
    }
}
