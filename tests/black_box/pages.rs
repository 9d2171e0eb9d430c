//! Web pages: from which origins they may connect, what they may read, and to which names requests may be addressed.

use serde_json::json;

use crate::harness::rights::{RightsFile, token_entry};
use crate::harness::ws::{Handshake, shake_with};
use crate::harness::{Http, Node, NodeConfig};

const BODY: &str = r#"{"source":"a","data":1}"#;

fn post(node: &Node, fields: &[(&str, &str)]) -> Http {
    Http::request(&node.http, "POST", "/v1/publish", fields, BODY.as_bytes())
}

fn upgrade(node: &Node, fields: &[(&str, &str)]) -> Option<Http> {
    let has_host = fields.iter().any(|(name, _)| *name == "Host");
    let host = [("Host", node.http.as_str())];
    let fields: Vec<_> = host.iter().filter(|_| !has_host).chain(fields).copied().collect();
    match shake_with(&node.http, "/subscribe", &[], &fields) {
        Handshake::Open(..) => None,
        Handshake::Refused(answer) => Some(answer),
    }
}

fn preflight(node: &Node, origin: &str) -> Http {
    let fields = [
        ("Origin", origin),
        ("Access-Control-Request-Method", "POST"),
        ("Access-Control-Request-Headers", "authorization, content-type"),
    ];
    Http::request(&node.http, "OPTIONS", "/v1/publish", &fields, b"")
}

fn allowed_origin(answer: &Http) -> Option<&str> {
    answer.header("access-control-allow-origin")
}

#[test]
fn pages_of_other_hosts_may_neither_connect_nor_publish_nor_read() {
    let node = Node::start(NodeConfig::named("a").in_memory());
    let own = format!("http://{}", node.http);
    for foreign in ["https://evil.example", "null", "http://127.0.0.1:1", "https://127.0.0.1", "x"] {
        let origin = [("Origin", foreign)];
        let answers = [
            post(&node, &origin),
            upgrade(&node, &origin).unwrap_or_else(|| panic!("{foreign} was upgraded")),
            preflight(&node, foreign),
        ];
        for answer in answers {
            answer.assert_problem(403, "forbidden");
            assert!(!answer.headers.iter().any(|(name, _)| name.starts_with("access-control")), "{answer:?}");
        }
        for path in ["/v1/sources", "/v1/members", "/metrics", "/healthz"] {
            let answer = Http::request(&node.http, "GET", path, &origin, b"");
            assert_eq!(allowed_origin(&answer), None, "{path}: {answer:?}");
        }
    }
    assert!(node.latest("a").is_none(), "nothing was applied");
    let kept = node.put("kept", json!(1));
    let definition = r#"{"kind":"http","url":"http://127.0.0.1:9/","records":[{"source":"x"}]}"#;
    for (method, path, body) in [
        ("PUT", "/v1/sources/a", "1"),
        ("DELETE", "/v1/sources/kept", ""),
        ("POST", "/v1/import", "{\"source\":\"a\",\"ts\":1,\"data\":1}\n"),
        ("PUT", "/v1/pull/x", definition),
        ("DELETE", "/v1/hook/x", ""),
        ("POST", "/v1/admin/forget/b", ""),
        ("POST", "/graphql", r#"{"query":"mutation{deleteSource(source:\"kept\"){outcome}}"}"#),
    ] {
        let origin = [("Origin", "https://evil.example"), ("Content-Type", "application/json")];
        let answer = Http::request(&node.http, method, path, &origin, body.as_bytes());
        answer.assert_problem(403, "forbidden");
        assert_eq!(allowed_origin(&answer), None, "{method} {path}");
    }
    assert!(node.latest("a").is_none(), "nothing was applied");
    node.wait_ts("kept", kept);
    assert_eq!(node.get("/v1/pull").json(), json!({"pull": []}));
    let origin = [("Origin", own.as_str())];
    assert!(upgrade(&node, &origin).is_none());
    assert_eq!(post(&node, &origin).status, 200);
    for path in ["/v1/sources", "/v1/members", "/metrics", "/healthz", "/v1/sources/none"] {
        let answer = Http::request(&node.http, "GET", path, &origin, b"");
        assert_eq!(allowed_origin(&answer), Some(own.as_str()), "{path}: {answer:?}");
    }
    assert!(upgrade(&node, &[]).is_none(), "who is no browser says no origin");
}

#[test]
fn allowed_origins_get_answers_and_preflights() {
    let flags = ["--allow-origin", "https://app.example,http://localhost:5173"];
    let node = Node::start(NodeConfig::named("a").in_memory().with(&flags));
    for origin in ["https://app.example", "http://localhost:5173", &format!("http://{}", node.http)] {
        let answer = preflight(&node, origin);
        assert_eq!(answer.status, 204, "{answer:?}");
        assert_eq!(allowed_origin(&answer), Some(origin));
        let list = |name: &str| answer.header(name).unwrap_or_default().to_ascii_lowercase();
        for method in ["get", "post", "put", "delete"] {
            assert!(list("access-control-allow-methods").contains(method), "{answer:?}");
        }
        for field in ["authorization", "content-type"] {
            assert!(list("access-control-allow-headers").contains(field), "{answer:?}");
        }
        assert!(list("vary").contains("origin"), "{answer:?}");
        let published = post(&node, &[("Origin", origin)]);
        assert_eq!((published.status, allowed_origin(&published)), (200, Some(origin)));
        assert!(upgrade(&node, &[("Origin", origin)]).is_none());
    }
    for foreign in ["http://app.example", "https://app.example:8443", "https://app.example.evil"] {
        preflight(&node, foreign).assert_problem(403, "forbidden");
        post(&node, &[("Origin", foreign)]).assert_problem(403, "forbidden");
    }
    let node = Node::start(NodeConfig::named("a").in_memory().with(&["--allow-origin", "*"]));
    assert!(upgrade(&node, &[("Origin", "https://any.example")]).is_none());
    let answer = post(&node, &[("Origin", "null")]);
    assert_eq!((answer.status, allowed_origin(&answer)), (200, Some("null")));
}

#[test]
fn preflights_need_no_token_and_refusals_can_be_read_by_pages() {
    let rights = RightsFile::new(&token_entry("a", "secret", "publish = [\"**\"]"));
    let flags = ["--auth", &rights.path(), "--allow-origin", "https://app.example"];
    let node = Node::start(NodeConfig::named("a").in_memory().with(&flags));
    assert_eq!(preflight(&node, "https://app.example").status, 204);
    preflight(&node, "https://evil.example").assert_problem(403, "forbidden");
    let answer = post(&node, &[("Origin", "https://app.example")]);
    answer.assert_problem(401, "unauthorized");
    assert_eq!(allowed_origin(&answer), Some("https://app.example"));
    let answer = post(&node, &[("Origin", "https://evil.example"), ("Authorization", "Bearer secret")]);
    answer.assert_problem(403, "forbidden");
    assert_eq!(allowed_origin(&answer), None);
}

/// A page whose name is made to point at this machine reads what the machine alone may read (DNS rebinding).
#[test]
fn a_request_to_a_foreign_name_is_refused_while_there_is_no_file_of_rights() {
    let node = Node::start(NodeConfig::named("a").in_memory().with(&["--allow-host", "anode,Node.example"]));
    let port = node.http.rsplit_once(':').map_or("", |(_, port)| port);
    for foreign in
        ["evil.example", "evil.example:7070", "localhost.evil.example", "127.0.0.1.evil.example", "b"]
    {
        for path in
            ["/v1/sources", "/v1/members", "/metrics", "/v1/stream?source=a", "/v1/export", "/v1/none"]
        {
            Http::request(&node.http, "GET", path, &[("Host", foreign)], b"")
                .assert_problem(403, "forbidden");
        }
        for (path, protocols) in [("/publish", &[] as &[&str]), ("/graphql", &["graphql-transport-ws"])] {
            match shake_with(&node.http, path, protocols, &[("Host", foreign)]) {
                Handshake::Refused(answer) => answer.assert_problem(403, "forbidden"),
                Handshake::Open(..) => panic!("{path} of {foreign} was upgraded"),
            }
        }
        post(&node, &[("Host", foreign)]).assert_problem(403, "forbidden");
        let answer = upgrade(&node, &[("Host", foreign)]).unwrap_or_else(|| panic!("{foreign} was upgraded"));
        answer.assert_problem(403, "forbidden");
        let with_origin = [("Host", foreign), ("Origin", &*format!("http://{foreign}"))];
        post(&node, &with_origin).assert_problem(403, "forbidden");
        assert_eq!(Http::request(&node.http, "GET", "/healthz", &[("Host", foreign)], b"").status, 200);
    }
    assert!(node.latest("a").is_none(), "nothing was applied");
    for own in [
        "localhost",
        "LOCALHOST:1",
        "127.0.0.1",
        "[::1]",
        "10.1.2.3:7070",
        "anode",
        "node.example:80",
        "anode.",
    ] {
        let fields = [("Host", own)];
        assert_eq!(Http::request(&node.http, "GET", "/v1/sources", &fields, b"").status, 200, "{own}");
        assert!(upgrade(&node, &fields).is_none(), "{own}");
    }
    assert_eq!(post(&node, &[("Host", &format!("localhost:{port}"))]).status, 200);
    // With a file of rights, the token decides.
    let rights = RightsFile::new(&token_entry("a", "secret", "subscribe = [\"**\"]"));
    let node = Node::start(NodeConfig::named("a").in_memory().with(&["--auth", &rights.path()]));
    let fields = [("Host", "any.example"), ("Authorization", "Bearer secret")];
    assert_eq!(Http::request(&node.http, "GET", "/v1/sources", &fields, b"").json()["records"], json!([]));
}

#[test]
fn a_node_that_strangers_reach_says_so_at_the_start() {
    let open = NodeConfig { http: "0.0.0.0:0".into(), ..NodeConfig::named("a").in_memory() };
    let line = "everybody who reaches this address may publish, subscribe and observe";
    let rights = RightsFile::new("");
    let warns = |config: NodeConfig| {
        let mut node = Node::spawn(config);
        let count = node.log().matches(line).count();
        node.kill9();
        count
    };
    assert_eq!(warns(open.clone()), 1);
    assert_eq!(warns(open.with(&["--auth", &rights.path()])), 0);
    assert_eq!(warns(NodeConfig::named("b").in_memory()), 0);
}
