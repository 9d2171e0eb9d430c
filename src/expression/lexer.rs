//! The text of an expression as words and signs.

use super::error::BadExpression;

/// The kinds of words and signs in the text of an expression.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LexemeKind {
    /// A name, or a word such as `true` and `in`.
    Name,
    Number,
    /// A text in quotes, with the letters before them that say how to read it.
    Quoted,
    Sign(&'static str),
    End,
}

/// One word or sign.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lexeme<'t> {
    pub(super) kind: LexemeKind,
    pub(super) text: &'t str,
    /// Offset in the text of the expression, in bytes.
    pub(super) at: usize,
}

/// All signs; those of two characters come first, because the first that fits is taken.
const SIGNS: [&str; 24] = [
    "==", "!=", "<=", ">=", "&&", "||", "(", ")", "[", "]", "{", "}", ".", ",", ":", "?", "+", "-", "*", "/",
    "%", "<", ">", "!",
];

/// Reads the text of an expression from its beginning to its end.
#[derive(Debug)]
pub(super) struct Lexer<'t> {
    text: &'t str,
    at: usize,
}

impl<'t> Lexer<'t> {
    pub(super) fn new(text: &'t str) -> Lexer<'t> {
        Lexer { text, at: 0 }
    }

    fn rest(&self) -> &'t str {
        self.text.get(self.at..).unwrap_or_default()
    }

    /// Passes over white space and comments, which go from `//` to the end of their line.
    fn skip_space(&mut self) {
        loop {
            let rest = self.rest();
            let trimmed = rest.trim_start_matches([' ', '\t', '\n', '\r', '\x0c']);
            self.at += rest.len() - trimmed.len();
            if !trimmed.starts_with("//") {
                return;
            }
            self.at += trimmed.find('\n').unwrap_or(trimmed.len());
        }
    }

    /// Takes the next word or sign.
    pub(super) fn next(&mut self) -> Result<Lexeme<'t>, BadExpression> {
        self.skip_space();
        let (rest, at) = (self.rest(), self.at);
        let Some(first) = rest.chars().next() else {
            return Ok(Lexeme { kind: LexemeKind::End, text: "", at });
        };
        let (kind, len) = if let Some(len) = self.quoted_len(rest)? {
            (LexemeKind::Quoted, len)
        } else if first.is_ascii_alphabetic() || first == '_' {
            let is_inside = |c: char| c.is_ascii_alphanumeric() || c == '_';
            (LexemeKind::Name, rest.find(|c| !is_inside(c)).unwrap_or(rest.len()))
        } else if first.is_ascii_digit()
            || (first == '.' && rest[1..].starts_with(|c: char| c.is_ascii_digit()))
        {
            (LexemeKind::Number, number_len(rest))
        } else if let Some(sign) = SIGNS.into_iter().find(|sign| rest.starts_with(sign)) {
            (LexemeKind::Sign(sign), sign.len())
        } else {
            return Err(BadExpression::new(self.text, at, format!("{first:?} has no meaning here")));
        };
        self.at += len;
        Ok(Lexeme { kind, text: &rest[..len], at })
    }

    /// Returns how long the text in quotes is that `rest` begins with, if it begins with one.
    fn quoted_len(&self, rest: &str) -> Result<Option<usize>, BadExpression> {
        let letters = rest.find(|c: char| !matches!(c, 'r' | 'R' | 'b' | 'B')).unwrap_or(rest.len());
        let behind = &rest[letters..];
        let Some(quote @ ('"' | '\'')) = behind.chars().next().filter(|_| letters <= 2) else {
            return Ok(None);
        };
        let is_raw = rest[..letters].contains(['r', 'R']);
        let triple = [quote; 3].iter().collect::<String>();
        let is_triple = behind.starts_with(&triple);
        let end = if is_triple { triple } else { quote.to_string() };
        let mut at = end.len();
        while let Some(c) = behind[at..].chars().next() {
            if behind[at..].starts_with(&end) {
                return Ok(Some(letters + at + end.len()));
            }
            if !is_triple && matches!(c, '\n' | '\r') {
                break;
            }
            at += c.len_utf8();
            if c == '\\' && !is_raw {
                at += behind[at..].chars().next().map_or(0, char::len_utf8);
            }
        }
        Err(BadExpression::new(self.text, self.at, "this text in quotes does not end"))
    }
}

/// Returns how long the number is that `rest` begins with.
fn number_len(rest: &str) -> usize {
    let bytes = rest.as_bytes();
    let digits = |mut at: usize, is_digit: fn(&u8) -> bool| {
        while bytes.get(at).is_some_and(is_digit) {
            at += 1;
        }
        at
    };
    let suffix = |at: usize| at + usize::from(matches!(bytes.get(at), Some(b'u' | b'U')));
    if rest.starts_with("0x") || rest.starts_with("0X") {
        return suffix(digits(2, u8::is_ascii_hexdigit));
    }
    let mut at = digits(0, u8::is_ascii_digit);
    let is_digit = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_digit);
    if bytes.get(at) == Some(&b'.') && is_digit(at + 1) {
        at = digits(at + 1, u8::is_ascii_digit);
    }
    if matches!(bytes.get(at), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(bytes.get(at + 1), Some(b'+' | b'-')));
        if is_digit(at + 1 + sign) {
            at = digits(at + 1 + sign, u8::is_ascii_digit);
        }
    }
    suffix(at)
}
