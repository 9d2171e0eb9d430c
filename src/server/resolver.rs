//! Join targets, resolved again and again on a thread of their own.
//!
//! Resolving blocks, for seconds if a name server is gone, and must not hold up anyone. What a name
//! means changes while a cluster is deployed, so every target is resolved again at every retry, for
//! ever; literal addresses come along for the same price.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, bounded};

use super::shared::Shared;

/// Between two rounds: at first, and once they have been going on for a while.
const ROUND_FIRST: Duration = Duration::from_millis(500);
const ROUND_MAX: Duration = Duration::from_secs(15);

/// Starts the thread, unless there is nothing to resolve. The addresses come out of the channel.
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
            // A round that was not taken yet is as good as this one.
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

/// All addresses of all targets, each once, in the order of the targets.
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
