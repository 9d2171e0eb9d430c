//! What guests import beside the interface `node`, because the libraries of their languages do.
//!
//! A guest in Rust seeds its hash tables and asks for environment variables; these get answers that are the same for
//! every call. Every other import of a component exists, so that it can be instantiated, and stops the guest with an
//! error when it is called: files, sockets, clocks, threads, and standard output.

use wasmtime::component::{Component, Linker};

use super::guest::GuestState;

/// Number of the seed that every guest is given. WasmGuests must not depend on chance: the same record has the same result.
const SEED: (u64, u64) = (0x9e37_79b9_7f4a_7c15, 0xbf58_476d_1ce4_e5b9);
/// Most random bytes that are given at once.
const RANDOM_BYTES_MAX: u64 = 64 * 1024;

/// Adds to `linker` what `component` imports.
pub fn add(linker: &mut Linker<GuestState>, component: &Component) -> wasmtime::Result<()> {
    let mut insecure = linker.instance("wasi:random/insecure-seed@0.2.0")?;
    insecure.func_wrap("insecure-seed", |_, ()| Ok((SEED,)))?;
    for name in ["wasi:random/random@0.2.0", "wasi:random/insecure@0.2.0"] {
        let mut random = linker.instance(name)?;
        let is_secure = name.starts_with("wasi:random/random");
        let (bytes, number) = match is_secure {
            true => ("get-random-bytes", "get-random-u64"),
            false => ("get-insecure-random-bytes", "get-insecure-random-u64"),
        };
        random.func_wrap(bytes, |_, (count,): (u64,)| {
            let count = count.min(RANDOM_BYTES_MAX) as usize;
            Ok((SEED.0.to_le_bytes().into_iter().cycle().take(count).collect::<Vec<u8>>(),))
        })?;
        random.func_wrap(number, |_, ()| Ok((SEED.0,)))?;
    }
    let mut environment = linker.instance("wasi:cli/environment@0.2.0")?;
    environment.func_wrap("get-environment", |_, ()| Ok((Vec::<(String, String)>::new(),)))?;
    environment.func_wrap("get-arguments", |_, ()| Ok((Vec::<String>::new(),)))?;
    environment.func_wrap("initial-cwd", |_, ()| Ok((None::<String>,)))?;
    linker.define_unknown_imports_as_traps(component)
}
