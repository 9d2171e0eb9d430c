//! Kills a node under load by `kill -9`, again and again: what it acknowledged as stored must be in
//! Cassandra.

use std::collections::BTreeMap;
use std::net::TcpStream;

use anode_loadgen::{Outcome, client};
use cdrs_tokio::types::ByIndex;
use cdrs_tokio::types::rows::Row;
use tungstenite::{Message, WebSocket};

use super::{Bench, UNANSWERED};

/// The `ts` of each source, by name.
type Stamps = BTreeMap<String, u64>;

/// Measures, and prints the results.
///
/// # Errors
///
/// An acknowledged record is not in Cassandra.
pub fn measure(bench: &Bench) -> Outcome<()> {
    let (keyspace, kills) = (bench.keyspace("kill"), bench.arguments.kills);
    let (mut acknowledged_in_all, mut missing_in_all) = (0, 0);
    for round in 0..kills {
        let node = bench.start(&keyspace, &bench.folder.join("kill"), None)?;
        let mut socket = client::connect(&node.http, "/publish?ack=stored")?;
        // The node is killed in the middle of the load, at another time in each round.
        let last = 1_500 + (round as u64 * 7_919) % 9_000;
        let mut acknowledged = Stamps::new();
        let mut sent = 0;
        while (acknowledged.len() as u64) < last {
            while sent - (acknowledged.len() as u64) < UNANSWERED {
                let text = format!(r#"{{"id":{sent},"source":"k/{round}/{sent}","data":{sent}}}"#);
                socket.write(Message::text(text))?;
                sent += 1;
            }
            socket.flush()?;
            note_answer(&mut socket, round, &mut acknowledged)?;
        }
        node.kill()?;
        // Answers that were on their way count, too.
        while note_answer(&mut socket, round, &mut acknowledged).is_ok() {}
        let stored = stored(bench, &keyspace)?;
        let missing = acknowledged.iter().filter(|(source, ts)| stored.get(*source) != Some(ts)).count();
        println!("kill {round}: sent {sent}, acknowledged {}, missing {missing}", acknowledged.len());
        acknowledged_in_all += acknowledged.len();
        missing_in_all += missing;
    }
    println!("kill: {kills} kills, {acknowledged_in_all} acknowledged, {missing_in_all} missing");
    bench.forget(&keyspace)?;
    if missing_in_all == 0 { Ok(()) } else { Err("acknowledged records are missing".into()) }
}

fn note_answer(socket: &mut WebSocket<TcpStream>, round: usize, acknowledged: &mut Stamps) -> Outcome<()> {
    let Message::Text(text) = socket.read()? else { return Ok(()) };
    let number = |name: &str| -> Option<u64> {
        let (_, rest) = text.split_once(name)?;
        rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
    };
    match (number("\"id\":"), number("\"ts\":"), text.contains("\"level\":\"stored\"")) {
        (Some(id), Some(ts), true) => {
            acknowledged.insert(format!("k/{round}/{id}"), ts);
            Ok(())
        }
        _ => Err(format!("not stored: {text}").into()),
    }
}

/// Returns the write timestamps of all sources in `latest`.
fn stored(bench: &Bench, keyspace: &str) -> Outcome<Stamps> {
    let query = format!("SELECT source, writetime(value) FROM {keyspace}.latest");
    let rows = bench.runtime.block_on(bench.bare.rows(&query))?;
    let stamp = |row: Row| -> Option<(String, u64)> {
        let (source, ts): (String, i64) = (row.by_index(0).ok()??, row.by_index(1).ok()??);
        Some((source, ts as u64))
    };
    Ok(rows.into_iter().filter_map(stamp).collect())
}
