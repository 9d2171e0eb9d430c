//! Lines that are cut out of a body as it arrives.

/// The lines of a body as far as they have come. A line that is too long is dropped as it arrives, and [`TOO_LONG`] stands
/// in its place, so that the lines keep their numbers.
pub(super) struct LineBuffer {
    /// Whole lines, each with its line break.
    lines: Vec<u8>,
    /// The beginning of a line whose end has not come.
    rest: Vec<u8>,
    /// Whether the line whose end has not come is too long.
    is_dropping: bool,
    line_bytes_max: usize,
}

/// Stands for a line that is too long, and is refused as one. It is no object, so it is never published. A client that sends
/// this very text is refused, too, and told the same.
pub(super) const TOO_LONG: &[u8] = b"\"a line that is too long\"\n";

impl LineBuffer {
    /// An empty buffer, for lines of at most `line_bytes_max` bytes.
    pub(super) fn new(line_bytes_max: usize) -> LineBuffer {
        LineBuffer { lines: Vec::new(), rest: Vec::new(), is_dropping: false, line_bytes_max }
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
                    self.lines.extend_from_slice(TOO_LONG);
                    self.is_dropping = false;
                }
                (true, false) => {
                    self.lines.append(&mut self.rest);
                    self.lines.extend_from_slice(part);
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
        self.lines.len()
    }

    /// The whole lines, to be taken.
    pub(super) fn lines_mut(&mut self) -> &mut Vec<u8> {
        &mut self.lines
    }

    /// Takes the memory of lines back that were used.
    pub(super) fn give_back(&mut self, mut lines: Vec<u8>) {
        lines.clear();
        lines.append(&mut self.lines);
        self.lines = lines;
    }

    /// Memory of the buffer, in bytes.
    pub(super) fn held_bytes(&self) -> usize {
        self.lines.capacity() + self.rest.capacity()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The lines of a text that comes in pieces of `size` bytes.
    fn lines(text: &str, size: usize) -> Vec<String> {
        let mut buffer = LineBuffer::new(5);
        text.as_bytes().chunks(size).for_each(|piece| buffer.push(piece));
        buffer.end();
        let lines = std::mem::take(buffer.lines_mut());
        let text = String::from_utf8(lines).expect("text");
        assert!(text.is_empty() || text.ends_with('\n'));
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn lines_are_the_same_however_they_are_cut() {
        for size in 1..30 {
            assert_eq!(
                lines("a\n\nbcdef\r\nbcdefg\n12345\nend", size),
                [
                    "a",
                    "",
                    TOO_LONG.trim_ascii().escape_ascii().to_string().replace("\\\"", "\"").as_str(),
                    TOO_LONG.trim_ascii().escape_ascii().to_string().replace("\\\"", "\"").as_str(),
                    "12345",
                    "end"
                ]
            );
            assert_eq!(lines("", size), [""; 0]);
            assert_eq!(lines("a\n", size), ["a"]);
            assert_eq!(lines("a\nlonger", size).len(), 2);
        }
    }
}
