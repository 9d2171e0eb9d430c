//! `anode pub`: publishes one record from the arguments, or many from stdin.
//!
//! Records from stdin are pipelined: up to [`WINDOW`] of them wait for their answers at a time. Each is sent
//! with an id that this program chooses, so that answers can be matched with lines in whatever order they
//! arrive.

use std::collections::BTreeMap;
use std::io::{self, BufRead};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use serde::Deserialize;
use serde_json::value::RawValue;
use tungstenite::{Error, Message};

use super::client::{
    AccessArguments, DEFAULT_URL, NodeUrl, Refused, Sender, Socket, connect_in_halves, items,
};
use super::{CliError, whole_number};
use crate::limits::TS_MAX;
use crate::protocol::AckLevel;
use crate::protocol::draft::{Draft, DraftPayload, RequestId};
use crate::protocol::json::scan::Scanner;
use crate::protocol::json::{publish_frame, write_string};

/// Most records that may wait for their answers.
const WINDOW: usize = 1_024;
/// Most bytes of records that may wait for their answers.
const WINDOW_BYTES: usize = 4 * 1024 * 1024;
/// Read timeout of the socket, which is longer than any ack level may take.
const ANSWER_SILENCE_MAX: Duration = Duration::from_secs(30);

/// The arguments of `anode pub`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Name of the source, for example sensors/7/temp
    #[arg(required_unless_present = "stdin", conflicts_with = "stdin")]
    source: Option<String>,
    /// The data: used as it is if it is valid JSON, else as a string
    #[arg(required_unless_present = "stdin", conflicts_with = "stdin", allow_hyphen_values = true)]
    data: Option<String>,
    /// Publish objects from stdin, one per line: {"source":…,"data":…}; exit code 1 if any is refused
    #[arg(long)]
    stdin: bool,
    /// URL of a node: ws://HOST:PORT or http://HOST:PORT; with TLS wss:// or https://
    #[arg(long, value_name = "URL", default_value = DEFAULT_URL)]
    to: String,
    #[command(flatten)]
    access: AccessArguments,
    /// When a publish is answered: accepted (the node has it), stored (it survives a power cut), replicated
    /// (every live node has it)
    #[arg(long, value_name = "LEVEL", default_value = "accepted", value_parser = AckLevel::ALL.map(AckLevel::as_str))]
    ack: String,
    /// The record's ts, in microseconds since 1970 [default: the node's clock]
    #[arg(long, value_name = "MICROS", conflicts_with = "stdin", allow_negative_numbers = true, value_parser = whole_number(0..=TS_MAX))]
    ts: Option<u64>,
}

/// Publishes the records, waits for all answers, and returns an error if any of them is a refusal.
pub fn run(arguments: &Arguments) -> Result<(), CliError> {
    let endpoint = arguments.access.node(&arguments.to, "to")?;
    // The node checks the name of the source, because its refusal tells more than one made here could.
    let mut pipeline = Pipeline::open(&endpoint, &arguments.ack)?;
    match (&arguments.source, &arguments.data) {
        (Some(source), Some(data)) => {
            pipeline.is_single = true;
            pipeline.send(None, &single(source, data, arguments.ts))?;
        }
        _ => pipeline.send_lines(io::stdin().lock())?,
    }
    pipeline.finish()
}

/// Formats the fields of a record from the arguments as JSON, without braces.
fn single(source: &str, data: &str, ts: Option<u64>) -> String {
    let mut out = b"\"source\":".to_vec();
    write_string(&mut out, source);
    if let Some(ts) = ts {
        out.extend_from_slice(format!(",\"ts\":{ts}").as_bytes());
    }
    out.extend_from_slice(b",\"data\":");
    let mut scanner = Scanner::new(data);
    match scanner.value().is_ok() && scanner.end().is_ok() {
        true => out.extend_from_slice(data.trim().as_bytes()),
        false => write_string(&mut out, data),
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Formats the fields of a record from a line of stdin as JSON, without braces. The data is kept verbatim.
fn fields(draft: &Draft<'_>) -> String {
    let mut out = b"\"source\":".to_vec();
    write_string(&mut out, &draft.source);
    match &draft.payload {
        DraftPayload::Json(text) => {
            out.extend_from_slice(b",\"data\":");
            out.extend_from_slice(text);
        }
        DraftPayload::Binary(bytes) => {
            use base64::Engine;
            let text = base64::engine::general_purpose::STANDARD.encode(bytes);
            out.extend_from_slice(format!(",\"data_b64\":\"{text}\"").as_bytes());
        }
        DraftPayload::Deleted => out.extend_from_slice(b",\"deleted\":true"),
    }
    if let Some(ts) = draft.ts {
        out.extend_from_slice(format!(",\"ts\":{ts}").as_bytes());
    }
    if draft.ttl_ms > 0 {
        out.extend_from_slice(format!(",\"ttl_ms\":{}", draft.ttl_ms).as_bytes());
    }
    if let Some(level) = draft.ack.map(AckLevel::as_str) {
        out.extend_from_slice(format!(",\"ack\":\"{level}\"").as_bytes());
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// The records that wait for their answers, and what the thread that reads answers has found out.
#[derive(Default)]
struct Unanswered {
    /// For every id, how messages name the record, and how many bytes its frame has.
    records: BTreeMap<u64, (String, usize)>,
    bytes: usize,
    refused: u64,
    /// The reason why the connection ended; `None` while it is open.
    ended: Option<String>,
}

/// The state that the sending thread and the thread that reads answers share.
#[derive(Default)]
struct Shared {
    waiting: Mutex<Unanswered>,
    changed: Condvar,
}

struct Pipeline {
    sender: Sender,
    shared: Arc<Shared>,
    next: u64,
    /// Whether a single record from the arguments is published. Its result is then printed.
    is_single: bool,
    results: Arc<Mutex<Option<String>>>,
}

#[derive(Deserialize)]
struct ReadAnswer<'a> {
    id: Option<u64>,
    #[serde(borrow)]
    result: Option<&'a RawValue>,
    error: Option<Refused>,
}

impl Pipeline {
    fn open(endpoint: &NodeUrl, ack: &str) -> Result<Pipeline, CliError> {
        let (sender, reader) = connect_in_halves(endpoint, &format!("/publish?ack={ack}"))?;
        let (shared, results) = (Arc::new(Shared::default()), Arc::new(Mutex::new(None)));
        let (theirs, their_results) = (shared.clone(), results.clone());
        thread::Builder::new().name("answers".into()).spawn(move || {
            let ended = read_answers(reader, &theirs, &their_results);
            theirs.waiting.lock().ended.get_or_insert(ended);
            theirs.changed.notify_all();
        })?;
        Ok(Pipeline { sender, shared, next: 1, is_single: false, results })
    }

    fn send_lines(&mut self, input: impl BufRead) -> Result<(), CliError> {
        for (at, line) in input.lines().enumerate() {
            let line = line.map_err(|error| CliError::Failed(format!("stdin: {error}")))?;
            if line.trim().is_empty() {
                continue;
            }
            let mut name = format!("line {}", at + 1);
            let refusal = match publish_frame(&line) {
                Err(error) => format!("bad_json: {error}"),
                Ok(frame) if frame.is_batch => "bad_request: a line is one object".into(),
                Ok(frame) => {
                    match Vec::from(frame.items).into_iter().next().map(|item| (item.id, item.draft)) {
                        Some((id, Ok(draft))) => {
                            if let Some(RequestId::Json(id)) = id {
                                name.push_str(&format!(" (id {id})"));
                            }
                            self.send(Some(name), &fields(&draft))?;
                            continue;
                        }
                        Some((_, Err(refusal))) => refusal.to_string(),
                        None => continue,
                    }
                }
            };
            eprintln!("anode: {name}: {refusal}");
            self.shared.waiting.lock().refused += 1;
        }
        Ok(())
    }

    /// Sends a record as soon as the window has room for it.
    fn send(&mut self, name: Option<String>, fields: &str) -> Result<(), CliError> {
        let id = self.next;
        self.next += 1;
        let frame = format!("{{\"id\":{id},{fields}}}");
        self.wait_until(|waiting| waiting.records.len() < WINDOW && waiting.bytes < WINDOW_BYTES)?;
        {
            let mut waiting = self.shared.waiting.lock();
            waiting.bytes += frame.len();
            let name = name.map(|name| format!("{name}: ")).unwrap_or_default();
            waiting.records.insert(id, (name, frame.len()));
        }
        self.sender.send(frame).map_err(|error| {
            // The node's last message tells more about the reason than the failed write.
            let ended = self.shared.waiting.lock().ended.clone();
            CliError::Failed(ended.unwrap_or_else(|| format!("the connection was lost: {error}")))
        })
    }

    /// Waits for the missing answers and closes the connection.
    fn finish(mut self) -> Result<(), CliError> {
        self.wait_until(|waiting| waiting.records.is_empty())?;
        // All answers have arrived, so it does not matter how the connection ends.
        let _ = self.sender.close();
        if let Some(result) = self.results.lock().take().filter(|_| self.is_single) {
            use io::Write;
            writeln!(io::stdout(), "{result}")?;
        }
        match self.shared.waiting.lock().refused {
            0 => Ok(()),
            _ => Err(CliError::Told),
        }
    }

    fn wait_until(&self, is_met: impl Fn(&Unanswered) -> bool) -> Result<(), CliError> {
        let mut waiting = self.shared.waiting.lock();
        while !is_met(&waiting) {
            if let Some(reason) = &waiting.ended {
                let missing = waiting.records.len();
                return Err(CliError::Failed(format!("{reason}; {missing} records are unanswered")));
            }
            self.shared.changed.wait(&mut waiting);
        }
        Ok(())
    }
}

/// Reads answers until the connection ends, and returns the reason why it did.
fn read_answers(mut reader: Socket, shared: &Shared, results: &Mutex<Option<String>>) -> String {
    // A read times out after half of the allowed silence at the latest, since the socket has a timeout of its
    // own.
    let mut silent = Duration::ZERO;
    loop {
        match reader.read() {
            Ok(Message::Text(text)) => {
                silent = Duration::ZERO;
                for item in items(&text) {
                    take_answer(item, shared, results);
                }
            }
            Ok(Message::Close(frame)) => {
                return match frame {
                    Some(frame) => format!("the node closed with {} {}", u16::from(frame.code), frame.reason),
                    None => "the node closed the connection".into(),
                };
            }
            Ok(_) => {}
            Err(Error::Io(error))
                if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) =>
            {
                // Silence is normal while no record waits for an answer, for example because stdin is slow.
                let is_waiting = !shared.waiting.lock().records.is_empty();
                silent = if is_waiting { silent + ANSWER_SILENCE_MAX } else { Duration::ZERO };
                if silent > ANSWER_SILENCE_MAX {
                    return "the node has gone silent".into();
                }
            }
            Err(error) => return format!("the connection was lost: {error}"),
        }
    }
}

fn take_answer(item: &str, shared: &Shared, results: &Mutex<Option<String>>) {
    // Other messages, such as `connected`, have neither a result nor an error.
    let Ok(answer) = serde_json::from_str::<ReadAnswer<'_>>(item) else { return };
    let mut waiting = shared.waiting.lock();
    let record = answer.id.and_then(|id| waiting.records.remove(&id));
    let name = match record {
        Some((name, bytes)) => {
            waiting.bytes -= bytes;
            name
        }
        None => String::new(),
    };
    if let Some(refused) = answer.error {
        eprintln!("anode: {name}{refused}");
        waiting.refused += 1;
    }
    if let Some(result) = answer.result {
        *results.lock() = Some(result.get().to_owned());
    }
    shared.changed.notify_all();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_is_json_if_it_parses_else_a_string() {
        assert_eq!(single("a", " {\"x\": 1.0} ", None), r#""source":"a","data":{"x": 1.0}"#);
        assert_eq!(single("a", "hello", Some(5)), r#""source":"a","ts":5,"data":"hello""#);
        assert_eq!(single("a", "1 2", None), r#""source":"a","data":"1 2""#);
        assert_eq!(single("a", "", None), r#""source":"a","data":"""#);
    }

    #[test]
    fn lines_go_on_as_they_came() {
        let of = |line: &str| {
            let item = Vec::from(publish_frame(line).expect(line).items).remove(0);
            fields(&item.draft.expect(line))
        };
        assert_eq!(
            of(r#"{"id":"x","source":"a","data":{"b": 1e0},"ts":5,"ttl_ms":9,"ack":"stored"}"#),
            r#""source":"a","data":{"b": 1e0},"ts":5,"ttl_ms":9,"ack":"stored""#
        );
        assert_eq!(of(r#"{"source":"a","data_b64":"AAH/"}"#), r#""source":"a","data_b64":"AAH/""#);
        assert_eq!(of(r#"{"source":"a","deleted":true}"#), r#""source":"a","deleted":true"#);
    }
}
