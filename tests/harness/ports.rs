//! Ports that a node can come back to.
//!
//! A restart needs its old port, so it must not be one that the kernel may hand to a client
//! meanwhile: these lie below the ephemeral range, and every call gives another.

use std::net::{TcpListener, UdpSocket};
use std::sync::atomic::{AtomicU32, Ordering};

const FIRST: u32 = 12_000;
const COUNT: u32 = 20_000;

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A port of `host` that is free for TCP and UDP and that no other test of this process gets.
pub fn free_on(host: &str) -> u16 {
    let base = std::process::id().wrapping_mul(211);
    for _ in 0..COUNT {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = (FIRST + base.wrapping_add(step) % COUNT) as u16;
        if TcpListener::bind((host, port)).is_ok() && UdpSocket::bind((host, port)).is_ok() {
            return port;
        }
    }
    panic!("no free port on {host}");
}

/// A free port of 127.0.0.1.
pub fn free() -> u16 {
    free_on("127.0.0.1")
}

/// Whether IPv6 works here at all.
pub fn has_ipv6() -> bool {
    TcpListener::bind(("::1", 0)).is_ok()
}
