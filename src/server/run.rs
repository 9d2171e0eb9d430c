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
use super::reload::{ReloadFlag, Reloadable, Reloader};
use crate::config::Config;

/// The exit code after a second signal, which ends the process at once while the node is still being stopped
/// after the first.
const SECOND_SIGNAL: i32 = 1;
/// Time within which another signal is taken for the same one, in microseconds: supervisors signal a process
/// and then its group, and wrappers pass on what the process has got already.
const SAME_SIGNAL_US: u64 = 1_000_000;

/// Runs a node until SIGTERM or SIGINT, then stops it in order. SIGHUP makes it read its files again, and `files` with
/// them. Prints the line `ready …` once clients are served.
pub fn run(config: Config, files: Vec<Box<dyn Reloadable>>) -> Result<(), ServerError> {
    tell_configuration(&config);
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
    let mut reloader = Reloader::new(reload);
    files.into_iter().for_each(|file| reloader.add(file));
    let node = Node::start_with(config, reloader, Box::new(on_fatal))?;
    // Loading a large store takes a while, and a signal must not wait for it.
    if node.wait_loaded_unless(&|| is_signalled.load(SeqCst))? {
        let metrics = node.metrics.map_or(String::new(), |address| format!(" metrics={address}"));
        println!("ready node={} http={} gossip={}{metrics}", node.name, node.http, node.gossip);
        io::stdout().flush()?;
        tracing::info!(node = %node.name, http = %node.http, gossip = %node.gossip, "ready");
    }
    // The senders live as long as the node and the thread of the signals do, so this is no error.
    let _ = endings.recv();
    if let Some(fatal) = node.fatal() {
        tracing::error!(%fatal, "the node ends");
        node.stop();
        return Err(fatal.into());
    }
    tracing::info!("stopping, as a signal or an admin asks for");
    let began_us = clock::mono_us();
    node.stop();
    tracing::info!(ms = (clock::mono_us() - began_us) / 1_000, "stopped");
    Ok(())
}

/// Logs the version and the settings with which a node starts. Secrets are told as whether there are any.
fn tell_configuration(config: &Config) {
    let join = config.join.iter().map(ToString::to_string).collect::<Vec<String>>().join(",");
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        http = %config.http,
        gossip = %config.gossip,
        advertise = config.advertise.as_ref().map(tracing::field::display),
        metrics = config.metrics.map(tracing::field::display),
        join,
        cluster = config.cluster_name,
        zone = config.zone,
        profile = ?config.profile,
        data_dir = %config.data_dir.display(),
        store = ?config.store,
        history = config.history,
        tombstones_s = config.tombstones_us / 1_000_000,
        workers = config.workers,
        max_connections = config.max_connections,
        max_memory = config.max_memory_bytes,
        max_client_memory = config.max_client_memory_bytes,
        has_tls = config.tls.is_some(),
        has_auth = config.access.auth.is_some(),
        has_cluster_key = config.cluster_key.is_some(),
        "a node starts"
    );
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
        let now_us = clock::mono_us();
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
