//! The page for browsers: who gets it, in which encoding, and with which headers. What it does is tested in a browser
//! (`web/test`, `scripts/web-test`).

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use crate::harness::http::{connect, read_all};
use crate::harness::rights::{RightsFile, token_entry};
use crate::harness::{Cluster, Http, Node, NodeConfig, eventually};

/// The header `Accept` of a browser that loads a page.
const BROWSER: &str = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8";

/// Requests a path as a browser does, with further fields.
fn browse(node: &Node, path: &str, fields: &[(&str, &str)]) -> Http {
    let fields: Vec<_> = [("Accept", BROWSER)].iter().chain(fields).copied().collect();
    Http::request(&node.http, "GET", path, &fields, b"")
}

/// The body of the answer to a request with the header `Accept-Encoding`, byte by byte.
fn body_of(node: &Node, path: &str, encoding: &str) -> Vec<u8> {
    let mut stream = connect(&node.http);
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nAccept: {BROWSER}\r\nAccept-Encoding: {encoding}\r\n\r\n",
        node.http
    );
    assert!(stream.write_all(request.as_bytes()).is_ok());
    let answer = read_all(&mut stream, Duration::from_secs(10));
    let head = answer.windows(4).position(|four| four == b"\r\n\r\n");
    let head = head.unwrap_or_else(|| panic!("{path}: no head in {} bytes", answer.len()));
    assert!(answer.starts_with(b"HTTP/1.1 200 "), "{path}");
    answer.get(head + 4..).unwrap_or_default().to_vec()
}

fn built(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("web/dist").join(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The paths of the files that the page names.
fn assets(page: &str) -> Vec<String> {
    page.split('"').filter(|part| part.starts_with("/assets/")).map(str::to_owned).collect()
}

#[test]
fn browsers_get_the_page_and_programs_do_not() {
    let node = Node::start(NodeConfig::named("a").in_memory());
    let page = browse(&node, "/", &[]);
    assert_eq!(page.status, 200, "{page:?}");
    assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
    assert_eq!(page.body.as_bytes(), built("index.html"));
    let with_query = browse(&node, "/?from=elsewhere", &[]);
    assert_eq!((with_query.status, with_query.body), (200, page.body));
    for accepted in ["application/json", "*/*", "", "text/html;q=0", "text/plain, */*"] {
        let answer = Http::request(&node.http, "GET", "/", &[("Accept", accepted)], b"");
        answer.assert_problem(404, "not_found");
    }
    node.get("/").assert_problem(404, "not_found");
    let head = Http::request(&node.http, "HEAD", "/", &[("Accept", BROWSER)], b"");
    assert_eq!((head.status, head.body.as_str()), (200, ""));
    let posted = Http::request(&node.http, "POST", "/", &[("Accept", BROWSER)], b"");
    posted.assert_problem(405, "method_not_allowed");
    browse(&node, "/index.html", &[]).assert_problem(404, "not_found");
}

#[test]
fn the_page_may_load_and_run_nothing_but_its_own() {
    let node = Node::start(NodeConfig::named("a").in_memory());
    let page = browse(&node, "/", &[]);
    let policy = page.header("content-security-policy").unwrap_or_default();
    for rule in [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ] {
        assert!(policy.split(';').any(|part| part.trim() == rule), "{rule} in {policy}");
    }
    assert!(!policy.contains("unsafe") && !policy.contains('*'), "{policy}");
    assert!(!page.body.contains("://"), "no other host: {}", page.body);
    let named = assets(&page.body);
    assert!(named.len() >= 3, "{}", page.body);
    let paths = ["/".to_owned()].into_iter().chain(named);
    for path in paths {
        let answer = browse(&node, &path, &[]);
        for (name, value) in [
            ("x-content-type-options", "nosniff"),
            ("referrer-policy", "no-referrer"),
            ("x-frame-options", "DENY"),
            ("cross-origin-resource-policy", "same-origin"),
        ] {
            assert_eq!((answer.status, answer.header(name)), (200, Some(value)), "{path}: {answer:?}");
        }
        assert!(answer.header("access-control-allow-origin").is_none(), "{path}");
    }
}

#[test]
fn the_page_may_connect_to_the_members() {
    let cluster = Cluster::start(2);
    eventually("the page names the other member", Duration::from_secs(30), || {
        let page = browse(&cluster[0], "/", &[]);
        let policy = page.header("content-security-policy").unwrap_or_default().to_owned();
        let connect = policy.split(';').find(|part| part.trim().starts_with("connect-src "))?.to_owned();
        let other = &cluster[1].http;
        let is_named = |scheme: &str| connect.split(' ').any(|host| host == format!("{scheme}://{other}"));
        (connect.contains("'self'") && is_named("http") && is_named("ws")).then_some(())
    });
}

#[test]
fn files_are_kept_for_ever_and_the_page_is_asked_for_again() {
    let node = Node::start(NodeConfig::named("a").in_memory());
    let page = browse(&node, "/", &[]);
    assert_eq!(page.header("cache-control"), Some("no-cache"));
    let tag = page.header("etag").unwrap_or_default();
    assert!(tag.starts_with('"') && tag.ends_with('"') && tag.len() > 8, "{tag}");
    for known in [tag.to_owned(), format!("\"x\", {tag}"), format!("W/{tag}")] {
        let again = browse(&node, "/", &[("If-None-Match", &known)]);
        assert_eq!(
            (again.status, again.body.as_str(), again.header("etag")),
            (304, "", Some(tag)),
            "{known}"
        );
    }
    assert_eq!(browse(&node, "/", &[("If-None-Match", "\"x\"")]).status, 200);
    let compressed = browse(&node, "/", &[("Accept-Encoding", "br"), ("If-None-Match", tag)]);
    assert_eq!(compressed.status, 200, "another encoding is another answer");
    for path in assets(&page.body) {
        let answer = browse(&node, &path, &[]);
        let cached = answer.header("cache-control").unwrap_or_default();
        assert!(cached.contains("immutable") && cached.contains("max-age=31536000"), "{path}: {cached}");
        let kind = match path.rsplit_once('.').map(|(_, suffix)| suffix) {
            Some("js") => "text/javascript; charset=utf-8",
            Some("css") => "text/css; charset=utf-8",
            _ => "image/svg+xml",
        };
        assert_eq!(answer.header("content-type"), Some(kind), "{path}");
    }
    for missing in ["/assets/", "/assets/none.js", "/assets/../Cargo.toml", "/assets/%2e%2e/x", "/assets"] {
        browse(&node, missing, &[]).assert_problem(404, "not_found");
    }
}

#[test]
fn files_come_in_the_smallest_encoding_that_is_understood() {
    let node = Node::start(NodeConfig::named("a").in_memory());
    let page = browse(&node, "/", &[]);
    let script = assets(&page.body).into_iter().find(|path| path.ends_with(".js")).unwrap_or_default();
    for (path, name) in [("/", "index.html"), (script.as_str(), script.trim_start_matches('/'))] {
        for (accepted, encoding, suffix) in [
            ("gzip, deflate, br, zstd", Some("br"), ".br"),
            ("gzip", Some("gzip"), ".gz"),
            ("br;q=0, gzip;q=0.5", Some("gzip"), ".gz"),
            ("identity", None, ""),
            ("deflate", None, ""),
        ] {
            let answer = browse(&node, path, &[("Accept-Encoding", accepted)]);
            assert_eq!(answer.header("content-encoding"), encoding, "{path} {accepted}");
            assert!(answer.header("vary").is_some_and(|vary| vary.contains("accept-encoding")), "{answer:?}");
            assert_eq!(
                body_of(&node, path, accepted),
                built(&format!("{name}{suffix}")),
                "{path} {accepted}"
            );
        }
    }
}

/// The page holds nothing of the node, so it is there before anybody has brought a token: it asks for one.
#[test]
fn the_page_needs_no_token_and_what_it_shows_does() {
    let rights = RightsFile::new(&token_entry("a", "secret", "observe = true"));
    let node = Node::start(NodeConfig::named("a").in_memory().with(&["--auth", &rights.path()]));
    let page = browse(&node, "/", &[]);
    assert_eq!(page.status, 200, "{page:?}");
    for path in assets(&page.body) {
        assert_eq!(browse(&node, &path, &[]).status, 200, "{path}");
    }
    for path in ["/v1/members", "/metrics", "/v1/sources"] {
        browse(&node, path, &[]).assert_problem(401, "unauthorized");
    }
    node.get("/").assert_problem(401, "unauthorized");
}

#[test]
fn the_page_is_not_there_under_a_foreign_name() {
    let node = Node::start(NodeConfig::named("a").in_memory());
    let page = browse(&node, "/", &[]);
    for path in ["/".to_owned()].into_iter().chain(assets(&page.body)) {
        browse(&node, &path, &[("Host", "evil.example")]).assert_problem(403, "forbidden");
    }
}
