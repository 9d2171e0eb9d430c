//! The clock by which guests are looked at: a thread that counts epochs while there are modules.
//!
//! A guest looks at the count at the beginning of every function and loop, which costs it next to nothing. The thread
//! runs only while an engine exists, and an engine only while there are modules.

use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use wasmtime::EngineWeak;

/// Duration of an epoch, in microseconds.
pub const EPOCH_US: u64 = 2_000;

/// Counts the epochs of an engine until it is dropped.
#[derive(Debug)]
pub struct EpochTicker {
    /// Disconnected when this is dropped, which ends the thread.
    _ends: SyncSender<()>,
}

impl EpochTicker {
    /// Starts the thread.
    pub fn start(engine: EngineWeak) -> std::io::Result<EpochTicker> {
        let (ends, ended) = sync_channel(0);
        let tick = move || {
            while let Err(RecvTimeoutError::Timeout) = ended.recv_timeout(Duration::from_micros(EPOCH_US)) {
                let Some(engine) = engine.upgrade() else { return };
                engine.increment_epoch();
            }
        };
        std::thread::Builder::new().name("epochs".into()).spawn(tick)?;
        Ok(EpochTicker { _ends: ends })
    }
}
