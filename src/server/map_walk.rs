//! Walks through the whole map, for exports and for what users add.

use std::sync::Arc;

use super::shared::Shared;
use crate::auth::Access;
use crate::latest::Cursor;
use crate::limits::{SCAN_STEPS_PER_TURN, SHARDS};
use crate::record::{Pattern, RecordWalk, SharedRecord};

/// A walk through the map, shard by shard.
pub struct MapWalk {
    shared: Arc<Shared>,
    pattern: Pattern,
    reader: Option<Access>,
    /// The shard that is looked through.
    shard: usize,
    cursor: Cursor,
}

impl MapWalk {
    /// A walk through all records that match the pattern and, if there is a reader, may be read by it.
    pub fn new(shared: Arc<Shared>, pattern: Pattern, reader: Option<Access>) -> MapWalk {
        MapWalk { shared, pattern, reader, shard: 0, cursor: Cursor::default() }
    }
}

impl RecordWalk for MapWalk {
    fn next_part(&mut self, bytes: usize) -> Vec<SharedRecord> {
        let (mut found, mut found_bytes, mut steps) = (Vec::new(), 0, SCAN_STEPS_PER_TURN);
        while steps > 0 && found_bytes < bytes && !self.is_over() {
            let before = found.len();
            let latest = self.shared.ingest.latest();
            latest.scan(self.shard, &self.pattern, &mut self.cursor, &mut steps, &mut |record, _| {
                found.push(record.clone());
                found_bytes += record.cost_bytes();
                found_bytes < bytes
            });
            // Rights may be many patterns, so they are asked without the lock of the shard.
            if let Some(reader) = &self.reader {
                let mut rest = found.split_off(before);
                rest.retain(|record| reader.rights().may_read(record.source.as_str()));
                found.append(&mut rest);
            }
            if self.cursor.is_over() {
                self.shard += 1;
                self.cursor = Cursor::default();
            }
        }
        self.shared.metrics.scan_steps.add((SCAN_STEPS_PER_TURN - steps) as u64);
        found
    }

    fn is_over(&self) -> bool {
        self.shard >= SHARDS
    }
}
