//! Who may know whom: the rooms of the program, and which others each may use.

use crate::source::{File, line_of};
use crate::{hold, tells_apart, word};

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
