//! The timers by which a node notices that a client is gone: what they count, and when they stand.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::json;

use crate::harness::raw::frame;
use crate::harness::wait::{pause, pause_for};
use crate::harness::{Client, Deadline, Node, NodeConfig};

/// Longer than the 35 s after which a silent client is closed.
const LONGER_THAN_LIVENESS: Duration = Duration::from_secs(42);

#[test]
fn bytes_count_and_the_time_in_which_the_node_does_not_read_does_not() {
    let node = Node::start(NodeConfig::named("a").in_memory());
    std::thread::scope(|scope| {
        scope.spawn(|| a_slow_frame_is_waited_for(&node));
        scope.spawn(|| a_client_that_is_not_read_is_not_closed(&node));
    });
}

/// Bytes count, and not whole frames: who is slow is not gone.
fn a_slow_frame_is_waited_for(node: &Node) {
    let mut client = node.publisher();
    let bytes = frame(true, 1, json!({"id": 1, "source": "slow", "data": 1}).to_string().as_bytes());
    let (last, first) = bytes.split_last().unwrap_or_else(|| panic!("an empty frame"));
    let start = Deadline::after(Duration::from_secs(120));
    for byte in first {
        client.send_bytes(&[*byte]);
        pause_for(LONGER_THAN_LIVENESS / first.len() as u32);
    }
    assert!(start.elapsed() >= LONGER_THAN_LIVENESS, "{:?}", start.elapsed());
    client.send_bytes(&[*last]);
    assert_eq!(client.json()["result"]["outcome"], "applied");
}

/// A node that holds back a client does not read, and so cannot see that the client is there.
fn a_client_that_is_not_read_is_not_closed(node: &Node) {
    let mut client: Client = node.publisher();
    // Answers are longer than what they answer, so that they fill the ways between the two.
    let items: Vec<_> = (0..1_000).map(|id| json!({"id": id, "source": "p//q", "data": 1})).collect();
    let batch = frame(true, 1, json!(items).to_string().as_bytes());
    let stream = client.stream();
    let _ = stream.set_write_timeout(Some(Duration::from_secs(2)));
    let mut rest: &[u8] = &[];
    for _ in 0..2_000 {
        rest = unwritten(stream, &batch);
        if !rest.is_empty() {
            break;
        }
    }
    assert!(!rest.is_empty(), "the node goes on reading a client that does not read");
    pause_for(LONGER_THAN_LIVENESS);
    let mut answers = stream.try_clone().unwrap_or_else(|error| panic!("{error}"));
    let reading = std::thread::spawn(move || read_until(&mut answers, b"\"id\":\"last\""));
    while !rest.is_empty() {
        let written = rest.len() - unwritten(stream, rest).len();
        rest = &rest[written..];
    }
    let last = json!({"id": "last", "source": "held/up", "data": 1}).to_string();
    let written = stream.write_all(&frame(true, 1, last.as_bytes()));
    assert!(written.is_ok(), "{written:?}");
    assert!(reading.join().is_ok_and(|is_answered| is_answered), "the connection was closed");
    assert!(node.latest("held/up").is_some());
}

/// Writes until the other side takes no more for the time limit of the stream. Returns what is left.
fn unwritten<'a>(stream: &mut TcpStream, mut bytes: &'a [u8]) -> &'a [u8] {
    while !bytes.is_empty() {
        match stream.write(bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => break,
            Err(error) => panic!("the connection is gone: {error}"),
        }
    }
    bytes
}

/// Reads until these bytes come. Returns whether they came before the end of the connection.
fn read_until(stream: &mut TcpStream, words: &[u8]) -> bool {
    let deadline = Deadline::after(Duration::from_secs(60));
    let mut kept = Vec::new();
    let mut piece = vec![0; 1 << 16];
    while deadline.left().is_some() {
        match stream.read(&mut piece) {
            Ok(0) => return false,
            Ok(count) => kept.extend_from_slice(&piece[..count]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => pause(),
            Err(_) => return false,
        }
        if kept.windows(words.len()).any(|window| window == words) {
            return true;
        }
        kept.drain(..kept.len().saturating_sub(words.len()));
    }
    false
}
