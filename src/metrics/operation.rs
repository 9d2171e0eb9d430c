//! Metrics for operators: what the process takes, how soon publishers are answered, what clients send and why they are
//! closed, and how full the queues are, beside the bounds.

use super::exposition::{Exposition, Seconds};
use super::kinds::{Counter, Gauge, Histogram};

/// Figures of the process, as the operating system has them. They are taken about once a second.
#[derive(Debug, Default)]
pub struct ProcessGauges {
    /// Processor time that the process has taken, in microseconds.
    pub cpu_us: Gauge,
    /// Memory that the process occupies, in bytes.
    pub resident_bytes: Gauge,
    /// Number of threads.
    pub threads: Gauge,
    /// Number of open files, sockets included.
    pub open_fds: Gauge,
    /// Most files that the process may have open.
    pub max_fds: Gauge,
    /// When the process started, in microseconds since the Unix epoch.
    pub started_us: Gauge,
    /// Room on the disk with the data directory that the process may use, in bytes; 0 without a data directory.
    pub disk_free_bytes: Gauge,
    /// Size of that disk, in bytes.
    pub disk_bytes: Gauge,
}

impl ProcessGauges {
    /// Appends the metrics; those of the process under the names that all programs use for them.
    pub(super) fn write(&self, text: &mut Exposition<'_>) {
        text.gauge(
            "disk_free_bytes",
            "Free room on the disk with the data directory.",
            &self.disk_free_bytes,
        );
        text.gauge("disk_bytes", "Size of the disk with the data directory.", &self.disk_bytes);
        let cpu = Seconds::from_us(self.cpu_us.get());
        let start = Seconds::from_us(self.started_us.get());
        let help = "Processor time that the process has taken.";
        text.raw(format_args!(
            "# HELP process_cpu_seconds_total {help}\n# TYPE process_cpu_seconds_total counter\n\
             process_cpu_seconds_total {cpu}\n"
        ));
        for (name, help, gauge) in [
            ("resident_memory_bytes", "Memory that the process occupies.", &self.resident_bytes),
            ("threads", "Threads of the process.", &self.threads),
            ("open_fds", "Open files, sockets included.", &self.open_fds),
            ("max_fds", "Most files that the process may have open.", &self.max_fds),
        ] {
            text.raw(format_args!(
                "# HELP process_{name} {help}\n# TYPE process_{name} gauge\nprocess_{name} {}\n",
                gauge.get()
            ));
        }
        let help = "When the process started, in seconds since the Unix epoch.";
        text.raw(format_args!(
            "# HELP process_start_time_seconds {help}\n# TYPE process_start_time_seconds gauge\n\
             process_start_time_seconds {start}\n"
        ));
    }
}

/// Times from the acceptance of a publish until it is answered, for the levels that wait; and those of the store.
#[derive(Debug, Default)]
pub struct AckTimes {
    /// Publishes that waited until the store held them.
    pub stored: Histogram,
    /// Publishes that waited until every member held them.
    pub replicated: Histogram,
    /// Groups of records that were made durable: how long that took.
    pub commits: Histogram,
}

impl AckTimes {
    pub(super) fn write(&self, text: &mut Exposition<'_>) {
        let help = "From acceptance to the answer, for publishes that waited, by level.";
        text.head("ack_seconds", "histogram", help);
        text.series("ack_seconds", "level=\"stored\"", &self.stored);
        text.series("ack_seconds", "level=\"replicated\"", &self.replicated);
        text.histogram("store_commit_seconds", "Time to make a group of records durable.", &self.commits);
    }
}

/// Codes with which connections of clients are closed; those from 4400 on are GraphQL's.
pub const CLOSE_CODES: [u16; 19] = [
    1002,
    1003,
    1007,
    1009,
    4001,
    4002,
    4003,
    4100,
    4101,
    4200,
    4201,
    SLOW_CONSUMER,
    4400,
    4401,
    4403,
    4408,
    4409,
    4429,
    4500,
];
/// Code with which a subscriber is closed that does not keep up.
const SLOW_CONSUMER: u16 = 4202;

/// What clients send and get, and how their connections end.
#[derive(Debug, Default)]
pub struct ClientTraffic {
    /// Bytes read from connections, without what TLS adds.
    pub received_bytes: Counter,
    /// Bytes written to connections, without what TLS adds.
    pub sent_bytes: Counter,
    /// Patterns of all subscriptions.
    pub patterns: Gauge,
    /// Upgrades and connections that were refused, by the status that was answered.
    refusals: [Counter; REFUSAL_STATUSES.len() + 1],
    /// Connections that were closed by this node, in the order of [`CLOSE_CODES`].
    closes: [Counter; CLOSE_CODES.len()],
}

/// Statuses of refusals that are counted apart; all others are counted together.
const REFUSAL_STATUSES: [u16; 6] = [400, 401, 403, 408, 429, 503];

impl ClientTraffic {
    /// Counts a connection that this node closes with `code`.
    pub fn closed(&self, code: u16) {
        if let Some(counter) =
            CLOSE_CODES.iter().position(|&known| known == code).and_then(|at| self.closes.get(at))
        {
            counter.increment();
        }
    }

    /// Counts a request that was refused with `status` before it became a session.
    pub fn refused(&self, status: u16) {
        let at = REFUSAL_STATUSES.iter().position(|&known| known == status);
        if let Some(counter) = self.refusals.get(at.unwrap_or(REFUSAL_STATUSES.len())) {
            counter.increment();
        }
    }

    pub(super) fn write(&self, text: &mut Exposition<'_>) {
        let help = "Bytes from clients over WebSocket and HTTP, without what TLS adds.";
        text.counter("client_bytes_received_total", help, &self.received_bytes);
        let help = "Bytes to clients over WebSocket and HTTP, without what TLS adds.";
        text.counter("client_bytes_sent_total", help, &self.sent_bytes);
        text.gauge("subscription_patterns", "Patterns of all subscriptions.", &self.patterns);
        text.head("client_closes_total", "counter", "Connections closed by this node, by code.");
        for (code, counter) in CLOSE_CODES.iter().zip(&self.closes) {
            text.line(format_args!("client_closes_total{{code=\"{code}\"}} {}", counter.get()));
        }
        let slow = CLOSE_CODES.iter().zip(&self.closes).find(|(code, _)| **code == SLOW_CONSUMER);
        let help = "Subscribers that were closed because they did not keep up.";
        text.total("slow_consumers_total", help, slow.map_or(0, |(_, counter)| counter.get()));
        text.head("client_refusals_total", "counter", "Connections refused before a session, by status.");
        let names = REFUSAL_STATUSES.iter().map(ToString::to_string).chain(["other".to_owned()]);
        for (status, counter) in names.zip(&self.refusals) {
            text.line(format_args!("client_refusals_total{{status=\"{status}\"}} {}", counter.get()));
        }
    }
}

/// Bytes that wait in each queue of the node.
#[derive(Debug, Default)]
pub struct QueueBytes {
    /// Records of clients that wait to be sent to peers.
    pub outbox: Gauge,
    /// Records that wait for the store, without those on disk.
    pub store: Gauge,
    /// Changes that wait for the workers that hand them to subscribers.
    pub mailboxes: Gauge,
    /// Batches of peers that wait for a worker that merges them.
    pub merges: Gauge,
    /// Bytes that wait on streams to peers.
    pub streams: Gauge,
    /// Datagrams to peers that the socket did not take so far.
    pub datagrams: Gauge,
    /// Records that wait for the receivers of webhooks.
    pub hooks: Gauge,
    /// Spans of traced records that wait to be sent.
    pub traces: Gauge,
}

/// Spans of traced records since the start, by what became of them.
#[derive(Debug, Default)]
pub struct TraceCounters {
    /// Spans that the receiver has taken.
    pub sent: Counter,
    /// Spans that were dropped because too many waited.
    pub dropped_queue: Counter,
    /// Spans that were dropped because the receiver did not take them.
    pub dropped_endpoint: Counter,
}

impl TraceCounters {
    pub(super) fn write(&self, text: &mut Exposition<'_>) {
        text.counter("trace_spans_sent_total", "Spans of traces that were sent.", &self.sent);
        text.head("trace_spans_dropped_total", "counter", "Spans of traces that were dropped, by reason.");
        for (reason, counter) in [("queue", &self.dropped_queue), ("endpoint", &self.dropped_endpoint)] {
            text.line(format_args!("trace_spans_dropped_total{{reason=\"{reason}\"}} {}", counter.get()));
        }
    }
}

/// Bounds that an operator may set, to be compared with what is used.
#[derive(Debug, Default)]
pub struct LimitGauges {
    /// Connections of clients at a time.
    pub connections: Gauge,
    /// Memory of the map, in bytes.
    pub map_bytes: Gauge,
    /// Data of one record, in bytes.
    pub record_bytes: Gauge,
    /// One frame of a client, in bytes.
    pub frame_bytes: Gauge,
    /// Patterns of one connection.
    pub patterns: Gauge,
}

impl QueueBytes {
    pub(super) fn write(&self, text: &mut Exposition<'_>) {
        text.head("queue_bytes", "gauge", "Bytes that wait, by queue.");
        let QueueBytes { outbox, store, mailboxes, merges, streams, datagrams, hooks, traces } = self;
        for (queue, gauge) in [
            ("outbox", outbox),
            ("store", store),
            ("mailboxes", mailboxes),
            ("merges", merges),
            ("streams", streams),
            ("datagrams", datagrams),
            ("hooks", hooks),
            ("traces", traces),
        ] {
            text.line(format_args!("queue_bytes{{queue=\"{queue}\"}} {}", gauge.get()));
        }
    }
}

impl LimitGauges {
    pub(super) fn write(&self, text: &mut Exposition<'_>) {
        text.head("limit", "gauge", "Bounds that were configured.");
        let LimitGauges { connections, map_bytes, record_bytes, frame_bytes, patterns } = self;
        for (name, gauge) in [
            ("connections", connections),
            ("map_bytes", map_bytes),
            ("record_bytes", record_bytes),
            ("frame_bytes", frame_bytes),
            ("patterns_per_connection", patterns),
        ] {
            text.line(format_args!("limit{{name=\"{name}\"}} {}", gauge.get()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closes_and_refusals_are_counted_by_number() {
        let traffic = ClientTraffic::default();
        [4202, 4202, 4100, 9].into_iter().for_each(|code| traffic.closed(code));
        [503, 418].into_iter().for_each(|status| traffic.refused(status));
        let mut out = String::new();
        traffic.write(&mut Exposition { out: &mut out });
        for line in [
            "anode_client_closes_total{code=\"4202\"} 2\n",
            "anode_client_closes_total{code=\"4100\"} 1\n",
            "anode_slow_consumers_total 2\n",
            "anode_client_refusals_total{status=\"503\"} 1\n",
            "anode_client_refusals_total{status=\"other\"} 1\n",
        ] {
            assert!(out.contains(line), "{line} in\n{out}");
        }
    }
}
