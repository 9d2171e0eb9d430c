//! The threads of a run's clients, whatever protocol they speak: publishers, and others that stay until the end.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::JoinHandle;

use anode_loadgen::Outcome;

use super::recorder::Recorder;
use super::shared::{Counts, Plan, Shared};

/// The running clients, and the state that they share. They end when this is dropped.
pub struct Clients {
    shared: Arc<Shared>,
    publishers: Vec<JoinHandle<()>>,
    others: Vec<JoinHandle<()>>,
}

impl Clients {
    /// Makes the state of clients, of which none runs yet.
    pub(crate) fn new(plan: Plan, recorder: Recorder) -> Clients {
        let shared = Arc::new(Shared::new(plan, recorder));
        Clients { shared, publishers: Vec::new(), others: Vec::new() }
    }

    /// Returns the number of nodes to which clients connect.
    pub(crate) fn nodes(&self) -> usize {
        self.shared.plan.nodes.len()
    }

    /// Starts the publisher with this number.
    pub(crate) fn start_publisher(
        &mut self,
        number: usize,
        run: impl FnOnce(&Shared) + Send + 'static,
    ) -> Outcome<()> {
        self.publishers.push(self.spawn(format!("pub-{number}"), run)?);
        Ok(())
    }

    /// Starts a client that stays until the end.
    pub(crate) fn start(&mut self, name: String, run: impl FnOnce(&Shared) + Send + 'static) -> Outcome<()> {
        self.others.push(self.spawn(name, run)?);
        Ok(())
    }

    fn spawn(&self, name: String, run: impl FnOnce(&Shared) + Send + 'static) -> Outcome<JoinHandle<()>> {
        let shared = self.shared.clone();
        Ok(std::thread::Builder::new().name(name).spawn(move || run(&shared))?)
    }

    /// Returns the counts so far.
    pub fn counts(&self) -> &Counts {
        &self.shared.counts
    }

    /// Returns what clients saw that the protocol does not allow.
    pub fn surprises(&self) -> Vec<String> {
        self.shared.surprises()
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

impl Drop for Clients {
    fn drop(&mut self) {
        self.end();
    }
}

/// Waits until the thread of a client has ended.
fn join(thread: JoinHandle<()>) {
    // A client that panicked has said so; the run goes on, and lacks what the client would have told.
    let _ = thread.join();
}
