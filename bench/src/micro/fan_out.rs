//! Takes a batch of records through the whole way inside a node, from drafts to the frames of a hundred
//! subscribers, without sockets: they are merged, numbered, matched, encoded once and copied to each.

use std::borrow::Cow;
use std::hint::black_box;
use std::sync::Arc;

use anode::cluster::outbox::Outbox;
use anode::ingest::{Bounds, Change, Downstream, Ingest};
use anode::metrics::Metrics;
use anode::protocol::draft::{Draft, DraftPayload};
use anode::protocol::json;
use anode::record::{NodeName, Now, Pattern, SharedRecord};
use anode::subscriptions::{Index, Role};
use parking_lot::Mutex;

use super::{RECORDS, data, name};

const SUBSCRIBERS: usize = 100;
/// Number of bytes at which the buffer of a connection is emptied, as a socket would empty it.
const BUFFER_BYTES: usize = 64 * 1024;

/// Keeps changes as they come, to be handed out as a worker does.
#[derive(Default)]
struct Mailbox(Mutex<Vec<Change>>);

impl Downstream for Mailbox {
    fn deliver(&self, change: Change) {
        self.0.lock().push(change);
    }
    fn store(&self, _: &SharedRecord) -> u64 {
        0
    }
    fn store_winner(&self, _: &SharedRecord) -> u64 {
        0
    }
    fn forget(&self, _: Now, _: &SharedRecord) {}
    fn store_health(&self) -> Result<(), String> {
        Ok(())
    }
}

fn ingest() -> Ingest<Mailbox> {
    let Ok(origin) = NodeName::parse("bench-node") else { unreachable!("a good name") };
    let bounds = Bounds { record_bytes_max: 1 << 20, map_bytes_max: 1 << 30, tombstones_us: 1 << 40 };
    let metrics = Arc::new(Metrics::default());
    Ingest::new(bounds, Outbox::new(origin, 1), metrics, Mailbox::default(), 1)
}

pub(super) fn make() -> Box<dyn FnMut()> {
    let ingest = ingest();
    let mut index = Index::default();
    for connection in 0..SUBSCRIBERS {
        match Pattern::parse("sensors/**") {
            Ok(pattern) => assert!(index.insert(&[pattern], connection, Role::Whole).is_ok()),
            Err(error) => unreachable!("a good pattern: {error}"),
        }
    }
    let published: Vec<_> = (0..RECORDS).map(|number| (name(number), data(number as u64))).collect();
    let mut buffers: Vec<Vec<u8>> = (0..SUBSCRIBERS).map(|_| Vec::with_capacity(BUFFER_BYTES)).collect();
    let (mut frame, mut taken) = (Vec::new(), Vec::new());
    let mut now = Now { mono_us: 1, wall_us: 1 };
    Box::new(move || {
        for (source, data) in &published {
            now = Now { mono_us: now.mono_us + 1, wall_us: now.wall_us + 1 };
            let (source, payload) = (Cow::Borrowed(source.as_str()), DraftPayload::Json(data));
            let draft = Draft { source, ts: None, payload, ttl_ms: 0, ack: None };
            assert!(ingest.publish(now, black_box(&draft)).is_ok());
        }
        ingest.outbox().lock().take(usize::MAX, &mut taken);
        taken.clear();
        let changes = std::mem::take(&mut *ingest.downstream().0.lock());
        for change in &changes {
            let audience = index.audience(&change.record.source);
            frame.clear();
            json::write_record(&mut frame, &change.record, change.is_expiry);
            for &connection in audience.iter() {
                let buffer = &mut buffers[connection];
                if buffer.len() + frame.len() > BUFFER_BYTES {
                    black_box(&buffer);
                    buffer.clear();
                }
                buffer.extend_from_slice(&frame);
            }
        }
    })
}
