//! Searches for bytes eight at a time, taken as one 64-bit number (a word), whose arithmetic replaces eight
//! comparisons. Names, keys and most data are so short that wider registers would cost more to set up than
//! they save.
//!
//! A function that looks at a word returns marks: the highest bit of every byte that was found.

/// A word in which every byte is 1.
pub(super) const ONES: u64 = u64::MAX / 255;
/// A word in which the highest bit of every byte is set.
pub(super) const HIGH: u64 = ONES << 7;

/// Marks the bytes of `word` that are less than `least`, which must be at most 128. The lowest mark is always
/// right; bytes above it may be marked in error.
pub fn under(word: u64, least: u8) -> u64 {
    word.wrapping_sub(ONES * u64::from(least)) & !word & HIGH
}

/// Marks the bytes of `word` that equal `byte`. The lowest mark is always right; bytes above it may be marked
/// in error.
pub fn equal(word: u64, byte: u8) -> u64 {
    under(word ^ (ONES * u64::from(byte)), 1)
}

/// Sets the highest bit of some byte if not all bytes of `word` are printable ASCII. The other bits mean nothing.
#[inline]
pub(super) fn not_printable(word: u64) -> u64 {
    // The highest bit of a byte is set in the first if it is not ASCII, and otherwise in the second if it is 0x7f,
    // and in the third if it is under 0x20. Only bytes that are marked themselves affect their neighbours.
    word | word.wrapping_add(ONES) | word.wrapping_sub(ONES * 0x20)
}

/// Sets the highest bits of the bytes of `word` that equal `byte`, which must be ASCII. The other bits mean nothing,
/// and none does unless all bytes of `word` are ASCII.
#[inline]
pub(super) fn ascii_equal(word: u64, byte: u8) -> u64 {
    // Subtracts each byte that differs, which is from 1 to 127, from 128, and 0 for each that is equal.
    HIGH.wrapping_sub(word ^ (ONES * u64::from(byte)))
}

/// Marks the bytes of `word` that end the part of a JSON string that needs no escapes: quotes, backslashes and
/// control characters. The lowest mark is always right; bytes above it may be marked in error.
#[inline]
fn json_special(word: u64) -> u64 {
    let [quote, backslash] = [b'"', b'\\'].map(|byte| (word ^ (ONES * u64::from(byte))).wrapping_sub(ONES));
    (quote | backslash | word.wrapping_sub(ONES * 0x20)) & !word & HIGH
}

/// Returns the position of the first byte of `bytes` that `marks` marks, if there is one. `marks` must not
/// mark the letter `a`, with which short inputs are filled up.
#[inline]
pub fn position(bytes: &[u8], mut marks: impl FnMut(u64) -> u64) -> Option<usize> {
    let (words, rest) = bytes.as_chunks::<8>();
    for (at, word) in words.iter().enumerate() {
        let marked = marks(u64::from_le_bytes(*word));
        if marked != 0 {
            return Some(8 * at + marked.trailing_zeros() as usize / 8);
        }
    }
    if rest.is_empty() {
        return None;
    }
    match bytes.last_chunk::<8>() {
        // The last eight bytes overlap the words before. Bytes that are looked at twice had no mark the first
        // time.
        Some(last) => {
            let marked = marks(u64::from_le_bytes(*last));
            (marked != 0).then(|| bytes.len() - 8 + marked.trailing_zeros() as usize / 8)
        }
        None => {
            let marked = marks(short(bytes));
            (marked != 0).then(|| marked.trailing_zeros() as usize / 8)
        }
    }
}

/// Returns fewer than eight bytes as a word, filled up with the letter `a`. Different texts of one length are
/// different words.
pub(super) fn short(bytes: &[u8]) -> u64 {
    let tail = (ONES * u64::from(b'a')).checked_shl(8 * bytes.len() as u32).unwrap_or(0);
    let word = match *bytes {
        [] => 0,
        [a] => u64::from(a),
        [a, b] => u64::from(u16::from_le_bytes([a, b])),
        [a, b, c] => u64::from(u32::from_le_bytes([a, b, c, 0])),
        [a, b, c, d, ref rest @ ..] => {
            let high = match *rest {
                [e] => u32::from_le_bytes([e, 0, 0, 0]),
                [e, f] => u32::from_le_bytes([e, f, 0, 0]),
                [e, f, g] => u32::from_le_bytes([e, f, g, 0]),
                _ => 0,
            };
            u64::from(u32::from_le_bytes([a, b, c, d])) | u64::from(high) << 32
        }
    };
    word | tail
}

/// Returns the length of the longest beginning that the two have in common.
#[inline]
pub fn shared_len(one: &[u8], other: &[u8]) -> usize {
    let (words, rest) = one.as_chunks::<8>();
    for (at, (mine, theirs)) in words.iter().zip(other.as_chunks::<8>().0).enumerate() {
        let differing = u64::from_le_bytes(*mine) ^ u64::from_le_bytes(*theirs);
        if differing != 0 {
            return 8 * at + differing.trailing_zeros() as usize / 8;
        }
    }
    // All whole words that both have are equal.
    let whole = (one.len() - rest.len()).min(other.len() - other.len() % 8);
    let ends = one.iter().zip(other).skip(whole);
    whole + ends.take_while(|(mine, theirs)| mine == theirs).count()
}

/// Number of bytes that are looked at together in a long text, so that the compiler uses vector registers.
const PIECE: usize = 32;
/// Number of bytes at the beginning that are looked at word by word: keys and names are rarely longer.
const FIRST: usize = 16;

/// Returns the length of the longest beginning of `bytes` that a JSON string can hold without escapes: up to
/// the first quote, backslash or control character.
#[inline]
pub fn json_plain_len(bytes: &[u8]) -> usize {
    let Some((first, rest)) = bytes.split_at_checked(FIRST) else {
        return position(bytes, json_special).unwrap_or(bytes.len());
    };
    if let Some(at) = position(first, json_special) {
        return at;
    }
    let (pieces, _) = rest.as_chunks::<PIECE>();
    // Computed as one minimum without an early exit, because the compiler turns that into vector
    // instructions. It is 0 if any byte of the piece is special.
    let is_any = |piece: &[u8; PIECE]| {
        let least = |byte: u8| (byte ^ b'"').min(byte ^ b'\\').min(byte & !0x1f);
        piece.iter().fold(u8::MAX, |sofar, &byte| sofar.min(least(byte))) == 0
    };
    let plain = PIECE * pieces.iter().position(is_any).unwrap_or(pieces.len());
    let rest = rest.get(plain..).unwrap_or_default();
    FIRST + plain + position(rest, json_special).unwrap_or(rest.len())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_first_is_found(bytes in prop::collection::vec(any::<u8>(), 0..40), byte in 0u8..0x60) {
            prop_assert_eq!(position(&bytes, |word| equal(word, byte)), bytes.iter().position(|b| *b == byte));
            prop_assert_eq!(position(&bytes, |word| under(word, byte)), bytes.iter().position(|b| *b < byte));
            prop_assert_eq!(position(&bytes, json_special), bytes.iter().position(|b| matches!(b, b'"' | b'\\' | ..0x20)));
        }

        #[test]
        fn names_are_looked_at_rightly(bytes in any::<[u8; 8]>(), ascii in "[ -~]{8}", odd in "[\\x00-\\x7f]{8}", byte in 0u8..0x80) {
            let text = |text: &str| u64::from_le_bytes(*text.as_bytes().first_chunk().expect("eight bytes"));
            for word in [u64::from_le_bytes(bytes), text(&ascii), text(&odd)] {
                let is_printable = word.to_le_bytes().iter().all(|byte| matches!(byte, 0x20..0x7f));
                prop_assert_eq!(not_printable(word) & HIGH == 0, is_printable);
            }
            let equal: Vec<bool> = (ascii_equal(text(&odd), byte) & HIGH).to_le_bytes().map(|mark| mark != 0).into();
            prop_assert_eq!(equal, odd.bytes().map(|b| b == byte).collect::<Vec<_>>());
        }

        #[test]
        fn what_is_shared_is_counted(start in "[ab]{0,30}", one in "[ab]{0,20}", other in "[ab]{0,20}") {
            let (one, other) = (format!("{start}{one}"), format!("{start}{other}"));
            let want = one.bytes().zip(other.bytes()).take_while(|(mine, theirs)| mine == theirs).count();
            prop_assert_eq!(shared_len(one.as_bytes(), other.as_bytes()), want);
        }

        #[test]
        fn strings_end_where_they_end(text in "[a-zé]{0,80}(\\PC|[\\x00-\\x7f]){0,6}[a-z\"]{0,40}") {
            let is_special = |byte: u8| byte == b'"' || byte == b'\\' || byte < 0x20;
            let want = text.bytes().position(is_special).unwrap_or(text.len());
            prop_assert_eq!(json_plain_len(text.as_bytes()), want);
        }
    }
}
