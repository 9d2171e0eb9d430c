//! `anode export` and `anode import`: whole maps as lines, out of one cluster and into another.

use std::io::{Read, Write};
use std::time::Duration;

use serde_json::json;

use crate::harness::command::{binary, run};
use crate::harness::{Node, NodeConfig, anode, json as parse};
use crate::terminal_top::on_a_terminal;

fn url(node: &Node) -> String {
    format!("http://{}", node.http)
}

#[test]
fn an_export_is_imported_with_everything_in_it() {
    let (from, to) =
        (Node::start(NodeConfig::named("a").in_memory()), Node::start(NodeConfig::named("b").in_memory()));
    let many: String = (0..2_500)
        .map(|at| {
            format!(
                "{{\"source\":\"m/{at:04}\",\"data\":{{\"text\":\"{}\",\"at\": {at}.0}}}}\n",
                "x".repeat(300)
            )
        })
        .collect();
    assert_eq!(run(binary().args(["pub", "--stdin", "--url", &url(&from)]), &many).code, Some(0));
    from.put("other", json!(1));
    let gone = from.put("gone", json!(1));
    assert_eq!(anode(&["delete", "gone", "--url", &url(&from)]).code, Some(0));
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("all.ndjson").display().to_string();
    let exported = anode(&["export", "--file", &file, "--url", &url(&from)]);
    assert!(exported.code == Some(0) && exported.stderr.contains("exported 2,502 records"), "{exported:?}");
    // An older value does not come back over the deletion.
    assert_eq!(anode(&["pub", "gone", "1", "--ts", &gone.to_string(), "--url", &url(&to)]).code, Some(0));
    let imported = anode(&["import", &file, "--ack", "stored", "--url", &url(&to)]);
    assert_eq!(imported.code, Some(0), "{imported:?}");
    for words in ["imported 2,502 records", "2502 applied", "0 refused"] {
        assert!(imported.stderr.contains(words), "{words} in {imported:?}");
    }
    assert_eq!(to.get("/v1/sources/gone").status, 404);
    let records = |node: &Node| {
        let records = node.all_records("**").into_iter();
        records
            .map(|record| (record["source"].clone(), record["ts"].clone(), record["data"].clone()))
            .collect::<Vec<_>>()
    };
    assert_eq!(records(&to), records(&from));
    assert!(to.get("/v1/sources/m/0001").body.contains("\"at\": 1.0"), "verbatim");
    // The same once more changes nothing, and says so.
    let again = anode(&["import", &file, "--json", "--url", &url(&to)]);
    let told = parse(&again.stdout);
    assert_eq!(
        (again.code, &told["outcomes"]["duplicate"], &told["records"]),
        (Some(0), &json!(2502), &json!(2502))
    );
    let some = anode(&["export", "m/000*", "--url", &url(&from)]);
    assert_eq!((some.code, some.stdout.lines().count()), (Some(2), 0), "not a pattern: {some:?}");
    let some = anode(&["export", "other", "--url", &url(&from)]);
    assert_eq!((some.code, some.stdout.lines().count()), (Some(0), 1), "{some:?}");
    let piped = run(binary().args(["import", "--url", &url(&to)]), &some.stdout);
    assert!(piped.code == Some(0) && piped.stderr.contains("1 duplicate"), "{piped:?}");
}

#[test]
fn refused_lines_are_named_by_their_numbers_and_the_rest_goes_on() {
    let node = Node::start(NodeConfig::named("a").in_memory());
    let mut lines: Vec<String> =
        (1..=1_200).map(|at| format!("{{\"source\":\"r/{at}\",\"data\":{at}}}")).collect();
    lines[1] = "nonsense".into();
    lines[1_099] = "{\"source\":\"r//x\",\"data\":1}".into();
    let output = run(binary().args(["import", "-", "--url", &url(&node)]), &lines.join("\n"));
    assert_eq!(output.code, Some(1), "{output:?}");
    for words in ["line 2: bad_json", "line 1100: bad_source", "1198 applied", "2 refused"] {
        assert!(output.stderr.contains(words), "{words} in {}", output.stderr);
    }
    assert_eq!(node.all_records("r/*").len(), 1_198);
    let output = anode(&["import", "/no/such/file", "--url", &url(&node)]);
    assert!(output.code == Some(2) && output.stderr.contains("/no/such/file"), "{output:?}");
    let output = anode(&["import", "/dev/null", "--url", &url(&node)]);
    assert!(output.code == Some(0) && output.stderr.contains("0 records"), "{output:?}");
}

/// At a terminal, work that takes long shows how far it is, and the line gives way to the summary at the end.
#[test]
fn long_work_shows_its_progress() {
    let node = Node::start(NodeConfig::named("a").in_memory());
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str, from: usize| {
        let lines: String =
            (from..from + 600).map(|at| format!("{{\"source\":\"p/{at}\",\"data\":{at}}}\n")).collect();
        let path = folder.path().join(name);
        std::fs::write(&path, lines).expect("written");
        path.display().to_string()
    };
    let (first, second) = (file("first", 0), file("second", 600));
    let import = format!("{} import --url {}", env!("CARGO_BIN_EXE_anode"), url(&node));
    let line = format!("sh -c 'for file in {first} {second}; do sleep 1; cat $file; done | {import}'");
    let output = on_a_terminal(&line, 30);
    assert_eq!(output.code, Some(0), "{output:?}");
    let (before, summary) = output.stdout.split_once("imported 1,200 records").expect("a summary");
    assert!(before.contains(" records, ") && before.contains(" records/s"), "no progress: {output:?}");
    assert!(summary.contains("1200 applied"), "{output:?}");
}

#[test]
fn an_export_that_is_cut_is_no_success() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bound");
    let address = listener.local_addr().expect("an address").to_string();
    let node = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a client");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
        let _ = stream.read(&mut [0; 4096]);
        let line = "{\"source\":\"a\",\"data\":1}\n";
        let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        stream.write_all(format!("{head}{:x}\r\n{line}\r\n", line.len()).as_bytes()).expect("written");
    });
    let output = anode(&["export", "--url", &address]);
    node.join().expect("a node");
    assert!(output.code == Some(1) && output.stderr.contains("cut"), "{output:?}");
    assert_eq!(output.stdout.lines().count(), 1, "what came is there: {output:?}");
}
