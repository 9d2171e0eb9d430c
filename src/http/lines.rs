//! Lines that are cut out of a body as it arrives.

/// A line of a body.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum BodyLine<'t> {
    /// The text of the line, with its line break.
    Text(&'t [u8]),
    /// The line was too long, and its text is not there any more.
    TooLong,
}

/// Whole lines of a body, in their order.
#[derive(Default)]
pub(super) struct BodyLines {
    /// The text of the lines, each with its line break. Of a line that is too long, only the line break is here.
    text: Vec<u8>,
    /// Places in the text where the lines that are too long begin, in rising order.
    too_long: Vec<usize>,
}

impl BodyLines {
    /// Every line, so that the lines keep their numbers.
    pub(super) fn iter(&self) -> impl Iterator<Item = BodyLine<'_>> {
        let mut end = 0;
        let mut too_long = self.too_long.iter().peekable();
        self.text.split_inclusive(|byte| *byte == b'\n').map(move |line| {
            let begin = end;
            end += line.len();
            match too_long.next_if_eq(&&begin) {
                Some(_) => BodyLine::TooLong,
                None => BodyLine::Text(line),
            }
        })
    }

    /// Memory of the lines, in bytes.
    pub(super) fn held_bytes(&self) -> usize {
        self.text.capacity() + self.too_long.capacity() * size_of::<usize>()
    }

    /// Notes a line that is too long.
    fn push_too_long(&mut self) {
        self.too_long.push(self.text.len());
        self.text.push(b'\n');
    }

    /// Forgets all lines, and keeps the memory for others.
    fn clear(&mut self) {
        self.text.clear();
        self.too_long.clear();
    }
}

/// The lines of a body as far as they have come. A line that is too long is dropped as it arrives.
pub(super) struct LineBuffer {
    /// Lines whose ends have come.
    whole: BodyLines,
    /// The beginning of a line whose end has not come.
    rest: Vec<u8>,
    /// Whether the line whose end has not come is too long.
    is_dropping: bool,
    line_bytes_max: usize,
}

impl LineBuffer {
    /// An empty buffer, for lines of at most `line_bytes_max` bytes.
    pub(super) fn new(line_bytes_max: usize) -> LineBuffer {
        LineBuffer { whole: BodyLines::default(), rest: Vec::new(), is_dropping: false, line_bytes_max }
    }

    /// Takes in a piece of the body.
    pub(super) fn push(&mut self, piece: &[u8]) {
        for part in piece.split_inclusive(|byte| *byte == b'\n') {
            if !self.is_dropping && self.rest.len() + part.len() > self.line_bytes_max + 1 {
                self.is_dropping = true;
                self.rest = Vec::new();
            }
            match (part.ends_with(b"\n"), self.is_dropping) {
                (true, true) => {
                    self.whole.push_too_long();
                    self.is_dropping = false;
                }
                (true, false) => {
                    self.whole.text.append(&mut self.rest);
                    self.whole.text.extend_from_slice(part);
                }
                (false, true) => {}
                (false, false) => self.rest.extend_from_slice(part),
            }
        }
    }

    /// Notes that the body has ended: its last line may have no line break.
    pub(super) fn end(&mut self) {
        if self.is_dropping || !self.rest.is_empty() {
            self.push(b"\n");
        }
    }

    /// Bytes of the whole lines.
    pub(super) fn line_bytes(&self) -> usize {
        self.whole.text.len()
    }

    /// Takes the whole lines out. They are given back with [`LineBuffer::give_back`].
    pub(super) fn take(&mut self) -> BodyLines {
        std::mem::take(&mut self.whole)
    }

    /// Takes the memory of lines back that were used. No line may have come in since they were taken out.
    pub(super) fn give_back(&mut self, mut lines: BodyLines) {
        debug_assert_eq!(self.whole.text.len(), 0, "lines have come in since");
        lines.clear();
        self.whole = lines;
    }

    /// Memory of the buffer, in bytes.
    pub(super) fn held_bytes(&self) -> usize {
        self.whole.held_bytes() + self.rest.capacity()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The lines of a text that comes in pieces of `size` bytes; `None` for one that has more than `line_bytes_max` bytes.
    fn lines(text: &str, size: usize, line_bytes_max: usize) -> Vec<Option<String>> {
        let mut buffer = LineBuffer::new(line_bytes_max);
        text.as_bytes().chunks(size).for_each(|piece| buffer.push(piece));
        buffer.end();
        let lines = buffer.take();
        let read = |line: BodyLine<'_>| match line {
            BodyLine::TooLong => None,
            BodyLine::Text(text) => {
                let text = String::from_utf8(text.to_vec()).expect("text");
                Some(text.strip_suffix('\n').expect("a whole line").trim_end_matches('\r').to_owned())
            }
        };
        lines.iter().map(read).collect()
    }

    #[test]
    fn lines_are_the_same_however_they_are_cut() {
        let some = |text: &str| Some(text.to_owned());
        for size in 1..30 {
            assert_eq!(
                lines("a\n\nbcdef\r\nbcdefg\n12345\nend", size, 5),
                [some("a"), some(""), None, None, some("12345"), some("end")]
            );
            assert!(lines("", size, 5).is_empty());
            assert_eq!(lines("a\n", size, 5), [some("a")]);
            assert_eq!(lines("a\nlonger", size, 5), [some("a"), None]);
        }
    }

    /// A text stood for a line that is too long, and a client that sent this very text was told that its line was too long.
    #[test]
    fn no_text_of_a_line_stands_for_one_that_is_too_long() {
        let same = "\"a line that is too long\"";
        let text = format!("{same}\n\n{}\n\n{same}\n", "x".repeat(40));
        for size in 1..50 {
            let told = lines(&text, size, 30);
            let some = |text: &str| Some(text.to_owned());
            assert_eq!(told, [some(same), some(""), None, some(""), some(same)]);
        }
    }

    #[test]
    fn memory_that_is_given_back_is_used_again() {
        let mut buffer = LineBuffer::new(5);
        buffer.push(b"12345\nlonger\n");
        let lines = buffer.take();
        assert!(lines.iter().eq([BodyLine::Text(b"12345\n"), BodyLine::TooLong]));
        assert_eq!((buffer.line_bytes(), buffer.held_bytes()), (0, 0));
        let held = lines.held_bytes();
        buffer.give_back(lines);
        assert_eq!((buffer.line_bytes(), buffer.held_bytes()), (0, held));
        buffer.push(b"a\n");
        assert!(buffer.take().iter().eq([BodyLine::Text(b"a\n")]));
    }
}
