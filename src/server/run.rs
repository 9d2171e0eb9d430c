//! `anode serve`: runs a node until a signal or a failure ends it.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::{flag, low_level};

use super::acceptor;
use super::node::{Node, ServerError};
use crate::config::Config;

/// The exit code after a second signal, which ends the process at once while the node is still being stopped
/// after the first.
const SECOND_SIGNAL: i32 = 1;

/// Runs a node until SIGTERM or SIGINT, then stops it in order. Prints the line `ready …` once clients are
/// served.
pub fn run(config: Config) -> Result<(), ServerError> {
    acceptor::raise_file_limit();
    // One pair of sockets wakes this thread for both: a signal, and a node that can run no longer.
    let (mut woken, waker) = UnixStream::pair()?;
    let is_signalled = Arc::new(AtomicBool::new(false));
    for signal in [SIGTERM, SIGINT] {
        flag::register_conditional_shutdown(signal, SECOND_SIGNAL, is_signalled.clone())?;
        flag::register(signal, is_signalled.clone())?;
        low_level::pipe::register(signal, waker.try_clone()?)?;
    }
    let on_fatal = move || {
        let _ = (&waker).write_all(&[0]);
    };
    let node = Node::start_with(config, Box::new(on_fatal))?;
    // Loading a large store takes a while, and a signal must not wait for it.
    if node.wait_loaded_unless(&|| is_signalled.load(SeqCst))? {
        println!("ready node={} http={} gossip={}", node.name, node.http, node.gossip);
        io::stdout().flush()?;
    }
    let mut byte = [0];
    while let Err(error) = woken.read_exact(&mut byte) {
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error.into());
        }
    }
    if let Some(fatal) = node.fatal() {
        tracing::error!(%fatal, "the node ends");
        node.stop();
        return Err(fatal.into());
    }
    tracing::info!("stopping");
    node.stop();
    Ok(())
}
