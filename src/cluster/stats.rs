//! What a machine counts, and how full its queues are.

/// How full something is that has a bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gauge {
    /// What it is, with its unit.
    pub name: &'static str,
    /// How much is in it.
    pub used: usize,
    /// How much may be.
    pub max: usize,
}

impl Gauge {
    pub(super) fn new(name: &'static str, used: usize, max: usize) -> Gauge {
        Gauge { name, used, max }
    }

    /// Whether there is more in it than may be.
    pub fn is_over(&self) -> bool {
        self.used > self.max
    }
}

/// Counts since the start, and a few states of the moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MachineStats {
    /// Datagrams sent to peers.
    pub datagrams_sent: u64,
    /// Their bytes, with 28 of IP and UDP header each.
    pub bytes_sent: u64,
    /// Datagrams received, ignored ones included.
    pub datagrams_received: u64,
    /// Their bytes, with 28 of IP and UDP header each.
    pub bytes_received: u64,
    /// Bytes written on streams.
    pub stream_bytes_sent: u64,
    /// Datagrams and streams of other programs, clusters or generations, ignored.
    pub foreign: u64,
    /// Datagrams and streams that were truncated, damaged or malformed, ignored.
    pub corrupt: u64,
    /// Copies of records that came from peers, the needless ones too.
    pub data_copies_received: u64,
    /// Shards found different at the last comparison.
    pub shards_differing: u64,
    /// Lifeguard's local health: 0 is healthy, else timeouts are stretched.
    pub health_score: u32,
}
