//! The clients of a run: publishers and subscribers that speak WebSocket, lose their connections and come back. They
//! tell a recorder everything that they offer and see.

pub(crate) mod frames;
mod publisher;
mod reader;
pub mod recorder;
pub(crate) mod socket;
mod subscriber;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::mpsc::sync_channel;
use std::thread::JoinHandle;

use anode_loadgen::Outcome;

use crate::checker::{Mode, Name};
use recorder::Recorder;

/// Begin of the names of all sources.
pub const ROOT: &str = "netem";
/// Records that wait to be read back. Further ones are not read back.
const READS_WAITING_MAX: usize = 64;

/// What the clients do.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The nodes, with the addresses at which clients and at which the runner reach them.
    pub nodes: Vec<(Name, SocketAddr, SocketAddr)>,
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
    /// Records sent.
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
    pub plan: Plan,
    pub recorder: Recorder,
    pub counts: Counts,
    pub is_publishing: AtomicBool,
    pub is_running: AtomicBool,
    next_publish: AtomicU64,
    /// What no client of the protocol should see.
    surprises: std::sync::Mutex<Vec<String>>,
}

impl Shared {
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

/// The running clients.
pub struct Load {
    shared: Arc<Shared>,
    publishers: Vec<JoinHandle<()>>,
    others: Vec<JoinHandle<()>>,
}

impl Load {
    /// Starts two subscribers for each node, one of either mode.
    pub fn start(plan: Plan, recorder: Recorder) -> Outcome<Load> {
        let shared = Arc::new(Shared {
            plan,
            recorder,
            counts: Counts::default(),
            is_publishing: AtomicBool::new(true),
            is_running: AtomicBool::new(true),
            next_publish: AtomicU64::new(1),
            surprises: std::sync::Mutex::default(),
        });
        let mut load = Load { shared: shared.clone(), publishers: Vec::new(), others: Vec::new() };
        let nodes = shared.plan.nodes.len();
        for number in 0..nodes * 2 {
            let mode = if number < nodes { Mode::Latest } else { Mode::All };
            let shared = shared.clone();
            load.others.push(spawn(format!("sub-{number}"), move || subscriber::run(&shared, number, mode))?);
        }
        Ok(load)
    }

    /// Starts a publisher for each node, and a reader that reads back what was replicated.
    pub fn publish(&mut self) -> Outcome<()> {
        let (reads_in, reads) = sync_channel(READS_WAITING_MAX);
        for number in 0..self.shared.plan.nodes.len() {
            let (shared, reads) = (self.shared.clone(), reads_in.clone());
            let name = format!("pub-{number}");
            self.publishers.push(spawn(name, move || publisher::run(&shared, number, &reads))?);
        }
        let shared = self.shared.clone();
        self.others.push(spawn("reader".to_owned(), move || reader::run(&shared, &reads))?);
        Ok(())
    }

    /// Returns the counts so far.
    pub fn counts(&self) -> &Counts {
        &self.shared.counts
    }

    /// Returns what clients saw that the protocol does not allow.
    pub fn surprises(&self) -> Vec<String> {
        self.shared.surprises.lock().map_or_else(|_| Vec::new(), |surprises| surprises.clone())
    }

    /// Lets the publishers send nothing more. They still wait for answers.
    pub fn stop_publishing(&self) {
        self.shared.is_publishing.store(false, Relaxed);
    }

    /// Publishes nothing more, and waits for the answers that come in time.
    pub fn end_publishing(&mut self) {
        self.stop_publishing();
        self.publishers.drain(..).for_each(join);
    }

    /// Ends all clients.
    pub fn end(&mut self) {
        self.end_publishing();
        self.shared.is_running.store(false, Relaxed);
        self.others.drain(..).for_each(join);
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.end();
    }
}

fn spawn(name: String, work: impl FnOnce() + Send + 'static) -> Outcome<JoinHandle<()>> {
    Ok(std::thread::Builder::new().name(name).spawn(work)?)
}

fn join(thread: JoinHandle<()>) {
    // A client that panicked has said so; the run goes on, and lacks what the client would have told.
    let _ = thread.join();
}
