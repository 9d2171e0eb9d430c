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
    let engine = linker.engine().clone();
    let component_type = component.component_type();
    for (name, _) in component_type.imports(&engine) {
        // The version behind the name is that of the guest's library. All of them mean the same by these functions.
        match name.split_once('@').map_or(name, |(name, _)| name) {
            "wasi:random/insecure-seed" => {
                linker.instance(name)?.func_wrap("insecure-seed", |_, ()| Ok((SEED,)))?;
            }
            "wasi:random/random" => add_random(linker, name, ["get-random-bytes", "get-random-u64"])?,
            "wasi:random/insecure" => {
                add_random(linker, name, ["get-insecure-random-bytes", "get-insecure-random-u64"])?;
            }
            "wasi:cli/environment" => add_environment(linker, name)?,
            _ => {}
        }
    }
    linker.define_unknown_imports_as_traps(component)
}

/// Adds functions by which a guest asks for random bytes and for a random number. It always gets the same.
fn add_random(linker: &mut Linker<GuestState>, name: &str, functions: [&str; 2]) -> wasmtime::Result<()> {
    let [bytes, number] = functions;
    let mut instance = linker.instance(name)?;
    instance.func_wrap(bytes, |_, (count,): (u64,)| {
        let count = usize::try_from(count.min(RANDOM_BYTES_MAX)).unwrap_or_default();
        Ok((SEED.0.to_le_bytes().into_iter().cycle().take(count).collect::<Vec<u8>>(),))
    })?;
    instance.func_wrap(number, |_, ()| Ok((SEED.0,)))
}

/// Adds an environment in which nothing is set.
fn add_environment(linker: &mut Linker<GuestState>, name: &str) -> wasmtime::Result<()> {
    let mut instance = linker.instance(name)?;
    instance.func_wrap("get-environment", |_, ()| Ok((Vec::<(String, String)>::new(),)))?;
    instance.func_wrap("get-arguments", |_, ()| Ok((Vec::<String>::new(),)))?;
    instance.func_wrap("initial-cwd", |_, ()| Ok((None::<String>,)))
}
