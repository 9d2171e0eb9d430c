//! What spreading counts.

/// Counts of spreading since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpreadStats {
    /// Copies of records that came from peers, the needless ones included.
    pub data_copies_received: u64,
    /// Bytes of parts sent for the first time.
    pub data_bytes_sent: u64,
    /// Bytes of parts sent again.
    pub resent_bytes: u64,
    /// Bytes of receipts, questions, wants and of what stands around parts.
    pub control_bytes_sent: u64,
    /// Tries that were not acknowledged in time.
    pub timeouts: u64,
    /// Parts handed to another member after a failure.
    pub redelegated: u64,
    /// Parts given up: those they were for find out by themselves that something is missing.
    pub given_up: u64,
    /// Parts not taken into custody for lack of room.
    pub refused: u64,
    /// Parts that were no batch, or whose checksum failed.
    pub corrupt: u64,
    /// Times this node asked for a gap.
    pub wants_sent: u64,
    /// Batches sent to fill others' gaps.
    pub repairs_sent: u64,
    /// Gaps left to reconciliation, since nobody asked could fill them.
    pub gaps_abandoned: u64,
}
