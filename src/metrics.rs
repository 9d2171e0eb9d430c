//! The metrics of a node, and their output in Prometheus' text format.
//!
//! A node has one [`Metrics`], which all threads share. A field is an atomic on a cache line of its own, and
//! is updated without memory ordering, because counting must cost the event loops next to nothing. Code that
//! counts very often (deliveries) sums up over one turn of its event loop and adds the sum at the end of the
//! turn.
//!
//! Rejected: a registry of boxed metrics that are looked up by name. All names are known at compile time, and
//! a field cannot be misspelt.

mod bounded;
mod connections;
mod deliveries;
mod exposition;
mod kinds;
mod middlewares;
mod operation;
mod pull;

pub use self::bounded::{BoundedQueue, BoundedQueues};
pub use self::connections::{FilterMetrics, HttpCuts, TlsCounters};
pub use self::deliveries::{ArchiveCounters, HookCounters};
use self::exposition::{Exposition, Seconds};
pub use self::kinds::{Counter, DurationTally, Gauge, GaugeShare, Histogram};
pub use self::middlewares::MiddlewareCounters;
pub use self::operation::{
    AckTimes, CLOSE_CODES, ClientTraffic, LimitGauges, ProcessGauges, QueueBytes, TraceCounters,
};
pub use self::pull::PullCounters;
use crate::memory::{MEMORY_USES, MemoryUse};
use crate::protocol::refusal::Code;

/// Number of members in each state, as this node sees them.
#[derive(Debug, Default)]
pub struct MemberGauges {
    /// Members that are alive, including this node.
    pub alive: Gauge,
    /// Members that have not answered at their own address so far.
    pub joining: Gauge,
    /// Members that are suspected to be dead.
    pub suspect: Gauge,
    /// Members that are dead.
    pub dead: Gauge,
    /// Members that have left the cluster.
    pub left: Gauge,
}

/// Number of open connections of clients, by purpose.
#[derive(Debug, Default)]
pub struct ConnectionGauges {
    /// WebSockets on `/publish`.
    pub publish: Gauge,
    /// WebSockets on `/subscribe`.
    pub subscribe: Gauge,
    /// Streams of events on `/v1/stream`.
    pub stream: Gauge,
    /// Connections with plain HTTP requests.
    pub http: Gauge,
    /// WebSockets on `/graphql`.
    pub graphql: Gauge,
}

/// Number of messages of peers (datagrams and streams) that the seal refused, by reason.
#[derive(Debug, Default)]
pub struct GossipRefusals {
    /// Plain ones, at a node that takes nothing plain.
    pub plain: Counter,
    /// Those sealed with a key that this node does not have.
    pub key: Counter,
    /// Those that have come before, are for another life or node, or of a life that is over.
    pub replay: Counter,
    /// Those that do not open with the key that they name.
    pub forged: Counter,
}

/// All metrics of a node. A field has the name of its metric without `anode_` and `_total`, except the first
/// three, from which two metrics are computed.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Publishes by clients whose record became the newest of its source. Updated under the outbox's lock.
    pub publishes_applied: Counter,
    /// Publishes by clients whose record was a duplicate or stale.
    pub publishes_in_vain: Counter,
    /// Records from peers that became the newest of their source in this node's map.
    pub peers_applied: Counter,
    /// Records, from clients and peers, that were older than the one in the map.
    pub records_stale: Counter,
    /// Records, from clients and peers, that were in the map already.
    pub records_duplicate: Counter,
    /// Records from peers that were refused because their timestamp is more than a day ahead.
    pub records_far_ahead: Counter,
    /// Refused publishes by code, in the order of `CODES`; counted with [`Metrics::refused`].
    refusals: [Counter; CODES.len()],
    /// Records written to subscribers.
    pub deliveries: Counter,
    /// Records that a slow subscriber did not get because a newer one of the same source replaced them.
    pub conflated: Counter,
    /// Steps that snapshots and pages have taken: names that were looked at, and places that were looked up.
    pub scan_steps: Counter,
    /// Members by state.
    pub members: MemberGauges,
    /// Datagrams sent to peers.
    pub gossip_datagrams_sent: Counter,
    /// Datagrams received, including those that were ignored.
    pub gossip_datagrams_received: Counter,
    /// Bytes sent in datagrams, including 28 bytes of IP and UDP headers for each.
    pub gossip_bytes_sent: Counter,
    /// Bytes received in datagrams, including 28 bytes of IP and UDP headers for each.
    pub gossip_bytes_received: Counter,
    /// Datagrams that were ignored because they belong to another cluster or protocol version, are damaged, or
    /// may be sent by members only and came from another address.
    pub gossip_datagrams_ignored: Counter,
    /// Datagrams to peers that were dropped because the socket did not take them and too many waited.
    pub gossip_datagrams_dropped: Counter,
    /// Datagrams and streams of peers that the seal refused.
    pub gossip_refused: GossipRefusals,
    /// Boot numbers that the node has taken while it runs, because of an incarnation that cannot be refuted.
    pub boots_taken: Counter,
    /// Copies of records received from peers, including those that were not needed.
    pub data_copies_received: Counter,
    /// Records published here that no other node gets, because a newer one of the same source came before they
    /// could be sent.
    pub merged_before_spread: Counter,
    /// Batches of records from peers that another worker than worker 0 merged.
    pub peer_batches_handed: Counter,
    /// Batches of records from peers that worker 0 merged by itself.
    pub peer_batches_kept: Counter,
    /// Time from acceptance at the origin until a record is applied here, as the difference of two wall
    /// clocks.
    pub propagation: Histogram,
    /// Shards of the map that differed from those of the last peer that was compared with.
    pub shards_differing: Gauge,
    /// This node's wall clock minus the median of the members' clocks, or minus that of the only peer, in
    /// microseconds.
    pub clock_offset_us: Gauge,
    /// Times that this machine's wall clock has jumped against its monotonic clock.
    pub clock_jumps: Counter,
    /// Records that wait to be stored, including those on disk.
    pub store_pending_records: Gauge,
    /// Records that wait on disk to be stored.
    pub store_spilled_records: Gauge,
    /// 1 while records become durable, 0 while they do not.
    pub store_up: Gauge,
    /// Open connections of clients.
    pub connections: ConnectionGauges,
    /// Subscriptions over GraphQL.
    pub graphql_subscriptions: Gauge,
    /// Filters of subscriptions.
    pub filters: FilterMetrics,
    /// Requests and connections over HTTP that were cut.
    pub http_cuts: HttpCuts,
    /// Handshakes of TLS with clients, and certificates that were read again.
    pub tls: TlsCounters,
    /// Connections accepted since the start.
    pub connections_accepted: Counter,
    /// Failures to accept a connection, of a client or a peer, since the start.
    pub accept_failures: Counter,
    /// Sources in the map, including deleted and expired ones that are not collected yet.
    pub sources: Gauge,
    /// Memory held by the map, in bytes.
    pub map_bytes: Gauge,
    /// Memory held for clients, in bytes.
    pub client_memory_bytes: Gauge,
    /// Memory that may be held for clients, in bytes.
    pub client_memory_limit_bytes: Gauge,
    /// Refusals for want of memory for clients, in the order of `MEMORY_USES`; counted with
    /// [`Metrics::memory_refused`].
    memory_refusals: [Counter; MEMORY_USES.len()],
    /// Sources whose values have expired, of which only a guard against older values is left.
    pub guards: Gauge,
    /// Figures of the process.
    pub process: ProcessGauges,
    /// Figures of the pull sources that this node runs.
    pub pull: PullCounters,
    /// Times of acknowledgements and commits.
    pub acks: AckTimes,
    /// What clients send and get, and how their connections end.
    pub clients: ClientTraffic,
    /// Bytes that wait in the queues.
    pub queues: QueueBytes,
    /// Bounded queues and tables of membership and replication.
    pub gossip_queues: BoundedQueues,
    /// Spans of traces.
    pub traces: TraceCounters,
    /// Bounds that were configured.
    pub limits: LimitGauges,
    /// What middlewares have done with records.
    pub middlewares: MiddlewareCounters,
    /// What webhooks have sent.
    pub hooks: HookCounters,
    /// What archives have kept.
    pub archives: ArchiveCounters,
}

/// The codes that a publish may be refused with.
const CODES: [Code; 15] = [
    Code::BadJson,
    Code::BadRequest,
    Code::BadSource,
    Code::BadPattern,
    Code::BadTimestamp,
    Code::FutureTimestamp,
    Code::TooLarge,
    Code::Forbidden,
    Code::Overloaded,
    Code::RateLimited,
    Code::StoreUnavailable,
    Code::Timeout,
    Code::ClockSkew,
    Code::Rejected,
    Code::MiddlewareFailed,
];

impl Metrics {
    /// Counts a publish that was refused with `code`.
    pub fn refused(&self, code: Code) {
        if let Some(at) = CODES.iter().position(|&known| known == code)
            && let Some(counter) = self.refusals.get(at)
        {
            counter.increment();
        }
    }

    /// Counts a connection or request that was refused, or closed, because it would have held too much memory.
    pub fn memory_refused(&self, wanted: MemoryUse) {
        if let Some(at) = MEMORY_USES.iter().position(|&known| known == wanted)
            && let Some(counter) = self.memory_refusals.get(at)
        {
            counter.increment();
        }
    }

    /// Returns the number of publishes by clients that were not refused: applied, duplicate, stale, or dropped by a
    /// middleware.
    pub fn records_published(&self) -> u64 {
        self.publishes_applied.get() + self.publishes_in_vain.get() + self.middlewares.dropped.get()
    }

    /// Returns the number of records, from clients and peers, that became the newest of their source here.
    pub fn records_applied(&self) -> u64 {
        self.publishes_applied.get() + self.peers_applied.get()
    }

    /// Appends all metrics in Prometheus' text format.
    pub fn write(&self, out: &mut String) {
        let mut text = Exposition { out };
        self.write_records(&mut text);
        self.write_cluster(&mut text);
        text.gauge("store_pending_records", "Records that wait for the store.", &self.store_pending_records);
        let help = "Records that wait for the store on the disk.";
        text.gauge("store_spilled_records", help, &self.store_spilled_records);
        text.gauge("store_up", "1 while records become durable, else 0.", &self.store_up);
        text.head("connections", "gauge", "Open connections.");
        let ConnectionGauges { publish, subscribe, stream, http, graphql } = &self.connections;
        let named = [
            ("publish", publish),
            ("subscribe", subscribe),
            ("stream", stream),
            ("http", http),
            ("graphql", graphql),
        ];
        for (endpoint, gauge) in named {
            text.line(format_args!("connections{{endpoint=\"{endpoint}\"}} {}", gauge.get()));
        }
        let help = "Subscriptions over GraphQL.";
        text.gauge("graphql_subscriptions", help, &self.graphql_subscriptions);
        self.http_cuts.write(&mut text);
        self.tls.write(&mut text);
        self.filters.write(&mut text);
        text.counter("connections_accepted_total", "Connections accepted.", &self.connections_accepted);
        text.counter("accept_failures_total", "Failures to accept a connection.", &self.accept_failures);
        text.gauge("sources", "Sources in the map.", &self.sources);
        text.gauge("map_bytes", "Memory held by the map.", &self.map_bytes);
        self.write_client_memory(&mut text);
        text.gauge("map_guards", "Sources of which only a guard against older values is left.", &self.guards);
        self.acks.write(&mut text);
        self.clients.write(&mut text);
        self.queues.write(&mut text);
        self.gossip_queues.write(&mut text);
        self.traces.write(&mut text);
        self.limits.write(&mut text);
        self.hooks.write(&mut text);
        self.archives.write(&mut text);
        self.middlewares.write(&mut text);
        self.process.write(&mut text);
        self.pull.write(&mut text);
        text.head("build_info", "gauge", "1, with the version as a label.");
        text.line(format_args!("build_info{{version=\"{}\"}} 1", env!("CARGO_PKG_VERSION")));
    }

    fn write_client_memory(&self, text: &mut Exposition<'_>) {
        text.gauge("client_memory_bytes", "Memory held for clients.", &self.client_memory_bytes);
        let help = "Memory that may be held for clients.";
        text.gauge("client_memory_limit_bytes", help, &self.client_memory_limit_bytes);
        let help = "Connections and requests refused for want of memory for clients.";
        text.head("client_memory_refusals_total", "counter", help);
        for (wanted, counter) in MEMORY_USES.iter().zip(&self.memory_refusals) {
            let (wanted, count) = (wanted.as_str(), counter.get());
            text.line(format_args!("client_memory_refusals_total{{use=\"{wanted}\"}} {count}"));
        }
    }

    fn write_records(&self, text: &mut Exposition<'_>) {
        text.total(
            "records_published_total",
            "Publishes by clients that were not refused.",
            self.records_published(),
        );
        text.total("records_applied_total", "Records that became the latest here.", self.records_applied());
        for (name, help, counter) in [
            ("records_stale_total", "Records older than what was there.", &self.records_stale),
            ("records_duplicate_total", "Records that were there already.", &self.records_duplicate),
            ("deliveries_total", "Records written to subscribers.", &self.deliveries),
            ("conflated_total", "Records replaced by newer ones for slow subscribers.", &self.conflated),
            ("scan_steps_total", "Names that snapshots and pages have looked at.", &self.scan_steps),
        ] {
            text.counter(name, help, counter);
        }
        text.head("records_refused_total", "counter", "Records from peers that were not taken.");
        let far_ahead = self.records_far_ahead.get();
        text.line(format_args!("records_refused_total{{reason=\"future\"}} {far_ahead}"));
        text.head("refusals_total", "counter", "Publishes refused.");
        for (code, counter) in CODES.iter().zip(&self.refusals) {
            text.line(format_args!("refusals_total{{code=\"{}\"}} {}", code.as_str(), counter.get()));
        }
        text.histogram(
            "propagation_seconds",
            "From acceptance at the origin to here, by the two wall clocks.",
            &self.propagation,
        );
    }

    fn write_cluster(&self, text: &mut Exposition<'_>) {
        text.head("members", "gauge", "Members by state, as this node sees them.");
        let MemberGauges { alive, joining, suspect, dead, left } = &self.members;
        let states =
            [("alive", alive), ("joining", joining), ("suspect", suspect), ("dead", dead), ("left", left)];
        for (state, gauge) in states {
            text.line(format_args!("members{{state=\"{state}\"}} {}", gauge.get()));
        }
        for (name, help, counter) in [
            ("gossip_datagrams_sent_total", "Datagrams sent to peers.", &self.gossip_datagrams_sent),
            ("gossip_datagrams_received_total", "Datagrams received.", &self.gossip_datagrams_received),
            (
                "gossip_bytes_sent_total",
                "Bytes sent in datagrams, headers included.",
                &self.gossip_bytes_sent,
            ),
            (
                "gossip_bytes_received_total",
                "Bytes received in datagrams, headers included.",
                &self.gossip_bytes_received,
            ),
            (
                "gossip_datagrams_ignored_total",
                "Datagrams of strangers, or damaged.",
                &self.gossip_datagrams_ignored,
            ),
            (
                "gossip_datagrams_dropped_total",
                "Datagrams to peers that were dropped because too many waited.",
                &self.gossip_datagrams_dropped,
            ),
            ("boots_taken_total", "Boot numbers taken while the node runs.", &self.boots_taken),
            (
                "data_copies_received_total",
                "Copies of records that came from peers.",
                &self.data_copies_received,
            ),
            (
                "merged_before_spread_total",
                "Records published here that a newer one replaced before they could be sent to peers.",
                &self.merged_before_spread,
            ),
        ] {
            text.counter(name, help, counter);
        }
        text.head(
            "gossip_refused_total",
            "counter",
            "Datagrams and streams that the seal refused, by reason.",
        );
        let GossipRefusals { plain, key, replay, forged } = &self.gossip_refused;
        for (reason, count) in [("plain", plain), ("key", key), ("replay", replay), ("forged", forged)] {
            text.line(format_args!("gossip_refused_total{{reason=\"{reason}\"}} {}", count.get()));
        }
        text.head("peer_batches_total", "counter", "Batches of records from peers, by who merged them.");
        let by = [("worker_0", &self.peer_batches_kept), ("other_worker", &self.peer_batches_handed)];
        for (worker, counter) in by {
            text.line(format_args!("peer_batches_total{{merged_by=\"{worker}\"}} {}", counter.get()));
        }
        text.gauge(
            "shards_differing",
            "Shards that differed from the last peer compared with.",
            &self.shards_differing,
        );
        text.head("clock_offset_seconds", "gauge", "This clock less the median of the members'.");
        let offset_us = self.clock_offset_us.get();
        text.line(format_args!("clock_offset_seconds {}", Seconds::from_us(offset_us)));
        let help = "Jumps of the wall clock against the monotonic clock.";
        text.counter("clock_jumps_total", help, &self.clock_jumps);
    }
}

#[cfg(test)]
mod tests;
