//! Reads a stream of Server-Sent Events, which comes in pieces.

/// The parser of one stream.
#[derive(Debug)]
pub(in crate::extend::pull) struct EventStreamReader {
    line: Vec<u8>,
    /// The line has bytes, even if there was no room for them.
    has_line: bool,
    /// The last byte was a carriage return, so a newline that follows ends no further line.
    is_after_return: bool,
    is_first_line: bool,
    data: Vec<u8>,
    has_data: bool,
    kind: String,
    last_id: Option<String>,
    retry_ms: Option<u64>,
    bytes_max: usize,
    is_too_long: bool,
}

/// An event of a stream.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::extend::pull) enum StreamEvent<'a> {
    /// An event of this type with this data.
    Whole { kind: &'a str, data: &'a [u8] },
    /// An event that had more bytes than allowed, and was left out.
    TooLong,
}

/// Longest id that is kept, in bytes. It is sent back in a header.
const EVENT_ID_BYTES_MAX: usize = 1_024;

impl EventStreamReader {
    /// A reader of events of at most this many bytes.
    pub fn new(bytes_max: usize) -> EventStreamReader {
        EventStreamReader {
            line: Vec::new(),
            has_line: false,
            is_after_return: false,
            is_first_line: true,
            data: Vec::new(),
            has_data: false,
            kind: String::new(),
            last_id: None,
            retry_ms: None,
            bytes_max,
            is_too_long: false,
        }
    }

    /// The id of the last event that had one.
    pub fn last_id(&self) -> Option<&str> {
        self.last_id.as_deref()
    }

    /// The time that the server wants clients to wait before they connect again, in milliseconds.
    pub fn retry_ms(&self) -> Option<u64> {
        self.retry_ms
    }

    /// A reader for the next stream of the same server, which knows the last id and the wait.
    pub fn again(&self, bytes_max: usize) -> EventStreamReader {
        let mut next = EventStreamReader::new(bytes_max);
        next.last_id.clone_from(&self.last_id);
        next.retry_ms = self.retry_ms;
        next
    }

    /// Takes in more bytes, and calls `event` for every event that ends in them.
    pub fn push(&mut self, bytes: &[u8], mut event: impl FnMut(StreamEvent<'_>)) {
        for &byte in bytes {
            let is_second_half = byte == b'\n' && self.is_after_return;
            self.is_after_return = byte == b'\r';
            match byte {
                b'\n' if is_second_half => {}
                b'\n' | b'\r' => self.end_line(&mut event),
                _ => {
                    self.has_line = true;
                    match self.line.len() + self.data.len() < self.bytes_max {
                        true => self.line.push(byte),
                        false => self.is_too_long = true,
                    }
                }
            }
        }
    }

    fn end_line(&mut self, event: &mut impl FnMut(StreamEvent<'_>)) {
        let line = std::mem::take(&mut self.line);
        let text = match std::mem::take(&mut self.is_first_line) {
            true => line.strip_prefix("\u{feff}".as_bytes()).unwrap_or(&line),
            false => &line,
        };
        let has_line = std::mem::take(&mut self.has_line);
        match text {
            [] if !has_line || text.len() < line.len() => self.end_event(event),
            [] | [b':', ..] => {}
            _ => {
                let colon = text.iter().position(|byte| *byte == b':').unwrap_or(text.len());
                let value = text.get(colon + 1..).unwrap_or_default();
                self.take_field(&text[..colon], value.strip_prefix(b" ").unwrap_or(value));
            }
        }
        self.line = line;
        self.line.clear();
    }

    fn take_field(&mut self, name: &[u8], value: &[u8]) {
        match name {
            b"data" => {
                if self.has_data {
                    self.data.push(b'\n');
                }
                self.data.extend_from_slice(value);
                self.has_data = true;
            }
            b"event" => self.kind = String::from_utf8_lossy(value).into_owned(),
            b"id" if !value.contains(&0) && value.len() <= EVENT_ID_BYTES_MAX => {
                self.last_id = Some(String::from_utf8_lossy(value).into_owned());
            }
            b"retry" if !value.is_empty() && value.iter().all(u8::is_ascii_digit) => {
                self.retry_ms = std::str::from_utf8(value).ok().and_then(|digits| digits.parse().ok());
            }
            _ => {}
        }
    }

    fn end_event(&mut self, event: &mut impl FnMut(StreamEvent<'_>)) {
        if std::mem::take(&mut self.is_too_long) {
            event(StreamEvent::TooLong);
        } else if self.has_data {
            let kind = if self.kind.is_empty() { "message" } else { &self.kind };
            event(StreamEvent::Whole { kind, data: &self.data });
        }
        self.data.clear();
        self.has_data = false;
        self.kind.clear();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(bytes: &[u8], piece: usize, bytes_max: usize) -> (Vec<String>, EventStreamReader) {
        let (mut reader, mut events) = (EventStreamReader::new(bytes_max), Vec::new());
        for piece in bytes.chunks(piece) {
            reader.push(piece, |event| {
                events.push(match event {
                    StreamEvent::Whole { kind, data } => format!("{kind}={}", String::from_utf8_lossy(data)),
                    StreamEvent::TooLong => "too long".to_owned(),
                });
            });
        }
        (events, reader)
    }

    #[test]
    fn events_are_read_as_the_standard_says() {
        let text = "\u{feff}: comment\n\ndata: a\ndata:b\n\nevent: tick\r\nid: 7\r\ndata:  c\r\n\r\nretry: 250\rdata\r\rdata: unfinished\n";
        for piece in [1, 2, 3, 1_000] {
            let (events, reader) = read(text.as_bytes(), piece, 1_000);
            assert_eq!(events, ["message=a\nb", "tick= c", "message="], "pieces of {piece}");
            assert_eq!((reader.last_id(), reader.retry_ms()), (Some("7"), Some(250)));
        }
        let (events, reader) = read(b"id: a\0b\nretry: 1x\nevent: only\n\n", 100, 100);
        assert!(events.is_empty() && reader.last_id().is_none() && reader.retry_ms().is_none());
    }

    #[test]
    fn events_that_are_too_long_are_left_out() {
        let text = format!(
            "data: {}\n\ndata: b\n\ndata: {}\ndata: x\n\ndata: c\n\n",
            "a".repeat(50),
            "a".repeat(40)
        );
        assert_eq!(read(text.as_bytes(), 7, 20).0, ["too long", "message=b", "too long", "message=c"]);
    }

    proptest! {
        /// It does not matter where the pieces end, and nothing is kept beyond the bound.
        #[test]
        fn events_do_not_depend_on_the_pieces(text in "(data: ?[a-c]{0,9}|id:x|event:y|:z|[a-c]{0,3}|\r|\n|\r\n|\n\n){0,20}", piece in 1usize..9) {
            let (events, reader) = read(text.as_bytes(), piece, 16);
            prop_assert_eq!(&events, &read(text.as_bytes(), 1_000, 16).0);
            prop_assert!(reader.line.len() + reader.data.len() <= 17, "{} + {}", reader.line.len(), reader.data.len());
        }
    }
}
