//! The driver: one thread publishes at a constant rate at random nodes, one receives from all of them.
//!
//! Times count from when a record was due, so a node that delays its publisher cannot hide it. The
//! receiver is one poll over all subscriptions; its processor time is reported beside the figures.

use std::io::ErrorKind;
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::thread;
use std::time::{Duration, Instant};

use anode::cluster::random::Random;
use anode_loadgen::{Outcome, client};
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use tungstenite::{Message, WebSocket};

use crate::machine::cpu_s;

/// The number, rate and size of the records that are published.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    pub records: u32,
    pub rate_per_s: u32,
    /// Size of each record's data in bytes, at least [`PAYLOAD_BYTES_MIN`].
    pub payload_bytes: usize,
    /// Seed by which the nodes are drawn that are published at.
    pub seed: u64,
}

impl Load {
    fn due(&self, number: usize) -> Duration {
        Duration::from_nanos(number as u64 * 1_000_000_000 / u64::from(self.rate_per_s.max(1)))
    }
}

/// Size of the smallest data in bytes: `[4294967295,""]`.
pub const PAYLOAD_BYTES_MIN: usize = 15;
/// Number of sources, which are published to in turn.
const SOURCES: usize = 100;
/// Deliveries later than this after the last record was due count as missing.
const PATIENCE: Duration = Duration::from_secs(10);
/// Time from the call to the first record.
const LEAD: Duration = Duration::from_millis(200);

type Socket = WebSocket<TcpStream>;

/// Connections to all nodes: at each, one publishes and one receives.
pub struct Driver {
    publishers: Vec<Socket>,
    receivers: Vec<Socket>,
    poll: Poll,
}

/// The deliveries that the subscribers received.
pub struct Seen {
    /// The deliveries of each record, in nanoseconds from when it was due.
    pub records: Vec<Record>,
    /// How late each record was published, in nanoseconds.
    pub late_ns: Vec<u64>,
    /// Processor time that the driver used, in seconds.
    pub cpu_s: f64,
}

/// The deliveries of one record.
#[derive(Clone, Debug, Default)]
pub struct Record {
    /// Index of the node at which the record was published.
    pub origin: usize,
    /// Time of the delivery at each node, in nanoseconds; `None`: the record never arrived there.
    pub delivered_ns: Vec<Option<u64>>,
}

impl Record {
    /// Returns the deliveries at the other nodes.
    pub fn elsewhere_ns(&self) -> impl Iterator<Item = u64> {
        let elsewhere = self.delivered_ns.iter().enumerate().filter(|(node, _)| *node != self.origin);
        elsewhere.filter_map(|(_, took_ns)| *took_ns)
    }
}

impl Driver {
    /// Connects to all nodes (`host:port`) and subscribes.
    pub fn connect<'a>(nodes: impl Iterator<Item = &'a str>) -> Outcome<Driver> {
        let poll = Poll::new()?;
        let (mut publishers, mut receivers) = (Vec::new(), Vec::new());
        for (index, http) in nodes.enumerate() {
            let mut receiver = client::connect(http, "/subscribe?source=bench/**&mode=all&snapshot=false")?;
            while !receiver.read()?.into_text()?.contains("\"eos\"") {}
            receiver.get_mut().set_nonblocking(true)?;
            let fd = receiver.get_ref().as_raw_fd();
            poll.registry().register(&mut SourceFd(&fd), Token(index), Interest::READABLE)?;
            receivers.push(receiver);
            publishers.push(client::connect(http, "/publish")?);
        }
        Ok(Driver { publishers, receivers, poll })
    }

    /// Publishes all records, and waits until all have arrived or the time is up.
    pub fn run(&mut self, load: Load) -> Outcome<Seen> {
        let mut random = Random::new(load.seed);
        let nodes = self.receivers.len();
        let origins: Vec<usize> = (0..load.records).map(|_| random.index(nodes)).collect();
        let start = Instant::now() + LEAD;
        let began_s = cpu_s(std::process::id());
        let Driver { publishers, receivers, poll } = self;
        thread::scope(|scope| {
            let publisher = scope.spawn(|| publish(publishers, &origins, load, start));
            let records = receive(receivers, poll, &origins, load, start)?;
            let late_ns = publisher.join().map_err(|_| "the publisher panicked")??;
            Ok(Seen { records, late_ns, cpu_s: cpu_s(std::process::id()) - began_s })
        })
    }

    /// Checks that no record was refused: a refusal would have been answered.
    pub fn check_refusals(&mut self) -> Outcome<()> {
        for socket in &mut self.publishers {
            socket.get_mut().set_nonblocking(true)?;
            if let Ok(Message::Text(text)) = socket.read() {
                return Err(format!("a node refused a record: {text}").into());
            }
            socket.get_mut().set_nonblocking(false)?;
        }
        Ok(())
    }
}

fn publish(sockets: &mut [Socket], origins: &[usize], load: Load, start: Instant) -> Outcome<Vec<u64>> {
    let mut late_ns = Vec::with_capacity(origins.len());
    for (number, &origin) in origins.iter().enumerate() {
        let data = data(number, load.payload_bytes);
        let text = format!(r#"{{"source":"bench/{}","data":{data}}}"#, number % SOURCES);
        let due = start + load.due(number);
        thread::sleep(due.saturating_duration_since(Instant::now()));
        late_ns.push(Instant::now().saturating_duration_since(due).as_nanos() as u64);
        sockets[origin].send(Message::text(text))?;
    }
    Ok(late_ns)
}

/// Returns JSON of `bytes` bytes that begins with the record's number.
fn data(number: usize, bytes: usize) -> String {
    let number = number.to_string();
    let padding = bytes.saturating_sub(number.len() + r#"[,""]"#.len());
    format!(r#"[{number},"{}"]"#, "x".repeat(padding))
}

fn receive(
    sockets: &mut [Socket],
    poll: &mut Poll,
    origins: &[usize],
    load: Load,
    start: Instant,
) -> Outcome<Vec<Record>> {
    let empty = |&origin: &usize| Record { origin, delivered_ns: vec![None; sockets.len()] };
    let mut records: Vec<Record> = origins.iter().map(empty).collect();
    let mut left = records.len() * sockets.len();
    let give_up = start + load.due(records.len()) + PATIENCE;
    let mut events = Events::with_capacity(1_024);
    while left > 0 && Instant::now() < give_up {
        match poll.poll(&mut events, Some(Duration::from_millis(100))) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            result => result?,
        }
        for event in &events {
            let Token(node) = event.token();
            while let Some(text) = read(&mut sockets[node])? {
                let now = Instant::now();
                let Some(number) = number(&text) else { continue };
                let Some(record) = records.get_mut(number) else { continue };
                let due = start + load.due(number);
                let took_ns = now.saturating_duration_since(due).as_nanos() as u64;
                if record.delivered_ns[node].replace(took_ns).is_some() {
                    return Err(format!("node {node} delivered record {number} twice").into());
                }
                left -= 1;
            }
        }
    }
    Ok(records)
}

/// Returns the next text frame, if one has arrived.
fn read(socket: &mut Socket) -> Outcome<Option<String>> {
    loop {
        match socket.read() {
            Ok(Message::Text(text)) => return Ok(Some(text.as_str().to_owned())),
            Ok(_) => {}
            Err(tungstenite::Error::Io(error)) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(format!("a subscription ended: {error}").into()),
        }
    }
}

/// Returns the record's number, from `"data":[n,…`.
fn number(text: &str) -> Option<usize> {
    let (_, data) = text.split_once("\"data\":[")?;
    data.split(',').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_has_the_bytes_asked_for_and_the_number_comes_back() {
        for (record, bytes) in [(0, PAYLOAD_BYTES_MIN), (7, 128), (123_456, 128), (u32::MAX as usize, 15)] {
            let data = data(record, bytes);
            assert_eq!(data.len(), bytes, "{data}");
            assert_eq!(number(&format!(r#"{{"source":"a","data":{data}}}"#)), Some(record));
        }
        assert_eq!(number(r#"{"resume":"abc"}"#), None);
    }
}
