//! What clients and the machine saw: the only input of the checker.

use std::sync::Arc;

use super::version::Version;

/// A name of a source, node or fault.
pub type Name = Arc<str>;

/// One thing that was seen during a run. Observations are fed in the order in which one queue got them. A publisher
/// puts its offer into the queue before it sends the record, so that no delivery comes before its offer.
#[derive(Clone, Debug, PartialEq)]
pub struct Observation {
    /// Time since the beginning of the run, in microseconds.
    pub at_us: u64,
    /// The event that was seen.
    pub seen: Seen,
}

/// The kinds of events.
#[derive(Clone, Debug, PartialEq)]
pub enum Seen {
    /// A node's process was started, and serves.
    NodeStarted {
        /// Name of the node.
        node: Name,
    },
    /// A node's process was killed or told to stop. To be fed before the signal is sent.
    NodeEnded {
        /// Name of the node.
        node: Name,
    },
    /// A fault begins. To be fed before the fault is caused.
    FaultBegan {
        /// The fault that begins.
        fault: Fault,
    },
    /// A fault is over.
    FaultEnded {
        /// Number of the fault.
        fault: u32,
    },
    /// A publisher is about to send a record.
    Offered {
        /// Number of the publish, which no other has.
        publish: u64,
        /// The record, and where it is sent.
        offer: Offer,
    },
    /// The answer to a publish.
    Answered {
        /// Number of the publish.
        publish: u64,
        /// The answer that came.
        answer: Answer,
    },
    /// A publish whose answer does not come any more, because its connection was lost.
    Unanswered {
        /// Number of the publish.
        publish: u64,
    },
    /// A subscription was answered.
    Connected {
        /// Number of the subscriber. It has one connection at a time.
        subscriber: u32,
        /// The new connection.
        connection: Connection,
    },
    /// The snapshot of a subscriber's connection has ended.
    SnapshotEnded {
        /// Number of the subscriber.
        subscriber: u32,
    },
    /// A subscriber got a record.
    Delivered {
        /// Number of the subscriber.
        subscriber: u32,
        /// The record that came.
        delivery: Delivery,
    },
    /// A subscriber got the resume token that it will use if it loses its connection.
    TokenTaken {
        /// Number of the subscriber.
        subscriber: u32,
    },
    /// A subscriber's connection ended.
    Disconnected {
        /// Number of the subscriber.
        subscriber: u32,
    },
    /// One source was read at a node.
    Read {
        /// Name of the node.
        node: Name,
        /// Name of the source.
        source: Name,
        /// Time at which the request was sent, in microseconds since the beginning of the run.
        begun_us: u64,
        /// The record found, which may be a deletion.
        found: Option<Version>,
    },
    /// A node was asked which members it knows.
    Members {
        /// Name of the node that was asked.
        seen_by: Name,
        /// Time at which it was asked, in microseconds since the begin of the run.
        begun_us: u64,
        /// The members it named.
        members: Vec<MemberSeen>,
    },
    /// Bytes that all nodes together have sent each other since the beginning of the run.
    Wire {
        /// Number of bytes, with all headers.
        bytes: u64,
    },
    /// How long the threads of nodes have waited for a processor since this was last seen, each time that they wanted to
    /// run.
    Waited {
        /// The mean of the thread that waited longest, in microseconds.
        us: u64,
    },
    /// Memory of a node's process.
    Memory {
        /// Name of the node.
        node: Name,
        /// Resident memory in bytes.
        bytes: u64,
    },
    /// Everything that a node holds, read after the load and all faults have ended and the cluster had its time to
    /// settle.
    Final {
        /// Name of the node.
        node: Name,
        /// The place that was read.
        place: Place,
        /// Sources with their latest records. Deletions may be left out.
        records: Vec<(Name, Version)>,
    },
}

/// Something that is done to nodes or to the network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Number of the fault, which no other has.
    pub id: u32,
    /// Name for people.
    pub name: Name,
    /// The nodes that it hits; empty for all.
    pub nodes: Vec<Name>,
    /// Says that other nodes are right to take those it hits for dead, as when it stops them or cuts them off.
    pub is_deadly: bool,
}

/// A record that a publisher sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// Name of the source.
    pub source: Name,
    /// Timestamp, if the publisher sets it.
    pub ts: Option<u64>,
    /// XXH3-128 of the data; `None` for a deletion.
    pub data_hash: Option<u128>,
    /// Length of the data in bytes.
    pub data_bytes: u32,
    /// Time to live in milliseconds; 0 for none.
    pub ttl_ms: u64,
    /// Name of the node to which it is sent.
    pub node: Name,
    /// Level of acknowledgement that is asked for.
    pub level: Level,
}

/// Levels of acknowledgement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// The node has applied the record.
    Accepted,
    /// The record that won survives a power cut.
    Stored,
    /// Every live member holds the record or a newer one.
    Replicated,
}

/// The answer to a publish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The level is reached.
    Done {
        /// The record's timestamp.
        ts: u64,
        /// The outcome of the merge.
        outcome: Outcome,
        /// Number of nodes that hold it, for `replicated`.
        nodes: Option<u32>,
    },
    /// The record was refused, or its level was not reached.
    Failed {
        /// Code of the error.
        code: Name,
        /// Timestamp, if the record was applied all the same.
        applied: Option<u64>,
    },
}

/// Outcomes of a merge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The record became the latest.
    Applied,
    /// The same record was there already.
    Duplicate,
    /// A newer record was there, with this timestamp.
    Stale {
        /// Timestamp of the newer record.
        current_ts: u64,
    },
}

/// Ways in which records are delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The newest record of each source; older ones may be left out.
    Latest,
    /// Every record that the node applies.
    All,
}

/// The connection of a subscriber.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    /// Number of the connection, from 1.
    pub number: u32,
    /// Name of the node.
    pub node: Name,
    /// Mode of the subscription.
    pub mode: Mode,
    /// Patterns of sources.
    pub patterns: Vec<Name>,
    /// Says that a resume token was accepted; `None` without a token.
    pub recovered: Option<bool>,
}

/// A record that a subscriber got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// Name of the source.
    pub source: Name,
    /// The record's version.
    pub version: Version,
    /// Says that it came before the end of the snapshot.
    pub is_snapshot: bool,
}

/// A member in the list of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberSeen {
    /// Name of the member.
    pub node: Name,
    /// State of the member.
    pub state: MemberState,
    /// Incarnation number of the member.
    pub incarnation: u64,
    /// Boot number of the member.
    pub boot: u64,
    /// Number that is another one each time that the member begins to take part at the node; `None`: it takes no part, or
    /// the node runs a program that does not tell it.
    pub joined: Option<u64>,
}

/// States of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemberState {
    /// The member answers.
    Alive,
    /// It may have died.
    Suspect,
    /// It was declared dead.
    Dead,
    /// It has said that it leaves.
    Left,
}

/// Places that hold records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// A node that serves in its cluster.
    Map,
    /// A node that was started alone with the store of a process that was killed: it must hold what that node has
    /// acknowledged at `stored`.
    OwnStore,
    /// A node that was started alone with the store of a process that stopped in good order at the end: it must hold
    /// what its cluster holds.
    WholeStore,
}
