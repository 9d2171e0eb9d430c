//! Names and types of the tables in the file, and the function that begins a transaction.

use redb::{Database, TableDefinition, WriteTransaction};

/// Table from a source to its [`LatestRow`](super::rows::LatestRow).
pub(super) const LATEST: TableDefinition<&str, &[u8]> = TableDefinition::new("latest");
/// Table from a [`history_key`](super::rows::history_key) to a record encoded by
/// [`wire::encode`](crate::record::wire::encode).
pub(super) const HISTORY: TableDefinition<&[u8], &[u8]> = TableDefinition::new("history");
/// Table from the number of a row to changes, in the order in which they were made.
pub(super) const JOURNAL: TableDefinition<u64, &[u8]> = TableDefinition::new("journal");
/// Numbers about the node, by name. Files of earlier versions also have `clock_high_water_us`, the greatest
/// timestamp issued for any source; it is not read any more.
pub(super) const NUMBERS: TableDefinition<&str, u64> = TableDefinition::new("numbers");
/// Table from an origin and its boot number to the number up to which its records are held. Empty while the
/// store is open.
pub(super) const HEADS: TableDefinition<(&str, u64), u64> = TableDefinition::new("heads");
/// Texts about the node, by name.
pub(super) const TEXTS: TableDefinition<&str, &str> = TableDefinition::new("texts");

/// Name of the version of the tables, among the numbers.
pub(super) const FORMAT: &str = "format";
/// Name of the node's boot number, among the numbers.
pub(super) const BOOT: &str = "boot";
/// Name of the time of the last agreement, in microseconds since the Unix epoch.
pub(super) const AGREED_US: &str = "agreed_us";
/// Name of the node's name, among the texts.
pub(super) const NODE_NAME: &str = "node_name";

/// Version of the tables above. A file of another version is refused, not guessed at.
pub(super) const FORMAT_VERSION: u64 = 2;
/// The version before had no journal: all else is the same, so its files are taken as they are.
pub(super) const FORMAT_WITHOUT_JOURNAL: u64 = 1;

/// Begins a transaction that writes.
pub(super) fn begin(database: &Database) -> Result<WriteTransaction, redb::Error> {
    let mut transaction = database.begin_write()?;
    // This is not only for speed: read the head of module `embedded` before you turn it off.
    transaction.set_quick_repair(true);
    Ok(transaction)
}
