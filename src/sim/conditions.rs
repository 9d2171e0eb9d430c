//! How links and machines behave: what a scenario sets.

/// Shortest and longest one-way delay of what is not held up, in microseconds; evenly spread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delay {
    /// Shortest.
    pub min_us: u64,
    /// Longest.
    pub max_us: u64,
}

/// How all links and nodes behave. Probabilities are in parts of a million.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conditions {
    /// Shortest one-way delay.
    pub delay_us_min: u64,
    /// Longest one-way delay of what is not held up.
    pub delay_us_max: u64,
    /// Between nodes of different zones; `None`: as inside one.
    pub between_zones: Option<Delay>,
    /// Datagrams that vanish.
    pub loss_per_million: u32,
    /// They vanish in bursts: every directed pair of nodes has times of 10 ms in which half of its
    /// datagrams are lost, and so many of them that the mean is `loss_per_million`. A mean of
    /// more than a half is not possible then.
    pub is_bursty: bool,
    /// Datagrams that arrive twice.
    pub duplicates_per_million: u32,
    /// Datagrams that are held up, by up to ten times the longest delay.
    pub reordered_per_million: u32,
    /// What a node sends, in bytes a second, headers included; 0: without limit.
    pub egress_bytes_per_s: u64,
    /// Bytes that may wait for that; what is more is dropped.
    pub egress_queue_bytes: u64,
    /// What a datagram costs the sender, and again the receiver, in microseconds. A node does one
    /// thing at a time: what comes while it is busy waits in its socket.
    pub cpu_us: u64,
}

impl Conditions {
    /// A healthy local network: 0.5 to 1.5 ms, nothing lost, and nodes that need no time.
    pub fn lan() -> Conditions {
        Conditions {
            delay_us_min: 500,
            delay_us_max: 1_500,
            between_zones: None,
            loss_per_million: 0,
            is_bursty: false,
            duplicates_per_million: 0,
            reordered_per_million: 0,
            egress_bytes_per_s: 0,
            egress_queue_bytes: 1024 * 1024,
            cpu_us: 0,
        }
    }

    /// The same with a share of the datagrams lost, and a few duplicated and reordered.
    pub fn lossy(loss_per_million: u32) -> Conditions {
        let few = 10_000;
        Conditions {
            loss_per_million,
            duplicates_per_million: few,
            reordered_per_million: few,
            ..Conditions::lan()
        }
    }

    /// The world in which the published figures are taken: a local network whose nodes need 6 us for
    /// a datagram at each end.
    pub fn figures() -> Conditions {
        Conditions { cpu_us: 6, ..Conditions::lan() }
    }
}
