//! Lines that are read together.

use super::position::FilePosition;

/// Lines of a file that follow one another.
#[derive(Debug, Default)]
pub(super) struct FileBatch {
    /// The lines without their ends. Empty lines are left out.
    pub lines: Vec<Vec<u8>>,
    /// Number of lines that were too long.
    pub too_long: u64,
    /// Bytes from the beginning of the first line to behind the end of the last.
    pub read_bytes: u64,
    /// The batch ends within a line that is too long.
    pub is_skipping: bool,
    /// There may be more to read at once.
    pub is_more: bool,
    /// Where the batch begins, with the mark of a former life if it is published once more.
    pub start: Option<FilePosition>,
    /// Place behind the last line.
    pub end: u64,
    /// What is to be told, beside the lines.
    pub note: Option<String>,
}

impl FileBatch {
    /// Returns whether nothing was read.
    pub fn is_empty(&self) -> bool {
        self.read_bytes == 0
    }
}

/// Cuts whole lines from bytes of a file. `is_skipping` says that they begin within a line that is too long.
pub(super) fn cut(bytes: &[u8], is_skipping: bool, line_bytes_max: usize) -> FileBatch {
    let mut batch = FileBatch { is_skipping, ..FileBatch::default() };
    let mut rest = bytes;
    while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
        let line = rest[..end].strip_suffix(b"\r").unwrap_or(&rest[..end]);
        match std::mem::take(&mut batch.is_skipping) || line.len() > line_bytes_max {
            true => batch.too_long += 1,
            false if line.iter().all(u8::is_ascii_whitespace) => {}
            false => batch.lines.push(line.to_vec()),
        }
        rest = &rest[end + 1..];
    }
    if batch.is_skipping || rest.len() > line_bytes_max + 1 {
        batch.is_skipping = true;
        rest = &[];
    }
    batch.read_bytes = (bytes.len() - rest.len()) as u64;
    batch
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_are_too_long_are_left_out_wherever_reads_end() {
        let text = format!("a\n{}\nb\r\n\nc", "x".repeat(30));
        for size in 12..50 {
            let (mut lines, mut too_long, mut at, mut is_skipping) = (Vec::new(), 0, 0, false);
            loop {
                let end = (at + size).min(text.len());
                let batch = cut(&text.as_bytes()[at..end], is_skipping, 10);
                lines.extend(batch.lines.iter().map(|line| String::from_utf8_lossy(line).into_owned()));
                too_long += batch.too_long;
                at += usize::try_from(batch.read_bytes).expect("small");
                is_skipping = batch.is_skipping;
                if batch.read_bytes == 0 {
                    break;
                }
            }
            assert_eq!(
                (lines.join(","), too_long, &text[at..]),
                ("a,b".to_owned(), 1, "c"),
                "reads of {size}"
            );
        }
    }
}
