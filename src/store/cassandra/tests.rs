//! Against a real Cassandra, on 127.0.0.1:9042, which `scripts/cassandra start --secure` provides and
//! `scripts/test` runs: password cassandra/cassandra, TLS on the same port. Each test has a keyspace
//! of its own, named after it, and drops it first.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use cdrs_tokio::types::ByIndex;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use tokio::runtime::Runtime;

use super::fault::CassandraFault;
use super::link::CassandraLink;
use super::requests::RequestWindow;
use super::rows::decode;
use super::session::CassandraSession;
use super::watch::overlooked;
use crate::config::cassandra::Cassandra as Config;
use crate::config::{Hardware, Raw, check};
use crate::record::merge::order;
use crate::record::{
    Birth, HistoryCursor, HistoryQuery, NodeName, Payload, Record, SharedRecord, Source, Stamp,
};
use crate::store::queue::WriteGroup;
use crate::store::testing::{deletion, record, shared};

const HOUR_US: u64 = 3_600_000_000;

fn password_file() -> PathBuf {
    let path = std::env::temp_dir().join(format!("anode-cassandra-password-{}", std::process::id()));
    std::fs::write(&path, "cassandra\n").expect("written");
    path
}

pub(super) fn config(keyspace: &str, set: impl FnOnce(&mut Raw)) -> Config {
    let mut raw = Raw {
        store: Some("cassandra".into()),
        cassandra: Some("127.0.0.1:9042".into()),
        keyspace: Some(keyspace.into()),
        cassandra_user: Some("cassandra".into()),
        cassandra_password_file: Some(password_file().to_str().expect("text").into()),
        ..Raw::default()
    };
    set(&mut raw);
    let checked = check(&raw, Hardware { cores: 1, memory_bytes: 1 << 30 }).expect("checked");
    checked.cassandra.expect("asked for")
}

pub(super) fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime")
}

/// A keyspace without tables.
pub(super) async fn fresh(config: &Config) {
    let session = CassandraSession::connect(config).await.expect("Cassandra answers");
    session.change(&format!("DROP KEYSPACE IF EXISTS {}", config.keyspace)).await.expect("dropped");
}

/// Opens a link as a node does: a session that has lost sight of Cassandra is opened anew. Of ten at once on
/// a busy machine, one found no node up (the driver had given up on a connection).
pub(super) async fn open(config: &Config) -> CassandraLink {
    const TRIES: usize = 5;
    for _ in 1..TRIES {
        match CassandraLink::open(config).await {
            Err(CassandraFault::Lost(_)) => {}
            opened => return opened.expect("opens"),
        }
    }
    CassandraLink::open(config).await.expect("opens")
}

async fn write(link: &CassandraLink, records: &[SharedRecord]) {
    link.write(&WriteGroup::of_records(records), 0, &RequestWindow::new()).await.expect("written");
}

pub(super) async fn everything(link: &CassandraLink) -> BTreeMap<String, Record> {
    let (mut all, mut at) = (BTreeMap::new(), None);
    loop {
        let (values, next) = link.scan((i64::MIN, i64::MAX), at).await.expect("read");
        for record in values.into_iter().map(|value| decode(value).expect("whole")) {
            all.insert(record.source.to_string(), record);
        }
        match next {
            Some(_) => at = next,
            None => return all,
        }
    }
}

fn query(source: &str, limit: usize) -> HistoryQuery {
    HistoryQuery { source: source.into(), from_us: 0, to_us: u64::MAX, after: None, limit }
}

/// Records of one source with many ties: few stamps, few values, deletions, several births.
fn any_record(source: String) -> impl Strategy<Value = SharedRecord> {
    let payload = prop_oneof![
        4 => (0u8..5).prop_map(|n| Payload::Json(vec![b'0' + n].into())),
        1 => Just(Payload::Deleted),
    ];
    (payload, 1_000u64..1_003, "[ab]{1,2}", 0u64..3, 1u64..300).prop_map(
        move |(payload, ts, origin, boot, seq)| {
            let stamp = match &payload {
                Payload::Deleted => Stamp::of_deletion(ts),
                data => Stamp::of_data(ts, data.bytes()),
            };
            let birth = Birth { origin: NodeName::parse(&origin).expect("name"), boot, seq };
            let source = Source::parse(&source).expect("source");
            Arc::new(Record::new(source, stamp, payload, birth, ts, 0))
        },
    )
}

/// Jepsen on Cassandra: of two writes with one timestamp, the "later" one was not the one that was
/// kept. Here the database decides ties as aNode does, births included, whatever the order of writes
/// and however often each is repeated.
#[test]
#[ignore = "needs Cassandra: scripts/test"]
fn cassandra_keeps_what_anode_keeps() {
    let config = config("t_ties", |_| {});
    let mut runner = TestRunner::deterministic();
    let histories: Vec<Vec<SharedRecord>> = (0..400)
        .map(|n| {
            let records = proptest::collection::vec(any_record(format!("tie/{n}")), 2..7);
            records.new_tree(&mut runner).expect("drawn").current()
        })
        .collect();
    runtime().block_on(async {
        fresh(&config).await;
        let (one, other) = (open(&config).await, open(&config).await);
        for step in 0..7 {
            let at = |records: &Vec<SharedRecord>| records.get(step % records.len()).cloned();
            let group: Vec<SharedRecord> = histories.iter().filter_map(at).collect();
            write(if step % 2 == 0 { &one } else { &other }, &group).await;
        }
        let kept = everything(&one).await;
        assert_eq!(kept.len(), histories.len());
        for records in &histories {
            let newest = records.iter().max_by(|a, b| order(a, b));
            let newest = newest.expect("some");
            assert_eq!(kept.get(newest.source.as_str()), Some(&**newest), "of {records:?}");
        }
    });
}

/// Small rows share a request, as far as Cassandra accepts that without a warning; large ones go alone.
#[test]
#[ignore = "needs Cassandra: scripts/test"]
fn small_and_large_rows_are_written_in_one_group() {
    let config = config("t_batches", |_| {});
    let sizes = [2, 100, 100_000, 20, 4_000, 4_100, 1_000_000, 3, 60_000, 50].iter().cycle().take(95);
    let records: Vec<SharedRecord> = sizes
        .enumerate()
        .map(|(n, &size)| {
            let data = format!("\"{}\"", "x".repeat(size));
            Arc::new(record(&format!("size/{n}"), 1_000 + n as u64, data.as_bytes()))
        })
        .collect();
    runtime().block_on(async {
        fresh(&config).await;
        let link = open(&config).await;
        write(&link, &records).await;
        let kept = everything(&link).await;
        assert_eq!(kept.len(), records.len());
        for record in &records {
            assert_eq!(kept.get(record.source.as_str()), Some(&**record));
            let history = link.history(&query(record.source.as_str(), 10)).await.expect("read");
            assert_eq!(history.len(), 1);
        }
    });
}

/// Ten nodes that start at once make one schema: with two coordinators the tables get two ids, and
/// what is written to one of them is gone.
#[test]
#[ignore = "needs Cassandra: scripts/test"]
fn ten_nodes_make_the_schema_once() {
    let config = config("t_ten", |_| {});
    runtime().block_on(async {
        fresh(&config).await;
        let links = futures_util::future::join_all((0..10).map(|_| open(&config))).await;
        let first = links.first().expect("ten").table_id.clone();
        assert!(!first.is_empty() && links.iter().all(|link| link.table_id == first));
        for (n, link) in links.iter().enumerate() {
            write(link, &[shared(&format!("s/{n}"), 5)]).await;
        }
        assert_eq!(everything(&links[0]).await.len(), 10);
    });
}

#[test]
#[ignore = "needs Cassandra: scripts/test"]
fn history_is_read_in_pages_over_many_hours() {
    let config = config("t_history", |_| {});
    runtime().block_on(async {
        fresh(&config).await;
        let link = open(&config).await;
        // Three a bucket, over 40 buckets, the last one a deletion.
        let stamps: Vec<u64> = (0..120).map(|n| 500_000 * HOUR_US + n * HOUR_US / 3).collect();
        let mut records: Vec<SharedRecord> = stamps.iter().map(|&ts| shared("h", ts)).collect();
        records.push(Arc::new(deletion("h", 500_040 * HOUR_US)));
        for part in records.chunks(25) {
            write(&link, part).await;
        }
        write(&link, &[shared("other", 7)]).await;
        let newest_first: Vec<u64> = records.iter().rev().map(|record| record.stamp.ts).collect();
        let stamps_of = |records: &[Record]| records.iter().map(|record| record.stamp.ts).collect::<Vec<_>>();
        let all = link.history(&query("h", 1_000)).await.expect("read");
        assert_eq!(stamps_of(&all), newest_first);
        assert!(all[0].stamp.deleted);
        let (mut paged, mut after) = (Vec::new(), None);
        loop {
            let page = link.history(&HistoryQuery { after, ..query("h", 7) }).await.expect("read");
            after = page.last().map(|record| HistoryCursor(record.stamp));
            paged.extend(stamps_of(&page));
            if page.len() < 7 {
                break;
            }
        }
        assert_eq!(paged, newest_first);
        let (from_us, to_us) = (stamps[10], stamps[30]);
        let some = link.history(&HistoryQuery { from_us, to_us, ..query("h", 1_000) }).await.expect("read");
        assert_eq!(stamps_of(&some), stamps[10..=30].iter().rev().copied().collect::<Vec<_>>());
        assert_eq!(link.history(&query("nobody", 9)).await, Ok(Vec::new()));
    });
}

/// A schema dropped under a running node is noticed, and made again.
#[test]
#[ignore = "needs Cassandra: scripts/test"]
fn a_dropped_schema_is_a_fault_of_its_own() {
    let config = config("t_dropped", |_| {});
    runtime().block_on(async {
        fresh(&config).await;
        let link = open(&config).await;
        assert_eq!(link.check().await, Ok(()));
        fresh(&config).await;
        assert!(matches!(link.check().await, Err(CassandraFault::Schema(_))));
        let group = WriteGroup::of_records(&[shared("s", 1)]);
        assert!(matches!(link.write(&group, 0, &RequestWindow::new()).await, Err(CassandraFault::Schema(_))));
        let again = open(&config).await;
        assert_ne!(again.table_id, link.table_id);
        write(&again, &[shared("s", 1)]).await;
    });
}

/// The statement that lists a peer at 127.0.0.N, where nobody but the test listens.
async fn made_up_peer(session: &CassandraSession, n: u8) -> String {
    let local = session.query("SELECT data_center, rack FROM system.local").await.expect("read");
    let name = |at| local[0].by_index::<String>(at).expect("text").expect("named");
    let tokens: Vec<String> = (-8i64..8).map(|n| format!("'{}'", n * (1 << 60) + 7)).collect();
    format!(
        "INSERT INTO system.peers_v2 (peer, peer_port, host_id, data_center, rack, native_address, \
         native_port, release_version, schema_version, tokens) VALUES ('127.0.0.{n}', 7700, uuid(), \
         '{}', '{}', '127.0.0.{n}', 9042, '5.0.0', uuid(), {{{}}})",
        name(0),
        name(1),
        tokens.join(",")
    )
}

fn forget_peer(n: u8) -> String {
    format!("DELETE FROM system.peers_v2 WHERE peer = '127.0.0.{n}' AND peer_port = 7700")
}

/// A machine of Cassandra was switched off; the others had two of three copies, yet nothing was stored
/// any more: every request waited for a connection to the silent address until it was given up, and
/// every new session began with the same wait. Here a peer is made up whose address never answers.
#[test]
#[ignore = "needs Cassandra: scripts/test"]
fn a_silent_node_does_not_hold_up_the_others() {
    let silent = std::net::TcpListener::bind("127.0.0.9:9042").expect("an address nobody has");
    let config = config("t_silent", |raw| raw.replication = Some("1".into()));
    runtime().block_on(async {
        fresh(&config).await;
        drop(open(&config).await);
        let session = CassandraSession::connect(&config).await.expect("Cassandra answers");
        session.query(&made_up_peer(&session, 9).await).await.expect("made up");
        let written = async {
            let link = CassandraLink::open(&config).await?;
            for ts in 1..4 {
                let records: Vec<SharedRecord> = (0..100).map(|n| shared(&format!("s/{n}"), ts)).collect();
                link.write(&WriteGroup::of_records(&records), 0, &RequestWindow::new()).await?;
            }
            Ok::<(), CassandraFault>(())
        };
        let written = written.await;
        session.query(&forget_peer(9)).await.expect("gone again");
        assert_eq!(written, Ok(()));
    });
    drop(silent);
}

/// A node of Cassandra came back under another address while the one that tells of such things hung:
/// it was never used again. Here one more address of the only node is made up, which no one tells of.
#[test]
#[ignore = "needs Cassandra: scripts/test"]
fn a_node_that_nobody_tells_of_is_found() {
    let config = config("t_overlooked", |raw| raw.replication = Some("1".into()));
    runtime().block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.6:9042").await.expect("an address nobody has");
        let peer = tokio::spawn(pass_on(listener, false));
        fresh(&config).await;
        let session = open(&config).await;
        let session = session.session();
        assert_eq!(overlooked(session, &config).await, Ok(None));
        session.query(&made_up_peer(session, 6).await).await.expect("made up");
        let found = overlooked(session, &config).await;
        let again = CassandraSession::connect(&config).await.expect("Cassandra answers");
        let found_again = overlooked(&again, &config).await;
        peer.abort();
        let silent = overlooked(session, &config).await;
        session.query(&forget_peer(6)).await.expect("gone again");
        assert_eq!(found, Ok(Some("127.0.0.6:9042".parse().expect("address"))));
        assert_eq!(found_again, Ok(None));
        assert_eq!(silent, Ok(None));
    });
}

/// The machine of the first contact was switched off, and no new session came about although the
/// second was there: the driver takes contacts in turn and waits for each.
#[test]
#[ignore = "needs Cassandra: scripts/test"]
fn a_silent_contact_is_passed_over() {
    let silent = std::net::TcpListener::bind("127.0.0.8:9042").expect("an address nobody has");
    let contacts = "127.0.0.8:9042,127.0.0.7:9042,127.0.0.1:9042";
    let config = config("t_contact", |raw| raw.cassandra = Some(contacts.into()));
    runtime().block_on(async {
        let session = CassandraSession::connect(&config).await.expect("the third answers");
        assert_eq!(session.query("SELECT key FROM system.local").await.map(|rows| rows.len()), Ok(1));
    });
    drop(silent);
}

/// Forwards connections to Cassandra; if `is_old`, answers protocol 5 as Cassandra 3.0 does.
async fn pass_on(listener: tokio::net::TcpListener, is_old: bool) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    while let Ok((mut client, _)) = listener.accept().await {
        tokio::spawn(async move {
            let mut head = [0; 9];
            client.read_exact(&mut head).await?;
            if is_old && head[0] == 5 {
                let text = b"Invalid or unsupported protocol version (5); highest supported is 4";
                let body = [&[0, 0, 0, 10, 0, text.len() as u8][..], text].concat();
                let reply = [&[0x84, 0, head[2], head[3], 0, 0, 0, 0, body.len() as u8][..], &body].concat();
                return client.write_all(&reply).await;
            }
            let mut server = tokio::net::TcpStream::connect("127.0.0.1:9042").await?;
            server.write_all(&head).await?;
            tokio::io::copy_bidirectional(&mut client, &mut server).await.map(|_| ())
        });
    }
}

/// A contact that speaks no protocol 5 was asked in it again and again, and the log said that nobody
/// answered.
#[test]
#[ignore = "needs Cassandra: scripts/test"]
fn an_older_protocol_is_spoken_where_the_newer_is_refused() {
    runtime().block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let contact = listener.local_addr().expect("bound").to_string();
        let refusing = tokio::spawn(pass_on(listener, true));
        let config = config("t_protocol", |raw| raw.cassandra = Some(contact.as_str().into()));
        fresh(&config).await;
        let link = open(&config).await;
        let records: Vec<SharedRecord> = (1..200).map(|ts| shared(&format!("s/{}", ts % 50), ts)).collect();
        write(&link, &records).await;
        assert_eq!(everything(&link).await.len(), 50);
        assert_eq!(link.history(&query("s/7", 100)).await.map(|records| records.len()), Ok(4));
        assert_eq!(link.check().await, Ok(()));
        refusing.abort();
    });
}

/// A removal takes what it collected, and nothing newer.
#[test]
#[ignore = "needs Cassandra: scripts/test"]
fn a_removal_takes_what_is_not_newer() {
    let config = config("t_removal", |_| {});
    runtime().block_on(async {
        fresh(&config).await;
        let link = open(&config).await;
        write(&link, &[shared("old", 5), shared("new", 9)]).await;
        let (old, new) = (shared("old", 5), shared("new", 5));
        let removals =
            WriteGroup::of_removals(vec![(old.source.clone(), old.stamp), (new.source.clone(), new.stamp)]);
        link.write(&removals, 0, &RequestWindow::new()).await.expect("written");
        assert_eq!(everything(&link).await.into_keys().collect::<Vec<_>>(), ["new"]);
    });
}

#[test]
#[ignore = "needs Cassandra: scripts/test"]
fn tls_is_spoken_and_strangers_are_refused() {
    let certificates =
        std::env::var("ANODE_TEST_CASSANDRA_CA").unwrap_or("target/cassandra/tls/ca.pem".into());
    runtime().block_on(async {
        let secure = config("t_tls", |raw| {
            raw.cassandra = Some("localhost:9042".into());
            raw.cassandra_tls_ca = Some(certificates.as_str().into());
        });
        fresh(&secure).await;
        write(&open(&secure).await, &[shared("s", 1)]).await;
        // Another authority than the one that signed.
        let dir = tempfile::tempdir().expect("directory");
        let empty = dir.path().join("none.pem");
        std::fs::write(&empty, "").expect("written");
        let nobody = config("t_tls", |raw| raw.cassandra_tls_ca = Some(empty.to_str().expect("text").into()));
        assert!(matches!(
            CassandraSession::connect(&nobody).await.map(|_| ()),
            Err(CassandraFault::Refused(_))
        ));
        let wrong = dir.path().join("password");
        std::fs::write(&wrong, "wrong\n").expect("written");
        let stranger =
            config("t_tls", |raw| raw.cassandra_password_file = Some(wrong.to_str().expect("text").into()));
        assert!(matches!(
            CassandraSession::connect(&stranger).await.map(|_| ()),
            Err(CassandraFault::Refused(_))
        ));
    });
}
