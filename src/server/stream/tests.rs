//! Streams over real sockets, driven by polls as worker 0 drives them.

use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::cluster::members::Identity;
use crate::record::NodeName;
use crate::server::tokens::EventSource;

/// One node's streams with the poll that drives them.
struct Side {
    poll: mio::Poll,
    streams: PeerStreams,
    address: SocketAddr,
}

impl Side {
    fn new() -> Side {
        let poll = mio::Poll::new().expect("poll");
        let mut listener = TcpListener::bind("127.0.0.1:0".parse().expect("address")).expect("bound");
        poll.registry().register(&mut listener, tokens::PEERS, Interest::READABLE).expect("registered");
        let address = listener.local_addr().expect("address");
        let registry = poll.registry().try_clone().expect("registry");
        Side { poll, streams: PeerStreams::new(registry, listener), address }
    }

    /// One node's streams, with one that a peer opened which does not read what is written on it.
    fn writing_to_a_deaf_peer() -> (Side, StreamId, std::net::TcpStream) {
        let mut here = Side::new();
        let peer = std::net::TcpStream::connect(here.address).expect("connected");
        let mut told = Vec::new();
        while told.is_empty() {
            told = here.turn();
        }
        let (id, _) = told.remove(0);
        here.streams.write(id, Bytes::from(vec![7; WAITING_BYTES_MAX / 2]));
        (here, id, peer)
    }

    fn turn(&mut self) -> Vec<(StreamId, StreamEvent)> {
        let mut events = mio::Events::with_capacity(64);
        self.poll.poll(&mut events, Some(Duration::from_millis(5))).expect("poll");
        for event in &events {
            match tokens::source_of(event.token()) {
                EventSource::Stream(id) => {
                    self.streams.handle_ready(id, event.is_readable(), event.is_writable())
                }
                _ => self.streams.set_acceptable(),
            }
        }
        self.streams.accept(0).expect("accepted");
        let mut told = Vec::new();
        while let Some(event) = self.streams.poll_event(|_| true) {
            told.push(event);
        }
        told
    }
}

#[test]
fn bytes_arrive_in_order_and_the_end_is_told_once() {
    let (mut here, mut there) = (Side::new(), Side::new());
    let id = StreamId(1);
    let sent: Vec<u8> = (0..3_000_000u32).map(|number| number as u8).collect();
    here.streams.connect(id, there.address);
    for piece in sent.chunks(100_000) {
        here.streams.write(id, Bytes::copy_from_slice(piece));
    }
    let (mut ours, mut theirs, mut received) = (Vec::new(), Vec::new(), Vec::new());
    while !ours.contains(&StreamEvent::Drained) || received.len() < sent.len() {
        ours.extend(here.turn().into_iter().map(|(_, event)| event));
        for (id, event) in there.turn() {
            match event {
                StreamEvent::Received(bytes) => received.extend_from_slice(&bytes),
                event => theirs.push((id, event)),
            }
        }
    }
    assert!(received == sent);
    assert_eq!(ours.first(), Some(&StreamEvent::Opened));
    here.streams.close(0, id);
    while theirs.len() < 2 {
        theirs.extend(there.turn());
    }
    assert!(matches!(theirs[0], (StreamId(2), StreamEvent::Accepted { .. })), "{theirs:?}");
    assert_eq!(theirs[1], (StreamId(2), StreamEvent::Closed));
    assert!(there.turn().is_empty() && here.turn().is_empty());
    assert!(here.streams.streams.is_empty() && there.streams.streams.is_empty());
}

/// A join of a million records overran the store: a stream that is held back is not read, costs no
/// turns meanwhile, and goes on where it was.
#[test]
fn a_stream_that_is_held_back_slows_its_peer_and_loses_nothing() {
    let (mut here, mut there) = (Side::new(), Side::new());
    let sent: Vec<u8> = (0..12_000_000u32).map(|number| number as u8).collect();
    here.streams.connect(StreamId(1), there.address);
    here.streams.write(StreamId(1), Bytes::copy_from_slice(&sent));
    let mut events = mio::Events::with_capacity(64);
    for _ in 0..100 {
        here.turn();
        there.poll.poll(&mut events, Some(Duration::from_millis(1))).expect("poll");
        for event in &events {
            match tokens::source_of(event.token()) {
                EventSource::Stream(id) => {
                    there.streams.handle_ready(id, event.is_readable(), event.is_writable())
                }
                _ => there.streams.set_acceptable(),
            }
        }
        there.streams.accept(0).expect("accepted");
        while let Some((_, event)) = there.streams.poll_event(|_| false) {
            assert!(matches!(event, StreamEvent::Accepted { .. }), "{event:?}");
        }
        assert!(!there.streams.has_work(0));
    }
    assert!(here.streams.streams[&StreamId(1)].waiting_bytes > 0, "the peer was not slowed");
    there.streams.release();
    let mut received = Vec::new();
    while received.len() < sent.len() {
        here.turn();
        for (_, event) in there.turn() {
            if let StreamEvent::Received(bytes) = event {
                received.extend_from_slice(&bytes);
            }
        }
    }
    assert!(received == sent);
}

#[test]
fn a_peer_that_is_not_there_is_told_as_closed() {
    let mut here = Side::new();
    let gone = Side::new().address;
    here.streams.connect(StreamId(1), gone);
    let mut told = Vec::new();
    while told.is_empty() {
        told = here.turn();
    }
    assert_eq!(told, [(StreamId(1), StreamEvent::Closed)]);
}

/// After a node was killed and started again, the others said for a while that they do not reach it.
#[test]
fn a_failure_is_forgotten_when_the_member_is_down_or_comes_back() {
    let mut here = Side::new();
    let gone = Side::new().address;
    let member = |boot, state| {
        let name = NodeName::parse("n").expect("name");
        let identity = Arc::new(Identity::new(name, boot, gone, "127.0.0.1:1", "", "0"));
        MemberInfo::new(identity, state)
    };
    let fail = |here: &mut Side| {
        here.streams.connect(StreamId(1), gone);
        while here.turn().is_empty() {}
    };
    fail(&mut here);
    let reached =
        |here: &mut Side, boot, state| here.streams.reached(&[member(boot, state)]).get(&gone).copied();
    assert_eq!(reached(&mut here, 1, State::Alive), Some(false));
    assert_eq!(reached(&mut here, 1, State::Alive), Some(false), "nothing has changed");
    assert_eq!(reached(&mut here, 2, State::Alive), None, "it was started again");
    fail(&mut here);
    assert_eq!(reached(&mut here, 2, State::Dead), None, "it is down");
}

/// Peers that read nothing held every place for streams, once their sessions were over.
#[test]
fn a_closing_stream_gives_its_place_to_a_new_one() {
    let (mut here, id, peer) = Side::writing_to_a_deaf_peer();
    here.streams.close(0, id);
    assert_eq!(here.streams.accepted, 1, "what was written waits for its reader");
    assert!(here.streams.give_up_one() && here.streams.accepted == 0);
    assert!(!here.streams.give_up_one());
    drop(peer);
}

/// What was written for a peer that read nothing stayed in memory for as long as the peer liked.
#[test]
fn a_closing_stream_is_given_up_when_its_peer_reads_nothing() {
    let (mut here, id, peer) = Side::writing_to_a_deaf_peer();
    here.streams.close(1, id);
    here.streams.sweep(1_000_000);
    assert_eq!(here.streams.accepted, 1);
    here.streams.sweep(20_000_000);
    assert!(here.streams.streams.is_empty() && here.streams.accepted == 0);
    drop(peer);
}
