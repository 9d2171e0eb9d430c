//! Publishes live figures of this machine at one node, over a WebSocket like any other client.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use serde_json::json;

use super::figures::Figures;
use crate::cli::CliError;
use crate::cli::client::{NodeUrl, Socket, connect};
use crate::server::clock;

/// Interval at which figures are read and published, in microseconds.
const EVERY_US: u64 = 200_000;

/// How long a look for something from the node may take.
const LOOK_MAX: Duration = Duration::from_millis(1);

/// Number of sources that count: each has the number of its record as data, so that a subscriber can tell whether any is
/// missing or came twice.
const COUNTERS: u64 = 20;
/// Beginning of the names of the sources that count.
pub const COUNTER_PREFIX: &str = "demo/count/";

/// Publishes until `ending` is set. If the connection is lost, a new one is made.
pub fn run(endpoint: &NodeUrl, ending: &AtomicBool) {
    let mut figures = Figures::default();
    let mut number = 0;
    while !ending.load(Relaxed) {
        if let Err(error) = publish(endpoint, &mut figures, &mut number, ending) {
            tracing::warn!(%error, "the feed was interrupted");
            clock::sleep(EVERY_US);
        }
    }
}

fn publish(
    endpoint: &NodeUrl,
    figures: &mut Figures,
    number: &mut u64,
    ending: &AtomicBool,
) -> Result<(), CliError> {
    let lost = |error: tungstenite::Error| CliError::Failed(error.to_string());
    let mut socket: Socket = connect(endpoint, "/publish")?;
    // The node answers only refused publishes and sends pings, so it suffices to look for something after every publish.
    socket.get_ref().set_read_timeout(Some(LOOK_MAX))?;
    let mut last_us = clock::mono_us();
    while !ending.load(Relaxed) {
        let now = clock::now();
        *number += 1;
        let counters =
            (1..=COUNTERS).map(|counter| (format!("{COUNTER_PREFIX}{counter:02}"), json!(*number)));
        let batch: Vec<serde_json::Value> = figures
            .read(now.wall_us, now.mono_us - last_us)
            .into_iter()
            .chain(counters)
            .map(|(source, data)| json!({ "source": source, "data": data }))
            .collect();
        last_us = now.mono_us;
        socket.send(serde_json::Value::Array(batch).to_string().into()).map_err(lost)?;
        loop {
            match socket.read() {
                Ok(_) => {}
                Err(tungstenite::Error::Io(error)) if error.kind() == std::io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(lost(error)),
            }
        }
        clock::sleep(EVERY_US);
    }
    // The feed ends in any case, so an error makes no difference.
    let _ = socket.close(None);
    Ok(())
}
