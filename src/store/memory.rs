//! The store in memory: nothing survives the process, so everything is durable at once, as far
//! as it will ever be. It keeps histories, and nothing else, since the latest records are the map's.

use std::path::PathBuf;
use std::sync::Arc;

use super::backend::{Backend, Intake, LoadReport, OpenBackend};
use super::error::StoreError;
use super::history::page;
use super::life::NewLife;
use super::open::{NodeIdentity, OpenError, StoreOptions};
use super::placement::Sharing;
use super::rings::HistoryRings;
use super::write_path::{Marks, WritePath};
use crate::cluster::Heads;
use crate::record::{HistoryQuery, Record, Stamp};

/// Opens an empty store in memory. No file is touched.
pub(super) fn open(options: StoreOptions) -> Result<OpenBackend, OpenError> {
    let life = NewLife::begin(&options);
    let identity = NodeIdentity {
        node_name: life.node_name.unwrap_or(life.made_up),
        boot: life.boot_min,
        agreed_us: None,
        heads: Heads::new(),
    };
    let rings = Arc::new(HistoryRings::new(options.history));
    Ok(OpenBackend {
        identity,
        path: Arc::new(WritePath::new(options.clock, options.queue_bytes_max, Marks::default())),
        backend: Arc::new(MemoryBackend { rings: rings.clone() }),
        intake: Intake::Memory(rings),
        place: PathBuf::new(),
        lock: None,
    })
}

struct MemoryBackend {
    rings: Arc<HistoryRings>,
}

impl Backend for MemoryBackend {
    fn load(&self, _each: &mut dyn FnMut(Record)) -> Result<LoadReport, StoreError> {
        Ok(LoadReport::default())
    }

    fn history(&self, query: &HistoryQuery, _unwritten: &[Stamp]) -> Result<Vec<Record>, StoreError> {
        Ok(page(query, &self.rings.of_source(&query.source), Vec::new()).records)
    }

    fn history_len_max(&self) -> usize {
        self.rings.len_max()
    }

    fn sharing(&self) -> Sharing {
        Sharing::Private
    }
}
