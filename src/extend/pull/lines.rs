//! Cuts bytes that come in pieces into lines of a bounded length.

/// Bytes of the line that has not ended, and what is wrong with it.
#[derive(Debug)]
pub(super) struct LineCutter {
    partial: Vec<u8>,
    bytes_max: usize,
    /// The line is too long: the rest of it is left out.
    is_skipping: bool,
}

/// A line without its end, or the fact that one was too long.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum CutLine<'a> {
    /// A whole line, without `\n` or `\r\n`.
    Whole(&'a [u8]),
    /// A line of more bytes than allowed, which was left out.
    TooLong,
}

impl LineCutter {
    /// A cutter of lines of at most this many bytes.
    pub fn new(bytes_max: usize) -> LineCutter {
        LineCutter { partial: Vec::new(), bytes_max, is_skipping: false }
    }

    /// Takes in more bytes, and calls `line` for every line that ends in them.
    pub fn push(&mut self, bytes: &[u8], mut line: impl FnMut(CutLine<'_>)) {
        let mut rest = bytes;
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            self.append(&rest[..end]);
            self.end(&mut line);
            rest = &rest[end + 1..];
        }
        self.append(rest);
    }

    /// Ends the line that has no end, if there is one.
    pub fn finish(&mut self, mut line: impl FnMut(CutLine<'_>)) {
        if !self.partial.is_empty() || self.is_skipping {
            self.end(&mut line);
        }
    }

    fn append(&mut self, bytes: &[u8]) {
        if self.is_skipping || self.partial.len() + bytes.len() > self.bytes_max {
            self.is_skipping = true;
            // The room is given back: a long line is rare.
            self.partial = Vec::new();
        } else {
            self.partial.extend_from_slice(bytes);
        }
    }

    fn end(&mut self, line: &mut impl FnMut(CutLine<'_>)) {
        if std::mem::take(&mut self.is_skipping) {
            line(CutLine::TooLong);
        } else {
            line(CutLine::Whole(self.partial.strip_suffix(b"\r").unwrap_or(&self.partial)));
        }
        self.partial.clear();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cut(pieces: &[&[u8]], bytes_max: usize) -> Vec<Option<Vec<u8>>> {
        let (mut cutter, mut lines) = (LineCutter::new(bytes_max), Vec::new());
        let mut take = |line: CutLine<'_>| match line {
            CutLine::Whole(bytes) => lines.push(Some(bytes.to_vec())),
            CutLine::TooLong => lines.push(None),
        };
        pieces.iter().for_each(|piece| cutter.push(piece, &mut take));
        cutter.finish(&mut take);
        lines
    }

    proptest! {
        /// It does not matter where the pieces end.
        #[test]
        fn lines_do_not_depend_on_the_pieces(text in "[ab\n]{0,40}", size in 1usize..8) {
            let pieces: Vec<&[u8]> = text.as_bytes().chunks(size).collect();
            let expected: Vec<Option<Vec<u8>>> =
                text.lines().map(|line| (line.len() <= 5).then(|| line.as_bytes().to_vec())).collect();
            prop_assert_eq!(cut(&pieces, 5), expected);
        }
    }

    #[test]
    fn ends_of_lines_of_both_kinds() {
        let lines = cut(&[b"a\r\n\r\nb\n", b"c"], 10);
        assert_eq!(lines, [b"a".as_slice(), b"", b"b", b"c"].map(|line| Some(line.to_vec())));
    }
}
