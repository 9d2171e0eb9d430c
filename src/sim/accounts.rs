//! Counts of what nodes sent and received, summed over their lives.

use std::ops::AddAssign;

use crate::cluster::Machine;

/// Counts of one node or of many, since each was first started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// Number of datagrams sent.
    pub datagrams_sent: u64,
    /// Bytes of the datagrams sent, with 28 bytes of IP and UDP headers each.
    pub bytes_sent: u64,
    /// Number of datagrams received.
    pub datagrams_received: u64,
    /// Copies of records received in datagrams, including those of records that were there already.
    pub copies_received: u64,
    /// Part of `bytes_sent`: parts of batches that were sent for the first time.
    pub data_bytes: u64,
    /// Part of `stream_bytes`: bodies of records that peers pulled.
    pub body_bytes: u64,
    /// Part of `bytes_sent`: parts of batches that were sent again.
    pub resent_bytes: u64,
    /// Number of bytes written on streams.
    pub stream_bytes: u64,
    /// Number of hand-overs that were not acknowledged in time.
    pub timeouts: u64,
    /// Number of batches sent to members that asked for what they had missed.
    pub repairs: u64,
    /// Number of parts handed to another member because the first one failed.
    pub redelegated: u64,
    /// Number of parts for which no member was left to try.
    pub given_up: u64,
}

impl Account {
    /// Returns what a machine has counted since its start.
    pub fn of(machine: &Machine) -> Account {
        let (stats, spread) = (machine.stats(), machine.spread_stats());
        Account {
            datagrams_sent: stats.datagrams_sent,
            bytes_sent: stats.bytes_sent,
            datagrams_received: stats.datagrams_received,
            copies_received: spread.data_copies_received,
            data_bytes: spread.data_bytes_sent,
            body_bytes: spread.body_bytes_sent,
            resent_bytes: spread.resent_bytes,
            stream_bytes: stats.stream_bytes_sent,
            timeouts: spread.timeouts,
            repairs: spread.repairs_sent,
            redelegated: spread.redelegated,
            given_up: spread.given_up,
        }
    }

    /// Returns the bytes sent in datagrams that are not parts of batches: everything else in datagrams,
    /// headers included.
    pub fn control_bytes(&self) -> u64 {
        self.bytes_sent.saturating_sub(self.data_bytes + self.resent_bytes)
    }

    /// Returns the bytes of records that were sent: in datagrams, for the first time and again, and over
    /// streams.
    pub fn record_bytes(&self) -> u64 {
        self.data_bytes + self.resent_bytes + self.body_bytes
    }

    /// Returns what was counted since `before`, an earlier state of the same account.
    pub fn since(&self, before: &Account) -> Account {
        self.with(before, |now, before| now - before)
    }

    /// Returns the account with each count made by `make` from the counts of this account and of `other`.
    fn with(&self, other: &Account, make: fn(u64, u64) -> u64) -> Account {
        Account {
            datagrams_sent: make(self.datagrams_sent, other.datagrams_sent),
            bytes_sent: make(self.bytes_sent, other.bytes_sent),
            datagrams_received: make(self.datagrams_received, other.datagrams_received),
            copies_received: make(self.copies_received, other.copies_received),
            data_bytes: make(self.data_bytes, other.data_bytes),
            body_bytes: make(self.body_bytes, other.body_bytes),
            resent_bytes: make(self.resent_bytes, other.resent_bytes),
            stream_bytes: make(self.stream_bytes, other.stream_bytes),
            timeouts: make(self.timeouts, other.timeouts),
            repairs: make(self.repairs, other.repairs),
            redelegated: make(self.redelegated, other.redelegated),
            given_up: make(self.given_up, other.given_up),
        }
    }
}

impl AddAssign for Account {
    fn add_assign(&mut self, more: Account) {
        *self = self.with(&more, |sum, more| sum + more);
    }
}
