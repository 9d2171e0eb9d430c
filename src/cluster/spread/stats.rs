//! Counters of spreading.

/// Counts of spreading since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpreadStats {
    /// Copies of records that came from peers, the needless ones included.
    pub data_copies_received: u64,
    /// Bytes of parts that were sent for the first time, in datagrams.
    pub data_bytes_sent: u64,
    /// Bytes of bodies that peers pulled over streams.
    pub body_bytes_sent: u64,
    /// Bytes of parts that were sent again.
    pub resent_bytes: u64,
    /// Bytes of receipts, questions, wants and of the encoding around parts.
    pub control_bytes_sent: u64,
    /// Sent parts that were not acknowledged in time; one that is sent again counts again.
    pub timeouts: u64,
    /// Parts that were moved to another member because one did not answer.
    pub redelegated: u64,
    /// Parts that were given up: their members find out by themselves that something is missing.
    pub given_up: u64,
    /// Parts that contained no valid batch, or whose checksum did not match.
    pub corrupt: u64,
    /// Batches that were sent to fill gaps of others.
    pub repairs_sent: u64,
}
