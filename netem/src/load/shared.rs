//! The plan of the clients, and the state that they share.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64};

use super::recorder::Recorder;
use crate::checker::Name;
use crate::target::Target;

/// Begin of the names of all sources.
pub const ROOT: &str = "netem";

/// Returns the name of a source by its number.
pub(crate) fn source_name(number: u64) -> Name {
    format!("{ROOT}/{}/{number}", number % 16).into()
}

/// Makes data of so many bytes that no other record has.
pub(crate) fn unique_data(publish: u64, bytes: usize) -> String {
    let head = format!("{{\"n\":{publish},\"x\":\"");
    let fill = bytes.saturating_sub(head.len() + 2);
    let letters = (0..fill).map(|at| char::from(b'a' + ((publish as usize + at) % 26) as u8));
    let mut data = head;
    data.extend(letters);
    data + "\"}"
}

/// What the clients do.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The nodes, as clients and as the runner reach them.
    pub nodes: Vec<(Name, Target, Target)>,
    /// Records a second, of all publishers together.
    pub rate: f64,
    /// Number of sources.
    pub sources: u64,
    /// Bytes of the data of a record.
    pub data_bytes: usize,
    /// Seed of the records.
    pub seed: u64,
}

/// What the clients have done so far, for the one who watches.
#[derive(Debug, Default)]
pub struct Counts {
    /// Number of records sent.
    pub sent: AtomicU64,
    /// Answers that say that the level was reached.
    pub acked: AtomicU64,
    /// Answers that say something else.
    pub failed: AtomicU64,
    /// Records that came to subscribers.
    pub delivered: AtomicU64,
    /// Connections that were opened.
    pub connections: AtomicU64,
    /// Records that were due and not sent, because too many were unanswered or no node could be reached.
    pub held: AtomicU64,
}

/// State that all clients share.
pub(crate) struct Shared {
    /// The plan of all clients.
    pub plan: Plan,
    /// Takes down what clients see.
    pub recorder: Recorder,
    /// The counts so far.
    pub counts: Counts,
    /// Whether publishers go on.
    pub is_publishing: AtomicBool,
    /// Whether clients go on.
    pub is_running: AtomicBool,
    /// The number of the next publish.
    pub next_publish: AtomicU64,
    /// What no client of the protocol should see.
    pub surprises: std::sync::Mutex<Vec<String>>,
}

impl Shared {
    /// Makes the state of clients that are about to start.
    pub fn new(plan: Plan, recorder: Recorder) -> Shared {
        Shared {
            plan,
            recorder,
            counts: Counts::default(),
            is_publishing: AtomicBool::new(true),
            is_running: AtomicBool::new(true),
            next_publish: AtomicU64::new(1),
            surprises: std::sync::Mutex::default(),
        }
    }

    /// Returns what no client should have seen.
    pub fn surprises(&self) -> Vec<String> {
        self.surprises.lock().map_or_else(|_| Vec::new(), |surprises| surprises.clone())
    }

    /// Returns the number of the next publish, which no other has.
    pub fn take_number(&self) -> u64 {
        self.next_publish.fetch_add(1, Relaxed)
    }

    /// Notes something that the protocol does not allow. A few are kept.
    pub fn surprise(&self, what: String) {
        if let Ok(mut surprises) = self.surprises.lock()
            && surprises.len() < 20
        {
            surprises.push(what);
        }
    }
}
