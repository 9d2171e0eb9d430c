//! The grammar of JSON (RFC 8259) along the bytes of a text: where a value ends, and whether it has a flaw.

use crate::limits::JSON_DEPTH_MAX;
use crate::record::words::json_plain_len;

/// The result of scanning a part of the text.
pub(super) type Scan<T> = Result<T, SyntaxError>;

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

/// Where a value begins, which ends where the reader is, and what was found out about it.
pub(super) struct JsonSpan {
    /// Offset of the value's first byte in the text.
    pub start: usize,
    /// The first flaw that was found in the value.
    pub flaw: Option<Flaw>,
    /// Whether the value is a string without escapes.
    pub is_plain: bool,
}

/// Follows the grammar along the bytes of a text.
#[derive(Debug)]
pub(super) struct Grammar<'a> {
    /// The whole text.
    pub bytes: &'a [u8],
    /// Offset of the next byte.
    pub at: usize,
}

impl Grammar<'_> {
    #[inline]
    pub fn peek(&mut self) -> Option<u8> {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.bytes.get(self.at) {
            self.at += 1;
        }
        self.byte()
    }

    #[inline]
    pub fn take(&mut self, byte: u8, expected: &'static str) -> Scan<()> {
        if self.peek() != Some(byte) {
            return self.wrong(expected);
        }
        self.at += 1;
        Ok(())
    }

    #[inline]
    pub fn take_if(&mut self, byte: u8) -> bool {
        let is_next = self.peek() == Some(byte);
        self.at += usize::from(is_next);
        is_next
    }

    pub fn end(&mut self) -> Scan<()> {
        match self.peek() {
            None => Ok(()),
            Some(_) => self.wrong("the end of the text"),
        }
    }

    #[inline]
    pub fn value(&mut self) -> Scan<JsonSpan> {
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
    pub fn known_key(&mut self, known: &[KnownKey]) -> Option<usize> {
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
    pub fn string(&mut self, flaw: &mut Option<Flaw>) -> Scan<bool> {
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

    pub fn wrong<T>(&self, expected: &'static str) -> Scan<T> {
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
