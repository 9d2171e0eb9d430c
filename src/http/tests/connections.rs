//! Connections and their places: which requests are answered, how connections end, and what they may hold.

use super::*;

#[test]
fn wrong_methods_unknown_paths_and_websockets() {
    let served = Served::start();
    for (method, path) in [("PATCH", "/v1/sources/a/b"), ("PUT", "/v1/sources/a/history")] {
        let answer = served.ask(method, path, "");
        answer.is_problem(405, "method_not_allowed");
        assert!(answer.head.contains("allow: get,head"), "{answer:?}");
    }
    let answer = served.get("/v1/publish");
    answer.is_problem(405, "method_not_allowed");
    assert!(answer.head.contains("allow: post"), "{answer:?}");
    served.get("/v2").is_problem(404, "not_found");
    served.get("/publish").is_problem(426, "upgrade_required");
    let head = served.ask("HEAD", "/v1/sources/a/b", "");
    assert_eq!((head.status, head.body.as_str()), (200, ""));
}

#[test]
fn connections_are_kept_and_malformed_ones_answered_400() {
    let served = Served::start();
    let mut stream = TcpStream::connect(served.address).expect("connects");
    for _ in 0..3 {
        stream.write_all(b"GET /v1/sources/a/c HTTP/1.1\r\nHost: x\r\n\r\n").expect("writes");
        assert_eq!(answer(&mut stream, false).status, 200);
    }
    let mut stream = TcpStream::connect(served.address).expect("connects");
    stream.write_all(b"NONSENSE\x01 \r\n\r\n").expect("writes");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("reads to the end");
    assert!(text.starts_with("HTTP/1.1 400 "), "{text:?}");
}

#[test]
fn a_place_is_kept_until_it_is_dropped_and_none_is_left_when_the_node_goes() {
    let mut served = Served::start();
    let hand_over = served.http.as_ref().expect("running").hand_over();
    let places: Vec<_> = std::iter::from_fn(|| hand_over.reserve()).collect();
    assert_eq!(places.len(), 1_024);
    drop(places);
    assert!(hand_over.reserve().is_some());
    served.http.take().expect("running").stop();
    assert!(hand_over.reserve().is_none());
}

/// Bytes that a layer above the socket has read already come without any event of the socket.
#[test]
fn what_lies_above_the_socket_is_read_without_waiting_for_it() {
    let http = Http::start(Arc::new(Few::default()), OPTIONS).expect("starts");
    let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
    let mut client = TcpStream::connect(listener.local_addr().expect("address")).expect("connects");
    let (socket, _) = listener.accept().expect("accepts");
    let (read, held) = (b"GET /healthz HT".to_vec(), b"TP/1.1\r\nHost: x\r\n\r\n".to_vec());
    http.hand_over().reserve().expect("a place").take_over(handed(socket, Held(held)), read, stranger());
    assert_eq!(answer(&mut client, false).status, 200);
    http.stop();
}

#[test]
fn stopping_ends_idle_connections_and_killing_does_not_wait() {
    let mut served = Served::start();
    let mut stream = TcpStream::connect(served.address).expect("connects");
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").expect("writes");
    assert_eq!(answer(&mut stream, false).status, 200);
    served.http.take().expect("running").stop();
    assert_eq!(stream.read(&mut [0]).expect("closed in order"), 0);
    drop(Served::start());
}

/// openobserve#13676: a reconnect storm leaves hundreds of watchers behind.
#[test]
fn a_storm_of_connections_leaves_none_behind() {
    let mut served = Served::start();
    let clients: Vec<TcpStream> = (0..100)
        .map(|_| {
            let mut stream = TcpStream::connect(served.address).expect("connects");
            stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").expect("writes");
            assert_eq!(answer(&mut stream, false).status, 200);
            stream
        })
        .collect();
    assert_eq!(served.node.metrics.connections.http.get(), 100);
    drop(clients);
    served.http.take().expect("running").stop();
    assert_eq!(served.node.metrics.connections.http.get(), 0);
}

#[test]
fn an_answer_beyond_the_memory_for_clients_is_refused() {
    let served = Served::start();
    let text = Bytes::from(format!("\"{}\"", "x".repeat(30_000)));
    for number in 0..3 {
        served.node.put(&format!("big/{number}"), 5, Payload::Json(text.clone()), 0);
    }
    let page = served.get("/v1/sources?pattern=big/*");
    assert_eq!(page.field("/after"), "big/1", "a page is not larger than what a request may have");
    let (mut others, memory) = (served.node.memory.0.lease(), &served.node.memory.0);
    others.resize(memory.limit(), 0).expect("small ones are never refused");
    served.get("/v1/sources?pattern=big/*").is_problem(503, "overloaded");
    assert_eq!(served.get("/v1/sources/a/b").status, 200, "a short answer is never refused");
    drop(others);
    assert_eq!(served.get("/v1/sources/big/1").status, 200);
    let zeros = format!("[{}0]", "0,".repeat(199));
    served.ask("POST", "/v1/publish", &zeros).is_problem(413, "too_large");
    let mut text = String::new();
    served.node.metrics.write(&mut text);
    for counted in ["pages", "answers"] {
        let line = format!("anode_client_memory_refusals_total{{use=\"{counted}\"}} 1\n");
        assert!(text.contains(&line), "{text}");
    }
    // The node may notice a little later that the last answer was read.
    for _ in 0..500 {
        if served.node.memory.0.taken() == 0 {
            return;
        }
        crate::server::clock::sleep(10_000);
    }
    panic!("{} bytes are still leased", served.node.memory.0.taken());
}

/// The router is made of the table of all paths, and nothing else is answered.
#[test]
fn every_path_of_the_table_is_answered_and_no_other_is() {
    let served = Served::start();
    for resource in Resource::ALL {
        let method = resource.methods().first().expect("a method");
        if resource == Resource::WebPage {
            // It is there for browsers only, as the black-box tests check.
            continue;
        }
        let answer = served.ask(method, resource.path(), "");
        assert_ne!(answer.status, 403, "{resource:?}");
        let is_unknown = answer.status == 404 && answer.body.contains("there is nothing at");
        assert!(!is_unknown, "{resource:?}: {answer:?}");
        let is_for_all =
            matches!(resource, Resource::Live | Resource::Ready | Resource::GraphqlPage | Resource::WebAsset);
        assert_eq!(resource.right() == Right::Public, is_for_all, "{resource:?}");
    }
    for path in ["/", "/v1", "/v1/", "/admin", "/healthz/", "/v1/publish/"] {
        served.get(path).is_problem(404, "not_found");
    }
}
