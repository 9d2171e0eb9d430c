//! The healthy clients: a publisher, and a subscriber of what it publishes.

use std::path::Path;
use std::time::{Duration, Instant};

use anode_loadgen::Outcome;
use anode_loadgen::client::{self, ServerStream};
use tungstenite::{Message, WebSocket};

use crate::median::median;

/// Time between two records.
pub const PACE: Duration = Duration::from_millis(4);

/// The latencies of one measurement: from the publish of a record until the subscriber has it.
#[derive(Clone, Copy, Debug)]
pub struct Noticed {
    /// Median, in microseconds.
    pub p50_us: f64,
    /// 99th percentile, in microseconds.
    pub p99_us: f64,
}

impl Noticed {
    /// The medians of several measurements.
    pub fn medians(all: impl Iterator<Item = Noticed> + Clone) -> Noticed {
        let middle = |value: fn(Noticed) -> f64| median(&all.clone().map(value).collect::<Vec<f64>>());
        Noticed { p50_us: middle(|it| it.p50_us), p99_us: middle(|it| it.p99_us) }
    }
}

/// The two clients, on connections of their own.
pub struct Healthy {
    publisher: WebSocket<ServerStream>,
    subscriber: WebSocket<ServerStream>,
    /// Number of the last record.
    number: u64,
}

impl Healthy {
    /// Connects both to the node at `url`: `host:port`, or `wss://host:port` with the certificates in the file `ca`.
    pub fn at(url: &str, ca: Option<&Path>) -> Outcome<Healthy> {
        let publisher = client::connect_to(url, ca, "/publish")?;
        let mut subscriber = client::connect_to(url, ca, "/subscribe?source=healthy")?;
        while !subscriber.read()?.into_text()?.contains("\"eos\"") {}
        Ok(Healthy { publisher, subscriber, number: 0 })
    }

    /// Publishes one record, so that the node does not close the connections for their silence. To be called at least
    /// every few seconds while nothing is measured.
    pub fn stay(&mut self) -> Outcome<()> {
        self.publish().map(|_| ())
    }

    /// Publishes the next record, and returns after how many microseconds the subscriber has it.
    fn publish(&mut self) -> Outcome<f64> {
        let due = Instant::now();
        self.number += 1;
        let record = format!(r#"{{"source":"healthy","data":{}}}"#, self.number);
        self.publisher.send(Message::text(record))?;
        let wanted = format!("\"data\":{}}}", self.number);
        while !self.subscriber.read()?.into_text()?.ends_with(&wanted) {}
        Ok(due.elapsed().as_secs_f64() * 1e6)
    }

    /// Publishes records for this time, and measures how long each takes. An error means that a client was closed or
    /// refused.
    pub fn measure(&mut self, length: Duration) -> Outcome<Noticed> {
        let end = Instant::now() + length;
        let mut latencies_us = Vec::new();
        while Instant::now() < end {
            let due = Instant::now();
            latencies_us.push(self.publish()?);
            std::thread::sleep(PACE.saturating_sub(due.elapsed()));
        }
        latencies_us.sort_by(f64::total_cmp);
        let at = |share: f64| {
            let place = (latencies_us.len() as f64 * share).ceil() as usize;
            latencies_us.get(place.saturating_sub(1)).copied().ok_or("no record was measured")
        };
        Ok(Noticed { p50_us: at(0.5)?, p99_us: at(0.99)? })
    }
}
