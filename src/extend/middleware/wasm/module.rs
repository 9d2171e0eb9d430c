//! Modules: compiled once, with a pool of instances.

use std::sync::Arc;

use parking_lot::Mutex;
use wasmtime::component::{Component, Linker};
use wasmtime::{Config, Engine};

use super::super::produced::shortened_reason;
use super::super::rule::{GivenDraft, MiddlewareRule, RecordReader, RuleFailure, Ruling};
use super::guest::{self, WasmGuest, WasmGuests};
use super::stubs;
use super::ticker::EpochTicker;

/// Largest stack of a guest, in bytes: a quarter of that of the threads that call it.
const STACK_BYTES_MAX: usize = 512 * 1024;

/// The engine that compiles and runs modules, with the clock that stops them.
pub struct WasmEngine {
    engine: Engine,
    _ticker: EpochTicker,
}

impl WasmEngine {
    /// Makes the engine. The error says why it cannot run here.
    pub fn new() -> Result<Arc<WasmEngine>, String> {
        let mut config = Config::new();
        config.epoch_interruption(true).max_wasm_stack(STACK_BYTES_MAX);
        // Users are told why a guest was stopped, not in which of its functions.
        config.wasm_backtrace_max_frames(None);
        let engine = Engine::new(&config).map_err(|error| error.to_string())?;
        let ticker = EpochTicker::start(engine.weak()).map_err(|error| error.to_string())?;
        Ok(Arc::new(WasmEngine { engine, _ticker: ticker }))
    }

    /// Compiles a module, and makes its first instance. Takes up to seconds. `idle_max` instances are kept when
    /// nobody uses them. The error says what is wrong with the module.
    pub fn compile(self: &Arc<Self>, bytes: &[u8], idle_max: usize) -> Result<WasmModule, String> {
        let told = |error: wasmtime::Error| shortened_reason(&format!("{error:#}"));
        let component = Component::from_binary(&self.engine, bytes).map_err(told)?;
        let mut linker = Linker::new(&self.engine);
        guest::add_node(&mut linker).map_err(told)?;
        stubs::add(&mut linker, &component).map_err(told)?;
        let guests = WasmGuests::new(linker.instantiate_pre(&component).map_err(told)?).map_err(told)?;
        let first = guests.instantiate().map_err(|failure| failure.0)?;
        Ok(WasmModule { guests, idle: Mutex::new(vec![first]), idle_max, _engine: self.clone() })
    }
}

/// A module that decides about drafts.
pub struct WasmModule {
    guests: WasmGuests,
    /// Instances that nobody uses. There are never more instances than threads that publish.
    idle: Mutex<Vec<WasmGuest>>,
    idle_max: usize,
    _engine: Arc<WasmEngine>,
}

#[cfg(test)]
impl WasmModule {
    /// Returns how many instances were made since the module was compiled, and how many of them nobody uses.
    pub fn instances(&self) -> (usize, usize) {
        (self.guests.made(), self.idle.lock().len())
    }
}

impl MiddlewareRule for WasmModule {
    fn decide(&self, given: &GivenDraft<'_>, reader: &Arc<dyn RecordReader>) -> Result<Ruling, RuleFailure> {
        let idle = self.idle.lock().pop();
        let mut guest = match idle {
            Some(guest) => guest,
            None => self.guests.instantiate()?,
        };
        let verdict = guest.decide(given, reader)?;
        if guest.is_reusable() {
            let mut idle = self.idle.lock();
            if idle.len() < self.idle_max {
                idle.push(guest);
            }
        }
        Ok(verdict)
    }
}
