//! What the way of a record ends in.

use crate::latest::Change;
use crate::record::{Now, SharedRecord};

/// Where applied records go. The methods are called under a shard's lock, except
/// [`Downstream::store_health`]: implementations push into memory and return; they neither block nor
/// call back.
pub trait Downstream: Send + Sync {
    /// Hands a change to the connections that match, on every worker.
    fn deliver(&self, change: Change);
    /// Puts a record that was applied into the store's queue. Returns the ticket that is durable when
    /// the record is.
    fn store(&self, record: &SharedRecord) -> u64;
    /// Returns the ticket that is durable when `winner`, which a client's record did not beat, is.
    fn store_winner(&self, winner: &SharedRecord) -> u64;
    /// Tells the store at `now` that the map has dropped a record, which the store may then forget too.
    fn forget(&self, now: Now, record: &SharedRecord);
    /// Returns the reason if the store takes no records.
    fn store_health(&self) -> Result<(), String>;
}
