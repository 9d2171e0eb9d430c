//! One stage of a record's way at one node, with identifiers that every node computes alike.
//!
//! The trace of a record has the hash of its source and stamp as its number, and a span has the hash of the trace, the
//! node and the stage. So the spans of all nodes join to one tree, and nothing has to be sent along with the record.

use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

use crate::record::{NodeName, Record, SharedRecord};

/// A stage of the way of a record at one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The node has accepted the record from a client. All other spans stand below this one.
    Accept,
    /// The record of another node has become the latest of its source here.
    Apply,
    /// The record has become durable in this node's store.
    Store,
    /// The node at which the record was published has handed it to its links to other nodes.
    PassOn,
    /// An event loop has handed the record to its subscribers.
    Deliver,
}

impl Stage {
    /// Name of the span.
    pub fn as_str(self) -> &'static str {
        match self {
            Stage::Accept => "accept",
            Stage::Apply => "apply",
            Stage::Store => "store",
            Stage::PassOn => "pass on",
            Stage::Deliver => "deliver",
        }
    }

    /// Kind of the span as OTLP counts them: 1 internal, 2 server, 4 producer, 5 consumer.
    pub fn kind(self) -> u8 {
        match self {
            Stage::Accept => 2,
            Stage::Apply => 5,
            Stage::Store => 1,
            Stage::PassOn | Stage::Deliver => 4,
        }
    }
}

/// Number of the trace of a record: the same on every node.
pub fn trace_id(record: &Record) -> u128 {
    let mut bytes = record.source.as_str().as_bytes().to_vec();
    bytes.extend_from_slice(&record.stamp.ts.to_le_bytes());
    bytes.push(u8::from(record.stamp.deleted));
    bytes.extend_from_slice(&record.stamp.hash.to_le_bytes());
    // Zero stands for no trace.
    xxh3_128(&bytes).max(1)
}

/// Number of the span of a stage at a node. `part` tells apart what happens more than once there: the event loop.
pub fn span_id(trace_id: u128, node: &NodeName, stage: Stage, part: usize) -> u64 {
    let mut bytes = trace_id.to_le_bytes().to_vec();
    bytes.extend_from_slice(node.as_bytes());
    bytes.extend_from_slice(stage.as_str().as_bytes());
    bytes.extend_from_slice(&part.to_le_bytes());
    // Zero stands for no span.
    xxh3_64(&bytes).max(1)
}

/// A span that is to be sent.
#[derive(Clone, Debug)]
pub struct TraceSpan {
    /// The record on its way.
    pub trace_id: u128,
    /// The span itself.
    pub id: u64,
    /// The span above it; 0 if there is none.
    pub parent_id: u64,
    /// The stage of the record's way.
    pub stage: Stage,
    /// Name of the record's source.
    pub source: crate::record::Source,
    /// The record's timestamp, in microseconds since the Unix epoch.
    pub ts: u64,
    /// Node that has accepted the record.
    pub origin: NodeName,
    /// Wall clock at the start, in microseconds.
    pub start_us: u64,
    /// Wall clock at the end, in microseconds.
    pub end_us: u64,
    /// Event loop and number of subscribers that it has handed the record to.
    pub handed: Option<(usize, usize)>,
}

impl TraceSpan {
    /// The span of a stage of `record` at `node`. A clock that was set back does not make it end before it starts.
    pub fn new(
        record: &SharedRecord,
        node: &NodeName,
        stage: Stage,
        (start_us, end_us): (u64, u64),
    ) -> TraceSpan {
        let trace_id = trace_id(record);
        let origin = &record.birth.origin;
        let parent_id = match stage {
            Stage::Accept => 0,
            Stage::Apply => span_id(trace_id, origin, Stage::Accept, 0),
            Stage::Store | Stage::PassOn | Stage::Deliver => {
                let above = if node == origin { Stage::Accept } else { Stage::Apply };
                span_id(trace_id, node, above, 0)
            }
        };
        TraceSpan {
            trace_id,
            id: span_id(trace_id, node, stage, 0),
            parent_id,
            stage,
            source: record.source.clone(),
            ts: record.stamp.ts,
            origin: origin.clone(),
            start_us: start_us.min(end_us),
            end_us,
            handed: None,
        }
    }

    /// The same span, of what the event loop `worker` has handed to `subscribers` subscribers.
    pub fn handed(self, node: &NodeName, worker: usize, subscribers: usize) -> TraceSpan {
        let id = span_id(self.trace_id, node, self.stage, worker);
        TraceSpan { id, handed: Some((worker, subscribers)), ..self }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::record::{Birth, Payload, Source, Stamp};

    fn record(ts: u64) -> SharedRecord {
        let birth = Birth { origin: NodeName::parse("o").expect("name"), boot: 1, seq: 1 };
        let source = Source::parse("a/b").expect("source");
        Arc::new(Record::new(source, Stamp::of_data(ts, b"1"), Payload::Json("1".into()), birth, 5, 0))
    }

    #[test]
    fn the_spans_of_all_nodes_join_below_that_of_the_origin() {
        let (origin, other) = (NodeName::parse("o").expect("name"), NodeName::parse("p").expect("name"));
        let span = |node, stage| TraceSpan::new(&record(7), node, stage, (5, 9));
        let root = span(&origin, Stage::Accept);
        let apply = span(&other, Stage::Apply);
        assert_eq!((root.parent_id, apply.parent_id), (0, root.id));
        assert_eq!(span(&origin, Stage::PassOn).parent_id, root.id);
        assert_eq!(span(&origin, Stage::Store).parent_id, root.id);
        assert_eq!(span(&other, Stage::Store).parent_id, apply.id);
        let delivered = [0, 1].map(|worker| span(&other, Stage::Deliver).handed(&other, worker, 3));
        assert_ne!(delivered[0].id, delivered[1].id);
        assert!(delivered.iter().all(|span| span.parent_id == apply.id && span.trace_id == root.trace_id));
        assert_ne!(trace_id(&record(8)), root.trace_id);
    }

    #[test]
    fn a_span_never_ends_before_it_starts() {
        let node = NodeName::parse("p").expect("name");
        let span = TraceSpan::new(&record(7), &node, Stage::Apply, (9, 5));
        assert_eq!((span.start_us, span.end_us), (5, 5));
    }
}
