//! One instance of a module, and what it may ask of its node.

use std::sync::Arc;

use wasmtime::component::{HasSelf, Linker};
use wasmtime::{Store, Trap, UpdateDeadline};

use self::bindings::anode::middleware::{node, types};
use self::bindings::{Middleware, MiddlewarePre};
use super::super::bounds::{MANY_BYTES_MAX, MANY_RECORDS_MAX, WASM_CALL_US_MAX, WASM_MEMORY_BYTES_MAX};
use super::super::produced::{checked_draft, shortened_reason};
use super::super::rule::{GivenDraft, RecordReader, RuleFailure, Ruling};
use super::allowance::Allowance;
use super::limiter::InstanceLimiter;
use crate::ingest::RevisedDraft;
use crate::protocol::draft::DraftPayload;
use crate::record::{Payload, Record};

/// The types and functions of `wit/anode.wit`, as the engine makes them.
mod bindings {
    #![allow(missing_docs, clippy::all)]
    wasmtime::component::bindgen!({ path: "wit", world: "middleware" });
}

/// An instance that took more than this part of its memory during a call is not used again, so that a guest that
/// forgets to free a little is not stopped in the middle of a call later.
const MEMORY_PART_KEPT: usize = 2;

/// The state of the node's side of an instance.
#[derive(Default)]
pub struct GuestState {
    limiter: InstanceLimiter,
    allowance: Allowance,
    now_us: u64,
    token: String,
    /// The records that the guest may look up during a call.
    reader: Option<Arc<dyn RecordReader>>,
}

impl types::Host for GuestState {}

impl node::Host for GuestState {
    fn latest(&mut self, source: String) -> Option<types::DataRecord> {
        let record = self.reader.as_ref()?.latest(&source)?;
        told_record(&record)
    }

    fn now(&mut self) -> u64 {
        self.now_us
    }

    fn token(&mut self) -> String {
        self.token.clone()
    }
}

/// Adds the interface `node` to a linker.
pub fn add_node(linker: &mut Linker<GuestState>) -> wasmtime::Result<()> {
    Middleware::add_to_linker::<_, HasSelf<_>>(linker, |state| state)
}

/// A module that is ready to be instantiated.
pub struct WasmGuests {
    module: MiddlewarePre<GuestState>,
    /// Number of instances that were made.
    #[cfg(test)]
    made: std::sync::atomic::AtomicUsize,
}

impl WasmGuests {
    /// Checks that the module exports what the world demands.
    pub fn new(instance: wasmtime::component::InstancePre<GuestState>) -> wasmtime::Result<WasmGuests> {
        let module = MiddlewarePre::new(instance)?;
        Ok(WasmGuests {
            module,
            #[cfg(test)]
            made: std::sync::atomic::AtomicUsize::new(0),
        })
    }

    /// Returns how many instances were made, of which some may be gone.
    #[cfg(test)]
    pub fn made(&self) -> usize {
        self.made.load(std::sync::atomic::Ordering::SeqCst)
    }

    /// Makes an instance.
    pub fn instantiate(&self) -> Result<WasmGuest, RuleFailure> {
        #[cfg(test)]
        self.made.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        let mut store = Store::new(self.module.engine(), GuestState::default());
        store.limiter(|state| &mut state.limiter);
        store.set_epoch_deadline(1);
        store.epoch_deadline_callback(|mut store| {
            let is_used_up = store.data_mut().allowance.is_used_up();
            Ok(if is_used_up { UpdateDeadline::Interrupt } else { UpdateDeadline::Continue(1) })
        });
        store.set_hostcall_fuel(MANY_BYTES_MAX);
        let instance = self.module.instantiate(&mut store).map_err(|error| failure(&error))?;
        let memory_bytes = store.data().limiter.memory_bytes();
        Ok(WasmGuest { store, instance, memory_bytes })
    }
}

/// An instance of a module with its memory, which is called for one record at a time.
pub struct WasmGuest {
    store: Store<GuestState>,
    instance: Middleware,
    /// Bytes of memory that the instance had when it was new.
    memory_bytes: usize,
}

impl WasmGuest {
    /// Lets the guest decide about a draft. After a failure the instance must not be used again.
    pub fn decide(
        &mut self,
        given: &GivenDraft<'_>,
        reader: &Arc<dyn RecordReader>,
    ) -> Result<Ruling, RuleFailure> {
        let draft = given.draft;
        let Some(payload) = given_payload(&draft.payload) else { return Ok(Ruling::Pass) };
        let input = types::DataRecord {
            source: draft.source.to_string(),
            ts: draft.ts,
            payload,
            ttl_ms: draft.ttl_ms,
        };
        let state = self.store.data_mut();
        state.now_us = given.now_us;
        state.token.clear();
        state.token.push_str(given.token);
        state.reader = Some(reader.clone());
        state.allowance = Allowance::for_call();
        self.store.set_epoch_deadline(1);
        let verdict = self.instance.call_handle(&mut self.store, &input);
        self.store.data_mut().reader = None;
        match verdict.map_err(|error| failure(&error))? {
            types::Verdict::Pass => Ok(Ruling::Pass),
            types::Verdict::Drop => Ok(Ruling::Drop),
            types::Verdict::Reject(reason) => Ok(Ruling::Reject(shortened_reason(&reason))),
            types::Verdict::Replace(record) => Ok(Ruling::Records(vec![taken(record)?])),
            types::Verdict::Many(records) if records.len() > MANY_RECORDS_MAX => Err(RuleFailure(format!(
                "it made {} records of one; at most {MANY_RECORDS_MAX}",
                records.len()
            ))),
            types::Verdict::Many(records) => {
                Ok(Ruling::Records(records.into_iter().map(taken).collect::<Result<_, _>>()?))
            }
        }
    }

    /// Returns whether the instance may be used for further calls.
    pub fn is_reusable(&self) -> bool {
        let held = self.store.data().limiter.memory_bytes();
        held == self.memory_bytes || held <= WASM_MEMORY_BYTES_MAX / MEMORY_PART_KEPT
    }
}

/// The data of a draft as a guest gets it; `None` for a deletion.
fn given_payload(payload: &DraftPayload<'_>) -> Option<types::Payload> {
    match payload {
        DraftPayload::Json(text) => Some(types::Payload::Json(String::from_utf8_lossy(text).into_owned())),
        DraftPayload::Binary(bytes) => Some(types::Payload::Binary(bytes.to_vec())),
        DraftPayload::Deleted => None,
    }
}

/// A record that a guest has looked up.
fn told_record(record: &Record) -> Option<types::DataRecord> {
    let payload = match &record.payload {
        Payload::Json(text) => types::Payload::Json(String::from_utf8_lossy(text).into_owned()),
        Payload::Binary(bytes) => types::Payload::Binary(bytes.to_vec()),
        Payload::Deleted => return None,
    };
    let (source, ts) = (record.source.as_str().to_owned(), Some(record.stamp.ts));
    Some(types::DataRecord { source, ts, payload, ttl_ms: record.ttl_ms })
}

/// A record that a guest has made, once it is known to be one.
fn taken(record: types::DataRecord) -> Result<RevisedDraft, RuleFailure> {
    let types::DataRecord { source, ts, payload, ttl_ms } = record;
    let payload = match payload {
        types::Payload::Json(text) => Payload::Json(text.into_bytes().into()),
        types::Payload::Binary(bytes) => Payload::Binary(bytes.into()),
    };
    checked_draft(RevisedDraft { source: source.into(), ts, payload, ttl_ms })
}

/// Says in plain words why a guest was stopped.
pub fn failure(error: &wasmtime::Error) -> RuleFailure {
    let told = match error.downcast_ref::<Trap>() {
        Some(Trap::Interrupt) => {
            format!("it took more than {} ms of processor time", WASM_CALL_US_MAX / 1_000)
        }
        Some(Trap::UnreachableCodeReached) => {
            format!("it panicked, or needed more than {} MiB of memory", WASM_MEMORY_BYTES_MAX >> 20)
        }
        _ => match error.root_cause().to_string() {
            // The standard libraries write there when a guest panics.
            told if told.contains("wasi:cli/stderr") => "it panicked, or wrote to its standard error".into(),
            told => told,
        },
    };
    RuleFailure(shortened_reason(&told))
}
