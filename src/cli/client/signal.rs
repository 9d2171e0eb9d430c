//! Stops a command when the user presses Ctrl-C.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

/// Tells whether the user has asked the command to stop. A second signal ends the process at once, in case it
/// is blocked (by a full pipe on stdout) and does not notice the first.
#[derive(Clone, Debug)]
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Begins to watch for SIGINT and SIGTERM.
    pub fn watch() -> io::Result<Interrupt> {
        let flag = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            // The order matters: the conditional shutdown must find the flag that an earlier signal has set,
            // not this one.
            flag::register_conditional_shutdown(signal, 0, flag.clone())?;
            flag::register(signal, flag.clone())?;
        }
        Ok(Interrupt(flag))
    }

    /// Returns whether a signal has arrived.
    pub fn came(&self) -> bool {
        self.0.load(Relaxed)
    }
}
