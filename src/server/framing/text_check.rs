//! Checks the text of a message while it arrives, so that a message that cannot become text is refused at
//! once and not when its end has come.
//!
//! Only messages of several fragments, and frames that arrive in several pieces, are checked in this way; all
//! others are checked as a whole when they are read. What is checked here is checked again when the message
//! is whole, because only then it is known to be text without a proof of ours.

use super::frame_head;

/// Bytes that are unmasked at a time.
const PIECE_BYTES: usize = 1024;

/// The end of the text so far, if it is in the middle of a character.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TextCheck {
    /// The first bytes of the character that has not come whole; the rest is unused.
    begun: [u8; 4],
    begun_len: u8,
}

/// The text goes on with bytes that no UTF-8 has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotUtf8;

impl TextCheck {
    /// Checks the next bytes of the text.
    pub fn feed(&mut self, mut bytes: &[u8]) -> Result<(), NotUtf8> {
        while self.begun_len > 0 {
            let Some((&byte, rest)) = bytes.split_first() else { return Ok(()) };
            bytes = rest;
            let Some(place) = self.begun.get_mut(usize::from(self.begun_len)) else { return Err(NotUtf8) };
            *place = byte;
            self.begun_len += 1;
            match str::from_utf8(self.begun.get(..usize::from(self.begun_len)).unwrap_or_default()) {
                Ok(_) => self.begun_len = 0,
                Err(error) if error.error_len().is_none() => {}
                Err(_) => return Err(NotUtf8),
            }
        }
        let Err(error) = str::from_utf8(bytes) else { return Ok(()) };
        if error.error_len().is_some() {
            return Err(NotUtf8);
        }
        let begun = bytes.get(error.valid_up_to()..).unwrap_or_default();
        debug_assert!((1..4).contains(&begun.len()), "a character has at most four bytes");
        self.begun_len = begun.len() as u8;
        self.begun.iter_mut().zip(begun).for_each(|(place, byte)| *place = *byte);
        Ok(())
    }

    /// Checks the next bytes of the text, which are masked. `at` is their place in the payload of the frame.
    pub fn feed_masked(&mut self, masked: &[u8], at: u64, mask: [u8; 4]) -> Result<(), NotUtf8> {
        let mut mask = mask;
        mask.rotate_left((at % 4) as usize);
        let mut piece = [0; PIECE_BYTES];
        // The pieces begin at multiples of four, so the mask is the same for each.
        for bytes in masked.chunks(PIECE_BYTES) {
            let Some(piece) = piece.get_mut(..bytes.len()) else { return Ok(()) };
            piece.copy_from_slice(bytes);
            frame_head::mask(piece, mask);
            self.feed(piece)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_cannot_become_text_is_refused_at_its_first_byte() {
        // Each ends with the first byte that no text has there.
        for bad in
            [&b"\xff"[..], b"a\x80", b"\xc3a", b"\xed\xa0", b"\xf4\x90", b"\xf0\x9f\x98a", b"\xe2\x82\xff"]
        {
            for cut in 0..bad.len() {
                let mut check = TextCheck::default();
                let (first, second) = bad.split_at(cut);
                assert_eq!(check.feed(first), Ok(()), "{bad:?} at {cut}");
                assert_eq!(check.feed(second), Err(NotUtf8), "{bad:?} at {cut}");
            }
        }
    }

    proptest! {
        #[test]
        fn text_is_text_however_it_is_cut(
            text in "[a-zé€😀]{0,600}",
            spoil in prop::option::of((any::<prop::sample::Index>(), any::<u8>())),
            cut in 1usize..1500,
            with in any::<[u8; 4]>(),
        ) {
            let mut bytes = text.into_bytes();
            if let Some((at, byte)) = spoil && !bytes.is_empty() {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            let mut masked = bytes.clone();
            frame_head::mask(&mut masked, with);
            let (mut check, mut at) = (TextCheck::default(), 0);
            let checked = masked.chunks(cut).try_for_each(|piece| {
                let result = check.feed_masked(piece, at, with);
                at += piece.len() as u64;
                result
            });
            let is_whole = checked.is_ok() && check.begun_len == 0;
            prop_assert_eq!(is_whole, str::from_utf8(&bytes).is_ok());
        }
    }
}
