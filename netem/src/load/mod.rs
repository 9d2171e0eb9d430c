//! The clients of a run: publishers and subscribers that speak WebSocket, lose their connections and come back. They
//! tell a recorder everything that they offer and see.

pub(crate) mod course;
pub(crate) mod frames;
mod publisher;
mod reader;
pub mod recorder;
pub(crate) mod shared;
pub(crate) mod socket;
mod subscriber;

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::sync_channel;
use std::thread::JoinHandle;

use anode_loadgen::Outcome;

use crate::checker::Mode;
use recorder::Recorder;

pub(crate) use shared::Shared;
pub use shared::{Counts, Plan, ROOT};

/// Records that wait to be read back. Further ones are not read back.
const READS_WAITING_MAX: usize = 64;

/// The running clients.
pub struct Load {
    shared: Arc<Shared>,
    publishers: Vec<JoinHandle<()>>,
    others: Vec<JoinHandle<()>>,
}

/// Clients that publish, as those need them who let the faults happen.
pub trait Clients {
    /// Returns the counts so far.
    fn counts(&self) -> &Counts;

    /// Lets the publishers send nothing more. They still wait for answers.
    fn stop_publishing(&self);
}

impl Clients for Load {
    fn counts(&self) -> &Counts {
        &self.shared.counts
    }

    fn stop_publishing(&self) {
        self.shared.is_publishing.store(false, Relaxed);
    }
}

impl Load {
    /// Starts two subscribers for each node, one of either mode.
    pub fn start(plan: Plan, recorder: Recorder) -> Outcome<Load> {
        let shared = Arc::new(Shared::new(plan, recorder));
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

    /// Returns what clients saw that the protocol does not allow.
    pub fn surprises(&self) -> Vec<String> {
        self.shared.surprises()
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

/// Starts the thread of a client.
pub(crate) fn spawn(name: String, work: impl FnOnce() + Send + 'static) -> Outcome<JoinHandle<()>> {
    Ok(std::thread::Builder::new().name(name).spawn(work)?)
}

/// Waits until the thread of a client has ended.
pub(crate) fn join(thread: JoinHandle<()>) {
    // A client that panicked has said so; the run goes on, and lacks what the client would have told.
    let _ = thread.join();
}
