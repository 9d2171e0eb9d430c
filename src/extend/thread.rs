//! The thread that looks after everything that users add.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::LocalSet;

use super::host::{ExtendHost, SystemChanges};
use super::middleware::MiddlewareKeeper;
use super::supervisor::Supervisor;

/// Most threads for work that may take long: names of hosts that are looked up, files on disks that do not answer.
/// Threads are started when there is work for them, and end when there is none. As many pull sources can hang without
/// holding up the others.
const BLOCKING_THREADS: usize = 64;
/// Longest time that a stop waits for work that has begun on one of these threads.
const END: Duration = Duration::from_millis(200);

/// The running thread. When it is dropped, everything that it runs ends.
#[derive(Debug)]
pub struct Extend {
    /// Dropped to end the thread.
    alive: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Extend {
    /// Starts the thread, which learns from `changes` that there is something new.
    pub fn start(host: Arc<dyn ExtendHost>, changes: Arc<SystemChanges>) -> io::Result<Extend> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(BLOCKING_THREADS)
            .build()?;
        let (alive, ended) = oneshot::channel::<()>();
        let keepers_host = host.clone();
        let run = move || {
            let local = LocalSet::new();
            local.block_on(&runtime, async move {
                let mut supervisor = Supervisor::new(host);
                let mut keeper = MiddlewareKeeper::new(keepers_host);
                tokio::select! {
                    () = supervisor.run(&changes) => {}
                    () = keeper.run(&changes) => {}
                    _ = ended => {}
                }
                supervisor.stop_all();
            });
            drop(local);
            runtime.shutdown_timeout(END);
        };
        let thread = std::thread::Builder::new().name("extend".into()).spawn(run)?;
        Ok(Extend { alive: Some(alive), thread: Some(thread) })
    }
}

impl Drop for Extend {
    fn drop(&mut self) {
        self.alive = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread of the extensions panicked");
        }
    }
}
