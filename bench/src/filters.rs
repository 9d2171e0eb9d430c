//! What filters cost: the processor time that a node takes for a record with thousands of subscribers of its source, without
//! a filter, and with one that keeps one record in ten.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anode_loadgen::Outcome;
use clap::Args;
use mio::{Events, Interest, Poll, Token};

use crate::folder::Folder;
use crate::machine::{Machine, cpu_us};
use crate::median::median;
use crate::node::Node;
use crate::subject::Subject;

/// Options of this command.
#[derive(Args)]
pub struct Arguments {
    #[command(flatten)]
    subject: Subject,
    /// Subscribers, which all ask for all records with the same filter
    #[arg(long, default_value_t = 10_000)]
    subscribers: usize,
    /// Records that are published, over ten sources in turn
    #[arg(long, default_value_t = 200)]
    records: u64,
    /// Records of a frame that is published
    #[arg(long, default_value_t = 1)]
    batch: u64,
}

/// How long a node may take for anything that should take seconds.
const DEADLINE: Duration = Duration::from_secs(60);
/// Number of sources. Each has one value throughout, its number, so that none leaves a filter.
const SOURCES: u64 = 10;
/// Bytes that a subscriber reads at a time.
const READ_BYTES: usize = 64 * 1024;
/// The filters, each with a name. Expressions of CEL: the second is true of one record in ten, the third has a source that
/// matches every second time, so that it is gone in between.
const FILTERS: [(&str, &str); 3] = [
    ("none", ""),
    ("keeps one record in ten", "data.n % 10 == 0"),
    ("one source in ten comes and goes", "data.n % 10 == 0 && data.round % 2 == 0"),
];

/// Measures each filter in turns, and prints a table. Fails if a filter that keeps one record in ten costs more than none.
pub fn run(arguments: &Arguments) -> Outcome<()> {
    let anode = arguments.subject.binary()?;
    println!("{}", Machine::look(&anode)?);
    let Arguments { subscribers, records, batch, .. } = arguments;
    println!("{subscribers} subscribers, {records} records, {batch} a frame, {SOURCES} sources, one worker");
    let mut costs = vec![Vec::new(); FILTERS.len()];
    for _ in 0..arguments.subject.runs() {
        for ((_, filter), costs) in FILTERS.iter().zip(&mut costs) {
            costs.push(measure(arguments, &anode, filter)?);
        }
    }
    println!("| filter | ms of processor time a record | of none | bytes to a subscriber a record |");
    println!("| --- | --- | --- | --- |");
    let of = |costs: &[Cost], field: fn(&Cost) -> f64| median(&costs.iter().map(field).collect::<Vec<f64>>());
    let none = of(&costs[0], |cost| cost.cpu_ms);
    for ((name, _), costs) in FILTERS.iter().zip(&costs) {
        let (cpu_ms, bytes) = (of(costs, |cost| cost.cpu_ms), of(costs, |cost| cost.bytes));
        println!("| {name} | {cpu_ms:.2} | {:.2} | {bytes:.1} |", cpu_ms / none);
    }
    match of(&costs[1], |cost| cost.cpu_ms) < none {
        true => Ok(()),
        false => Err("a filter that keeps one record in ten costs more than none".into()),
    }
}

/// The cost of one record for the node under test.
#[derive(Clone, Copy)]
struct Cost {
    /// Processor time of the node, in milliseconds.
    cpu_ms: f64,
    /// Bytes that came to each subscriber.
    bytes: f64,
}

/// Starts a node with subscribers, publishes, and returns what a record cost.
fn measure(arguments: &Arguments, anode: &Path, filter: &str) -> Outcome<Cost> {
    let folder = Folder::new()?;
    let node = Node::start(
        anode,
        &folder.join("node"),
        &["--store", "memory", "--workers", "1", "--log-level", "warn"],
    )?;
    node.wait_ready(DEADLINE)?;
    let subscribers = Subscribers::open(&node.http, arguments.subscribers, filter)?;
    let mut publisher = TcpStream::connect(&node.http)?;
    publisher.set_read_timeout(Some(DEADLINE))?;
    // Every source has been seen once, and all has come, before anything is counted.
    for n in 0..SOURCES {
        publish(&mut publisher, &node.http, n..n + 1)?;
    }
    subscribers.wait_quiet();
    let (cpu_before, bytes_before) = (cpu_us(node.pid())?, subscribers.bytes());
    let mut next = SOURCES;
    while next < SOURCES + arguments.records {
        let end = (next + arguments.batch).min(SOURCES + arguments.records);
        publish(&mut publisher, &node.http, next..end)?;
        next = end;
    }
    subscribers.wait_quiet();
    let (records, each) = (arguments.records as f64, arguments.subscribers as f64);
    Ok(Cost {
        cpu_ms: (cpu_us(node.pid())? - cpu_before) / 1e3 / records,
        bytes: (subscribers.bytes() - bytes_before) as f64 / records / each,
    })
}

/// Publishes records as one frame, and waits for the answer.
fn publish(stream: &mut TcpStream, host: &str, numbers: std::ops::Range<u64>) -> Outcome<()> {
    let record = |n: u64| {
        let (source, round) = (n % SOURCES, n / SOURCES);
        format!("{{\"source\":\"bench/{source}\",\"data\":{{\"n\":{source},\"round\":{round}}}}}")
    };
    let body = format!("[{}]", numbers.map(record).collect::<Vec<_>>().join(","));
    let length = body.len();
    let head = format!("POST /v1/publish HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n");
    write!(stream, "{head}Content-Length: {length}\r\n\r\n{body}")?;
    let (mut answer, mut buffer) = (Vec::new(), [0; 4_096]);
    loop {
        let read = stream.read(&mut buffer)?;
        answer.extend_from_slice(&buffer[..read]);
        let text = String::from_utf8_lossy(&answer);
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            if read == 0 {
                return Err(format!("no answer: {text}").into());
            }
            continue;
        };
        if !head.starts_with("HTTP/1.1 200") {
            return Err(text.into_owned().into());
        }
        let length = head.lines().find_map(|line| {
            line.to_ascii_lowercase().strip_prefix("content-length:")?.trim().parse::<usize>().ok()
        });
        if length.is_some_and(|length| body.len() >= length) {
            return Ok(());
        }
    }
}

/// Connections that read everything they are sent, on a thread of their own.
struct Subscribers {
    bytes: Arc<AtomicU64>,
    is_over: Arc<AtomicBool>,
    reader: Option<JoinHandle<()>>,
}

impl Subscribers {
    /// Opens subscribers of all records with this filter, and waits until all were answered.
    fn open(host: &str, count: usize, filter: &str) -> Outcome<Subscribers> {
        let encoded: String = filter.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let filter = if filter.is_empty() { String::new() } else { format!("&filter={encoded}") };
        let request = format!(
            "GET /subscribe?source=bench/*&snapshot=false{filter} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\n\
             Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        let address: SocketAddr = host.parse()?;
        let poll = Poll::new()?;
        let mut sockets = Vec::with_capacity(count);
        for index in 0..count {
            let mut socket = TcpStream::connect(address)?;
            socket.write_all(request.as_bytes())?;
            let mut head = [0; 12];
            socket.set_read_timeout(Some(DEADLINE))?;
            socket.read_exact(&mut head)?;
            if &head != b"HTTP/1.1 101" {
                return Err(format!("subscriber {index} was refused").into());
            }
            socket.set_nonblocking(true)?;
            let mut socket = mio::net::TcpStream::from_std(socket);
            poll.registry().register(&mut socket, Token(index), Interest::READABLE)?;
            sockets.push(socket);
        }
        let (bytes, is_over) = (Arc::<AtomicU64>::default(), Arc::<AtomicBool>::default());
        let (counted, ended) = (bytes.clone(), is_over.clone());
        let reader = std::thread::spawn(move || read_all(poll, sockets, &counted, &ended));
        let subscribers = Subscribers { bytes, is_over, reader: Some(reader) };
        subscribers.wait_quiet();
        Ok(subscribers)
    }

    /// Bytes that came so far.
    fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Waits until nothing has come for half a second.
    fn wait_quiet(&self) {
        let (mut seen, mut since) = (self.bytes(), Instant::now());
        while since.elapsed() < Duration::from_millis(500) {
            std::thread::sleep(Duration::from_millis(20));
            if self.bytes() != seen {
                (seen, since) = (self.bytes(), Instant::now());
            }
        }
    }
}

impl Drop for Subscribers {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}

/// Reads what comes, and counts it, until that is over.
fn read_all(mut poll: Poll, mut sockets: Vec<mio::net::TcpStream>, bytes: &AtomicU64, is_over: &AtomicBool) {
    let (mut events, mut buffer) = (Events::with_capacity(1_024), vec![0; READ_BYTES]);
    while !is_over.load(Ordering::Relaxed) {
        if poll.poll(&mut events, Some(Duration::from_millis(50))).is_err() {
            continue;
        }
        for event in &events {
            let Some(socket) = sockets.get_mut(event.token().0) else { continue };
            loop {
                match socket.read(&mut buffer) {
                    Ok(0) => break,
                    Ok(read) => _ = bytes.fetch_add(read as u64, Ordering::Relaxed),
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    Err(_) => break,
                }
            }
        }
    }
}
