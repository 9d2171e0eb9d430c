//! Streams of the small world: they keep their order, take time, and are ended by cuts.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use super::agenda::Event;
use super::{DELAY_US, World, address};
use crate::cluster::streams::{StreamEvent, StreamId, StreamOutput};

/// Additional delay of a piece that was lost and sent again, in microseconds.
const RETRANSMIT_US: u64 = 200_000;
/// Time after which the ends of a stream that was cut learn of it, in microseconds.
const BROKEN_US: u64 = 3_000_000;

/// One end of a stream: the index of the node, and the number of the stream there.
type End = (usize, StreamId);

/// All open streams.
#[derive(Default)]
pub(super) struct Streams {
    /// For each end its other end, and when the bytes that were written on it last arrive, in microseconds.
    ends: BTreeMap<End, (End, u64)>,
    /// Number of the end that was accepted last.
    accepted: u64,
}

impl World {
    /// Carries out a node's instructions about streams.
    pub(super) fn pump_streams(&mut self, index: usize) {
        while let Some(output) = self.nodes[index].spread.poll_stream() {
            match output {
                StreamOutput::Connect { stream, to } => {
                    let at_us = self.now_us + self.stream_delay_us();
                    self.agenda.add(at_us, Event::Connect { node: index, stream, to });
                }
                StreamOutput::Write { stream, bytes } => {
                    self.stream_bytes += bytes.len();
                    self.note_sent(index, stream.0, &bytes);
                    let sent_us = self.sent_us(index, bytes.len());
                    self.send_on((index, stream), sent_us, StreamEvent::Received(bytes));
                    self.agenda
                        .add(sent_us, Event::Stream { node: index, stream, event: StreamEvent::Drained });
                }
                StreamOutput::Close { stream } => self.close((index, stream)),
            }
        }
    }

    /// Opens a stream to the node at an address.
    pub(super) fn connect(&mut self, node: usize, stream: StreamId, to: SocketAddr) {
        let back_us = self.now_us + self.stream_delay_us();
        let target = self.by_address.get(&to).copied().filter(|to| self.nodes[*to].is_up);
        let Some(target) = target.filter(|to| !(self.is_cut)(node, *to)) else {
            let event = StreamEvent::Closed;
            return self.agenda.add(back_us, Event::Stream { node, stream, event });
        };
        self.streams.accepted += 2;
        let (here, there) = ((node, stream), (target, StreamId(self.streams.accepted)));
        self.streams.ends.insert(here, (there, self.now_us));
        self.streams.ends.insert(there, (here, back_us));
        let accepted = StreamEvent::Accepted { from: address(node) };
        self.agenda.add(self.now_us, Event::Stream { node: target, stream: there.1, event: accepted });
        self.agenda.add(back_us, Event::Stream { node, stream, event: StreamEvent::Opened });
    }

    /// Hands an event of a stream to a node.
    pub(super) fn on_stream(&mut self, index: usize, stream: StreamId, event: StreamEvent) {
        let now = self.now();
        let node = &mut self.nodes[index];
        if node.is_up {
            let ring = node.ring.clone();
            node.spread.handle_stream(now, stream, event, &ring, &mut node.arrivals);
            self.pump(index);
        }
    }

    /// Closes all streams of a node that restarts.
    pub(super) fn end_streams_of(&mut self, index: usize) {
        let ends: Vec<End> = self.streams.ends.keys().copied().filter(|end| end.0 == index).collect();
        ends.into_iter().for_each(|end| self.close(end));
    }

    fn send_on(&mut self, end: End, sent_us: u64, event: StreamEvent) {
        let Some(&(peer, last_us)) = self.streams.ends.get(&end) else { return };
        if (self.is_cut)(end.0, peer.0) {
            for (node, stream) in [end, peer] {
                self.streams.ends.remove(&(node, stream));
                let event = StreamEvent::Closed;
                self.agenda.add(self.now_us + BROKEN_US, Event::Stream { node, stream, event });
            }
            return;
        }
        let at_us = last_us.max(sent_us + self.stream_delay_us());
        self.streams.ends.insert(end, (peer, at_us));
        self.agenda.add(at_us, Event::Stream { node: peer.0, stream: peer.1, event });
    }

    fn close(&mut self, end: End) {
        self.send_on(end, self.now_us, StreamEvent::Closed);
        if let Some((peer, _)) = self.streams.ends.remove(&end) {
            self.streams.ends.remove(&peer);
        }
    }

    fn stream_delay_us(&mut self) -> u64 {
        let delay_us = DELAY_US.0 + self.random() % (DELAY_US.1 - DELAY_US.0 + 1);
        let is_lost = self.loss > 0 && self.random() % 1_000 < self.loss;
        delay_us + if is_lost { RETRANSMIT_US } else { 0 }
    }
}
