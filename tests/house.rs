//! The house's own rules, read from its source: who may know whom, what stays outside the pure rooms,
//! how long things may be, that no files import each other in a circle, that names tell things apart,
//! and that docs say something. Each check is a function from one file or all files to complaints, and
//! each has a test that it complains.

#[path = "house/imports.rs"]
mod imports;
#[path = "house/links.rs"]
mod links;
#[path = "house/names.rs"]
mod names;
#[path = "house/source.rs"]
mod source;
#[path = "house/words.rs"]
mod words;

use source::{File, closing, line_of, test_module};

/// The rooms, and which others each may use. A room that is not in the list may not exist, and a room
/// that does not use what it may is complained of: it should know as little as it needs.
const ROOMS: &[(&str, &[&str])] = &[
    ("lib", &[]),
    ("main", &["cli"]),
    ("fuzzing", &[]),
    ("planted", &["limits"]),
    ("cli", &["server", "extend", "sim", "cluster", "protocol", "record", "config", "limits"]),
    (
        "server",
        &[
            "auth",
            "extend",
            "http",
            "store",
            "ingest",
            "latest",
            "subscriptions",
            "cluster",
            "expression",
            "protocol",
            "record",
            "metrics",
            "memory",
            "config",
            "limits",
        ],
    ),
    ("http", &["auth", "cluster", "protocol", "record", "metrics", "memory", "limits"]),
    ("extend", &["expression", "ingest", "cluster", "protocol", "record", "metrics", "limits"]),
    ("store", &["cluster", "record", "config", "limits", "planted"]),
    ("sim", &["cluster", "record", "limits"]),
    ("ingest", &["auth", "latest", "cluster", "protocol", "record", "metrics", "limits", "planted"]),
    ("auth", &["protocol", "record", "config", "limits"]),
    ("latest", &["record", "limits"]),
    ("subscriptions", &["record", "limits"]),
    ("cluster", &["record", "config", "limits", "planted"]),
    ("protocol", &["expression", "record", "limits"]),
    ("record", &["limits"]),
    ("metrics", &["protocol", "memory"]),
    ("memory", &[]),
    ("config", &["record", "limits"]),
    ("expression", &[]),
    ("limits", &[]),
];

/// Names that may stand for several things, each with the reason.
const NAMES: &[(&str, &str)] = &[
    ("Arguments", "the options of a subcommand; always written with the module: `get::Arguments`"),
    ("Output", "what a machine of the core wants done; always written with the module: `swim::Output`"),
];

/// Rooms without sockets, threads, clock or randomness of their own.
const PURE: &[&str] = &["record", "protocol", "latest", "subscriptions", "cluster", "ingest", "expression"];

/// What no pure room may name: it would bring in the world, or iterate in an order that nobody chose.
const IMPURE: &[&str] = &[
    "std::net::Tcp",
    "std::net::Udp",
    "std::net::ToSocketAddrs",
    "TcpStream",
    "TcpListener",
    "UdpSocket",
    "std::thread",
    "thread::spawn",
    "std::time::Instant",
    "SystemTime",
    "Instant::now",
    "std::fs",
    "std::process",
    "std::env::var",
    "mio::",
    "socket2::",
    "quinn_udp::",
    "rand::",
    "fastrand::",
    "RandomState",
    "std::collections::HashMap",
    "std::collections::HashSet",
    "thread_local!",
];

/// Reading the clock and sleeping, which only one file may do.
const CLOCK: &[&str] = &["Instant::now", "SystemTime::now", "thread::sleep"];
const CLOCK_FILE: &str = "src/server/clock.rs";

/// Names of files that turn bytes into types.
const WIRE: &[&str] = &["wire", "codec", "protobuf"];

const FILE_LINES_MAX: usize = 500;
const FUNCTION_LINES_MAX: usize = 70;
const INLINE_TEST_LINES_MAX: usize = 200;

type Check = fn(&File) -> Vec<String>;

/// Returns the rooms that `code`, in `module`, names by `crate::`, `super::` or `anode::`, with the places.
fn rooms_named(code: &str, module: &[&str]) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let ups = "super::".repeat(module.len());
    for root in ["crate::", "anode::", ups.as_str()] {
        if root.is_empty() {
            continue;
        }
        for (at, _) in code.match_indices(root) {
            let before = code[..at].bytes().next_back();
            if before.is_some_and(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b':') {
                continue;
            }
            let rest = &code[at + root.len()..];
            let names = if rest.starts_with('{') { first_names(rest) } else { vec![word(rest)] };
            found.extend(names.into_iter().map(|name| (at, name)));
        }
    }
    found
}

fn word(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

/// Returns the first name of every branch of a `use` tree that begins with a brace.
fn first_names(tree: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut depth = 0;
    for (at, byte) in tree.bytes().enumerate() {
        match byte {
            b'{' => depth += 1,
            b'}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            break;
        }
        if depth == 1 && matches!(byte, b'{' | b',') {
            names.push(word(tree[at + 1..].trim_start()));
        }
    }
    names.retain(|name| !name.is_empty());
    names
}

/// Complains of rooms that use others which they may not know.
fn knows_only_rooms_beneath(file: &File) -> Vec<String> {
    let room = file.room();
    let Some((_, allowed)) = ROOMS.iter().find(|(name, _)| *name == room) else {
        return vec![format!("{}: there is no room {room:?}", file.path)];
    };
    let code = file.production();
    let is_room = |name: &str| ROOMS.iter().any(|(room, _)| *room == name);
    let complain = |(at, name): (usize, String)| {
        let reads_clock = name == "server" && code[at..].starts_with("crate::server::clock");
        let is_outer = matches!(room, "cli" | "http" | "store");
        let fine = name == room || !is_room(&name) || allowed.contains(&name.as_str());
        let fine = fine || (reads_clock && is_outer);
        (!fine).then(|| format!("{}:{}: {room} knows {name}", file.path, line_of(&code, at)))
    };
    if file.is_test() {
        Vec::new()
    } else {
        rooms_named(&code, &file.module()).into_iter().filter_map(complain).collect()
    }
}

/// Returns the rooms that the production code of these files may use by [`ROOMS`], and does not.
fn needless_permissions(files: &[File]) -> Vec<String> {
    let mut used = std::collections::BTreeSet::new();
    for file in files.iter().filter(|file| !file.is_test()) {
        let named = rooms_named(&file.production(), &file.module());
        used.extend(named.into_iter().map(|(_, name)| (file.room(), name)));
    }
    let rooms = ROOMS.iter().flat_map(|(room, others)| others.iter().map(move |other| (*room, *other)));
    rooms
        .filter(|(room, other)| !used.contains(&(*room, (*other).to_owned())))
        .map(|(room, other)| format!("{room} may know {other} and does not need to"))
        .collect()
}

fn mentions(file: &File, code: &str, words: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for name in words {
        for (at, _) in code.match_indices(name) {
            let before = code[..at].bytes().next_back();
            if !before.is_some_and(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
                found.push(format!("{}:{}: {name}", file.path, line_of(code, at)));
            }
        }
    }
    found
}

/// Complains of a pure room that opens sockets, starts threads, reads clocks or uses global randomness.
fn pure_rooms_are_pure(file: &File) -> Vec<String> {
    if !PURE.contains(&file.room()) || file.is_test() {
        return Vec::new();
    }
    mentions(file, &file.production(), IMPURE)
}

/// Complains of any other file that reads the clock or sleeps.
fn one_file_reads_the_clock(file: &File) -> Vec<String> {
    if file.path == CLOCK_FILE || file.is_test() {
        return Vec::new();
    }
    mentions(file, &file.production(), CLOCK)
}

/// Complains of tokio, axum and hyper outside of `http/`, `extend/` and `store/cassandra*`.
fn tokio_stays_in_its_rooms(file: &File) -> Vec<String> {
    if matches!(file.room(), "http" | "extend") || file.path.starts_with("src/store/cassandra") {
        return Vec::new();
    }
    mentions(file, &file.code, &["tokio::", "axum::", "hyper::"])
}

/// Complains of generated protobuf types outside of the wire files.
fn protobuf_stops_at_the_wire(file: &File) -> Vec<String> {
    let name = file.path.rsplit('/').next().unwrap_or_default().trim_end_matches(".rs");
    let is_wire = WIRE.contains(&name) || file.module().iter().any(|part| WIRE.contains(part));
    if is_wire || file.room() == "lib" || file.is_test() {
        return Vec::new();
    }
    mentions(file, &file.production(), &["crate::proto::"])
}

/// Complains of notes that something is still to be done.
fn nothing_is_left_for_later(file: &File) -> Vec<String> {
    let mut found = mentions(file, &file.code, &["todo!", "unimplemented!"]);
    for (number, line) in file.text.lines().enumerate() {
        for word in [concat!("TO", "DO"), concat!("FIX", "ME")] {
            if line.contains(word) {
                found.push(format!("{}:{}: {word}", file.path, number + 1));
            }
        }
    }
    found
}

/// Complains of files of more than 500 lines without their tests, and of more than 200 lines of tests that
/// are not in a file of their own.
fn files_are_short(file: &File) -> Vec<String> {
    if file.is_test() {
        return Vec::new();
    }
    let total = file.code.lines().count();
    let tests = test_module(&file.code).map_or(0, |(start, end)| file.code[start..end].lines().count());
    let mut found = Vec::new();
    if total - tests > FILE_LINES_MAX {
        found.push(format!("{}: {} lines without its tests", file.path, total - tests));
    }
    if tests > INLINE_TEST_LINES_MAX {
        found.push(format!("{}: {tests} lines of tests; give them a file of their own", file.path));
    }
    found
}

/// Complains of functions of more than 70 lines.
fn functions_are_short(file: &File) -> Vec<String> {
    let code = &file.code;
    let mut found = Vec::new();
    for (at, _) in code.match_indices("fn ") {
        let before = code[..at].bytes().next_back();
        let name = word(&code[at + 3..]);
        if name.is_empty() || before.is_some_and(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
            continue;
        }
        let Some(open) = code[at..].find(['{', ';']).map(|offset| at + offset) else { continue };
        if code.as_bytes()[open] == b';' {
            continue;
        }
        let Some(end) = closing(code, open) else { continue };
        let lines = code[at..end].lines().count();
        if lines > FUNCTION_LINES_MAX {
            found.push(format!("{}:{}: fn {name} has {lines} lines", file.path, line_of(code, at)));
        }
    }
    found
}

/// Fails with all complaints of a check about the files beneath these folders.
fn hold(check: Check, folders: &[&str]) {
    let files: Vec<File> = folders.iter().flat_map(|folder| File::all_beneath(folder)).collect();
    assert!(!files.is_empty(), "nothing to read in {folders:?}");
    let complaints: Vec<String> = files.iter().flat_map(check).collect();
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

/// Asserts that a check complains of `bad` at `path`, and of nothing in `good`.
fn tells_apart(check: Check, path: &str, good: &str, bad: &str) {
    let complaints = |text: &str| check(&File::new(path, text));
    assert_eq!(complaints(good), [""; 0], "{good}");
    assert!(!complaints(bad).is_empty(), "no complaint of {bad}");
}

#[test]
fn rooms_know_only_what_is_beneath_them() {
    hold(knows_only_rooms_beneath, &["src"]);
}

#[test]
fn rooms_may_know_only_what_they_need() {
    assert_eq!(needless_permissions(&File::all_beneath("src")), [""; 0]);
}

#[test]
fn a_needless_permission_is_seen() {
    let complaints = |text: &str| {
        let found = needless_permissions(&[File::new("src/latest/mod.rs", text)]);
        found.into_iter().filter(|complaint| complaint.starts_with("latest ")).collect::<Vec<String>>()
    };
    assert_eq!(complaints("use crate::{limits, record::Now};"), [""; 0]);
    assert_eq!(complaints("use crate::record::Now;"), ["latest may know limits and does not need to"]);
}

#[test]
fn knowing_too_much_is_seen() {
    let good =
        "use crate::record::Source;\nuse crate::{limits, record::{Now, Stamp}};\nfn f() { super::x() }";
    for bad in [
        "use crate::server::clock;",
        "use crate::protocol::Draft;",
        "use crate::{record::Now, ingest};",
        "use crate::{\n    record::{Now, Stamp},\n    cluster::Machine,\n};",
        "fn f() { crate::http::serve() }",
        "use super::super::store::Queue;",
    ] {
        tells_apart(knows_only_rooms_beneath, "src/latest/shard.rs", good, bad);
    }
    tells_apart(
        knows_only_rooms_beneath,
        "src/sim/world.rs",
        "use crate::cluster::Machine;",
        "use crate::server::x;",
    );
    tells_apart(
        knows_only_rooms_beneath,
        "src/ingest.rs",
        "use super::latest::Map;",
        "use super::server::X;",
    );
    tells_apart(
        knows_only_rooms_beneath,
        "src/http/a.rs",
        "use crate::server::clock;",
        "use crate::server::worker;",
    );
    assert!(!knows_only_rooms_beneath(&File::new("src/util/mod.rs", "")).is_empty(), "an unknown room");
    let in_tests = "#[cfg(test)]\nmod tests {\n    use crate::ingest;\n}";
    assert!(knows_only_rooms_beneath(&File::new("src/latest/mod.rs", in_tests)).is_empty());
}

#[test]
fn pure_rooms_have_no_world() {
    hold(pure_rooms_are_pure, &["src"]);
}

#[test]
fn impurity_is_seen() {
    let good =
        "use std::net::SocketAddr; // not std::thread\nuse std::time::Duration;\nuse hashbrown::HashMap;";
    for bad in [
        "use std::thread;",
        "use std::net::{SocketAddr, UdpSocket};",
        "let now = std::time::Instant::now();",
        "use std::time::SystemTime;",
        "use std::collections::HashMap;",
        "let x = mio::Poll::new();",
    ] {
        tells_apart(pure_rooms_are_pure, "src/cluster/mod.rs", good, bad);
    }
}

#[test]
fn the_clock_is_read_in_one_place() {
    hold(one_file_reads_the_clock, &["src"]);
}

#[test]
fn another_clock_is_seen() {
    tells_apart(
        one_file_reads_the_clock,
        "src/server/worker.rs",
        "let now = clock::now();",
        "let now = Instant::now();",
    );
    tells_apart(one_file_reads_the_clock, "src/cli/sub.rs", "wait(now);", "std::thread::sleep(x);");
    assert!(one_file_reads_the_clock(&File::new(CLOCK_FILE, "Instant::now()")).is_empty());
}

#[test]
fn tokio_lives_in_three_rooms() {
    hold(tokio_stays_in_its_rooms, &["src"]);
}

#[test]
fn tokio_elsewhere_is_seen() {
    tells_apart(
        tokio_stays_in_its_rooms,
        "src/server/worker.rs",
        "use mio::Poll;",
        "use tokio::net::TcpStream;",
    );
    tells_apart(tokio_stays_in_its_rooms, "src/store/embedded.rs", "use redb::Database;", "tokio::spawn(x);");
    assert!(
        tokio_stays_in_its_rooms(&File::new("src/store/cassandra/mod.rs", "use tokio::sync;")).is_empty()
    );
}

#[test]
fn generated_types_stop_at_the_wire() {
    hold(protobuf_stops_at_the_wire, &["src"]);
}

#[test]
fn generated_types_elsewhere_are_seen() {
    let bad = "use crate::proto::gossip;";
    tells_apart(protobuf_stops_at_the_wire, "src/cluster/mod.rs", "mod wire;", bad);
    assert!(protobuf_stops_at_the_wire(&File::new("src/cluster/wire.rs", bad)).is_empty());
    assert!(protobuf_stops_at_the_wire(&File::new("src/protocol/protobuf/read.rs", bad)).is_empty());
}

#[test]
fn no_notes_to_oneself() {
    hold(nothing_is_left_for_later, &["src", "tests", "loadgen", "bench", "clients/rust", "netem"]);
}

#[test]
fn notes_to_oneself_are_seen() {
    let note = format!("// {}: later", concat!("TO", "DO"));
    tells_apart(nothing_is_left_for_later, "src/a.rs", "// done", &note);
    let gap = format!("fn f() {{ {}!() }}", "unimplemented");
    tells_apart(nothing_is_left_for_later, "src/a.rs", "fn f() {}", &gap);
}

#[test]
fn files_stay_short() {
    hold(files_are_short, &["src", "loadgen", "bench", "clients/rust", "netem"]);
}

#[test]
fn long_files_are_seen() {
    let line = "const A: u8 = 1;\n";
    tells_apart(files_are_short, "src/a.rs", &line.repeat(500), &line.repeat(501));
    let with_tests = |lines: usize| format!("{line}#[cfg(test)]\nmod tests {{\n{}}}\n", line.repeat(lines));
    tells_apart(files_are_short, "src/a.rs", &with_tests(150), &with_tests(250));
}

#[test]
fn functions_stay_short() {
    hold(functions_are_short, &["src", "tests", "loadgen", "bench", "clients/rust", "netem"]);
}

#[test]
fn long_functions_are_seen() {
    let function = |lines: usize| {
        format!("impl X {{\n    pub fn f() {{\n{}    }}\n}}\n", "        x();\n".repeat(lines))
    };
    tells_apart(functions_are_short, "src/a.rs", &function(68), &function(69));
}

#[test]
fn no_files_import_each_other_in_a_circle() {
    let crates = [
        ("src", "anode"),
        ("loadgen/src", "anode_loadgen"),
        ("bench/src", "anode_bench"),
        ("clients/rust/src", "anode_client"),
    ];
    let found = crates.iter().flat_map(|(root, name)| {
        let files = File::all_beneath(root);
        assert!(!files.is_empty(), "nothing to read in {root}");
        imports::circles(root, name, &files)
    });
    let found: Vec<String> = found.collect();
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn names_tell_things_apart() {
    let found = names::clashes(&File::all_beneath("src"), NAMES);
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn docs_say_something() {
    hold(words::riddles, &["src", "tests", "loadgen", "bench", "clients/rust", "netem"]);
}

#[test]
fn links_of_the_documentation_lead_somewhere() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut complaints = Vec::new();
    for page in links::pages(root) {
        let text = std::fs::read_to_string(&page).expect("a page");
        let name = page.strip_prefix(root).unwrap_or(&page).display().to_string();
        complaints.extend(links::broken(&page, &text).into_iter().map(|target| format!("{name}: {target}")));
    }
    assert!(complaints.is_empty(), "links that lead nowhere:\n{}", complaints.join("\n"));
}
