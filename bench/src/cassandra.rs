//! The figures of the store in Cassandra, against one that runs on this machine.

use std::collections::BTreeMap;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anode_loadgen::{Outcome, client, idle, latency};
use cdrs_tokio::cluster::session::{Session, SessionBuilder, TcpSessionBuilder};
use cdrs_tokio::cluster::{NodeTcpConfigBuilder, TcpConnectionManager};
use cdrs_tokio::consistency::Consistency;
use cdrs_tokio::frame::Version;
use cdrs_tokio::load_balancing::TopologyAwareLoadBalancingStrategy;
use cdrs_tokio::query::QueryValues;
use cdrs_tokio::statement::StatementParamsBuilder;
use cdrs_tokio::transport::TransportTcp;
use cdrs_tokio::types::rows::Row;
use cdrs_tokio::types::value::Value;
use cdrs_tokio::types::{ByIndex, CBytes};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tungstenite::{Message, WebSocket};

use crate::node::Node;

/// Records that a publisher leaves unanswered, and requests that the bare loop does: as many as aNode
/// sends at the most.
const UNANSWERED: u64 = 4_096;
const IN_FLIGHT: usize = 256;
const READY: Duration = Duration::from_secs(120);

/// What is measured.
pub struct Plan {
    pub anode: PathBuf,
    pub cassandra: String,
    pub pid_file: PathBuf,
    pub records: u64,
    pub runs: usize,
    pub kills: usize,
    pub pause_s: u32,
    pub sources: u64,
}

type Bare = Session<
    TransportTcp,
    TcpConnectionManager,
    TopologyAwareLoadBalancingStrategy<TransportTcp, TcpConnectionManager>,
>;

/// Measures and prints.
pub fn run(plan: &Plan, only: &[String]) -> Outcome<()> {
    let is_wanted = |name: &str| only.iter().any(|one| one == name);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    if is_wanted("throughput") {
        throughput(plan, &runtime)?;
    }
    if is_wanted("kill") {
        kill(plan, &runtime)?;
    }
    if is_wanted("pause") {
        pause(plan, &runtime)?;
    }
    if is_wanted("load") {
        load(plan)?;
    }
    Ok(())
}

fn start(plan: &Plan, keyspace: &str, dir: &Path, join: Option<&Node>) -> Outcome<Node> {
    let mut flags = vec!["--store", "cassandra", "--cassandra", &plan.cassandra, "--keyspace", keyspace];
    flags.extend(["--profile", "local", "--log-level", "warn"]);
    if let Some(other) = join {
        flags.extend(["--join", &other.gossip]);
    }
    let node = Node::start(&plan.anode, dir, &flags)?;
    node.wait_ready(READY)?;
    Ok(node)
}

/// Records a second through one node with `ack=stored`, and through a bare loop with the same
/// statements, in turn.
fn throughput(plan: &Plan, runtime: &tokio::runtime::Runtime) -> Outcome<()> {
    let dir = tempfile::tempdir()?;
    let node = start(plan, "bench_node", dir.path(), None)?;
    // The bare loop writes to tables that aNode made.
    drop(start(plan, "bench_bare", &dir.path().join("bare"), None)?);
    let mut ratios = Vec::new();
    for run in 0..=plan.runs {
        let began = Instant::now();
        runtime.block_on(bare(&plan.cassandra, plan.records))?;
        let bare_per_s = plan.records as f64 / began.elapsed().as_secs_f64();
        let began = Instant::now();
        // The same sources in every run: a bucket of history is listed once an hour.
        publish(&node.http, "t", plan.records)?;
        let node_per_s = plan.records as f64 / began.elapsed().as_secs_f64();
        // The first warms the database up.
        let note = if run == 0 { " (not counted)" } else { "" };
        let ratio = node_per_s / bare_per_s;
        println!(
            "throughput run {run}: bare {bare_per_s:.0}/s, ack=stored {node_per_s:.0}/s, {ratio:.2}{note}"
        );
        if run > 0 {
            ratios.push(ratio);
        }
    }
    ratios.sort_by(f64::total_cmp);
    println!("throughput: median ratio {:.2}", ratios.get(ratios.len() / 2).copied().unwrap_or_default());
    Ok(())
}

async fn session(cassandra: &str) -> Outcome<Bare> {
    let nodes = NodeTcpConfigBuilder::new()
        .with_contact_point(cassandra.into())
        .with_version(Version::V5)
        .build()
        .await?;
    Ok(TcpSessionBuilder::new(TopologyAwareLoadBalancingStrategy::new(None, false), nodes).build().await?)
}

/// Writes so many records into `latest` and `history`, [`IN_FLIGHT`] statements at a time.
async fn bare(cassandra: &str, records: u64) -> Outcome<()> {
    let session = &session(cassandra).await?;
    let put = &session
        .prepare("INSERT INTO bench_bare.latest (source, value) VALUES (?, ?) USING TIMESTAMP ?")
        .await?;
    let append = &session
        .prepare(
            "INSERT INTO bench_bare.history (source, bucket, ts, tie, value) VALUES (?, ?, ?, ?, ?) \
             USING TIMESTAMP ?",
        )
        .await?;
    let bytes = |bytes: &[u8]| Value::Some(bytes.to_vec());
    let base = std::time::UNIX_EPOCH.elapsed()?.as_micros() as u64;
    let mut writes = (0..records * 2).map(|n| {
        let ts = (base + n / 2).to_be_bytes();
        let source = format!("t/{}", n / 2 % 10_000);
        // As long as a row of aNode's that holds the same data.
        let value = vec![b'x'; 190];
        let (statement, values) = if n % 2 == 0 {
            (
                append,
                vec![
                    bytes(source.as_bytes()),
                    bytes(&((base + n / 2) / 3_600_000_000).to_be_bytes()),
                    bytes(&ts),
                    bytes(&[0; 17]),
                    bytes(&value),
                    bytes(&ts),
                ],
            )
        } else {
            (put, vec![bytes(source.as_bytes()), bytes(&value), bytes(&ts)])
        };
        let params = StatementParamsBuilder::new()
            .with_consistency(Consistency::LocalQuorum)
            .idempotent(true)
            .with_values(QueryValues::SimpleValues(values))
            .build();
        async move { session.exec_with_params(statement, &params).await }
    });
    let mut flying: FuturesUnordered<_> = writes.by_ref().take(IN_FLIGHT).collect();
    while let Some(done) = flying.next().await {
        done?;
        flying.extend(writes.next());
    }
    Ok(())
}

/// Publishes so many records of 128 bytes over 10,000 sources with `ack=stored`, each acknowledged.
fn publish(http: &str, prefix: &str, records: u64) -> Outcome<()> {
    let mut socket = client::connect(http, "/publish?ack=stored")?;
    let padding = "x".repeat(110);
    let (mut sent, mut answered) = (0, 0);
    while answered < records {
        while sent < records && sent - answered < UNANSWERED {
            let source = sent % 10_000;
            let text = format!(r#"{{"id":{sent},"source":"{prefix}/{source}","data":[{sent},"{padding}"]}}"#);
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

/// `kill -9` under load, again and again: what was acknowledged as stored is in Cassandra.
fn kill(plan: &Plan, runtime: &tokio::runtime::Runtime) -> Outcome<()> {
    let dir = tempfile::tempdir()?;
    let (mut acknowledged_in_all, mut missing_in_all) = (0, 0);
    for round in 0..plan.kills {
        let node = start(plan, "bench_kill", dir.path(), None)?;
        let mut socket = client::connect(&node.http, "/publish?ack=stored")?;
        // Killed in the middle of the flow, at another place in each round.
        let last = 1_500 + (round as u64 * 7_919) % 9_000;
        let mut acknowledged: BTreeMap<String, u64> = BTreeMap::new();
        let mut sent = 0;
        while (acknowledged.len() as u64) < last {
            while sent - (acknowledged.len() as u64) < UNANSWERED {
                socket.write(Message::text(format!(
                    r#"{{"id":{sent},"source":"k/{round}/{sent}","data":{sent}}}"#
                )))?;
                sent += 1;
            }
            socket.flush()?;
            note_answer(&mut socket, round, &mut acknowledged)?;
        }
        node.kill()?;
        // Answers that were on their way count too.
        while note_answer(&mut socket, round, &mut acknowledged).is_ok() {}
        let stored: BTreeMap<String, u64> = runtime.block_on(stored(&plan.cassandra, "bench_kill"))?;
        let missing = acknowledged.iter().filter(|(source, ts)| stored.get(*source) != Some(ts)).count();
        println!("kill {round}: sent {sent}, acknowledged {}, missing {missing}", acknowledged.len());
        acknowledged_in_all += acknowledged.len();
        missing_in_all += missing;
    }
    println!("kill: {} kills, {acknowledged_in_all} acknowledged, {missing_in_all} missing", plan.kills);
    Ok(())
}

fn note_answer(
    socket: &mut WebSocket<TcpStream>,
    round: usize,
    acknowledged: &mut BTreeMap<String, u64>,
) -> Outcome<()> {
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

/// Sources and write timestamps in `latest`.
async fn stored(cassandra: &str, keyspace: &str) -> Outcome<BTreeMap<String, u64>> {
    let rows = rows(cassandra, &format!("SELECT source, writetime(value) FROM {keyspace}.latest")).await?;
    let row = |row: Row| -> Option<(String, u64)> {
        let (source, ts): (String, i64) = (row.by_index(0).ok()??, row.by_index(1).ok()??);
        Some((source, ts as u64))
    };
    Ok(rows.into_iter().filter_map(row).collect())
}

async fn rows(cassandra: &str, query: &str) -> Outcome<Vec<Row>> {
    let session = session(cassandra).await?;
    let (mut all, mut at): (Vec<Row>, Option<CBytes>) = (Vec::new(), None);
    loop {
        let mut params =
            StatementParamsBuilder::new().with_consistency(Consistency::LocalQuorum).with_page_size(5_000);
        if let Some(state) = at {
            params = params.with_paging_state(state);
        }
        let body = session.query_with_params(query, params.build()).await?.response_body()?;
        at = body.as_rows_metadata().and_then(|metadata| metadata.paging_state.clone());
        all.extend(body.into_rows().unwrap_or_default());
        if at.as_ref().is_none_or(CBytes::is_null_or_empty) {
            return Ok(all);
        }
    }
}

/// Cassandra is stopped while records flow from one node to a subscriber of another.
fn pause(plan: &Plan, runtime: &tokio::runtime::Runtime) -> Outcome<()> {
    let (one, other) = (tempfile::tempdir()?, tempfile::tempdir()?);
    let first = start(plan, "bench_pause", one.path(), None)?;
    let second = start(plan, "bench_pause", other.path(), Some(&first))?;
    first.wait_members(2, READY)?;
    let before = runtime.block_on(rows(&plan.cassandra, "SELECT ts FROM bench_pause.history"))?.len();
    let latency = latency::Plan {
        publish: first.http.clone(),
        subscribe: vec![first.http.clone(), second.http.clone()],
        rate_per_s: 5_000,
        seconds: plan.pause_s,
        warmup: 5_000,
        sources: 10_000,
        padding_bytes: 100,
    };
    let total = 2 * u64::from(latency.rate_per_s) * u64::from(latency.seconds);
    print_seen("Cassandra runs", &latency::run(&latency)?, &first)?;
    let pid = std::fs::read_to_string(&plan.pid_file)?.trim().to_owned();
    signal("STOP", &pid)?;
    let seen = latency::run(&latency);
    signal("CONT", &pid)?;
    print_seen("Cassandra is paused", &seen?, &first)?;
    let began = Instant::now();
    while first.metric("anode_store_pending_records")? > 0.0 {
        std::thread::sleep(Duration::from_millis(100));
        if began.elapsed() > Duration::from_secs(600) {
            return Err("what waited was not written in ten minutes".into());
        }
    }
    let rows = runtime.block_on(rows(&plan.cassandra, "SELECT ts FROM bench_pause.history"))?.len() - before;
    let rss_mb = idle::resident_bytes(first.pid())? / 1_000_000;
    println!(
        "pause: {total} published, {rows} in Cassandra's history; written {:.1} s after the pause; {rss_mb} MB resident",
        began.elapsed().as_secs_f64()
    );
    Ok(())
}

fn signal(name: &str, pid: &str) -> Outcome<()> {
    let status = std::process::Command::new("kill").args([&format!("-{name}"), pid]).status()?;
    if status.success() { Ok(()) } else { Err(format!("Cassandra cannot be sent {name}").into()) }
}

fn print_seen(label: &str, seen: &[latency::Seen], node: &Node) -> Outcome<()> {
    for (place, seen) in ["the same node", "another node"].iter().zip(seen) {
        let at = |quantile| seen.latency_ns.value_at_quantile(quantile) as f64 / 1e6;
        let (p50, p99, p999) = (at(0.5), at(0.99), at(0.999));
        println!(
            "{label}, at {place}: p50 {p50:.2} ms, p99 {p99:.2} ms, p99.9 {p999:.2} ms, {} missing",
            seen.missing
        );
    }
    println!("{label}: {} MB resident", idle::resident_bytes(node.pid())? / 1_000_000);
    Ok(())
}

/// A node with an empty directory starts with what is in Cassandra.
fn load(plan: &Plan) -> Outcome<()> {
    let dir = tempfile::tempdir()?;
    let node = start(plan, "bench_load", &dir.path().join("fill"), None)?;
    if (node.metric("anode_sources")? as u64) < plan.sources {
        anode_loadgen::fill::run(&node.http, "load", plan.sources, 500, 20)?;
    }
    drop(node);
    let began = Instant::now();
    let node = start(plan, "bench_load", &dir.path().join("empty"), None)?;
    let sources = node.metric("anode_sources")?;
    println!("load: {sources} sources, ready after {:.1} s", began.elapsed().as_secs_f64());
    Ok(())
}
