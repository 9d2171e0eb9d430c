//! Clients that make a node hold as much memory as they can. They are refused or closed by name, and others do
//! not notice.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::json;
use tungstenite::Message;

use crate::harness::http::connect;
use crate::harness::raw::frame;
use crate::harness::ws::{Event, Handshake, Snapshot, shake};
use crate::harness::{Client, Http, Node, NodeConfig, eventually};

const MIB: u64 = 1 << 20;

/// A node whose clients may hold a certain number of bytes, and a client that must not notice what others do.
struct Crowded {
    node: Node,
    bystander: Client,
    round: u64,
    /// Resident memory of the node before anybody else came, in bytes.
    before: u64,
}

impl Crowded {
    fn start(client_memory: &str) -> Crowded {
        let flags = ["--max-client-memory", client_memory, "--workers", "2"];
        let node = Node::start(NodeConfig::named("a").in_memory().with(&flags));
        let mut bystander = node.subscriber("source=bystander");
        let _: Snapshot = bystander.snapshot();
        let before = node.rss_bytes();
        Crowded { node, bystander, round: 0, before }
    }

    fn bystander_is_untouched(&mut self) {
        self.round += 1;
        self.node.put("bystander", json!(self.round));
        assert_eq!(self.bystander.record()["data"], self.round);
    }

    fn held(&self) -> u64 {
        self.node.metric("anode_client_memory_bytes", &[]) as u64
    }

    fn refusals(&self, wanted: &str) -> u64 {
        self.node.metric("anode_client_memory_refusals_total", &[("use", wanted)]) as u64
    }

    fn grown(&self) -> u64 {
        self.node.rss_bytes().saturating_sub(self.before)
    }

    /// Waits until nothing is held for those who have left.
    fn wait_free(&self) {
        eventually("the memory of those who left is free", Duration::from_secs(20), || {
            (self.held() < 128 << 10).then_some(())
        });
    }
}

/// Opens a WebSocket that reads nothing by itself.
fn deaf(node: &Node, path: &str) -> TcpStream {
    match shake(&node.http, path, &[]) {
        Handshake::Open(socket, _) => match socket.get_ref().try_clone() {
            Ok(stream) => stream,
            Err(error) => panic!("no second handle: {error}"),
        },
        Handshake::Refused(answer) => panic!("refused: {answer:?}"),
    }
}

/// 200 clients that each sent a frame of 1 MiB but for its last byte made the node hold 201 MiB.
#[test]
fn half_read_frames_share_one_budget() {
    let mut crowded = Crowded::start("32MiB");
    let half = frame(true, 1, &[b'x'; 1 << 20])[..1 << 20].to_vec();
    let mut clients: Vec<Client> = Vec::new();
    for number in 0..200 {
        let mut client = crowded.node.publisher();
        let _ = client.stream().set_write_timeout(Some(Duration::from_secs(5)));
        client.send_bytes(&half);
        clients.push(client);
        if number % 50 == 49 {
            crowded.bystander_is_untouched();
        }
    }
    let told = |client: &mut Client| match client.event(Duration::from_millis(50)) {
        Some(Event::Close(code, reason)) => Some((code, reason)),
        Some(Event::Eof) => Some((None, String::new())),
        _ => None,
    };
    let closed: Vec<_> = clients.iter_mut().filter_map(told).collect();
    assert!((100..190).contains(&closed.len()), "{} of 200 are closed", closed.len());
    let named = closed.iter().filter(|(code, reason)| {
        *code == Some(4100) && reason.contains("--max-client-memory is 33554432 bytes")
    });
    // A client that still sends when it is closed may see a reset before it has read the close.
    assert!(named.count() > 50, "{closed:?}");
    let (held, grown) = (crowded.held(), crowded.grown());
    assert!((16 * MIB..=33 * MIB).contains(&held), "{held} bytes are counted");
    assert!(grown < 64 * MIB, "grew by {} MiB", grown >> 20);
    assert!(crowded.refusals("frames") >= closed.len() as u64);
    crowded.bystander_is_untouched();
    drop(clients);
    crowded.wait_free();
    let mut client = crowded.node.publisher();
    let answer = client.publish(json!({"source": "large", "data": "x".repeat(60_000)}));
    assert_eq!(answer["result"]["outcome"], "applied", "there is room again: {answer}");
}

/// What has not become a session yet counts as well, and so does what comes while a connection is being closed.
#[test]
fn heads_and_what_comes_after_a_close_are_counted() {
    let mut crowded = Crowded::start("8MiB");
    let head = format!("GET /publish HTTP/1.1\r\nHost: localhost\r\nX-Filler: {}", "x".repeat(15_000));
    let heads: Vec<TcpStream> = (0..40)
        .map(|_| {
            let mut stream = connect(&crowded.node.http);
            assert!(stream.write_all(head.as_bytes()).is_ok());
            stream
        })
        .collect();
    eventually("the heads are counted", Duration::from_secs(4), || (crowded.held() > 600_000).then_some(()));
    drop(heads);
    crowded.wait_free();
    let half = frame(true, 1, &[b'x'; 1 << 20])[..900_000].to_vec();
    // The answer to a close is waited for no longer than a second, so a busy machine may need several rounds until
    // enough connections are being closed at the same time.
    let is_refused = (0..10).any(|_| {
        let mut closing: Vec<Client> = (0..40).map(|_| crowded.node.publisher()).collect();
        for client in &mut closing {
            let _ = client.stream().set_write_timeout(Some(Duration::from_millis(500)));
            // The wrong kind of frame: the connection is closed, and the answer to the close waited for.
            client.send_bytes(&frame(true, 2, b"x"));
        }
        closing.iter_mut().for_each(|client| client.send_bytes(&half));
        assert!(crowded.held() < 9 * MIB, "{} bytes are counted", crowded.held());
        assert!(crowded.grown() < 32 * MIB, "grew by {} MiB", crowded.grown() >> 20);
        crowded.refusals("frames") > 0
    });
    assert!(is_refused, "nobody was refused");
    crowded.bystander_is_untouched();
    crowded.wait_free();
}

/// The parts of a message are put together before it is read, so they count like a frame.
#[test]
fn half_read_messages_share_one_budget() {
    let mut crowded = Crowded::start("32MiB");
    let part = frame(false, 1, &[b'x'; 300 << 10]);
    let more = frame(false, 0, &[b'x'; 300 << 10]);
    let mut clients: Vec<Client> = Vec::new();
    for _ in 0..100 {
        let mut client = crowded.node.publisher();
        let _ = client.stream().set_write_timeout(Some(Duration::from_secs(5)));
        client.send_bytes(&part);
        client.send_bytes(&more);
        client.send_bytes(&more);
        clients.push(client);
    }
    crowded.bystander_is_untouched();
    let (held, grown) = (crowded.held(), crowded.grown());
    assert!((8 * MIB..=33 * MIB).contains(&held), "{held} bytes are counted");
    assert!(grown < 64 * MIB, "grew by {} MiB", grown >> 20);
    assert!(crowded.refusals("frames") >= 50, "{} were refused", crowded.refusals("frames"));
    drop(clients);
    crowded.wait_free();
}

/// A batch of 65,000 zeros, which are 130 KB, brought 6.9 MB of refusals, and the node held them for each
/// client that did not read.
#[test]
fn answers_that_nobody_reads_share_one_budget() {
    let mut crowded = Crowded::start("32MiB");
    let zeros = |count: usize| format!("[{}0]", "0,".repeat(count - 1));
    let mut client = crowded.node.publisher();
    client.send_text(&zeros(65_000));
    let answer = client.json();
    assert_eq!(answer["error"]["code"], "bad_request", "{answer}");
    assert_eq!(answer["error"]["message"], "a batch of 65000 items; at most 10000");
    let answer = Http::post(&crowded.node.http, "/v1/publish", &zeros(65_000));
    answer.assert_problem(400, "bad_request");
    client.send_text(&zeros(10_000));
    assert_eq!(client.json().as_array().map(Vec::len), Some(10_000), "as many as there may be");

    let batch = frame(true, 1, zeros(10_000).as_bytes());
    let deaf: Vec<TcpStream> = (0..60)
        .map(|_| {
            let mut stream = deaf(&crowded.node, "/publish");
            let _ = stream.set_write_timeout(Some(Duration::from_millis(200)));
            // The first answers fill the buffers of the sockets.
            for _ in 0..12 {
                let _ = stream.write_all(&batch);
            }
            stream
        })
        .collect();
    crowded.bystander_is_untouched();
    let (held, grown) = (crowded.held(), crowded.grown());
    // The connection that asks for the metric counts, too, and is never refused for want of memory.
    const HTTP_CONNECTION_BYTES: u64 = 76 * 1024;
    assert!((8 * MIB..=36 * MIB + HTTP_CONNECTION_BYTES).contains(&held), "{held} bytes are counted");
    assert!(grown < 80 * MIB, "grew by {} MiB", grown >> 20);
    assert!(crowded.refusals("unsent") > 0);
    drop(deaf);
    crowded.wait_free();
}

/// 100 requests for pages of 65 KB records, of which nobody read the answer, made the node hold 1 GB.
#[test]
fn pages_that_nobody_reads_share_one_budget() {
    let mut crowded = Crowded::start("64MiB");
    let mut publisher = crowded.node.publisher();
    for number in 0..200 {
        let record = json!({"source": format!("p/{number}"), "data": "x".repeat(65_000)});
        assert_eq!(publisher.publish(record)["result"]["outcome"], "applied");
    }
    crowded.before = crowded.node.rss_bytes();
    let requests: Vec<TcpStream> = (0..100)
        .map(|_| {
            let mut stream = connect(&crowded.node.http);
            let request = "GET /v1/sources?pattern=p/*&limit=10000 HTTP/1.1\r\nHost: localhost\r\n\r\n";
            assert!(stream.write_all(request.as_bytes()).is_ok());
            stream
        })
        .collect();
    let mut refused = Vec::new();
    for mut stream in &requests {
        let mut head = [0; 12];
        assert!(stream.read_exact(&mut head).is_ok(), "no answer begins");
        match &head[9..] {
            b"200" => {}
            b"503" => refused.push(stream),
            other => panic!("status {:?}", String::from_utf8_lossy(other)),
        }
    }
    assert!(refused.len() >= 40, "{} of 100 are refused", refused.len());
    let mut rest = [0; 600];
    let read = refused.first_mut().map_or(0, |stream| stream.read(&mut rest).unwrap_or(0));
    let told = String::from_utf8_lossy(&rest[..read]);
    assert!(told.contains("overloaded") && told.contains("--max-client-memory"), "{told}");
    let (held, grown) = (crowded.held(), crowded.grown());
    assert!((16 * MIB..=65 * MIB).contains(&held), "{held} bytes are counted");
    assert!(grown < 110 * MIB, "grew by {} MiB", grown >> 20);
    assert_eq!(crowded.refusals("pages"), refused.len() as u64);
    assert_eq!(crowded.node.get("/v1/sources/bystander/none").status, 404, "short answers are never refused");
    crowded.bystander_is_untouched();
    drop(refused);
    drop(requests);
    crowded.wait_free();
    assert_eq!(crowded.node.all_records("p/*").len(), 200, "whoever reads gets all pages");
}

/// Bodies that have not come in full had a bound of their own, 64 MiB, however little memory clients might use.
#[test]
fn half_read_bodies_share_one_budget() {
    let mut crowded = Crowded::start("16MiB");
    let head = "POST /v1/publish HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n";
    let half = vec![b' '; 900_000];
    let requests: Vec<TcpStream> = (0..60)
        .map(|_| {
            let mut stream = connect(&crowded.node.http);
            let _ = stream.set_write_timeout(Some(Duration::from_secs(2)));
            // The node may cut the request while it is sent.
            let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&half));
            stream
        })
        .collect();
    crowded.bystander_is_untouched();
    // A body that is cut is let go a little later.
    eventually("the bodies fit their part", Duration::from_secs(10), || {
        (MIB..=6 * MIB).contains(&crowded.held()).then_some(())
    });
    assert!(crowded.grown() < 32 * MIB, "grew by {} MiB", crowded.grown() >> 20);
    let cut = crowded.node.metric("anode_http_cuts_total", &[("reason", "place")]);
    assert!(cut > 0.0, "nobody is cut");
    drop(requests);
    crowded.wait_free();
}

/// Records that subscribers do not read wait in buffers and queues: each had a bound, but all together had none.
#[test]
fn records_that_nobody_reads_share_one_budget() {
    for mode in ["latest", "all"] {
        let mut crowded = Crowded::start("24MiB");
        let deaf: Vec<TcpStream> =
            (0..200).map(|_| deaf(&crowded.node, &format!("/subscribe?source=s/*&mode={mode}"))).collect();
        eventually("all are subscribed", Duration::from_secs(10), || {
            let open = crowded.node.metric("anode_connections", &[("endpoint", "subscribe")]);
            (open >= 201.0).then_some(())
        });
        let mut publisher = crowded.node.publisher();
        let data = "x".repeat(60_000);
        for number in 0..120 {
            let record = json!({"source": format!("s/{}", number % 40), "data": data});
            assert_eq!(publisher.publish(record)["result"]["outcome"], "applied");
        }
        crowded.bystander_is_untouched();
        let (held, grown) = (crowded.held(), crowded.grown());
        assert!((8 * MIB..=25 * MIB).contains(&held), "{mode}: {held} bytes are counted");
        assert!(grown < 56 * MIB, "{mode}: grew by {} MiB", grown >> 20);
        assert!(crowded.refusals("unsent") > 20, "{mode}: {} are closed", crowded.refusals("unsent"));
        let closed = deaf.iter().filter(|stream| is_closed_slow(stream)).take(20).count();
        assert_eq!(closed, 20, "{mode}: so many at least are told 4202");
        drop(deaf);
        crowded.wait_free();
        // Nobody who reads is affected.
        let mut late = crowded.node.subscriber("source=s/*");
        assert_eq!(late.snapshot().records.len(), 40);
    }
}

/// Reads everything that was sent on a connection, and returns whether a close with 4202 comes at its end.
fn is_closed_slow(mut stream: &TcpStream) -> bool {
    let _ = stream.set_read_timeout(Some(Duration::from_millis(100)));
    let (mut tail, mut chunk) = (Vec::new(), vec![0; 1 << 16]);
    while let Ok(read @ 1..) = stream.read(&mut chunk) {
        tail.extend_from_slice(&chunk[..read]);
        let cut = tail.len().saturating_sub(200);
        tail.drain(..cut);
    }
    tail.windows(4).any(|four| four[0] == 0x88 && four[2..] == 4202u16.to_be_bytes())
}

/// A subscriber that reads nothing makes the node remember which sources have changed. That was bounded by the
/// number of sources alone.
#[test]
fn a_subscriber_that_misses_too_many_sources_is_closed_and_comes_back() {
    let mut crowded = Crowded::start("8MiB");
    let mut slow = crowded.node.subscriber("source=m/*");
    let token = slow.snapshot().resume;
    let mut publisher = crowded.node.publisher();
    let data = "x".repeat(150);
    for batch in 0..30 {
        let record = |number: i32| json!({"source": format!("m/{}", batch * 4_000 + number), "data": data});
        publisher.send_text(&json!((0..4_000).map(record).collect::<Vec<_>>()).to_string());
    }
    let answer = publisher.publish(json!({"source": "last", "data": 1}));
    assert_eq!(answer["result"]["outcome"], "applied", "{answer}");
    eventually("the slow one is closed", Duration::from_secs(20), || {
        (crowded.refusals("unsent") == 1).then_some(())
    });
    assert_eq!(slow.close_code_within(Duration::from_secs(10)), 4202);
    crowded.bystander_is_untouched();
    let mut back = crowded.node.subscriber(&format!("source=m/*&resume={token}"));
    let snapshot = back.snapshot();
    assert_eq!((&snapshot.result["recovered"], snapshot.records.len()), (&json!(true), 120_000));
    drop((slow, back, publisher));
    crowded.wait_free();
    assert!(crowded.node.log().contains("clients asked for more memory than they may hold"));
}

/// Patterns had a bound for each connection, 16 MiB, and any number of connections could use it up.
#[test]
fn patterns_of_all_connections_share_one_budget() {
    let mut crowded = Crowded::start("32MiB");
    let mut clients: Vec<Client> = Vec::new();
    let mut overloaded = 0;
    for client_number in 0..12 {
        let mut client = crowded.node.subscriber("");
        for batch in 0..20 {
            let name = |number: i32| {
                vec![format!("n{}", client_number * 10_000 + 256 * batch + number); 16].join("/")
            };
            let patterns: Vec<_> = (0..256).map(name).collect();
            let answer =
                client.ask(json!({"id": "s", "subscribe": {"sources": patterns, "snapshot": false}}));
            match answer["error"]["code"].as_str() {
                None => continue,
                Some("overloaded") => overloaded += 1,
                Some("bad_request") => {
                    let message = answer["error"]["message"].as_str().unwrap_or_default();
                    assert!(message.contains("at most 4194304 bytes"), "{message}");
                }
                Some(_) => panic!("{answer}"),
            }
            break;
        }
        clients.push(client);
    }
    assert!(overloaded >= 3, "{overloaded} of 12 found no memory left");
    let (held, grown) = (crowded.held(), crowded.grown());
    assert!((20 * MIB..=33 * MIB).contains(&held), "{held} bytes are counted");
    assert!(grown < 64 * MIB, "grew by {} MiB", grown >> 20);
    assert!(crowded.refusals("subscriptions") >= overloaded);
    crowded.bystander_is_untouched();
    let mut modest = crowded.node.subscriber("source=bystander&source=a/*/b");
    modest.snapshot();
    drop(clients);
    crowded.wait_free();
}

/// A client that publishes frames as large as they may be, and reads its answers, never meets the bound.
#[test]
fn large_frames_of_a_client_that_reads_are_taken() {
    let crowded = Crowded::start("8MiB");
    let mut client = crowded.node.publisher();
    let items: Vec<_> =
        (0..16).map(|n| json!({"id": n, "source": format!("l/{n}"), "data": "x".repeat(60_000)})).collect();
    let text = json!(items).to_string();
    for _ in 0..20 {
        client.send(Message::text(text.clone()));
        let answers = client.json();
        assert_eq!(answers.as_array().map(Vec::len), Some(16));
        assert!(
            answers.as_array().is_some_and(|all| all.iter().all(|one| one["result"].is_object())),
            "{answers}"
        );
    }
    assert_eq!(crowded.refusals("frames") + crowded.refusals("unsent"), 0);
    crowded.wait_free();
}

/// The buffers of connections over HTTP were in no budget: up to 160 KiB for each of 1,024 connections, whatever memory
/// clients might use.
#[test]
fn connections_over_http_share_one_budget() {
    /// Bytes that are counted for a connection that waits for its next request.
    const KEPT: u64 = 28 << 10;
    let mut crowded = Crowded::start("8MiB");
    let request = "GET /v1/members HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let idle: Vec<TcpStream> = (0..80)
        .map(|_| {
            let mut stream = connect(&crowded.node.http);
            let mut answer = [0; 15];
            assert!(
                stream.write_all(request.as_bytes()).and_then(|()| stream.read_exact(&mut answer)).is_ok()
            );
            assert_eq!(
                &answer, b"HTTP/1.1 200 OK",
                "whoever asks is answered, and who has waited longest is cut"
            );
            stream
        })
        .collect();
    eventually("the connections that are left are counted", Duration::from_secs(10), || {
        (32 * KEPT..=40 * KEPT).contains(&crowded.held()).then_some(())
    });
    let cut = crowded.node.metric("anode_http_cuts_total", &[("reason", "place")]);
    assert!(cut >= 48.0, "{cut} of 80 are cut, and 32 find room in a quarter of the memory");
    crowded.bystander_is_untouched();
    drop(idle);
    crowded.wait_free();
}
