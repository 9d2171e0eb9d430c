//! Every bound of the program by name, with its unit and its reason.
//!
//! What users may change is in [`crate::config`]; what stands here is fixed, because it is part of
//! the contract, of the wire, or of what memory one peer may cost. Relations between bounds are
//! asserted at compile time at the end of the file.

/// Longest name of a source, in bytes of UTF-8.
pub const SOURCE_BYTES_MAX: usize = 255;
/// Most segments of a source's name.
pub const SOURCE_SEGMENTS_MAX: usize = 16;
/// Longest name of a node, in bytes.
pub const NODE_NAME_BYTES_MAX: usize = 63;
/// Longest `id` of a request, in bytes, so that an echo costs no more than it brought.
pub const REQUEST_ID_BYTES_MAX: usize = 64;
/// Longest name of a zone, in bytes. What a member says of itself must fit one datagram.
pub const ZONE_BYTES_MAX: usize = 63;
/// Longest `host:port` of an HTTP port, in bytes: a DNS name, and a port.
pub const HTTP_ADDRESS_BYTES_MAX: usize = 260;
/// Longest version of the program, in bytes, as members tell it.
pub const VERSION_BYTES_MAX: usize = 32;
/// Greatest `ts`: the integers that every JSON reader holds exactly.
pub const TS_MAX: u64 = (1 << 53) - 1;
/// Longest `ttl_ms`: ten years.
pub const TTL_MS_MAX: u64 = 10 * 365 * 24 * 3600 * 1000;
/// How far ahead of the node's clock a publisher's stamp may be, in microseconds: a wrong clock
/// must not hold a source for years.
pub const FUTURE_US_MAX: u64 = 10_000_000;
/// How far a node's clock may be off the median of its peers before it stops accepting.
pub const CLOCK_SKEW_US_MAX: u64 = 5_000_000;
/// Deepest nesting of JSON data.
pub const JSON_DEPTH_MAX: usize = 64;

/// Lock shards, and fingerprint shards, of the map. A part of the wire: nodes compare fingerprints
/// shard by shard.
pub const SHARDS: usize = 256;

/// Bytes of deletions that are kept past their time because a member is away, over all shards.
pub const TOMBSTONE_BYTES_MAX: usize = 256 * 1024 * 1024;

/// Largest datagram of the cluster, in bytes: fits every path that carries IPv6.
pub const DATAGRAM_BYTES_MAX: usize = 1_200;
/// IP and UDP headers, counted into the gossip byte metrics.
pub const DATAGRAM_HEADER_BYTES: usize = 28;
/// Largest batch sent in fragments over the datagram links, in bytes; larger ones are pulled over TCP.
/// Up to here fragments are sooner everywhere: a pull asks first, and connects before that. Among 64
/// nodes 64 KiB take 9 ms in fragments and 13 pulled; 1 MiB takes 221 ms and 13.
pub const FRAGMENTED_BYTES_MAX: usize = 64 * 1024;
/// Largest frame on a stream between nodes, in bytes: one record of the greatest size with room.
pub const STREAM_FRAME_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Largest `--max-record-bytes` an operator may set.
pub const RECORD_BYTES_CEILING: usize = 2 * 1024 * 1024;

/// Bytes of fragments that wait for the rest of their batch, all peers together.
pub const SPREAD_ASSEMBLY_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Longest head of a request on the HTTP port, in bytes.
pub const REQUEST_HEAD_BYTES_MAX: usize = 16 * 1024;
/// Subscriptions of one connection, so that one client cannot grow the index without end.
pub const SUBSCRIPTIONS_PER_CONNECTION_MAX: usize = 1_024;
/// Patterns of one subscription.
pub const PATTERNS_PER_SUBSCRIPTION_MAX: usize = 256;
/// The whole handshake of a client, in microseconds.
pub const HANDSHAKE_US_MAX: u64 = 5_000_000;
/// Silence after which a client is pinged.
pub const PING_US: u64 = 25_000_000;
/// Silence after which a client is closed with 4201.
pub const PONG_US_MAX: u64 = 35_000_000;
/// How often a subscriber gets a resume token.
pub const RESUME_US: u64 = 10_000_000;
/// `mode=all`: bytes that may wait for one connection before it is closed 4202.
pub const ALL_QUEUE_BYTES_MAX: usize = 1024 * 1024;
/// Items of one batch: no frame of the default size has more that are valid; one of items that are
/// not would be answered with a hundred times its bytes.
pub const BATCH_ITEMS_MAX: usize = 65_536;
/// What publishes of one connection that wait for the store may hold, in bytes, before it is not read.
pub const UNANSWERED_BYTES_MAX: usize = 1024 * 1024;
/// Records a connection's snapshot looks at in one turn of its worker: some milliseconds.
pub const SCAN_RECORDS_PER_TURN: usize = 10_000;
/// `mode=latest`: bytes encoded for a connection before what follows is conflated by source.
pub const LATEST_BUFFER_BYTES_MAX: usize = 256 * 1024;
/// Bytes that may wait in a worker's mailbox before publishers on other workers are slowed.
pub const MAILBOX_BYTES_SOFT: usize = 8 * 1024 * 1024;
/// Bytes that may wait in a worker's mailbox at all; beyond it the worker's subscribers are
/// brought up to date from the map (`latest`) or closed 4202 (`all`).
pub const MAILBOX_BYTES_HARD: usize = 32 * 1024 * 1024;
/// Bytes of heads that ride on one datagram: a sixth of it at most.
pub const HEADS_BYTES_MAX: usize = 200;
/// Bytes of records that may wait for the cluster before publishers are slowed.
pub const OUTBOX_BYTES_SOFT: usize = 8 * 1024 * 1024;
/// Bytes of records that may wait for the cluster before publishing is refused (`overloaded`).
pub const OUTBOX_BYTES_HARD: usize = 32 * 1024 * 1024;
/// Bytes of records that wait for the store or are being written. Publishers and bulk streams of
/// peers are slowed at a quarter of it; publishing is refused before it is full.
pub const STORE_QUEUE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Bytes of records that wait on the disk for Cassandra and are kept with all that came before them of
/// their source; beyond it a record replaces the one before.
pub const SPILL_HISTORY_BYTES: usize = 1024 * 1024 * 1024;
/// Bytes of records that wait on the disk for Cassandra at most.
pub const SPILL_BYTES_MAX: usize = 4 * 1024 * 1024 * 1024;
/// How long `stored` may take before the answer is `timeout`.
pub const STORED_US_MAX: u64 = 5_000_000;
/// How long `replicated` may take before the answer is `timeout`.
pub const REPLICATED_US_MAX: u64 = 5_000_000;
/// Publishes that may wait for `replicated` on one node; further ones are `overloaded`. Each costs up to
/// half a kilobyte, and an answer of every member at worst.
pub const REPLICATED_WAITING_MAX: usize = 16_384;
/// The whole of an orderly shutdown, in microseconds.
pub const SHUTDOWN_US_MAX: u64 = 10_000_000;

const _: () = assert!(SHARDS.is_power_of_two() && SHARDS <= u16::MAX as usize + 1);
const _: () = assert!(MAILBOX_BYTES_SOFT < MAILBOX_BYTES_HARD);
const _: () = assert!(OUTBOX_BYTES_SOFT < OUTBOX_BYTES_HARD);
const _: () = assert!(RECORD_BYTES_CEILING + 4096 < STREAM_FRAME_BYTES_MAX);
const _: () = assert!(2 * RECORD_BYTES_CEILING < SPREAD_ASSEMBLY_BYTES_MAX);
const _: () = assert!(PING_US < PONG_US_MAX);
const _: () = assert!(FRAGMENTED_BYTES_MAX > DATAGRAM_BYTES_MAX);
const _: () = assert!(6 * HEADS_BYTES_MAX <= DATAGRAM_BYTES_MAX);
// An update that outgrows its datagram would block the queue for ever (alertmanager#1340).
const _: () = assert!(
    2 * (2 * NODE_NAME_BYTES_MAX + ZONE_BYTES_MAX + HTTP_ADDRESS_BYTES_MAX + VERSION_BYTES_MAX + 80)
        < DATAGRAM_BYTES_MAX
);
const _: () = assert!(CLOCK_SKEW_US_MAX < FUTURE_US_MAX);
