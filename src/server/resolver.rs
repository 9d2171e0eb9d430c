//! Join targets, resolved again and again on a thread of their own.
//!
//! Resolving a name blocks, for seconds if a name server is gone, and must not hold up any other thread.
//! The address of a name may change while a cluster is deployed, so all targets are resolved again for as
//! long as the node runs. Targets that are addresses already take the same way.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, bounded};

use super::shared::Shared;

/// Pause after the first round; it doubles with every round.
const ROUND_FIRST: Duration = Duration::from_millis(500);
/// Longest pause between two rounds.
const ROUND_MAX: Duration = Duration::from_secs(15);

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
        let mut pause = ROUND_FIRST;
        loop {
            let seeds = resolve(&shared);
            // If an earlier round has not been taken yet, this one is dropped: they are alike.
            if !seeds.is_empty() && sender.try_send(seeds).is_ok() {
                shared.wake_gossip();
            }
            if !matches!(ended.recv_timeout(pause), Err(RecvTimeoutError::Timeout)) {
                return;
            }
            pause = (pause * 2).min(ROUND_MAX);
        }
    };
    threads.push(std::thread::Builder::new().name("resolver".into()).spawn(run)?);
    Ok(receiver)
}

/// All addresses of all join targets, each address once, in the order of the targets.
fn resolve(shared: &Shared) -> Vec<SocketAddr> {
    let mut seeds = Vec::new();
    for target in &shared.config.join {
        match (target.host.as_str(), target.port).to_socket_addrs() {
            Ok(addresses) => {
                for address in addresses {
                    if !seeds.contains(&address) {
                        seeds.push(address);
                    }
                }
            }
            Err(error) => {
                tracing::warn!(%target, %error, "a join target does not resolve; it is tried again")
            }
        }
    }
    seeds
}
