//! Many subscribers that do nothing: what does each cost the node?

use std::net::TcpStream;

use indicatif::{ProgressBar, ProgressStyle};
use tungstenite::WebSocket;

use crate::{Outcome, client};

/// Connections that are held open.
pub struct Idle {
    sockets: Vec<WebSocket<TcpStream>>,
}

impl Idle {
    /// Opens `count` subscribers of sources that nobody publishes.
    pub fn open(http: &str, count: usize) -> Outcome<Idle> {
        crate::raise_open_files();
        let style = ProgressStyle::with_template("{bar:40} {pos}/{len} connections")?;
        let progress = ProgressBar::new(count as u64).with_style(style);
        let mut sockets = Vec::with_capacity(count);
        for _ in 0..count {
            let mut socket = client::connect(http, "/subscribe?source=idle/**&snapshot=false")?;
            while !socket.read()?.into_text()?.contains("\"eos\"") {}
            sockets.push(socket);
            progress.inc(1);
        }
        progress.finish();
        Ok(Idle { sockets })
    }

    /// How many are open.
    pub fn len(&self) -> usize {
        self.sockets.len()
    }

    /// Whether none is open.
    pub fn is_empty(&self) -> bool {
        self.sockets.is_empty()
    }
}

/// Resident bytes of a process.
pub fn resident_bytes(pid: u32) -> Outcome<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line
        .and_then(|line| line.trim().strip_suffix("kB"))
        .map(str::trim)
        .and_then(|kib| kib.parse::<u64>().ok());
    Ok(kib.ok_or_else(|| format!("no VmRSS of process {pid}"))? * 1024)
}
