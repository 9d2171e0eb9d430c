//! Numbers and texts as they stand in an expression.

use super::error::Words;
use super::node::Constant;

/// Reads a number. `is_negative` says that a minus stands before it.
pub(super) fn number(text: &str, is_negative: bool) -> Result<Constant, Words> {
    let sign = if is_negative { "-" } else { "" };
    let (digits, is_unsigned) = match text.strip_suffix(['u', 'U']) {
        Some(digits) => (digits, true),
        None => (text, false),
    };
    let hex = digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X"));
    let is_double = hex.is_none() && digits.contains(['.', 'e', 'E']);
    if is_double {
        if is_unsigned {
            return Err("a number with a point or an exponent is no uint");
        }
        let value = format!("{sign}{digits}").parse().map_err(|_| "this is no number")?;
        return Ok(Constant::Double(value));
    }
    let (digits, radix) = hex.map_or((digits, 10), |digits| (digits, 16));
    let range = "this number is out of range";
    if is_unsigned {
        if is_negative {
            return Err("a uint is not negative");
        }
        return u64::from_str_radix(digits, radix).map(Constant::UInt).map_err(|_| range);
    }
    i64::from_str_radix(&format!("{sign}{digits}"), radix).map(Constant::Int).map_err(|_| range)
}

/// Reads a text in quotes. An error has the offset in `text` at which it is.
pub(super) fn quoted(text: &str) -> Result<Constant, (usize, Words)> {
    let letters = text.find(['"', '\'']).unwrap_or(0);
    let is_raw = text[..letters].contains(['r', 'R']);
    let is_bytes = text[..letters].contains(['b', 'B']);
    if letters == 2 && is_raw != is_bytes {
        return Err((0, "write r or b once"));
    }
    let quotes = &text[letters..];
    let is_triple = quotes.len() >= 6 && (quotes.starts_with("\"\"\"") || quotes.starts_with("'''"));
    let width = if is_triple { 3 } else { 1 };
    let start = letters + width;
    let inside = text.get(start..text.len() - width).unwrap_or_default();
    let mut bytes = Vec::with_capacity(inside.len());
    let mut rest = inside;
    while let Some(c) = rest.chars().next() {
        if c != '\\' || is_raw {
            bytes.extend_from_slice(&rest.as_bytes()[..c.len_utf8()]);
            rest = &rest[c.len_utf8()..];
            continue;
        }
        let at = start + inside.len() - rest.len();
        let behind = &rest[1..];
        let len = escape(behind, is_bytes, &mut bytes).ok_or((at, "this escape has no meaning"))?;
        rest = &behind[len..];
    }
    if is_bytes {
        return Ok(Constant::Bytes(bytes.into()));
    }
    let text = String::from_utf8(bytes).map_err(|_| (0, "this is not UTF-8"))?;
    Ok(Constant::Text(text.into()))
}

/// Reads what stands behind a backslash, and adds what it means to `out`. Returns how long it is, or `None` if it
/// means nothing.
fn escape(behind: &str, is_bytes: bool, out: &mut Vec<u8>) -> Option<usize> {
    let first = behind.chars().next()?;
    let simple = match first {
        'a' => 7,
        'b' => 8,
        'f' => 12,
        'n' => b'\n',
        'r' => b'\r',
        't' => b'\t',
        'v' => 11,
        '\\' | '?' | '"' | '\'' | '`' => first as u8,
        _ => return coded(behind, first, is_bytes, out),
    };
    out.push(simple);
    Some(1)
}

/// Reads an escape that gives the number of a character, or of a byte.
fn coded(behind: &str, first: char, is_bytes: bool, out: &mut Vec<u8>) -> Option<usize> {
    let (from, len, radix) = match first {
        'x' | 'X' => (1, 2, 16),
        'u' if !is_bytes => (1, 4, 16),
        'U' if !is_bytes => (1, 8, 16),
        '0'..='3' => (0, 3, 8),
        _ => return None,
    };
    let digits = behind.get(from..from + len)?;
    if !digits.bytes().all(|byte| (byte as char).is_digit(radix)) {
        return None;
    }
    let code = u32::from_str_radix(digits, radix).ok()?;
    if is_bytes {
        out.push(u8::try_from(code).ok()?);
    } else {
        let c = char::from_u32(code)?;
        out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
    }
    Some(from + len)
}
