//! A JSON scanner that finds where values end without copying anything.
//!
//! The data of records is kept verbatim, so no tree is built: one pass checks the grammar (RFC 8259) and
//! returns spans of the text. Flaws that make a value unacceptable but do not hide its end (nested too deep,
//! half of a surrogate pair) are reported beside the span, so that one bad item does not spoil its batch.
//! Rejected: `serde_json::RawValue`, which neither limits the depth by itself nor detects lone surrogates.

use std::borrow::Cow;

use crate::limits::JSON_DEPTH_MAX;
use crate::record::words::json_plain_len;

/// The error of a text that is not JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected {expected} at byte {at}")]
pub struct SyntaxError {
    /// A description of what the grammar allows at this place.
    pub expected: &'static str,
    /// Offset of the place in the text, in bytes.
    pub at: usize,
}

/// A reason why a value is unacceptable although its end could be found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    /// Nested deeper than [`JSON_DEPTH_MAX`].
    #[error("nested deeper than {JSON_DEPTH_MAX}")]
    TooDeep,
    /// A `\u` escape is half of a surrogate pair, without the other half.
    #[error("a lone surrogate in a string")]
    LoneSurrogate,
}

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

/// The result of scanning a part of the text.
type Scan<T> = Result<T, SyntaxError>;

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

/// Where a value begins, which ends where the reader is, and what was found out about it.
struct JsonSpan {
    start: usize,
    flaw: Option<Flaw>,
    is_plain: bool,
}

/// Follows the grammar along the bytes of a text.
#[derive(Debug)]
struct Grammar<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Grammar<'_> {
    #[inline]
    fn peek(&mut self) -> Option<u8> {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.bytes.get(self.at) {
            self.at += 1;
        }
        self.byte()
    }

    #[inline]
    fn take(&mut self, byte: u8, expected: &'static str) -> Scan<()> {
        if self.peek() != Some(byte) {
            return self.wrong(expected);
        }
        self.at += 1;
        Ok(())
    }

    #[inline]
    fn take_if(&mut self, byte: u8) -> bool {
        let is_next = self.peek() == Some(byte);
        self.at += usize::from(is_next);
        is_next
    }

    fn end(&mut self) -> Scan<()> {
        match self.peek() {
            None => Ok(()),
            Some(_) => self.wrong("the end of the text"),
        }
    }

    #[inline]
    fn value(&mut self) -> Scan<JsonSpan> {
        let next = self.peek();
        let (start, mut flaw, mut is_plain) = (self.at, None, false);
        match next {
            Some(b'{' | b'[') => flaw = self.nested()?,
            Some(b'"') => is_plain = self.string(&mut flaw)?,
            next => self.word_or_number(next)?,
        }
        Ok(JsonSpan { start, flaw, is_plain })
    }

    /// Takes an array or an object with everything in it, and returns its first flaw.
    fn nested(&mut self) -> Scan<Option<Flaw>> {
        let mut flaw = None;
        let mut open = Nesting::default();
        loop {
            match self.peek() {
                Some(bracket @ (b'{' | b'[')) => {
                    self.at += 1;
                    open.push(bracket == b'{');
                    if open.depth > JSON_DEPTH_MAX {
                        flaw.get_or_insert(Flaw::TooDeep);
                    }
                    let close = if bracket == b'{' { b'}' } else { b']' };
                    if !self.take_if(close) {
                        if bracket == b'{' {
                            self.key(&mut flaw)?;
                        }
                        continue;
                    }
                    open.pop();
                }
                _ => {
                    self.scalar(&mut flaw)?;
                }
            }
            if !self.close(&mut open, &mut flaw)? {
                return Ok(flaw);
            }
        }
    }

    /// Takes the comma or the closing brackets that follow a value inside of brackets. Returns whether
    /// another value follows.
    fn close(&mut self, open: &mut Nesting, flaw: &mut Option<Flaw>) -> Scan<bool> {
        while let Some(in_object) = open.top() {
            if self.take_if(b',') {
                if in_object {
                    self.key(flaw)?;
                }
                return Ok(true);
            }
            let (bracket, expected) = if in_object { (b'}', "',' or '}'") } else { (b']', "',' or ']'") };
            self.take(bracket, expected)?;
            open.pop();
        }
        Ok(false)
    }

    fn key(&mut self, flaw: &mut Option<Flaw>) -> Scan<()> {
        if self.peek() != Some(b'"') {
            return self.wrong("a string");
        }
        self.string(flaw)?;
        self.take(b':', "':'")
    }

    fn scalar(&mut self, flaw: &mut Option<Flaw>) -> Scan<()> {
        match self.peek() {
            Some(b'"') => self.string(flaw).map(drop),
            next => self.word_or_number(next),
        }
    }

    fn word_or_number(&mut self, next: Option<u8>) -> Scan<()> {
        match next {
            Some(b't') => self.literal("true"),
            Some(b'f') => self.literal("false"),
            Some(b'n') => self.literal("null"),
            Some(b'-' | b'0'..=b'9') => self.number(),
            _ => self.wrong("a value"),
        }
    }

    /// Takes a key of an object and its colon, if it is one of `known` and there is no white space before or after
    /// it. Returns its place among them, or `None` and takes nothing.
    #[inline]
    fn known_key(&mut self, known: &[KnownKey]) -> Option<usize> {
        let [b'"', word @ ..] = self.bytes.get(self.at..)?.first_chunk::<9>()? else { return None };
        let word = u64::from_le_bytes(*word);
        let (place, key) = known.iter().enumerate().find(|(_, key)| word & key.mask == key.word)?;
        self.at += 1 + key.len;
        Some(place)
    }

    fn literal(&mut self, word: &'static str) -> Scan<()> {
        if !self.bytes[self.at..].starts_with(word.as_bytes()) {
            return self.wrong(word);
        }
        self.at += word.len();
        Ok(())
    }

    /// Takes a number.
    fn number(&mut self) -> Scan<()> {
        self.at += usize::from(self.byte() == Some(b'-'));
        match self.byte() {
            Some(b'0') => self.at += 1,
            _ => self.digits()?,
        }
        if self.byte() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.byte() {
            self.at += 1;
            self.at += usize::from(matches!(self.byte(), Some(b'+' | b'-')));
            self.digits()?;
        }
        Ok(())
    }

    fn digits(&mut self) -> Scan<()> {
        let start = self.at;
        while self.byte().is_some_and(|b| b.is_ascii_digit()) {
            self.at += 1;
        }
        if self.at == start { self.wrong("a digit") } else { Ok(()) }
    }

    /// Takes a string, whose quote must be the next byte. Returns whether it has no escapes.
    #[inline]
    fn string(&mut self, flaw: &mut Option<Flaw>) -> Scan<bool> {
        self.at += 1;
        let mut is_plain = true;
        loop {
            self.at += json_plain_len(self.bytes.get(self.at..).unwrap_or_default());
            match self.byte() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(is_plain);
                }
                Some(b'\\') => {
                    is_plain = false;
                    self.escape(flaw)?;
                }
                Some(_) => return self.wrong("no control character in a string"),
                None => return self.wrong("'\"'"),
            }
        }
    }

    /// Takes an escape of a string, whose backslash must be the next byte.
    fn escape(&mut self, flaw: &mut Option<Flaw>) -> Scan<()> {
        self.at += 1;
        match self.byte() {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.at += 1,
            Some(b'u') => {
                self.at += 1;
                let unit = self.hex4()?;
                let low_follows = || self.bytes[self.at..].starts_with(b"\\u");
                match unit {
                    0xD800..=0xDBFF if low_follows() => {
                        let before = self.at;
                        self.at += 2;
                        if !matches!(self.hex4()?, 0xDC00..=0xDFFF) {
                            self.at = before;
                            flaw.get_or_insert(Flaw::LoneSurrogate);
                        }
                    }
                    0xD800..=0xDFFF => {
                        flaw.get_or_insert(Flaw::LoneSurrogate);
                    }
                    _ => {}
                }
            }
            _ => return self.wrong("an escape"),
        }
        Ok(())
    }

    fn hex4(&mut self) -> Scan<u16> {
        let digits = self.bytes.get(self.at..self.at + 4);
        let all_hex = |d: &&[u8]| d.iter().all(u8::is_ascii_hexdigit);
        let Some(digits) = digits.filter(all_hex) else { return self.wrong("four hex digits") };
        self.at += 4;
        let value = |d: u8| (d as char).to_digit(16).unwrap_or(0) as u16;
        Ok(digits.iter().fold(0, |unit, &d| unit << 4 | value(d)))
    }

    #[inline]
    fn byte(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn wrong<T>(&self, expected: &'static str) -> Scan<T> {
        Err(SyntaxError { expected, at: self.at })
    }
}

/// The brackets that are open, one bit each: 1 for an object, 0 for an array. Up to 64 need no allocation.
#[derive(Default)]
struct Nesting {
    depth: usize,
    near: u64,
    far: Vec<u64>,
}

impl Nesting {
    fn push(&mut self, is_object: bool) {
        if self.depth > 0 && self.depth.is_multiple_of(64) {
            self.far.push(self.near);
        }
        self.near = self.near << 1 | u64::from(is_object);
        self.depth += 1;
    }

    fn pop(&mut self) {
        self.depth -= 1;
        self.near >>= 1;
        if self.depth > 0 && self.depth.is_multiple_of(64) {
            self.near = self.far.pop().unwrap_or(0);
        }
    }

    fn top(&self) -> Option<bool> {
        (self.depth > 0).then_some(self.near & 1 == 1)
    }
}

/// A key that a reader of objects expects, prepared so that it is recognized by one comparison.
#[derive(Clone, Copy, Debug)]
pub struct KnownKey {
    /// The key as it stands after its first quote: with the second quote and the colon.
    word: u64,
    /// The bits of the word that count.
    mask: u64,
    /// Number of bytes that count.
    len: usize,
}

impl KnownKey {
    /// Prepares a key of at most six characters, which are ASCII and need no escapes.
    pub const fn new(name: &str) -> KnownKey {
        let (name, mut word, mut len) = (name.as_bytes(), [0; 8], 0);
        while len < name.len() {
            word[len] = name[len];
            len += 1;
        }
        word[len] = b'"';
        word[len + 1] = b':';
        len += 2;
        KnownKey { word: u64::from_le_bytes(word), mask: u64::MAX >> (64 - 8 * len), len }
    }
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
