//! Looks for bytes eight at a time, as one number, with its arithmetic in the place of eight
//! comparisons. Names, keys and most data are so short that anything larger costs more to begin.

const ONES: u64 = u64::MAX / 255;
const HIGH: u64 = ONES << 7;

/// Marks the bytes of `word` that are under `least`, which is at most 128. The lowest mark is right;
/// those above it may be too many.
pub fn under(word: u64, least: u8) -> u64 {
    word.wrapping_sub(ONES * u64::from(least)) & !word & HIGH
}

/// Marks the bytes that are `byte`, likewise.
pub fn equal(word: u64, byte: u8) -> u64 {
    under(word ^ (ONES * u64::from(byte)), 1)
}

/// Marks the bytes that are no ASCII.
pub fn not_ascii(word: u64) -> u64 {
    word & HIGH
}

/// The first byte that `marks` marks, if any. It must not mark an `a`.
pub fn position(bytes: &[u8], marks: impl Fn(u64) -> u64) -> Option<usize> {
    let (words, rest) = bytes.as_chunks::<8>();
    for (at, word) in words.iter().enumerate() {
        let marked = marks(u64::from_le_bytes(*word));
        if marked != 0 {
            return Some(8 * at + marked.trailing_zeros() as usize / 8);
        }
    }
    let mut last = [b'a'; 8];
    for (place, byte) in last.iter_mut().zip(rest) {
        *place = *byte;
    }
    let marked = marks(u64::from_le_bytes(last));
    (marked != 0).then(|| 8 * words.len() + marked.trailing_zeros() as usize / 8)
}

/// How many bytes stand in a JSON string as they are: up to the first quote, backslash or control
/// character.
pub fn json_plain_len(bytes: &[u8]) -> usize {
    let is_special = |word| equal(word, b'"') | equal(word, b'\\') | under(word, 0x20);
    position(bytes, is_special).unwrap_or(bytes.len())
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
            prop_assert_eq!(position(&bytes, not_ascii), bytes.iter().position(|b| !b.is_ascii()));
        }

        #[test]
        fn strings_end_where_they_end(text in "[a-zé]{0,40}(\\PC|[\\x00-\\x7f]){0,6}[a-z\"]{0,40}") {
            let is_special = |byte: u8| byte == b'"' || byte == b'\\' || byte < 0x20;
            let want = text.bytes().position(is_special).unwrap_or(text.len());
            prop_assert_eq!(json_plain_len(text.as_bytes()), want);
        }
    }
}
