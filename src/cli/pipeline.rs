//! Publishes records over one WebSocket, many at a time: up to [`WINDOW`] of them wait for their answers.
//!
//! Each is sent with an id that this program chooses, so that answers can be matched with records in whatever order
//! they arrive.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use serde::Deserialize;
use serde_json::value::RawValue;
use tungstenite::{Error, Message};

use super::CliError;
use super::client::{Nodes, Refused, Sender, Socket, connect_in_halves, items};
use super::format::note;

/// Most records that may wait for their answers.
const WINDOW: usize = 1_024;
/// Most bytes of records that may wait for their answers.
const WINDOW_BYTES: usize = 4 * 1024 * 1024;
/// Read timeout of the socket, which is longer than any ack level may take.
const ANSWER_SILENCE_MAX: Duration = Duration::from_secs(30);

/// The records that wait for their answers, and what the thread that reads answers has found out.
#[derive(Default)]
struct Unanswered {
    /// For every id, how messages name the record, and how many bytes its frame has.
    records: BTreeMap<u64, (String, usize)>,
    bytes: usize,
    outcomes: Outcomes,
    /// The newest result, as the node sent it.
    result: Option<String>,
    /// The reason why the connection ended; `None` while it is open.
    ended: Option<String>,
}

/// The state that the sending thread and the thread that reads answers share.
#[derive(Default)]
struct Shared {
    waiting: Mutex<Unanswered>,
    changed: Condvar,
}

/// Number of records by what became of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Outcomes {
    /// Records that became the newest of their source.
    pub applied: u64,
    /// Records that were there already.
    pub duplicate: u64,
    /// Records that were older than what was there.
    pub stale: u64,
    /// Records that were refused.
    pub refused: u64,
}

impl Outcomes {
    /// Number of all records.
    pub fn sum(&self) -> u64 {
        self.applied + self.duplicate + self.stale + self.refused
    }
}

/// Writes the numbers as people read them.
impl std::fmt::Display for Outcomes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Outcomes { applied, duplicate, stale, refused } = self;
        write!(f, "{applied} applied, {duplicate} duplicate, {stale} stale, {refused} refused")
    }
}

/// A connection on which records are published.
pub struct Pipeline {
    sender: Sender,
    shared: Arc<Shared>,
    next: u64,
}

#[derive(Deserialize)]
struct ReadAnswer<'a> {
    id: Option<u64>,
    #[serde(borrow)]
    result: Option<&'a RawValue>,
    error: Option<Refused>,
}

#[derive(Default, Deserialize)]
struct ReadOutcome<'a> {
    #[serde(default)]
    outcome: &'a str,
}

impl Pipeline {
    /// Connects to the first of the nodes that takes publishers. `ack` is the level that answers wait for.
    pub fn open(nodes: &Nodes, ack: &str) -> Result<Pipeline, CliError> {
        let (sender, reader) = connect_in_halves(nodes, &format!("/publish?ack={ack}"))?;
        let shared = Arc::new(Shared::default());
        let theirs = shared.clone();
        thread::Builder::new().name("answers".into()).spawn(move || {
            let ended = read_answers(reader, &theirs);
            theirs.waiting.lock().ended.get_or_insert(ended);
            theirs.changed.notify_all();
        })?;
        Ok(Pipeline { sender, shared, next: 1 })
    }

    /// Tells that a record, called `name` in the message, is not sent at all.
    pub fn refuse(&mut self, name: &str, reason: &str) {
        note(&format!("{name}: {reason}"));
        self.shared.waiting.lock().outcomes.refused += 1;
    }

    /// Sends a record as soon as the window has room for it. `fields` are those of its JSON without braces, and `name` is
    /// what it is called in messages.
    pub fn send(&mut self, name: Option<String>, fields: &str) -> Result<(), CliError> {
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

    /// Waits for the missing answers and closes the connection. Returns what became of the records, and the newest result
    /// as the node sent it.
    pub fn finish(mut self) -> Result<(Outcomes, Option<String>), CliError> {
        self.wait_until(|waiting| waiting.records.is_empty())?;
        // All answers have arrived, so it does not matter how the connection ends.
        let _ = self.sender.close();
        let mut waiting = self.shared.waiting.lock();
        Ok((waiting.outcomes, waiting.result.take()))
    }

    fn wait_until(&self, is_met: impl Fn(&Unanswered) -> bool) -> Result<(), CliError> {
        let mut waiting = self.shared.waiting.lock();
        while !is_met(&waiting) {
            if let Some(reason) = &waiting.ended {
                let missing = waiting.records.len();
                return Err(CliError::Failed(format!("{reason}; unanswered records: {missing}")));
            }
            self.shared.changed.wait(&mut waiting);
        }
        Ok(())
    }
}

/// Reads answers until the connection ends, and returns the reason why it did.
fn read_answers(mut reader: Socket, shared: &Shared) -> String {
    // A read times out after half of the allowed silence at the latest, since the socket has a timeout of its
    // own.
    let mut silent = Duration::ZERO;
    loop {
        match reader.read() {
            Ok(Message::Text(text)) => {
                silent = Duration::ZERO;
                for item in items(&text) {
                    take_answer(item, shared);
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

fn take_answer(item: &str, shared: &Shared) {
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
        note(&format!("{name}{refused}"));
        waiting.outcomes.refused += 1;
    }
    if let Some(result) = answer.result {
        let ReadOutcome { outcome } = serde_json::from_str(result.get()).unwrap_or_default();
        match outcome {
            "duplicate" => waiting.outcomes.duplicate += 1,
            "stale" => waiting.outcomes.stale += 1,
            _ => waiting.outcomes.applied += 1,
        }
        waiting.result = Some(result.get().to_owned());
    }
    shared.changed.notify_all();
}
