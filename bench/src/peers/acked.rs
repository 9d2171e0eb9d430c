//! Measures messages that are answered one at a time: aNode's `accepted` against a request and its reply
//! through NATS, both with the same blocking client over WebSocket, on the core of the load.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use anode_loadgen::Outcome;
use hdrhistogram::Histogram;
use tungstenite::client::client_with_config;
use tungstenite::protocol::WebSocketConfig;
use tungstenite::{Message, WebSocket};

use super::scenario::PAYLOAD_BYTES;

/// Number of messages at the beginning that do not count.
const WARMUP: usize = 500;
/// Longest time that an answer may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Publishes `count` messages at a node. Returns the times until each was answered, in nanoseconds.
pub fn anode(address: &str, count: usize) -> Outcome<Histogram<u64>> {
    let mut socket = open(address, "/publish?ack=accepted")?;
    read_until(&mut socket, "\"connected\"")?;
    let data = "x".repeat(PAYLOAD_BYTES - 2);
    times(count, |number| {
        let text = format!(r#"{{"id":{number},"source":"bench/acked","data":"{data}"}}"#);
        socket.send(Message::text(text))?;
        read_until(&mut socket, "\"result\"")
    })
}

/// Sends `count` requests through NATS, which another client answers. Returns the times until each was.
pub fn nats(address: &str, count: usize) -> Outcome<Histogram<u64>> {
    let mut asking = nats_client(address, "bench.inbox")?;
    let mut answering = nats_client(address, "bench.request")?;
    let answers = std::thread::spawn(move || -> Outcome<()> {
        for _ in 0..WARMUP + count {
            read_until(&mut answering, "MSG bench.request")?;
            answering.send(Message::binary("PUB bench.inbox 2\r\nok\r\n"))?;
        }
        Ok(())
    });
    let data = "x".repeat(PAYLOAD_BYTES);
    let seen = times(count, |_| {
        let text = format!("PUB bench.request bench.inbox {}\r\n{data}\r\n", data.len());
        asking.send(Message::binary(text))?;
        read_until(&mut asking, "MSG bench.inbox")
    })?;
    answers.join().map_err(|_| "the answering client panicked")??;
    Ok(seen)
}

fn nats_client(address: &str, subject: &str) -> Outcome<WebSocket<TcpStream>> {
    let mut socket = open(address, "/")?;
    let hello = format!("CONNECT {{\"verbose\":false}}\r\nSUB {subject} 1\r\nPING\r\n");
    socket.send(Message::binary(hello))?;
    read_until(&mut socket, "PONG")?;
    Ok(socket)
}

fn open(address: &str, path: &str) -> Outcome<WebSocket<TcpStream>> {
    let stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let config = WebSocketConfig::default().read_buffer_size(16 * 1024).write_buffer_size(0);
    let opened = client_with_config(format!("ws://{address}{path}"), stream, Some(config));
    Ok(opened.map_err(|error| format!("handshake with {address}: {error}"))?.0)
}

/// Reads until a message contains this text.
fn read_until(socket: &mut WebSocket<TcpStream>, wanted: &str) -> Outcome<()> {
    let holds = |bytes: &[u8]| bytes.windows(wanted.len()).any(|window| window == wanted.as_bytes());
    loop {
        let message = socket.read()?;
        if holds(&message.into_data()) {
            return Ok(());
        }
    }
}

fn times(count: usize, mut act: impl FnMut(usize) -> Outcome<()>) -> Outcome<Histogram<u64>> {
    let mut seen = Histogram::new(3)?;
    for number in 0..WARMUP + count {
        let begun = Instant::now();
        act(number)?;
        if number >= WARMUP {
            seen.record(begun.elapsed().as_nanos() as u64)?;
        }
    }
    Ok(seen)
}
