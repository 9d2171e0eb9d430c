//! The clock by which guests are stopped: a thread that counts epochs while there are modules.
//!
//! A guest looks at the count at the beginning of every function and loop, which costs it next to nothing. The thread
//! runs only while an engine exists, and an engine only while there are modules.

use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use wasmtime::EngineWeak;

use super::super::bounds::WASM_CALL_US_MAX;

/// Duration of an epoch, in microseconds.
const EPOCH_US: u64 = 2_000;
/// Number of epochs after which a guest is stopped. The first is partly over when a call begins.
pub const EPOCHS_PER_CALL: u64 = WASM_CALL_US_MAX / EPOCH_US;

/// Number of epochs after which the making of an instance is given up, which is rare and copies all of its memory.
pub const EPOCHS_PER_INSTANCE: u64 = 10 * EPOCHS_PER_CALL;

const _: () = assert!(EPOCHS_PER_CALL >= 2);

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
