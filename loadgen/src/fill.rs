//! Publishes many sources once, in batches of which only a few are unanswered at a time.

use indicatif::{ProgressBar, ProgressStyle};
use tungstenite::{Message, WebSocket};

use crate::access::AccessArgs;
use crate::client::ServerStream;
use crate::{Outcome, client};

/// Most batches that may be unanswered.
const WINDOW: u64 = 8;

/// Publishes `count` sources beneath `prefix` with `ack=stored`, `batch` records per frame, at `to`: `host:port`, with TLS
/// `wss://host:port`. `access` names the authorities that are trusted then, and the token that is brought.
pub fn run(
    to: &str,
    access: &AccessArgs,
    prefix: &str,
    count: u64,
    batch: u64,
    padding_bytes: usize,
) -> Outcome<()> {
    let mut socket = client::connect_with(to, access, "/publish?ack=stored")?;
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} records, {per_sec}, {eta} left")?;
    let progress = ProgressBar::new(count).with_style(style);
    let padding = "x".repeat(padding_bytes);
    let batches = count.div_ceil(batch);
    let mut answered = 0;
    for at in 0..batches {
        while at - answered >= WINDOW {
            answered += read_answer(&mut socket)?;
        }
        let last = (at + 1) * batch;
        let items: Vec<String> = (at * batch..last.min(count))
            .map(|n| {
                // The last item has an id: the batch is answered when it, and so all, are stored.
                let id = if n + 1 == last.min(count) { "\"id\":1," } else { "" };
                format!(r#"{{{id}"source":"{prefix}/{}/{n}","data":[{n},"{padding}"]}}"#, n % 1_000)
            })
            .collect();
        progress.inc(items.len() as u64);
        socket.send(Message::text(format!("[{}]", items.join(","))))?;
    }
    while answered < batches {
        answered += read_answer(&mut socket)?;
    }
    progress.finish();
    Ok(())
}

/// Reads one frame, and returns the number of batches that it answers, 0 or 1. Fails if a record was refused.
fn read_answer(socket: &mut WebSocket<ServerStream>) -> Outcome<u64> {
    match socket.read()? {
        Message::Text(text) if text.contains("\"error\"") => Err(format!("the node refused: {text}").into()),
        Message::Text(_) => Ok(1),
        _ => Ok(0),
    }
}
