//! Middlewares in WebAssembly: components of the world `middleware` in `wit/anode.wit`.
//!
//! A module is compiled once when its definition comes, and its instances are kept in a pool, since a fresh one costs
//! fifty times what a call costs. A call is bounded in time by epochs ([`ticker`]), in memory and tables by a limiter
//! ([`limiter`]), and in the size of its answer. A guest reaches nothing but the interface `node`: what else it imports
//! is answered by [`stubs`] if it is harmless, such as the seed of hash tables, and is an error when it is called
//! otherwise, such as files, sockets and clocks.

mod allowance;
mod guest;
mod limiter;
mod module;
mod stubs;
#[cfg(test)]
mod tests;
mod ticker;

pub use module::WasmEngine;
