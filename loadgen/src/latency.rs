//! Publishes at a constant rate at one node and receives at others, to measure how long each record takes.

use std::thread;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tungstenite::{Message, WebSocket};

use crate::access::AccessArgs;
use crate::args::PREFIX;
use crate::client::ServerStream;
use crate::{Outcome, client};

/// Time without a record after which all records that have not arrived count as missing.
const SILENCE: Duration = Duration::from_secs(30);

/// The parameters of a measurement.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Authorities that are trusted with TLS, and the token that every connection brings.
    pub access: AccessArgs,
    /// `host:port` that is published to, with TLS `wss://host:port`.
    pub publish: String,
    /// Every node that is subscribed to, likewise.
    pub subscribe: Vec<String>,
    /// Number of records published per second.
    pub rate_per_s: u32,
    /// How long records are published, in seconds.
    pub seconds: u32,
    /// Number of records at the beginning that are not counted.
    pub warmup: u32,
    /// Number of sources, which are published to in turn.
    pub sources: u32,
    /// Bytes of padding in each record's data.
    pub padding_bytes: usize,
}

/// The delays of the records that one subscriber received, and how many it lacks.
pub struct Seen {
    /// The node that the subscriber was connected to, `host:port`.
    pub http: String,
    /// Times from when a record was due until it was received, in nanoseconds.
    pub latency_ns: Histogram<u64>,
    /// Number of records that never arrived.
    pub missing: u64,
}

impl Seen {
    /// Returns the percentiles as text.
    pub fn percentiles(&self) -> String {
        let at = |q: f64| self.latency_ns.value_at_quantile(q) as f64 / 1e6;
        let [p50, p90, p99, p999, max] = [0.5, 0.9, 0.99, 0.999, 1.0].map(at);
        format!("p50 {p50:.3} ms, p90 {p90:.3}, p99 {p99:.3}, p99.9 {p999:.3}, max {max:.3}")
    }
}

/// Runs a measurement. Every record must arrive once at every subscriber.
pub fn run(plan: &Plan) -> Outcome<Vec<Seen>> {
    let total = u64::from(plan.rate_per_s) * u64::from(plan.seconds);
    let prefix = format!("{PREFIX}/{}", std::process::id());
    let path = format!("/subscribe?source={prefix}/**&mode=all&snapshot=false");
    let mut sockets = Vec::new();
    for http in &plan.subscribe {
        let mut socket = client::connect_with(http, &plan.access, &path)?;
        while !socket.read()?.into_text()?.contains("\"eos\"") {}
        sockets.push((http.clone(), socket));
    }
    let publisher = client::connect_with(&plan.publish, &plan.access, "/publish")?;
    let start = Instant::now() + Duration::from_millis(200);
    thread::scope(|scope| {
        let receivers: Vec<_> = sockets
            .into_iter()
            .map(|(http, socket)| scope.spawn(move || receive(http, socket, start, total, plan.warmup)))
            .collect();
        publish(publisher, plan, &prefix, start, total)?;
        receivers.into_iter().map(|seen| seen.join().map_err(|_| "a receiver panicked")?).collect()
    })
}

fn publish(
    mut socket: WebSocket<ServerStream>,
    plan: &Plan,
    prefix: &str,
    start: Instant,
    total: u64,
) -> Outcome<()> {
    let padding = "x".repeat(plan.padding_bytes);
    let interval_ns = 1_000_000_000 / u64::from(plan.rate_per_s.max(1));
    for n in 0..total {
        let due_ns = n * interval_ns;
        let due = start + Duration::from_nanos(due_ns);
        thread::sleep(due.saturating_duration_since(Instant::now()));
        let source = n % u64::from(plan.sources.max(1));
        let text = format!(r#"{{"source":"{prefix}/{source}","data":[{n},{due_ns},"{padding}"]}}"#);
        socket.send(Message::text(text))?;
    }
    // A refused record would have been answered, so no frame may have arrived.
    socket.get_mut().set_read_timeout(Some(Duration::from_millis(200)))?;
    match socket.read() {
        Ok(Message::Text(text)) => Err(format!("the node refused: {text}").into()),
        _ => Ok(()),
    }
}

fn receive(
    http: String,
    mut socket: WebSocket<ServerStream>,
    start: Instant,
    total: u64,
    warmup: u32,
) -> Outcome<Seen> {
    let mut seen = Seen { http, latency_ns: Histogram::new(3)?, missing: 0 };
    let mut got = vec![false; total as usize];
    let (mut left, mut last) = (total, Instant::now());
    while left > 0 {
        let text = match socket.read() {
            Ok(Message::Text(text)) => text,
            // The node goes on sending pings when no record arrives any more.
            Ok(_) if last.elapsed() < SILENCE => continue,
            Ok(_) => {
                eprintln!("{}: stopped waiting with {left} of {total} missing", seen.http);
                break;
            }
            Err(error) => {
                eprintln!("{}: stopped waiting with {left} of {total} missing: {error}", seen.http);
                break;
            }
        };
        last = Instant::now();
        let now_ns = start.elapsed().as_nanos() as u64;
        let Some((n, due_ns)) = parse(&text) else { continue };
        if std::mem::replace(&mut got[n as usize], true) {
            return Err(format!("{} delivered record {n} twice", seen.http).into());
        }
        left -= 1;
        if n >= u64::from(warmup) {
            seen.latency_ns.record(now_ns.saturating_sub(due_ns).max(1))?;
        }
    }
    seen.missing = left;
    Ok(seen)
}

/// Returns a record's number and due time, from `"data":[n,due_ns,…`.
fn parse(text: &str) -> Option<(u64, u64)> {
    let (_, data) = text.split_once("\"data\":[")?;
    let mut numbers = data.split(',');
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}
