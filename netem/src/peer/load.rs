//! The clients of a run beside another system: a publisher and a watcher for each server.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use anode_loadgen::Outcome;

use super::bucket::Contents;
use super::watcher::Held;
use super::{publisher, watcher};
use crate::load::recorder::Recorder;
use crate::load::{Clients, Plan};

/// The clients of a run beside another system, and what the watchers hold.
pub struct PeerLoad {
    /// The running clients.
    pub clients: Clients,
    held: Vec<Arc<Held>>,
}

impl PeerLoad {
    /// Starts a watcher for each server.
    pub fn start(plan: Plan, recorder: Recorder) -> Outcome<PeerLoad> {
        let mut load = PeerLoad { clients: Clients::new(plan, recorder), held: Vec::new() };
        for number in 0..load.clients.nodes() {
            let held = Arc::new(Held::default());
            load.held.push(held.clone());
            load.clients.start(format!("sub-{number}"), move |shared| watcher::run(shared, number, &held))?;
        }
        Ok(load)
    }

    /// Starts a publisher for each server.
    pub fn publish(&mut self) -> Outcome<()> {
        (0..self.clients.nodes()).try_for_each(|number| {
            self.clients.start_publisher(number, move |shared| publisher::run(shared, number))
        })
    }

    /// For each watcher the number of keys of which it has not got the value that the bucket holds.
    pub fn lacking(&self, bucket: &Contents) -> Vec<usize> {
        self.held.iter().map(|held| lacking(&held.contents.lock(), bucket)).collect()
    }

    /// Returns how often a watcher got a value after a newer one of its key.
    pub fn older(&self) -> u64 {
        self.held.iter().map(|held| held.older.load(Relaxed)).sum()
    }
}

/// Returns of how many keys somebody holds another value than the bucket, or none.
pub fn lacking(held: &Contents, bucket: &Contents) -> usize {
    bucket.iter().filter(|(key, version)| held.get(*key) != Some(*version)).count()
}
