//! Input from hostile clients: random bytes, wrong lengths, and messages that end in the middle. Each gets a
//! clear answer or a close code, and nobody else is disturbed.

use std::io::{Read, Write};
use std::net::UdpSocket;
use std::time::Duration;

use serde_json::json;
use tungstenite::Message;

use crate::harness::http::{connect, read_all};
use crate::harness::raw::{frame, garbage, head_claiming};
use crate::harness::ws::Snapshot;
use crate::harness::{Client, Cluster, Deadline, Fabric, Http, Node, NodeConfig};

const SOON: Duration = Duration::from_secs(8);

/// Another client of the same node, which must not be affected.
struct Bystander {
    client: Client,
    round: u64,
}

impl Bystander {
    fn watching(node: &Node) -> Bystander {
        let mut client = node.subscriber("source=bystander");
        let _: Snapshot = client.snapshot();
        Bystander { client, round: 0 }
    }

    fn is_untouched(&mut self, node: &Node) {
        self.round += 1;
        node.put("bystander", json!(self.round));
        assert_eq!(self.client.record()["data"], self.round);
    }
}

#[test]
fn malformed_http_gets_an_answer_or_a_closed_door() {
    let node = Node::single();
    let mut bystander = Bystander::watching(&node);
    let requests: [&[u8]; 10] = [
        b"\r\n\r\n\r\n",
        b"nonsense\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET /healthz HTTP/9.9\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nbad header\r\n\r\n",
        b"GET /\xff\xfe HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"POST /v1/publish HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\n",
        b"POST /v1/publish HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ];
    for request in requests {
        let mut stream = connect(&node.http);
        let _ = stream.write_all(request);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let answer = String::from_utf8_lossy(&read_all(&mut stream, SOON)).into_owned();
        let is_refused =
            answer.is_empty() || answer.starts_with("HTTP/1.1 4") || answer.starts_with("HTTP/1.1 5");
        assert!(is_refused, "{:?} → {answer:?}", String::from_utf8_lossy(request));
        bystander.is_untouched(&node);
    }
    for seed in 0..20 {
        let mut stream = connect(&node.http);
        let _ = stream.write_all(&garbage(seed, 3000));
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let answer = read_all(&mut stream, SOON);
        assert!(
            answer.is_empty() || answer.starts_with(b"HTTP/1.1 4"),
            "{:?}",
            String::from_utf8_lossy(&answer)
        );
    }
    bystander.is_untouched(&node);
}

#[test]
fn a_head_without_end_is_refused() {
    let node = Node::single();
    let mut stream = connect(&node.http);
    let _ = stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n");
    let line = format!("X-Filler: {}\r\n", "x".repeat(1000));
    for _ in 0..100 {
        if stream.write_all(line.as_bytes()).is_err() {
            break;
        }
    }
    let answer = String::from_utf8_lossy(&read_all(&mut stream, SOON)).into_owned();
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer:?}");
    Bystander::watching(&node).is_untouched(&node);
}

#[test]
fn malformed_handshakes_are_refused() {
    let node = Node::single();
    let upgrade = [("Upgrade", "websocket"), ("Connection", "Upgrade")];
    let key = ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==");
    let version = ("Sec-WebSocket-Version", "13");
    for headers in [
        vec![],
        vec![upgrade[0], upgrade[1], version],
        vec![upgrade[0], upgrade[1], key],
        vec![upgrade[0], upgrade[1], key, ("Sec-WebSocket-Version", "8")],
        vec![upgrade[0], upgrade[1], ("Sec-WebSocket-Key", "short"), version],
        vec![upgrade[0], key, version],
    ] {
        let mut stream = connect(&node.http);
        let mut request = format!("GET /publish HTTP/1.1\r\nHost: {}\r\n", node.http);
        for (name, value) in &headers {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        let _ = stream.write_all(format!("{request}\r\n").as_bytes());
        let mut answer = [0; 12];
        let read = stream.read_exact(&mut answer);
        let status = String::from_utf8_lossy(&answer).into_owned();
        assert!(read.is_ok() && status.starts_with("HTTP/1.1 4"), "{headers:?} → {status:?}");
    }
}

/// The handshake must be complete within 5 s, however its bytes are spread over that time.
#[test]
fn a_slow_handshake_is_cut_after_five_seconds() {
    let node = Node::single();
    let cut_after = |mut next: Box<dyn FnMut() -> Option<u8>>| {
        let mut stream = connect(&node.http);
        let start = Deadline::after(Duration::from_secs(20));
        let _ = stream.set_read_timeout(Some(Duration::from_secs(1)));
        loop {
            assert!(start.left().is_some(), "still open after 20 s");
            if let Some(byte) = next()
                && stream.write_all(&[byte]).is_err()
            {
                return start.elapsed();
            }
            match stream.read(&mut [0; 512]) {
                Ok(0) => return start.elapsed(),
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return start.elapsed(),
                _ => {}
            }
        }
    };
    let mut bytes = b"GET /publish HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n".iter().copied();
    let window = Duration::from_millis(4_000)..Duration::from_millis(8_000);
    let slowly = cut_after(Box::new(move || bytes.next()));
    assert!(window.contains(&slowly), "a byte a second: cut after {slowly:?}");
    let silent = cut_after(Box::new(|| None));
    assert!(window.contains(&silent), "not a byte: cut after {silent:?}");
}

#[test]
fn malformed_frames_close_with_their_code() {
    let node = Node::single();
    let mut bystander = Bystander::watching(&node);
    let unmasked = vec![0x81, 0x02, b'{', b'}'];
    let reserved_bit = {
        let mut bytes = frame(true, 1, b"{}");
        bytes[0] |= 0x40;
        bytes
    };
    let cases: Vec<(&str, Vec<u8>, &[u16])> = vec![
        ("unmasked", unmasked, &[1002]),
        ("reserved bit", reserved_bit, &[1002]),
        ("reserved opcode", frame(true, 3, b"{}"), &[1002]),
        ("reserved control opcode", frame(true, 0xb, b""), &[1002]),
        ("fragmented ping", frame(false, 9, b""), &[1002]),
        ("long ping", frame(true, 9, &[b'x'; 126]), &[1002]),
        ("continuation of nothing", frame(true, 0, b"{}"), &[1002]),
        ("text within a fragmented text", [frame(false, 1, b"{"), frame(true, 1, b"}")].concat(), &[1002]),
        ("close of one byte", frame(true, 8, b"x"), &[1002]),
        ("close with a code of nobody", frame(true, 8, &[0x03, 0xed]), &[1002]),
        ("invalid UTF-8", frame(true, 1, b"\"\xff\xfe\""), &[1007]),
        ("a surrogate in UTF-8", frame(true, 1, b"\"\xed\xa0\x80\""), &[1007]),
        ("a frame over the limit", head_claiming(1, 1_048_577), &[1009]),
        ("a length of 2^62", head_claiming(1, 1 << 62), &[1009]),
        // nats-server 2.2–2.11 panicked on a 64-bit length with its top bit set.
        ("a length with its top bit set", head_claiming(1, u64::MAX), &[1002, 1009]),
        ("a length with only its top bit set", head_claiming(2, 1 << 63), &[1002, 1009]),
    ];
    for path in ["/publish", "/subscribe"] {
        for (name, bytes, codes) in &cases {
            let mut client = Client::open(&node.http, path);
            client.send_bytes(bytes);
            let code = client.close_code();
            assert!(codes.contains(&code), "{name} at {path}: {code}");
            bystander.is_untouched(&node);
        }
    }
}

#[test]
fn fragments_count_together() {
    let node = Node::start(NodeConfig::named("a").with(&[
        "--max-frame-bytes",
        "10000",
        "--max-record-bytes",
        "5000",
    ]));
    // Fragments of one message are allowed, with a ping between them and cut inside a character.
    let text = r#"{"id":1,"source":"f","data":"ä"}"#.as_bytes();
    let cut = text.iter().position(|&byte| byte == 0xc3).unwrap_or(0) + 1;
    let mut client = node.publisher();
    assert_eq!(client.connected["max_frame_bytes"], 10_000);
    client.send_bytes(&frame(false, 1, &text[..cut]));
    client.send_bytes(&frame(true, 9, b"hello"));
    client.send_bytes(&frame(true, 0, &text[cut..]));
    assert_eq!(client.json()["result"]["outcome"], "applied");
    assert_eq!(node.latest("f").map(|record| record["data"].clone()), Some(json!("ä")));
    // More fragments than the largest frame allows are refused.
    client.send_bytes(&frame(false, 1, &[b' '; 4000]));
    for _ in 0..4 {
        client.send_bytes(&frame(false, 0, &[b' '; 4000]));
    }
    assert_eq!(client.close_code(), 1009);
}

#[test]
fn an_oversized_message_closes_1009_and_an_oversized_record_does_not() {
    let node = Node::single();
    let mut client = node.publisher();
    let answer = client.publish(json!({"source": "a", "data": "x".repeat(100_000)}));
    assert_eq!(answer["error"]["code"], "too_large", "{answer}");
    let message = format!(r#"{{"source":"a","data":"{}"}}"#, "x".repeat(1_100_000));
    client.try_send(Message::text(message));
    assert_eq!(client.close_code(), 1009);
}

/// In CVE-2026-27571 and RUSTSEC-2024-0437 nested input exhausted the memory before the client had been
/// authenticated.
#[test]
fn deep_nesting_costs_nothing() {
    let node = Node::single();
    let mut bystander = Bystander::watching(&node);
    let before = node.rss_bytes();
    let mut client = node.publisher();
    let deep = "[".repeat(500_000);
    let closed = format!("{deep}{}", "]".repeat(500_000));
    for text in
        [&deep, &closed, &"{\"a\":".repeat(200_000), &format!(r#"{{"id":1,"source":"a","data":{closed}"#)]
    {
        client.send_text(text);
        let answer = client.json();
        assert!(answer.to_string().contains("\"bad_"), "{answer}");
    }
    let mut subscriber = node.subscriber("");
    subscriber.send_text(&closed);
    assert!(subscriber.next()["error"]["code"].is_string());
    let answer = Http::post(&node.http, "/v1/publish", &format!(r#"{{"source":"a","data":{closed}}}"#));
    assert!(answer.status == 400 || answer.status == 413, "{}", answer.status);
    assert!(node.rss_bytes() < before + (64 << 20), "memory grew");
    bystander.is_untouched(&node);
}

/// In memberlist#368 and #369 short and truncated datagrams panicked the decoder.
#[test]
fn garbage_datagrams_change_nothing() {
    let cluster = Cluster::start(2);
    let mut bystander = Bystander::watching(&cluster[1]);
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap_or_else(|error| panic!("no socket: {error}"));
    for seed in 0..3000u64 {
        let datagram = garbage(seed, (seed % 1500) as usize);
        let _ = socket.send_to(&datagram, &cluster[0].gossip);
        let _ = socket.send_to(&datagram, &cluster[1].gossip);
    }
    bystander.is_untouched(&cluster[1]);
    let ts = cluster[0].put("after", json!(1));
    cluster[1].wait_ts("after", ts);
    cluster.wait_whole();
}

#[test]
fn truncated_flipped_and_repeated_datagrams_change_nothing() {
    let (fabric, cluster) = Fabric::start(2, &[]);
    for step in 0..50 {
        cluster[0].put(&format!("seen/{step}"), json!(step));
    }
    let before = cluster.wait_equal("**", Duration::from_secs(10));
    let seen = fabric.seen();
    assert!(seen.len() > 20, "only {} datagrams were seen", seen.len());
    for (index, datagram) in seen.iter().enumerate() {
        for length in (0..datagram.len()).step_by(7) {
            fabric.inject(0, 1, &datagram[..length]);
        }
        for flip in 0..20 {
            let mut spoilt = datagram.clone();
            let at = (index * 31 + flip * 97) % spoilt.len().max(1);
            if let Some(byte) = spoilt.get_mut(at) {
                *byte ^= 1 << (flip % 8);
            }
            fabric.inject(0, 1, &spoilt);
        }
        fabric.inject(0, 1, datagram);
    }
    let ts = cluster[0].put("after", json!(1));
    cluster[1].wait_ts("after", ts);
    cluster.wait_whole();
    let mut after = cluster.wait_equal("**", Duration::from_secs(10));
    after.retain(|record| record["source"] != "after");
    assert_eq!(after, before);
}

#[test]
fn garbage_on_the_gossip_stream_changes_nothing() {
    let cluster = Cluster::start(2);
    for seed in 0..30 {
        let mut stream = connect(&cluster[0].gossip);
        let _ = stream.write_all(&garbage(seed, 5000));
        let _ = stream.shutdown(std::net::Shutdown::Write);
    }
    // The length promises more bytes than are ever sent.
    let mut stream = connect(&cluster[0].gossip);
    let _ = stream.write_all(&[0xff; 64]);
    let held: Vec<_> = (0..50).map(|_| connect(&cluster[1].gossip)).collect();
    let ts = cluster[0].put("after", json!(1));
    cluster[1].wait_ts("after", ts);
    cluster.wait_whole();
    assert!(cluster[0].rss_bytes() < 512 << 20);
    drop(held);
}

/// A frame that ends in the middle must not hold up other clients.
#[test]
fn half_a_frame_holds_up_nobody() {
    let node = Node::single();
    let mut bystander = Bystander::watching(&node);
    let mut halves: Vec<Client> = (0..50).map(|_| node.publisher()).collect();
    for client in &mut halves {
        client.send_bytes(&head_claiming(1, 500_000));
        client.send_bytes(&[b'x'; 100]);
    }
    let before = node.rss_bytes();
    bystander.is_untouched(&node);
    assert!(node.rss_bytes() < before + (50 << 20));
}

/// A client that does not answer pings is closed with a code of its own.
#[test]
fn who_answers_no_ping_is_closed_4201() {
    let node = Node::single();
    let mut client = node.subscriber("source=x");
    client.snapshot();
    let start = Deadline::after(Duration::from_secs(60));
    // The test reads the bytes of the socket, so that nothing answers the ping.
    let bytes = read_all(client.stream(), Duration::from_secs(50));
    let elapsed = start.elapsed();
    let ping = bytes.iter().position(|&byte| byte == 0x89);
    assert!(ping.is_some(), "no ping in {bytes:x?}");
    let close = bytes.windows(4).position(|four| four[0] == 0x88 && four[2..] == 4201u16.to_be_bytes());
    assert!(close.is_some(), "no close 4201 in {bytes:x?}");
    assert!((33..45).contains(&elapsed.as_secs()), "closed after {elapsed:?}");
}

/// A client that sends publishes and reads no answers is slowed down, and costs a bounded amount of memory.
#[test]
fn a_publisher_that_reads_no_answers_costs_little() {
    let node = Node::start(NodeConfig::named("a").in_memory());
    let mut bystander = Bystander::watching(&node);
    let before = node.rss_bytes();
    let mut client = node.publisher();
    let _ = client.stream().set_write_timeout(Some(Duration::from_millis(500)));
    let batch: Vec<_> = (0..1000).map(|id| json!({"id": id, "source": "p//q", "data": 1})).collect();
    let text = json!(batch).to_string();
    for _ in 0..300 {
        if !client.try_send(Message::text(text.clone())) {
            break;
        }
    }
    bystander.is_untouched(&node);
    let grown = node.rss_bytes().saturating_sub(before);
    assert!(grown < 64 << 20, "grew by {} MiB", grown >> 20);
}

/// Returns a pattern of 16 segments, of which those whose bit is set are `*` and the others `a`.
fn masked(mask: u32) -> String {
    let segments: Vec<_> = (0..16).map(|at| if mask & (1 << at) == 0 { "a" } else { "*" }).collect();
    segments.join("/")
}

fn subscribe_to(patterns: &[String]) -> serde_json::Value {
    json!({"id": "s", "subscribe": {"sources": patterns, "snapshot": false}})
}

/// A connection that subscribed to 256 × 256 patterns of `*` and `a` made every matching record cost 27 ms,
/// and six of them took a node out of its cluster.
#[test]
fn patterns_that_are_chosen_to_match_slowly_hold_up_nobody() {
    let cluster = Cluster::start(2);
    let node = &cluster[0];
    let mut bystander = Bystander::watching(node);
    let mut client = node.subscriber("");
    for high in 0..256 {
        let patterns: Vec<_> = (0..256).map(|low| masked(high << 8 | low)).collect();
        let answer = client.ask(subscribe_to(&patterns));
        assert_eq!(answer["error"]["code"], "bad_request", "{answer}");
        assert_eq!(answer["error"]["temporary"], false, "{answer}");
        let message = answer["error"]["message"].as_str().unwrap_or_default();
        assert!(message.contains("shapes"), "{message}");
    }
    let answer = client.ask(subscribe_to(&["a/*/**".into()]));
    assert_eq!(answer["result"]["subscription"], 1, "what is refused leaves nothing: {answer}");
    bystander.is_untouched(node);

    // Ten connections take as much as they may, one pattern after the other.
    let mut others: Vec<Client> = (0..10).map(|_| node.subscriber("")).collect();
    let (mut taken, mut crowded) = (0, 0);
    for (number, client) in (0u32..).zip(&mut others) {
        let before = taken;
        for mask in (number * 500..number * 500 + 150).map(|mask| mask * 13 % 65_536) {
            let answer = client.ask(subscribe_to(&[masked(mask)]));
            taken += usize::from(answer["result"].is_object());
            crowded += usize::from(answer["error"]["code"] == "overloaded");
        }
        // The pattern without a wildcard has no shape.
        assert!(taken - before <= 65, "connection {number} has {} patterns", taken - before);
    }
    assert!(taken >= 80, "{taken} taken, {crowded} refused because others have too many");
    for round in 0..50 {
        node.put(&format!("{}{round}", "a/".repeat(15)), json!(round));
        bystander.is_untouched(node);
    }
    let mut late = node.subscriber("source=late/*/x/*/y/*");
    late.snapshot();
    let ts = node.put("late/1/x/2/y/3", json!(1));
    assert_eq!(late.record()["ts"], ts, "plain patterns are taken whatever others have");
    cluster[1].wait_ts("late/1/x/2/y/3", ts);
    for (seer, seen) in [(0, "b"), (1, "a")] {
        assert_eq!(cluster[seer].member_state(seen).as_deref(), Some("alive"));
    }
}

/// The patterns of a connection were bounded in number only, and held 445 MB.
#[test]
fn the_patterns_of_a_connection_hold_bounded_memory() {
    let node = Node::start(NodeConfig::named("a").in_memory());
    let mut bystander = Bystander::watching(&node);
    let before = node.rss_bytes();
    let mut client = node.subscriber("");
    let mut taken = 0;
    let refused = loop {
        let name = |number: i32| vec![format!("n{}", 256 * taken + number); 16].join("/");
        let answer = client.ask(subscribe_to(&(0..256).map(name).collect::<Vec<_>>()));
        if answer["result"].is_null() {
            break answer;
        }
        taken += 1;
        assert!(taken < 200, "{} patterns are taken", 256 * taken);
    };
    assert_eq!(refused["error"]["code"], "bad_request", "{refused}");
    let message = refused["error"]["message"].as_str().unwrap_or_default();
    assert!(message.contains("16777216 bytes of memory"), "{message}");
    let grown = node.rss_bytes().saturating_sub(before);
    assert!(grown < 64 << 20, "grew by {} MiB", grown >> 20);
    bystander.is_untouched(&node);
    let answer = client.ask(json!({"id": 1, "unsubscribe": 1}));
    assert_eq!(answer["result"]["subscription"], 1);
    let answer = client.ask(subscribe_to(&["bystander".into()]));
    assert_eq!(answer["result"]["subscription"], taken + 1, "there is room again: {answer}");
    bystander.is_untouched(&node);
}
