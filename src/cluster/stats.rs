//! Counts of a machine, and how full its queues are.

use super::seal::SealRefusal;

/// How full a bounded queue or table is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueGauge {
    /// Name of the queue or table, with the unit of its size.
    pub name: &'static str,
    /// Current size of the queue or table.
    pub used: usize,
    /// Greatest size that is allowed.
    pub max: usize,
}

impl QueueGauge {
    /// Describes a queue or table that holds `used` of at most `max` entries or bytes.
    pub(super) fn new(name: &'static str, used: usize, max: usize) -> QueueGauge {
        QueueGauge { name, used, max }
    }

    /// Returns whether the size is greater than allowed.
    pub fn is_over(&self) -> bool {
        self.used > self.max
    }
}

/// Counts of a machine since its start, and a few current values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MachineStats {
    /// Number of datagrams sent to peers.
    pub datagrams_sent: u64,
    /// Bytes of the datagrams sent, with 28 bytes of IP and UDP headers each.
    pub bytes_sent: u64,
    /// Number of datagrams received, ignored ones included.
    pub datagrams_received: u64,
    /// Bytes of the datagrams received, with 28 bytes of IP and UDP headers each.
    pub bytes_received: u64,
    /// Bytes written on streams, preambles included.
    pub stream_bytes_sent: u64,
    /// Number of datagrams and streams that were ignored because another program, cluster or generation sent
    /// them.
    pub foreign: u64,
    /// Number of datagrams and streams that were ignored because they were truncated, damaged or malformed.
    pub corrupt: u64,
    /// Number of datagrams that were ignored because only members may send them, and no member has answered at
    /// the address that they came from.
    pub strangers: u64,
    /// Datagrams and streams that the seal refused.
    pub refused: RefusedMessages,
    /// Number of copies of records that came from peers, needless copies included.
    pub data_copies_received: u64,
    /// Number of shards that differed in the last two comparisons of maps.
    pub shards_differing: u64,
}

/// Number of messages (datagrams and streams) that were refused by the seal, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RefusedMessages {
    /// Plain ones, of a node that takes nothing plain.
    pub plain: u64,
    /// Those sealed with a key that this node does not have.
    pub key: u64,
    /// Those that have come before, are for another life, or of a life that is over.
    pub replay: u64,
    /// Those that do not open.
    pub forged: u64,
}

impl RefusedMessages {
    /// All of them.
    pub fn sum(&self) -> u64 {
        self.plain + self.key + self.replay + self.forged
    }
}

impl MachineStats {
    /// Counts a datagram or a stream that was refused.
    pub(super) fn count(&mut self, refusal: SealRefusal) {
        match refusal {
            SealRefusal::Foreign => self.foreign += 1,
            SealRefusal::Corrupt => self.corrupt += 1,
            SealRefusal::Plain => self.refused.plain += 1,
            SealRefusal::Key => self.refused.key += 1,
            SealRefusal::Replay => self.refused.replay += 1,
            SealRefusal::Forged => self.refused.forged += 1,
        }
    }
}
