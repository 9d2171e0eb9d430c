//! The behaviour of links and machines, as far as a scenario may set it.

/// Largest datagram that an Ethernet carries, in bytes.
pub const ETHERNET_BYTES: usize = 1_500;

/// One-way delay of datagrams that are not held up, in microseconds; evenly distributed between both bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delay {
    /// The shortest delay.
    pub min_us: u64,
    /// The longest delay.
    pub max_us: u64,
}

/// The behaviour of all links and nodes. Probabilities are in parts per million.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conditions {
    /// Shortest one-way delay, in microseconds.
    pub delay_us_min: u64,
    /// Longest one-way delay of datagrams that are not held up, in microseconds.
    pub delay_us_max: u64,
    /// Delay between nodes of different zones; `None`: the same as inside a zone.
    pub between_zones: Option<Delay>,
    /// Probability that a datagram is lost.
    pub loss_per_million: u32,
    /// Largest datagram that the links carry, in bytes, headers included. Larger ones are lost.
    pub path_bytes: usize,
    /// Whether datagrams are lost in bursts: every directed pair of nodes has times of 10 ms in which half of
    /// its datagrams are lost, as often as makes the mean `loss_per_million`, which must then be at most a
    /// half.
    pub is_bursty: bool,
    /// Probability that a datagram arrives twice.
    pub duplicates_per_million: u32,
    /// Probability that a datagram is held up, by up to ten times the longest delay.
    pub reordered_per_million: u32,
    /// Most bytes that a node can send per second, headers included; 0: no limit.
    pub egress_bytes_per_s: u64,
    /// Number of bytes that may wait to be sent. A datagram that exceeds it is dropped.
    pub egress_queue_bytes: u64,
    /// Processor time that a datagram takes of the sender, and again of the receiver, in microseconds. A
    /// node does one thing at a time: what arrives while it is busy waits in its socket.
    pub cpu_us: u64,
    /// Longest time until another thread of a node has merged a batch that came from a peer, in microseconds;
    /// 0: the thread that receives it merges it at once.
    pub merge_us: u64,
}

impl Conditions {
    /// A healthy local network: delays of 0.5 to 1.5 ms, nothing lost, and nodes that need no time.
    pub fn lan() -> Conditions {
        Conditions {
            delay_us_min: 500,
            delay_us_max: 1_500,
            between_zones: None,
            loss_per_million: 0,
            path_bytes: ETHERNET_BYTES,
            is_bursty: false,
            duplicates_per_million: 0,
            reordered_per_million: 0,
            egress_bytes_per_s: 0,
            egress_queue_bytes: 1024 * 1024,
            cpu_us: 0,
            merge_us: 0,
        }
    }

    /// A local network in which some datagrams are lost, and a few duplicated and reordered.
    #[cfg(test)]
    pub fn lossy(loss_per_million: u32) -> Conditions {
        let few = 10_000;
        Conditions {
            loss_per_million,
            duplicates_per_million: few,
            reordered_per_million: few,
            ..Conditions::lan()
        }
    }

    /// The conditions under which the published figures are measured: a local network whose nodes need
    /// 6 µs for a datagram at each end.
    pub fn figures() -> Conditions {
        Conditions { cpu_us: 6, ..Conditions::lan() }
    }
}
