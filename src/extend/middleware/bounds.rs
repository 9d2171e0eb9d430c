//! The bounds of middlewares.

use crate::limits::RECORD_BYTES_CEILING;

/// Most middlewares that a cluster works with. Every record is compared with all their patterns.
pub const MIDDLEWARES_MAX: usize = 100;
/// Largest module in WebAssembly, in bytes.
pub const MODULE_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Largest part of a module that is one record, in bytes. Parts are pulled over TCP as large records of clients are,
/// and no bound of the data plane is greater for them.
pub const MODULE_PART_BYTES: usize = 256 * 1024;
/// Most parts of a module.
pub const MODULE_PARTS_MAX: usize = MODULE_BYTES_MAX / MODULE_PART_BYTES;
/// Most processor time that a guest may take for one record, in microseconds.
pub const WASM_CALL_US_MAX: u64 = 10_000;
/// Most memory of one instance of a module, in bytes.
#[cfg(feature = "wasm")]
pub const WASM_MEMORY_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Most records that may be made of one.
pub const MANY_RECORDS_MAX: usize = 100;
/// Most bytes of what a guest answers for one record.
pub const MANY_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Longest reason of a refusal or failure that is told, in bytes.
pub const TOLD_REASON_BYTES_MAX: usize = 500;
/// Failures one after the other at one node after which a middleware is switched off everywhere.
pub const FAILURES_IN_A_ROW_MAX: u32 = 10;
/// Most time that middlewares may take in one turn of an event loop, in microseconds. Further records of that turn are
/// refused (`overloaded`), so that other clients are served in the meantime.
pub const MIDDLEWARES_US_PER_TURN: u64 = 250_000;

const _: () = assert!(MODULE_PART_BYTES < RECORD_BYTES_CEILING);
const _: () = assert!(MODULE_PARTS_MAX * MODULE_PART_BYTES == MODULE_BYTES_MAX);
const _: () = assert!(RECORD_BYTES_CEILING < MANY_BYTES_MAX);
// Ten calls that run into their bound, after which the middleware is switched off, fit into one turn.
const _: () = assert!(FAILURES_IN_A_ROW_MAX as u64 * WASM_CALL_US_MAX < MIDDLEWARES_US_PER_TURN);
