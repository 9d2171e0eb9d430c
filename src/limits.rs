//! Every fixed bound of the program by name, with its unit and its reason.
//!
//! Bounds that users may change are in [`crate::config`]. The ones here are fixed, because they are part of
//! the contract with clients, of the form of messages between nodes, or of what memory a single peer may
//! cost. Relations between bounds are asserted at compile time at the end of the file.

/// Longest name of a source, in bytes of UTF-8.
pub const SOURCE_BYTES_MAX: usize = 255;
/// Most segments in the name of a source.
pub const SOURCE_SEGMENTS_MAX: usize = 16;
/// Longest name of a node, in bytes.
pub const NODE_NAME_BYTES_MAX: usize = 63;
/// Longest `id` of a request, in bytes. The answer repeats the id, and must not cost more than the request
/// did.
pub const REQUEST_ID_BYTES_MAX: usize = 64;
/// Longest name of a zone, in bytes. What a member tells of itself must fit into one datagram.
pub const ZONE_BYTES_MAX: usize = 63;
/// Longest `host:port` of a node's HTTP port, in bytes: a DNS name of at most 253 bytes and a port.
pub const HTTP_ADDRESS_BYTES_MAX: usize = 260;
/// Longest version of the program, in bytes, as members tell it to each other.
pub const VERSION_BYTES_MAX: usize = 32;
/// Greatest `ts`, in microseconds since the Unix epoch: the greatest integer that every JSON reader holds
/// exactly.
pub const TS_MAX: u64 = (1 << 53) - 1;
/// Longest time to live of a record, in milliseconds: ten years.
pub const TTL_MS_MAX: u64 = 10 * 365 * 24 * 3600 * 1000;
/// How far a publisher's timestamp may be ahead of the node's clock, in microseconds. A publisher with a
/// wrong clock must not block a source for years.
pub const FUTURE_US_MAX: u64 = 10_000_000;
/// How far the timestamp of a record from a peer may be ahead of the receiver's clock, in microseconds: a day,
/// which is more than clocks that are looked after ever differ. A record further ahead is refused, because it
/// would block its source at all nodes.
pub const PEER_FUTURE_US_MAX: u64 = 24 * 3600 * 1_000_000;
/// How far a node's clock may differ from the median of three or more clocks, its own among them, in
/// microseconds, before the node refuses to accept records from clients.
pub const CLOCK_SKEW_US_MAX: u64 = 5_000_000;
/// Deepest nesting of objects and arrays in JSON data.
pub const JSON_DEPTH_MAX: usize = 64;

/// Number of shards of the map, each with a lock and a fingerprint of its own. It is part of the protocol
/// between nodes: they compare fingerprints shard by shard.
pub const SHARDS: usize = 256;

/// Most bytes of deletions that are kept longer than configured because a member is away, over all shards
/// together.
pub const TOMBSTONE_BYTES_MAX: usize = 256 * 1024 * 1024;

/// An expired value is kept whole for this part of the time for which deletions are kept: six hours of a day.
/// Meanwhile nodes exchange it and clients that resume are told of its end. Afterwards only a guard of a few
/// dozen bytes is kept, so that no older value of the source comes back.
pub const EXPIRED_PART: u64 = 4;

/// Largest datagram between nodes, in bytes without IP and UDP headers. Every path that carries IPv6
/// transports it unfragmented.
pub const DATAGRAM_BYTES_MAX: usize = 1_200;
/// Largest datagram between nodes, in bytes without IP and UDP headers, where the path was found to carry it. With
/// IPv6 and UDP headers it fits into a frame of 9,000 bytes, as networks for large frames and loopback have.
pub const DATAGRAM_BYTES_CEILING: usize = 8_900;
/// Size of the IP and UDP headers of a datagram, in bytes. The metrics of gossip traffic include them.
pub const DATAGRAM_HEADER_BYTES: usize = 28;
/// Largest batch, in bytes, that is sent as fragments in datagrams; peers pull larger ones over TCP. Up to
/// this size fragments arrive sooner, because a pull must connect and ask first. Measured among 64 nodes: 64
/// KiB take 9 ms in fragments and 13 ms pulled; 1 MiB takes 221 ms in fragments and 13 ms pulled.
pub const FRAGMENTED_BYTES_MAX: usize = 64 * 1024;
/// Largest frame on a TCP stream between nodes, in bytes: the largest record with its fields fits.
pub const STREAM_FRAME_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Largest value that `--max-record-bytes` may be set to, in bytes.
pub const RECORD_BYTES_CEILING: usize = 2 * 1024 * 1024;

/// Most bytes of fragments that are kept while the rest of their batch is missing, from all peers together.
pub const SPREAD_ASSEMBLY_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Largest head (request line and headers) of a request on the HTTP port, in bytes.
pub const REQUEST_HEAD_BYTES_MAX: usize = 16 * 1024;
/// Most header fields of a request on the HTTP port.
pub const REQUEST_HEADERS_MAX: usize = 100;
/// Most subscriptions of one connection, so that a single client cannot grow the index without end.
pub const SUBSCRIPTIONS_PER_CONNECTION_MAX: usize = 1_024;
/// Most patterns of one subscription.
pub const PATTERNS_PER_SUBSCRIPTION_MAX: usize = 256;
/// Most filters of one connection that differ: each is evaluated for every record that the connection's patterns match.
pub const FILTERS_PER_CONNECTION_MAX: usize = 31;
/// Most filters of one connection whose work may grow with the data, so that it takes several connections to use up
/// those of a worker.
pub const INTRICATE_FILTERS_PER_CONNECTION_MAX: usize = 8;
/// Most filters of all connections of a worker together whose work may grow with the data. Each may take 50
/// microseconds for a record.
pub const INTRICATE_FILTERS_PER_WORKER_MAX: usize = 64;
/// Most parts (values, operators, fields) that the filters of all connections of a worker have together: 25,000
/// filters of ten parts. Each part takes about 20 nanoseconds for a record that all of them match.
pub const FILTER_PARTS_PER_WORKER_MAX: usize = 262_144;
/// Most bytes that the patterns of one connection may hold, counted as if it were the only connection. It is
/// enough for 25,000 patterns of three segments.
pub const PATTERN_BYTES_PER_CONNECTION_MAX: usize = 16 * 1024 * 1024;
/// Most shapes of the patterns of one connection. A shape is a number of segments and the places of the
/// wildcards among them. A record matches at most one pattern of each shape, so this is also how often a
/// connection can be found for one record. Clients seldom have more than ten.
pub const SHAPES_PER_CONNECTION_MAX: usize = 64;
/// Most `*` of a plain shape. All names with at most three `*` that 16 segments allow are 3,213 nodes of the
/// index, which is what the search for one record may visit. With four it would be 9,401.
pub const PLAIN_WILDCARDS_MAX: u32 = 3;
/// Most shapes with more than [`PLAIN_WILDCARDS_MAX`] `*` of one connection, so that it takes several to use
/// up those of a worker.
pub const INTRICATE_SHAPES_PER_CONNECTION_MAX: usize = 8;
/// Most shapes with more than [`PLAIN_WILDCARDS_MAX`] `*` of all connections of a worker together. Each lets
/// a search visit up to 13 nodes more.
pub const INTRICATE_SHAPES_PER_WORKER_MAX: usize = 64;
/// Longest duration of a client's handshake from connecting to the last byte of its request, and of the head of
/// every later request from its first byte on, in microseconds.
pub const HANDSHAKE_US_MAX: u64 = 5_000_000;
/// Silence after which the node pings a client, in microseconds.
pub const PING_US: u64 = 25_000_000;
/// Silence after which the node closes a client's connection with code 4201, in microseconds.
pub const PONG_US_MAX: u64 = 35_000_000;
/// Interval at which a client with a stream of events is sent a comment, in microseconds. Programs between a client and
/// a node that close silent connections wait for at least half a minute.
pub const COMMENT_US: u64 = 15_000_000;
/// Interval at which a subscriber is sent a resume token, in microseconds.
pub const RESUME_US: u64 = 10_000_000;
/// How long a subscription with a resume token waits until the node has everything that the token says was seen, in
/// microseconds. Afterwards the token is refused, and the subscriber gets a full snapshot. It is longer than records
/// take to the farthest node, and short for a client that waits.
pub const RESUME_WAIT_US: u64 = 3_000_000;
/// Most bytes that may wait for one connection with `mode=all`. Beyond it the connection is closed with code
/// 4202.
pub const ALL_QUEUE_BYTES_MAX: usize = 1024 * 1024;
/// Most items in one batch. Every item is answered by up to a hundred bytes or more, even an invalid one that
/// takes only two, so this bounds what one frame makes a node hold and send.
pub const BATCH_ITEMS_MAX: usize = 10_000;
/// Most bytes that the publishes of one connection may hold while they wait for the store. Beyond it the
/// connection is not read until some are answered.
pub const UNANSWERED_BYTES_MAX: usize = 1024 * 1024;
/// Most steps that the snapshots of all connections of a worker may take together in one of its turns. A step is to
/// look at a name or to compare it with a few patterns. All of them take about a millisecond.
pub const SCAN_STEPS_PER_TURN: usize = 8_192;
/// Most steps that the snapshots of one connection may take before the worker looks at the clock and it is the turn
/// of another one. They take some twenty microseconds, and ten times as much where a processor is slow or shared.
pub const SCAN_STEPS_PER_SESSION: usize = 128;
/// Most bytes that the snapshots of all connections of a worker find in one of its turns, before they are sent: one part
/// of a session may exceed them. To send them takes about half a millisecond, as fourteen kilobytes take 45 µs.
pub const SCAN_BYTES_PER_TURN: usize = 128 * 1024;
/// Most patterns of closed connections that a worker removes from its index in one turn, which takes about a
/// millisecond.
pub const PATTERNS_REMOVED_PER_TURN: usize = 512;
/// Most records that waited for closed connections that a worker frees in one turn, which takes less than a
/// millisecond.
pub const RECORDS_FREED_PER_TURN: usize = 4_096;
/// Most bytes that are encoded in advance for one connection with `mode=latest`. Beyond it only the newest
/// record of each source is kept.
pub const LATEST_BUFFER_BYTES_MAX: usize = 256 * 1024;
/// Bytes in a worker's mailbox from which on publishers on other workers are slowed down.
pub const MAILBOX_BYTES_SOFT: usize = 8 * 1024 * 1024;
/// Most bytes in a worker's mailbox. Beyond it the subscribers of that worker are brought up to date from the
/// map (`mode=latest`) or closed with code 4202 (`mode=all`).
pub const MAILBOX_BYTES_HARD: usize = 32 * 1024 * 1024;
/// Most bytes of heads (the newest sequence numbers of origins) that are added to one datagram: at most a
/// sixth of it.
pub const HEADS_BYTES_MAX: usize = 200;
/// Bytes of records waiting to be spread in the cluster from which on publishers are slowed down: less than
/// [`OUTBOX_BYTES_MERGED`], so that records are merged only where slowing down does not suffice.
pub const OUTBOX_BYTES_SOFT: usize = 2 * 1024 * 1024;
/// Bytes of records waiting to be spread in the cluster from which on they are merged to the newest of each source.
pub const OUTBOX_BYTES_MERGED: usize = 8 * 1024 * 1024;
/// Most bytes of records waiting to be spread in the cluster. Beyond it publishes are refused (`overloaded`).
pub const OUTBOX_BYTES_HARD: usize = 32 * 1024 * 1024;
/// Most bytes of records that wait for the store or are being written by it. Publishers and streams from
/// peers are slowed down from a quarter of it on, and publishes are refused before it is full.
pub const STORE_QUEUE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Bytes of records that wait on disk for Cassandra up to which every record of a source is kept. Beyond it a
/// new record replaces the one of the same source that waits.
pub const SPILL_HISTORY_BYTES: usize = 1024 * 1024 * 1024;
/// Most bytes of records that may wait on disk for Cassandra.
pub const SPILL_BYTES_MAX: usize = 4 * 1024 * 1024 * 1024;
/// How long a publish may wait for the level `stored`, in microseconds, before it is answered with `timeout`.
pub const STORED_US_MAX: u64 = 5_000_000;
/// How long a publish may wait for the level `replicated`, in microseconds, before it is answered with
/// `timeout`.
pub const REPLICATED_US_MAX: u64 = 5_000_000;
/// Most publishes that may wait for the level `replicated` on one node. Further ones are refused
/// (`overloaded`). Each costs up to half a kilobyte of memory, and at worst one answer from every member.
pub const REPLICATED_WAITING_MAX: usize = 16_384;
/// Most tokens in the file of rights. All of them are compared with a token that comes, which takes some hundred
/// microseconds for so many.
pub const TOKENS_MAX: usize = 10_000;
/// Most patterns of one kind in the rights of one token. Each pattern of a subscription is compared with all of
/// them.
pub const PATTERNS_PER_RIGHT_MAX: usize = 256;
/// Largest file of rights, and largest file of keys that it names, in bytes.
pub const AUTH_FILE_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Most keys that may have signed JWTs. A JWT that names no key is tried with each of its kind.
pub const JWT_KEYS_MAX: usize = 32;
/// Most JWTs whose signatures are remembered as valid, so that they are verified once.
pub const JWT_REMEMBERED_MAX: usize = 4_096;
/// Most names in JWTs whose rates are counted. Names beyond it have a rate for each connection.
pub const JWT_RATES_MAX: usize = 65_536;
/// How far the clock of an issuer of JWTs may be ahead (`nbf`), in microseconds.
pub const JWT_LEEWAY_US: u64 = 10_000_000;
/// Longest token, in bytes. It must fit into the head of a request, as base64 if it comes from a browser.
pub const TOKEN_BYTES_MAX: usize = 8 * 1024;
/// How long a connection may be open without a token where one is needed, in microseconds.
pub const AUTH_FRAME_US_MAX: u64 = 5_000_000;
/// Most addresses whose wrong tokens are remembered. Beyond it the half that owes least is forgotten.
pub const GUESSERS_MAX: usize = 16_384;
/// How long a client may go on at [`FLOOD_TIMES`] times its rate before it is closed with code 4101, in seconds.
pub const FLOOD_SECONDS: u32 = 10;
/// Multiple of its rate at which a client is taken for one that does not listen to refusals. A tenth less counts,
/// too, because seconds do not begin at the same time everywhere.
pub const FLOOD_TIMES: u64 = 10;
/// Longest duration of an orderly shutdown, in microseconds.
pub const SHUTDOWN_US_MAX: u64 = 10_000_000;

// A token in base64 and the other fields of a request fit into its head.
const _: () = assert!(TOKEN_BYTES_MAX / 3 * 4 + 4 * 1024 < REQUEST_HEAD_BYTES_MAX);
const _: () = assert!(SHARDS.is_power_of_two() && SHARDS <= u16::MAX as usize + 1);
const _: () = assert!(MAILBOX_BYTES_SOFT < MAILBOX_BYTES_HARD);
const _: () = assert!(OUTBOX_BYTES_SOFT < OUTBOX_BYTES_MERGED && OUTBOX_BYTES_MERGED < OUTBOX_BYTES_HARD);
const _: () = assert!(RECORD_BYTES_CEILING + 4096 < STREAM_FRAME_BYTES_MAX);
const _: () = assert!(2 * RECORD_BYTES_CEILING < SPREAD_ASSEMBLY_BYTES_MAX);
const _: () = assert!(PING_US < PONG_US_MAX);
const _: () = assert!(INTRICATE_SHAPES_PER_CONNECTION_MAX < SHAPES_PER_CONNECTION_MAX);
const _: () = assert!(INTRICATE_SHAPES_PER_CONNECTION_MAX < INTRICATE_SHAPES_PER_WORKER_MAX);
const _: () = assert!(INTRICATE_FILTERS_PER_CONNECTION_MAX < INTRICATE_FILTERS_PER_WORKER_MAX);
const _: () = assert!(SCAN_STEPS_PER_SESSION < SCAN_STEPS_PER_TURN);
const _: () =
    assert!(FRAGMENTED_BYTES_MAX > DATAGRAM_BYTES_CEILING && DATAGRAM_BYTES_CEILING > DATAGRAM_BYTES_MAX);
const _: () = assert!(6 * HEADS_BYTES_MAX <= DATAGRAM_BYTES_MAX);
// An update of a member that does not fit into a datagram would block the queue of updates for ever, as in
// alertmanager#1340.
const _: () = assert!(
    2 * (2 * NODE_NAME_BYTES_MAX + ZONE_BYTES_MAX + HTTP_ADDRESS_BYTES_MAX + VERSION_BYTES_MAX + 80)
        < DATAGRAM_BYTES_MAX
);
const _: () = assert!(CLOCK_SKEW_US_MAX < FUTURE_US_MAX);
// What a node takes from its clients must not be refused by its peers.
const _: () = assert!(FUTURE_US_MAX + 2 * CLOCK_SKEW_US_MAX < PEER_FUTURE_US_MAX);
