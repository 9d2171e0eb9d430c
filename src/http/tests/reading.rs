//! Requests that read: health, members, records, lists and histories.

use super::*;

#[test]
fn health_and_readiness() {
    let served = Served::start();
    assert_eq!(served.get("/healthz").status, 200);
    assert_eq!(served.get("/readyz").status, 200);
    *served.node.not_ready.lock() = Some("the store is loading".into());
    let answer = served.get("/readyz");
    answer.is_problem(503, "not_ready");
    assert_eq!(answer.field("/detail"), "the store is loading");
}

#[test]
fn members_and_metrics() {
    let served = Served::start();
    let members = served.get("/v1/members");
    assert_eq!(
        members.field("/members/1").to_string(),
        concat!(
            r#"{"boot":7,"gossip":"10.0.0.1:7946","http":"10.0.0.1:7070","id":"n2","incarnation":3,"#,
            r#""joined":2,"rtt_us":310,"state":"suspect","version":"0.1.0","zone":"z\"1"}"#
        )
    );
    assert!(members.field("/members/0/rtt_us").is_null());
    assert!(!members.head.contains("access-control"), "{members:?}");
    let asked =
        |origin: &str| served.ask_with("GET", "/v1/members", &format!("Host: x\r\nOrigin: {origin}\r\n"));
    assert!(asked("http://x").head.contains("access-control-allow-origin: http://x\r\n"));
    assert!(!asked("http://y").head.contains("access-control"), "another page sees nothing");
    let metrics = served.get("/metrics");
    assert!(metrics.head.contains("content-type: text/plain; version=0.0.4"), "{metrics:?}");
    assert!(metrics.body.contains("\nanode_connections{endpoint=\"http\"} "), "{}", metrics.body);
}

#[test]
fn records_are_verbatim_and_absent_ones_404() {
    let served = Served::start();
    for path in ["/v1/sources/a/b", "/v1/sources/a%2Fb"] {
        let answer = served.get(path);
        assert_eq!(answer.body, r#"{"source":"a/b","ts":5,"origin":"n1","data":{ "x": 1.0 }}"#);
        assert!(answer.head.contains("content-type: application/json"), "{answer:?}");
    }
    served.get("/v1/sources/never").is_problem(404, "not_found");
    assert!(served.get("/v1/sources/never").field("/deleted").is_null());
    for gone in ["/v1/sources/a/gone", "/v1/sources/a/over"] {
        let answer = served.get(gone);
        answer.is_problem(404, "not_found");
        assert_eq!(answer.field("/deleted"), true);
        assert!(answer.field("/ts").is_u64() && answer.field("/source").is_string(), "{answer:?}");
    }
    served.get("/v1/sources/").is_problem(400, "bad_source");
    served.get("/v1/sources/a//b").is_problem(400, "bad_source");
    served.get("/v1/sources/a?x=1").is_problem(400, "bad_request");
}

#[test]
fn lists_in_order_of_name_page_by_page() {
    let served = Served::start();
    let names = |answer: &Answered| -> Vec<String> {
        let records = answer.field("/records");
        let names = records.as_array().expect("array").iter().map(|record| record["source"].to_string());
        names.collect()
    };
    let all = served.get("/v1/sources");
    assert_eq!(names(&all), [r#""a/b""#, r#""a/c""#, r#""b/history""#]);
    assert!(all.field("/after").is_null());
    let first = served.get("/v1/sources?pattern=a/*&limit=1");
    assert_eq!((names(&first), first.field("/after")), (vec![r#""a/b""#.to_owned()], "a/b".into()));
    let second = served.get("/v1/sources?pattern=a%2F*&limit=1&after=a/b");
    assert_eq!((names(&second), second.field("/after").is_null()), (vec![r#""a/c""#.to_owned()], true));
    served.get("/v1/sources?pattern=a**").is_problem(400, "bad_pattern");
    served.get("/v1/sources?limit=0").is_problem(400, "bad_request");
    served.get("/v1/sources?limti=1").is_problem(400, "bad_request");
}

#[test]
fn history_newest_first_page_by_page() {
    let served = Served::start();
    let stamps = |answer: &Answered| -> Vec<u64> {
        let records = answer.field("/records");
        records.as_array().expect("array").iter().filter_map(|record| record["ts"].as_u64()).collect()
    };
    // The source is called `b/history`: only a literal last `/history` asks for one.
    assert_eq!(served.get("/v1/sources/b%2Fhistory").field("/ts"), 200);
    let all = served.get("/v1/sources/b%2Fhistory/history?limit=500");
    assert_eq!(stamps(&all), (1..=200).rev().collect::<Vec<u64>>());
    assert!(all.field("/after").is_null());
    let first = served.get("/v1/sources/b/history/history?limit=3");
    let cursor = HistoryCursor(Stamp::of_data(198, b"0")).to_string();
    assert_eq!((stamps(&first), first.field("/after")), (vec![200, 199, 198], cursor.as_str().into()));
    let next = served.get(&format!("/v1/sources/b/history/history?limit=3&after={cursor}&from=196"));
    assert_eq!((stamps(&next), next.field("/after").is_null()), (vec![197, 196], true));
    served.get("/v1/sources/b/history/history?after=x").is_problem(400, "bad_request");
    served.get("/v1/sources/a/b/history?from=-1").is_problem(400, "bad_timestamp");
}

/// A history was counted only when all of it was read: up to 8 MiB of each request were not. Later a part of it was
/// counted only when it was in memory.
#[test]
fn a_history_counts_while_it_is_read() {
    let served = Served::start();
    assert_eq!(served.get("/v1/sources/b/history/history?limit=60").status, 200);
    let leased = served.node.leased_at_reads.lock().clone();
    assert_eq!(leased.len(), 60, "a chunk is one record here, since it might be as large as a chunk");
    let connection_and_part = (28 << 10) + OPTIONS.record_bytes_max;
    assert!(leased[0] >= connection_and_part, "the part is leased before it is read: {leased:?}");
    assert!(leased.is_sorted() && leased[59] > leased[0] + 2_000, "{leased:?}");
}

#[test]
fn a_page_of_nothing_is_json() {
    let served = Served::start();
    assert_eq!(served.get("/v1/sources?pattern=none/*").body, r#"{"records":[],"after":null}"#);
}

/// A node went on to make pages for a minute after the thousand clients that had asked for them had gone: one that has
/// ended its side of the connection may still wait for its answer, so its page was made in any case.
#[test]
fn no_page_is_made_for_long_for_a_client_that_may_have_gone() {
    let served = Served::start();
    // One record more than this limit is looked for.
    for (path, ends, status) in [
        ("/v1/sources?pattern=a/*&limit=7", true, 503),
        ("/v1/sources?pattern=a/*&limit=7", false, 200),
        ("/v1/sources?pattern=a/*&limit=9", true, 200),
    ] {
        let mut stream = TcpStream::connect(served.address).expect("connects");
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").expect("writes");
        if ends {
            stream.shutdown(std::net::Shutdown::Write).expect("ends its side");
        }
        let answer = answer(&mut stream, false);
        assert_eq!(answer.status, status, "{path}: {answer:?}");
    }
}
