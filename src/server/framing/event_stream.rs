//! Server-Sent Events (the HTML standard, 9.2): events as lines of text, one way, behind the head of an answer of HTTP.
//!
//! Every event ends with an empty line, and no other line of it is empty, so the end of an event is found without knowing
//! what is in it. A message with line breaks is sent as several lines `data:`, which the client joins again.

use crate::server::close::CloseReason;

/// The bytes before the message of a record.
pub(super) const RECORD_HEAD: &[u8] = b"event: record\ndata: ";
/// The bytes behind every event.
const EVENT_END: &[u8] = b"\n\n";
/// The beginning of every line of a message but the first.
const NEXT_LINE: &[u8] = b"\ndata: ";
/// A comment, which the client drops. It shows both sides that the connection is there.
pub(super) const COMMENT: &[u8] = b":\n\n";

/// Makes an event of the message of a record, which begins at `message_at` and reaches to the end of `bytes`. Returns where
/// the event begins. There must be room for [`RECORD_HEAD`] before the message.
pub(super) fn wrap(bytes: &mut Vec<u8>, message_at: usize) -> usize {
    let is_break = |byte: &u8| matches!(byte, b'\n' | b'\r');
    // The data of most records is one line.
    if bytes.get(message_at..).is_some_and(|message| message.iter().any(is_break)) {
        let message = bytes.split_off(message_at);
        write_lines(bytes, &message);
    }
    bytes.extend_from_slice(EVENT_END);
    let start = message_at - RECORD_HEAD.len();
    if let Some(room) = bytes.get_mut(start..message_at) {
        room.copy_from_slice(RECORD_HEAD);
    }
    start
}

/// Appends a message as lines, of which the first has its beginning already. JSON has line breaks only where it may have
/// any white space, so it does not matter which kind of line break there was.
fn write_lines(out: &mut Vec<u8>, message: &[u8]) {
    let mut bytes = message.iter().peekable();
    while let Some(&byte) = bytes.next() {
        match byte {
            b'\r' if bytes.peek() == Some(&&b'\n') => {}
            b'\r' | b'\n' => out.extend_from_slice(NEXT_LINE),
            _ => out.push(byte),
        }
    }
}

/// Appends an event of this name. With an `id`, the client sends it when it comes back. Neither the name nor the id has
/// line breaks in it.
pub fn write_event(out: &mut Vec<u8>, name: &str, id: Option<&str>, data: &[u8]) {
    out.extend_from_slice(b"event: ");
    out.extend_from_slice(name.as_bytes());
    if let Some(id) = id {
        out.extend_from_slice(b"\nid: ");
        out.extend_from_slice(id.as_bytes());
    }
    out.extend_from_slice(NEXT_LINE);
    write_lines(out, data);
    out.extend_from_slice(EVENT_END);
}

/// Appends the wish that the client comes back after this time, in milliseconds, when the connection has ended.
pub fn write_retry(out: &mut Vec<u8>, retry_ms: u64) {
    out.extend_from_slice(format!("retry: {retry_ms}\n\n").as_bytes());
}

/// Appends a comment that says why the connection is closed, for people.
pub(super) fn write_close(out: &mut Vec<u8>, close: &CloseReason) {
    let reason = close.reason.replace(['\r', '\n'], " ");
    out.extend_from_slice(format!(": closed, {}: {reason}\n\n", close.code.number()).as_bytes());
}

/// The length in bytes of the event at the beginning of `bytes`, if it is there as a whole.
pub(super) fn event_bytes(bytes: &[u8]) -> Option<usize> {
    bytes.windows(EVENT_END.len()).position(|two| two == EVENT_END).map(|at| at + EVENT_END.len())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::server::close::CloseCode;

    /// The event of a message, and what a client makes of it: the lines of data, joined.
    fn read_back(message: &str) -> (Vec<u8>, String) {
        let mut bytes = vec![0; RECORD_HEAD.len() + 3];
        let message_at = bytes.len();
        bytes.extend_from_slice(message.as_bytes());
        let start = wrap(&mut bytes, message_at);
        assert_eq!(start, 3);
        let event = bytes.split_off(start);
        let text = String::from_utf8(event.clone()).expect("text");
        let mut lines = text.split('\n');
        assert_eq!(lines.next(), Some("event: record"));
        let data: Vec<&str> = lines.map_while(|line| line.strip_prefix("data: ")).collect();
        (event, data.join("\n"))
    }

    proptest! {
        #[test]
        fn a_message_comes_as_it_was_but_for_the_kind_of_its_line_breaks(message in "([a-z]|\r\n|\n|\r){0,20}") {
            let (event, data) = read_back(&message);
            prop_assert_eq!(data, message.replace("\r\n", "\n").replace('\r', "\n"));
            prop_assert_eq!(event_bytes(&event), Some(event.len()));
            prop_assert_eq!(event_bytes(event.get(..event.len() - 1).unwrap_or_default()), None);
        }
    }

    #[test]
    fn events_have_a_name_an_id_and_an_end() {
        let mut out = Vec::new();
        write_event(&mut out, "eos", Some("abc"), b"{}");
        write_event(&mut out, "reset", None, b"{\n}");
        assert_eq!(out, b"event: eos\nid: abc\ndata: {}\n\nevent: reset\ndata: {\ndata: }\n\n");
        assert_eq!(event_bytes(&out), Some(29));
        let mut out = Vec::new();
        write_close(&mut out, &CloseReason::new(CloseCode::Draining, "a\nb"));
        assert_eq!(out, b": closed, 4200: a b\n\n");
    }
}
