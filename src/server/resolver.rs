//! Join targets, resolved again and again on a thread of their own.
//!
//! Resolving a name blocks, for seconds if a name server is gone, and must not hold up any other thread.
//! The address of a name may change while a cluster is deployed, so all targets are resolved again for as
//! long as the node runs. Targets that are addresses already take the same way.
//!
//! The thread also watches which targets do not answer the node, and logs a warning of them (`join_targets`).

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, bounded};

use super::clock;
use super::join_targets::{Resolved, SilenceReports};
use super::lifecycle::Phase;
use super::shared::Shared;
use crate::config::canonical;

/// Pause after the first round of resolving, in microseconds; it doubles with every round.
const ROUND_FIRST_US: u64 = 500_000;
/// Longest pause between two rounds of resolving, in microseconds.
const ROUND_US_MAX: u64 = 15_000_000;
/// Time between two looks at which targets have answered.
const LOOK: Duration = Duration::from_millis(250);

/// Starts the thread, unless there is nothing to resolve. The addresses come out of the channel that is
/// returned; the thread ends when the other side of `ended` is dropped.
pub fn start(
    shared: &Arc<Shared>,
    ended: Receiver<()>,
    threads: &mut Vec<JoinHandle<()>>,
) -> io::Result<Receiver<Vec<SocketAddr>>> {
    let (sender, receiver) = bounded(1);
    if shared.config.join.is_empty() {
        return Ok(receiver);
    }
    let shared = shared.clone();
    let run = move || {
        let mut pause_us = ROUND_FIRST_US;
        let mut due_us = 0;
        let mut targets = Vec::new();
        let mut reports = SilenceReports::default();
        loop {
            if clock::mono_us() >= due_us {
                targets = resolve(&shared);
                // If an earlier round has not been taken yet, this one is dropped: they are alike.
                let seeds = addresses(&targets);
                if !seeds.is_empty() && sender.try_send(seeds).is_ok() {
                    shared.wake_gossip();
                }
                due_us = clock::mono_us() + pause_us;
                pause_us = (pause_us * 2).min(ROUND_US_MAX);
            }
            // Before that the cluster machine does not run, and afterwards the others are left on purpose.
            if shared.lifecycle.phase() == Phase::Serving {
                reports.look(&shared, &targets);
            }
            if !matches!(ended.recv_timeout(LOOK), Err(RecvTimeoutError::Timeout)) {
                return;
            }
        }
    };
    threads.push(std::thread::Builder::new().name("resolver".into()).spawn(run)?);
    Ok(receiver)
}

/// Resolves all join targets, in their order.
fn resolve(shared: &Shared) -> Vec<Resolved> {
    let resolved = shared.config.join.iter().map(|target| Resolved {
        target: target.clone(),
        addresses: (target.host.as_str(), target.port)
            .to_socket_addrs()
            .map(|addresses| addresses.map(canonical).collect())
            .map_err(|error| error.to_string()),
    });
    resolved.collect()
}

/// All addresses of all join targets, each address once, in the order of the targets.
fn addresses(targets: &[Resolved]) -> Vec<SocketAddr> {
    let mut seeds = Vec::new();
    for &address in targets.iter().flat_map(|target| target.addresses.iter().flatten()) {
        if !seeds.contains(&address) {
            seeds.push(address);
        }
    }
    seeds
}
