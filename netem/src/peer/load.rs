//! The clients of a run beside another system: a publisher and a watcher for each server.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::JoinHandle;

use anode_loadgen::Outcome;

use super::bucket::Contents;
use super::watcher::Held;
use super::{publisher, watcher};
use crate::load::recorder::Recorder;
use crate::load::{Clients, Counts, Plan, Shared, join, spawn};

/// The running clients.
pub struct PeerLoad {
    shared: Arc<Shared>,
    held: Vec<Arc<Held>>,
    publishers: Vec<JoinHandle<()>>,
    watchers: Vec<JoinHandle<()>>,
}

impl PeerLoad {
    /// Starts a watcher for each server.
    pub fn start(plan: Plan, recorder: Recorder) -> Outcome<PeerLoad> {
        let shared = Arc::new(Shared::new(plan, recorder));
        let mut load = PeerLoad {
            shared: shared.clone(),
            held: Vec::new(),
            publishers: Vec::new(),
            watchers: Vec::new(),
        };
        for number in 0..shared.plan.nodes.len() {
            let (shared, held) = (shared.clone(), Arc::new(Held::default()));
            load.held.push(held.clone());
            load.watchers.push(spawn(format!("sub-{number}"), move || watcher::run(&shared, number, &held))?);
        }
        Ok(load)
    }

    /// Starts a publisher for each server.
    pub fn publish(&mut self) -> Outcome<()> {
        for number in 0..self.shared.plan.nodes.len() {
            let shared = self.shared.clone();
            let publisher = spawn(format!("pub-{number}"), move || publisher::run(&shared, number))?;
            self.publishers.push(publisher);
        }
        Ok(())
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
        self.watchers.drain(..).for_each(join);
    }

    /// For each watcher the number of keys of which it has not got the value that the bucket holds.
    pub fn lacking(&self, bucket: &Contents) -> Vec<usize> {
        self.held.iter().map(|held| lacking(&held.contents.lock(), bucket)).collect()
    }

    /// Returns how often a watcher got a value after a newer one of its key.
    pub fn older(&self) -> u64 {
        self.held.iter().map(|held| held.older.load(Relaxed)).sum()
    }

    /// Returns what clients saw that the protocol does not allow.
    pub fn surprises(&self) -> Vec<String> {
        self.shared.surprises()
    }
}

/// Returns of how many keys somebody holds another value than the bucket, or none.
pub fn lacking(held: &Contents, bucket: &Contents) -> usize {
    bucket.iter().filter(|(key, version)| held.get(*key) != Some(*version)).count()
}

impl Clients for PeerLoad {
    fn counts(&self) -> &Counts {
        &self.shared.counts
    }

    fn stop_publishing(&self) {
        self.shared.is_publishing.store(false, Relaxed);
    }
}

impl Drop for PeerLoad {
    fn drop(&mut self) {
        self.end();
    }
}
