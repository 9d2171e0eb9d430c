//! Replaces a session that overlooks a node of Cassandra.
//!
//! The driver learns over one connection, to one node, which nodes join, leave and move. While that node
//! hangs, the driver learns nothing, and it waits for the next such connection without a deadline. It never
//! uses a node that it has learned of late, or under another address. A new session knows all nodes. So at
//! intervals Cassandra's own list is compared with the nodes that the session uses, and if the session leaves
//! out one that answers, twice in a row, a new session takes its place. Nothing is interrupted: requests that
//! are on their way end on the old one.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use cdrs_tokio::types::ByName;
use cdrs_tokio::types::rows::Row;

use super::connect::answers;
use super::fault::CassandraFault;
use super::link::{CassandraLink, LinkSlot};
use super::session::CassandraSession;
use crate::config::cassandra::Cassandra;

/// Shortest pause between two comparisons. The pause doubles after every replacement of a session that did
/// not help.
const WATCH_MIN: Duration = Duration::from_secs(15);
/// Longest pause between two comparisons.
const WATCH_MAX: Duration = Duration::from_secs(600);

/// Watches over whichever link is in the slot. Never returns.
pub(super) async fn watch(config: Cassandra, slot: LinkSlot) {
    let (mut pause, mut is_second) = (WATCH_MIN, false);
    loop {
        tokio::time::sleep(pause).await;
        let Some(link) = slot.lock().clone() else { continue };
        match overlooked(link.session(), &config).await {
            Ok(Some(node)) if is_second => {
                tracing::warn!(%node, "a node of Cassandra is not used although it answers: a new session");
                replace(&link, &config, &slot).await;
                (pause, is_second) = ((pause * 2).min(WATCH_MAX), false);
            }
            // The node may be on its way into the session at this very moment.
            Ok(Some(_)) => is_second = true,
            Ok(None) => (pause, is_second) = (WATCH_MIN, false),
            // The writer finds out by itself whether Cassandra answers.
            Err(_) => is_second = false,
        }
    }
}

/// Finds a node that Cassandra lists and that answers, but that the session does not use.
pub(super) async fn overlooked(
    session: &CassandraSession,
    config: &Cassandra,
) -> Result<Option<SocketAddr>, CassandraFault> {
    let used = session.hosts();
    let listed = session
        .query("SELECT CAST(host_id AS text) AS host, native_address, native_port FROM system.peers_v2")
        .await?;
    for (host, address) in listed.iter().filter_map(host_of) {
        if !used.contains(&host) && answers(config, address).await {
            return Ok(Some(address));
        }
    }
    Ok(None)
}

fn host_of(row: &Row) -> Option<(String, SocketAddr)> {
    let host: String = row.by_name("host").ok()??;
    let address: IpAddr = row.by_name("native_address").ok()??;
    let port: i32 = row.by_name("native_port").ok()??;
    Some((host, SocketAddr::new(address, u16::try_from(port).ok()?)))
}

/// Puts a new session in the place of a link.
async fn replace(link: &Arc<CassandraLink>, config: &Cassandra, slot: &LinkSlot) {
    let Ok(new) = CassandraLink::open(config).await else { return };
    let mut slot = slot.lock();
    // A session that the writer has made meanwhile, or other tables, are the writer's to deal with.
    let is_same = slot.as_ref().is_some_and(|current| Arc::ptr_eq(current, link));
    if is_same && new.table_id == link.table_id {
        *slot = Some(Arc::new(new));
    }
}
