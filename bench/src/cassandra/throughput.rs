//! Measures records per second through one node with `ack=stored`, and through the bare driver.
//!
//! The speed of Cassandra changes from one half minute to the next: it compiles itself, flushes, compacts
//! and collects garbage. So the two are measured right after each other in many short rounds, of which every
//! other one begins with the bare driver, and the ratios of the rounds count: their median, with the
//! quartiles beside it.

use std::net::TcpStream;
use std::time::Instant;

use anode_loadgen::{Outcome, client};
use tungstenite::{Message, WebSocket};

use super::{Bench, UNANSWERED};
use crate::machine::cpu_s;

/// Approximate size of a record's data, in bytes.
const DATA_BYTES: usize = 120;
/// Number of sources, written in turn. They are the same in every round, because a bucket of history is
/// listed only once an hour.
const SOURCES: u64 = 10_000;
/// Number of rounds at the beginning that do not count.
const WARM_UP: usize = 2;
/// Wanted median of the ratios.
const WANTED: f64 = 0.7;

/// The results of one half of a round.
#[derive(Clone, Copy, Default)]
struct Half {
    per_s: f64,
    /// Processor time per record of Cassandra, of the node, and of this program, in microseconds.
    cpu_us: [f64; 3],
}

struct Round {
    bare: Half,
    node: Half,
}

impl Round {
    fn ratio(&self) -> f64 {
        self.node.per_s / self.bare.per_s
    }
}

/// Measures, and prints the results.
pub fn measure(bench: &Bench) -> Outcome<()> {
    let (through, beside) = (bench.keyspace("through"), bench.keyspace("beside"));
    let node = bench.start(&through, &bench.folder.join("through"), None)?;
    // The bare driver writes to tables that aNode made.
    drop(bench.start(&beside, &bench.folder.join("beside"), None)?);
    let mut socket = client::connect(&node.http, "/publish?ack=stored")?;
    publish(&mut socket, 1)?;
    let value = bench.runtime.block_on(bench.bare.value(&through))?;
    println!("throughput: {DATA_BYTES} bytes of data are a value of {} in Cassandra", value.len());
    let statements = bench.runtime.block_on(bench.bare.prepare(&beside, value))?;
    let (records, pids) = (bench.arguments.records, [bench.pid()?, node.pid(), std::process::id()]);
    let mut write_bare = || bench.runtime.block_on(bench.bare.write(&statements, records, SOURCES));
    let mut write_node = || publish(&mut socket, records);
    let mut rounds = Vec::new();
    for number in 0..WARM_UP + bench.arguments.rounds {
        let (bare, node);
        if number % 2 == 0 {
            bare = half(pids, records, &mut write_bare)?;
            node = half(pids, records, &mut write_node)?;
        } else {
            node = half(pids, records, &mut write_node)?;
            bare = half(pids, records, &mut write_bare)?;
        }
        let round = Round { bare, node };
        let note = if number < WARM_UP { " (does not count)" } else { "" };
        println!(
            "throughput, round {number}: bare {:.0}/s, ack=stored {:.0}/s, ratio {:.2}{note}",
            bare.per_s,
            node.per_s,
            round.ratio()
        );
        rounds.push(round);
    }
    print_medians(&rounds[WARM_UP..]);
    drop(node);
    bench.forget(&through)?;
    bench.forget(&beside)
}

fn half(pids: [u32; 3], records: u64, write: &mut dyn FnMut() -> Outcome<()>) -> Outcome<Half> {
    let (before, began) = (pids.map(cpu_s), Instant::now());
    write()?;
    let (after, took) = (pids.map(cpu_s), began.elapsed());
    let mut cpu_us = [0.0; 3];
    for (used, (before, after)) in cpu_us.iter_mut().zip(before.iter().zip(after)) {
        *used = (after - before) * 1e6 / records as f64;
    }
    Ok(Half { per_s: records as f64 / took.as_secs_f64(), cpu_us })
}

fn print_medians(rounds: &[Round]) {
    let median = |of: &dyn Fn(&Round) -> f64| quartiles(rounds.iter().map(of).collect())[1];
    let [low, ratio, high] = quartiles(rounds.iter().map(Round::ratio).collect());
    let verdict = if ratio >= WANTED { "reached" } else { "NOT reached" };
    println!(
        "throughput: ratio {ratio:.2} (quartiles {low:.2} and {high:.2}; {WANTED} wanted, {verdict}); \
         medians: bare {:.0}/s, ack=stored {:.0}/s",
        median(&|round| round.bare.per_s),
        median(&|round| round.node.per_s)
    );
    let cpu = |of: &dyn Fn(&Round) -> Half| {
        [0, 1, 2].map(|place| format!("{:.0}", median(&|round| of(round).cpu_us[place])))
    };
    let ([c, _, p], [d, n, q]) = (cpu(&|round| round.bare), cpu(&|round| round.node));
    println!("throughput: processor time a record, bare: Cassandra {c} µs, this program {p} µs");
    println!("throughput: the same, ack=stored: Cassandra {d} µs, node {n} µs, this program {q} µs");
}

/// Publishes so many records with `ack=stored`, and waits for every answer.
fn publish(socket: &mut WebSocket<TcpStream>, records: u64) -> Outcome<()> {
    let padding = "x".repeat(DATA_BYTES - 10);
    let (mut sent, mut answered) = (0, 0);
    while answered < records {
        while sent < records && sent - answered < UNANSWERED {
            let source = sent % SOURCES;
            let text = format!(r#"{{"id":{sent},"source":"t/{source}","data":[{sent},"{padding}"]}}"#);
            socket.write(Message::text(text))?;
            sent += 1;
            if sent % 64 == 0 {
                socket.flush()?;
            }
        }
        socket.flush()?;
        if let Message::Text(text) = socket.read()? {
            if !text.contains("\"level\":\"stored\"") {
                return Err(format!("not stored: {text}").into());
            }
            answered += 1;
        }
    }
    Ok(())
}

/// Returns the first quartile, the median and the third quartile; zeros if there are no numbers.
fn quartiles(mut values: Vec<f64>) -> [f64; 3] {
    values.sort_by(f64::total_cmp);
    [1, 2, 3].map(|quarter| match values.len() {
        0 => 0.0,
        count => values[((count - 1) * quarter + 2) / 4],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quartiles_are_where_they_should_be() {
        assert_eq!(quartiles(Vec::new()), [0.0; 3]);
        assert_eq!(quartiles(vec![7.0]), [7.0; 3]);
        assert_eq!(quartiles(vec![5.0, 1.0, 3.0, 2.0, 4.0]), [2.0, 3.0, 4.0]);
    }
}
