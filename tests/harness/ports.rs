//! Ports that a restarted node can use again.
//!
//! A restarted node needs its old port, so the kernel must not give it to a client in the meantime. The ports
//! here are below the ephemeral range, and every call returns another one.

use std::net::{TcpListener, UdpSocket};
use std::sync::atomic::{AtomicU32, Ordering};

const FIRST: u32 = 12_000;
const COUNT: u32 = 20_000;

static NEXT: AtomicU32 = AtomicU32::new(0);

/// Returns a port that is free for TCP and UDP on `host` and that no other call in this process returns.
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

/// Returns a free port of 127.0.0.1.
pub fn free() -> u16 {
    free_on("127.0.0.1")
}

/// Returns whether IPv6 works on this machine.
pub fn has_ipv6() -> bool {
    TcpListener::bind(("::1", 0)).is_ok()
}
