//! `anode serve`: runs a node until a signal or a failure ends it.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use crossbeam_channel::{Sender, bounded};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::{flag, low_level};

use super::acceptor;
use super::clock;
use super::node::{Node, ServerError};
use super::reload::ReloadFlag;
use crate::config::Config;

/// The exit code after a second signal, which ends the process at once while the node is still being stopped
/// after the first.
const SECOND_SIGNAL: i32 = 1;
/// Time within which another signal is taken for the same one, in microseconds: supervisors signal a process
/// and then its group, and wrappers pass on what the process has got already.
const SAME_SIGNAL_US: u64 = 1_000_000;

/// Runs a node until SIGTERM or SIGINT, then stops it in order. SIGHUP makes it read its files again. Prints the
/// line `ready …` once clients are served.
pub fn run(config: Config) -> Result<(), ServerError> {
    acceptor::raise_file_limit();
    let is_signalled = Arc::new(AtomicBool::new(false));
    // Whatever ends the node comes through this channel: a signal, or a failure of the node.
    let (ended, endings) = bounded(1);
    watch_signals(&is_signalled, ended.clone())?;
    let reload = ReloadFlag::default();
    reload.watch_signal()?;
    let on_fatal = move || {
        // An error means that an ending waits already.
        let _ = ended.try_send(());
    };
    let node = Node::start_with(config, reload, Box::new(on_fatal))?;
    // Loading a large store takes a while, and a signal must not wait for it.
    if node.wait_loaded_unless(&|| is_signalled.load(SeqCst))? {
        let metrics = node.metrics.map_or(String::new(), |address| format!(" metrics={address}"));
        println!("ready node={} http={} gossip={}{metrics}", node.name, node.http, node.gossip);
        io::stdout().flush()?;
    }
    // The senders live as long as the node and the thread of the signals do, so this is no error.
    let _ = endings.recv();
    if let Some(fatal) = node.fatal() {
        tracing::error!(%fatal, "the node ends");
        node.stop();
        return Err(fatal.into());
    }
    tracing::info!("stopping");
    node.stop();
    Ok(())
}

/// Starts a thread that reports the first signal, and ends the process at a second one.
fn watch_signals(is_signalled: &Arc<AtomicBool>, ended: Sender<()>) -> io::Result<()> {
    let (woken, waker) = UnixStream::pair()?;
    for signal in [SIGTERM, SIGINT] {
        flag::register(signal, is_signalled.clone())?;
        low_level::pipe::register(signal, waker.try_clone()?)?;
    }
    std::thread::Builder::new().name("signals".into()).spawn(move || wait_signals(woken, &ended))?;
    Ok(())
}

fn wait_signals(mut woken: UnixStream, ended: &Sender<()>) {
    let mut first_us = None;
    let mut byte = [0];
    loop {
        match woken.read(&mut byte) {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return tracing::error!(%error, "signals are not watched any longer"),
        }
        let now_us = clock::now().mono_us;
        match first_us {
            None => {
                first_us = Some(now_us);
                // An error means that an ending waits already.
                let _ = ended.try_send(());
            }
            Some(first_us) if now_us - first_us < SAME_SIGNAL_US => {}
            Some(_) => low_level::exit(SECOND_SIGNAL),
        }
    }
}
