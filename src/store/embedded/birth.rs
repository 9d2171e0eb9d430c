//! Counts the starts of a node: each gets a boot number, and takes what the run before has left in the file.

use redb::{Database, ReadableTable, Table, WriteTransaction};

use super::schema::{
    AGREED_US, BOOT, FORMAT, FORMAT_VERSION, FORMAT_WITHOUT_JOURNAL, HEADS, HISTORY, JOURNAL, LATEST,
    NODE_NAME, NUMBERS, TEXTS, begin,
};
use crate::cluster::Heads;
use crate::record::NodeName;
use crate::store::life::NewLife;
use crate::store::open::{NodeIdentity, OpenError};

/// Counts a start of the node and returns its identity, which survives a power cut when this returns.
pub(super) fn count_life(database: &Database, life: NewLife) -> Result<NodeIdentity, OpenError> {
    let failed = |error: redb::Error| OpenError::Write(error.into());
    let transaction = begin(database).map_err(failed)?;
    let identity = write_life(&transaction, life)?;
    transaction.commit().map_err(|error| failed(error.into()))?;
    Ok(identity)
}

/// Returns the least boot number of the next start. The greatest number has no successor, and no node has written
/// it: it is damaged, and then the clock alone decides.
fn after(boot: u64) -> u64 {
    boot.checked_add(1).unwrap_or_else(|| {
        tracing::error!("the boot number in the store is damaged; the clock gives the next one");
        0
    })
}

/// Reads the heads and removes them: they are true of this state of the file and of no later one.
fn take_heads(table: &mut Table<'_, (&'static str, u64), u64>) -> Result<Heads, redb::Error> {
    let mut heads = Heads::new();
    for row in table.iter()? {
        let (key, seq) = row?;
        let (origin, boot) = key.value();
        if let Ok(origin) = NodeName::parse(origin) {
            heads.insert((origin, boot), seq.value());
        }
    }
    table.retain(|_, _| false)?;
    Ok(heads)
}

fn write_life(transaction: &WriteTransaction, life: NewLife) -> Result<NodeIdentity, OpenError> {
    let failed = |error: redb::Error| OpenError::Write(error.into());
    let write = || -> Result<Result<NodeIdentity, u64>, redb::Error> {
        // The tables are made here, so that readers always find them.
        drop((transaction.open_table(LATEST)?, transaction.open_table(HISTORY)?));
        drop(transaction.open_table(JOURNAL)?);
        let mut numbers = transaction.open_table(NUMBERS)?;
        let mut texts = transaction.open_table(TEXTS)?;
        let number = |numbers: &Table<'_, &'static str, u64>, name| -> Result<u64, redb::Error> {
            Ok(numbers.get(name)?.map_or(0, |number| number.value()))
        };
        let format = number(&numbers, FORMAT)?;
        if ![0, FORMAT_WITHOUT_JOURNAL, FORMAT_VERSION].contains(&format) {
            return Ok(Err(format));
        }
        let kept_name = texts.get(NODE_NAME)?.and_then(|name| NodeName::parse(name.value()).ok());
        let identity = NodeIdentity {
            node_name: life.node_name.or(kept_name).unwrap_or(life.made_up),
            boot: life.boot_min.max(after(number(&numbers, BOOT)?)),
            agreed_us: Some(number(&numbers, AGREED_US)?).filter(|&us| us > 0),
            heads: take_heads(&mut transaction.open_table(HEADS)?)?,
        };
        texts.insert(NODE_NAME, identity.node_name.as_str())?;
        numbers.insert(FORMAT, FORMAT_VERSION)?;
        numbers.insert(BOOT, identity.boot)?;
        Ok(Ok(identity))
    };
    write().map_err(failed)?.map_err(|found| OpenError::Format { found, known: FORMAT_VERSION })
}
