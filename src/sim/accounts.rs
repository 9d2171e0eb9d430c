//! What nodes sent and received, summed over their lives.

use std::ops::AddAssign;

use crate::cluster::Machine;

/// Counts of one node or of many, since they were first started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// Datagrams sent.
    pub datagrams_sent: u64,
    /// Their bytes, with 28 of header each.
    pub bytes_sent: u64,
    /// Datagrams received.
    pub datagrams_received: u64,
    /// Copies of records received, the needless ones too.
    pub copies_received: u64,
    /// Of the bytes sent: parts sent for the first time.
    pub data_bytes: u64,
    /// Of the bytes sent: parts sent again.
    pub resent_bytes: u64,
    /// Bytes written on streams.
    pub stream_bytes: u64,
    /// Tries that were not acknowledged in time.
    pub timeouts: u64,
    /// Batches sent to fill others' gaps.
    pub repairs: u64,
    /// Parts handed to another member after a failure.
    pub redelegated: u64,
    /// Parts given up.
    pub given_up: u64,
}

impl Account {
    /// What a machine counted in its life.
    pub fn of(machine: &Machine) -> Account {
        let (stats, spread) = (machine.stats(), machine.spread_stats());
        Account {
            datagrams_sent: stats.datagrams_sent,
            bytes_sent: stats.bytes_sent,
            datagrams_received: stats.datagrams_received,
            copies_received: spread.data_copies_received,
            data_bytes: spread.data_bytes_sent,
            resent_bytes: spread.resent_bytes,
            stream_bytes: stats.stream_bytes_sent,
            timeouts: spread.timeouts,
            repairs: spread.repairs_sent,
            redelegated: spread.redelegated,
            given_up: spread.given_up,
        }
    }

    /// Of the bytes sent in datagrams, all but the parts that carried records.
    pub fn control_bytes(&self) -> u64 {
        self.bytes_sent.saturating_sub(self.data_bytes + self.resent_bytes)
    }

    /// What was counted since `before`.
    pub fn since(&self, before: &Account) -> Account {
        Account {
            datagrams_sent: self.datagrams_sent - before.datagrams_sent,
            bytes_sent: self.bytes_sent - before.bytes_sent,
            datagrams_received: self.datagrams_received - before.datagrams_received,
            copies_received: self.copies_received - before.copies_received,
            data_bytes: self.data_bytes - before.data_bytes,
            resent_bytes: self.resent_bytes - before.resent_bytes,
            stream_bytes: self.stream_bytes - before.stream_bytes,
            timeouts: self.timeouts - before.timeouts,
            repairs: self.repairs - before.repairs,
            redelegated: self.redelegated - before.redelegated,
            given_up: self.given_up - before.given_up,
        }
    }
}

impl AddAssign for Account {
    fn add_assign(&mut self, more: Account) {
        self.datagrams_sent += more.datagrams_sent;
        self.bytes_sent += more.bytes_sent;
        self.datagrams_received += more.datagrams_received;
        self.copies_received += more.copies_received;
        self.data_bytes += more.data_bytes;
        self.resent_bytes += more.resent_bytes;
        self.stream_bytes += more.stream_bytes;
        self.timeouts += more.timeouts;
        self.repairs += more.repairs;
        self.redelegated += more.redelegated;
        self.given_up += more.given_up;
    }
}
