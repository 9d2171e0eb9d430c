//! The interface to the places where applied records go: the store, and the connections of subscribers.

use crate::latest::Change;
use crate::record::{Now, SharedRecord};

/// The places where applied records go. The methods are called under a shard's lock, except
/// [`Downstream::store_health`]: implementations push into memory and return; they neither block nor call
/// back.
pub trait Downstream: Send + Sync {
    /// Hands a change to the connections that match, on every worker.
    fn deliver(&self, change: Change);
    /// Puts a record that was applied into the store's queue. Returns its ticket: the record is durable once
    /// the store's mark has reached that.
    fn store(&self, record: &SharedRecord) -> u64;
    /// Returns the ticket at which `winner` is durable, the record of the map that a client's record did not
    /// beat.
    fn store_winner(&self, winner: &SharedRecord) -> u64;
    /// Tells the store at `now` that the map has dropped a record, which the store may then forget too.
    fn forget(&self, now: Now, record: &SharedRecord);
    /// Returns an error with the reason if the store takes no records.
    fn store_health(&self) -> Result<(), String>;
}
