//! What stays outside of the pure rooms, and what only one place may do: read the clock, use tokio, and name the generated
//! types of protobuf.

use crate::source::File;
use crate::{hold, mentions, tells_apart};

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
