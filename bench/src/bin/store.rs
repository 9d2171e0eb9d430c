//! Measures the embedded store alone on this machine: `store DIR [RECORDS]`.
//!
//! Prints the rate of group commit for records of 128 bytes (first writes, then rewrites that fill
//! histories), the latency of lone durable writes, and how long a start takes after a clean end and
//! after a kill (the program kills a child of its own).

#![allow(clippy::disallowed_methods, reason = "a benchmark reads clocks")]

use std::path::Path;
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anode::record::{Birth, NodeName, Now, Payload, Record, SharedRecord, Source, Stamp};
use anode::store::{BackendKind, StoreHandle, StoreOptions};
use bytes::Bytes;

const DATA_BYTES: usize = 128;
const PATIENCE: Duration = Duration::from_secs(600);

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    let Some(dir) = args.get(1) else {
        eprintln!("usage: store DIR [RECORDS]");
        return ExitCode::from(2);
    };
    let records: u64 = args.get(2).and_then(|text| text.parse().ok()).unwrap_or(1_000_000);
    if args.get(3).is_some_and(|word| word == "then-die") {
        let store = open(Path::new(dir));
        write(&store, records / 100, 3);
        std::process::abort();
    }
    run(Path::new(dir), records);
    ExitCode::SUCCESS
}

fn run(dir: &Path, records: u64) {
    let store = open(dir);
    report("first writes", records, || write(&store, records, 1));
    report("rewrites, with history", records / 4, || write(&store, records / 4, 2));
    let lone = 200;
    report("lone durable writes", lone, || {
        for n in 0..lone {
            store.push(&record(n, 3));
            assert!(store.flush(PATIENCE));
        }
    });
    println!("{:?}", store.stats());
    report("close", 1, || assert!(store.close(PATIENCE)));
    drop(store);
    start(dir, "after a clean end");
    let child = std::env::current_exe()
        .and_then(|exe| Command::new(exe).arg(dir).arg(records.to_string()).arg("then-die").status());
    assert!(child.is_ok_and(|status| !status.success()));
    start(dir, "after a kill");
    let bytes = std::fs::metadata(dir.join("anode.redb")).map_or(0, |file| file.len());
    println!("file: {} MiB", bytes >> 20);
}

fn start(dir: &Path, when: &str) {
    let began = Instant::now();
    let store = open(dir);
    let opened = began.elapsed();
    let mut count = 0;
    let loaded = store.load(&mut |_| count += 1);
    println!("start {when}: open {opened:?}, with load {:?}, {loaded:?}", began.elapsed());
}

fn write(store: &StoreHandle, records: u64, round: u64) {
    for n in 0..records {
        // Successive sources are far apart in the order of names, as those of a real feed are.
        store.push(&record(n.wrapping_mul(0x9E37_79B9) % records.max(1), round));
        while store.is_lagging() {
            std::thread::yield_now();
        }
    }
    assert!(store.flush(PATIENCE));
}

fn report(what: &str, count: u64, act: impl FnOnce()) {
    let began = Instant::now();
    act();
    let took = began.elapsed();
    println!("{what}: {count} in {took:?}, {:.0}/s", count as f64 / took.as_secs_f64());
}

fn record(n: u64, round: u64) -> SharedRecord {
    let data = Bytes::from(format!("\"{n:0width$}\"", width = DATA_BYTES - 2));
    let source = Source::parse(&format!("sensors/{}/{}", n % 1000, n / 1000));
    let origin = NodeName::parse("bench-node");
    let (Ok(source), Ok(origin)) = (source, origin) else { unreachable!("good names") };
    let (stamp, birth) = (Stamp::of_data(round, &data), Birth { origin, boot: 1, seq: n + 1 });
    Arc::new(Record::new(source, stamp, Payload::Json(data), birth, round, 0))
}

fn open(dir: &Path) -> StoreHandle {
    let began = Instant::now();
    let clock = move || {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Now { mono_us: began.elapsed().as_micros() as u64, wall_us: wall.as_micros() as u64 }
    };
    match StoreHandle::open(BackendKind::Embedded, dir, StoreOptions::new(Arc::new(clock), 1)) {
        Ok((store, _)) => store,
        Err(error) => panic!("{error}"),
    }
}
