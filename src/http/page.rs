//! The JSON of lists: the members, and pages of records.
//!
//! A record is written by the same function as in messages to subscribers, so that it looks the same
//! everywhere. A page is therefore assembled from records that are JSON already. Rejected: a serde type of
//! raw values, which would read every record again to check that it is JSON.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::SocketAddr;

use axum::response::Response;
use serde::Serialize;

use super::app::{App, typed};
use super::leased::{leased_body, resize};
use super::problem::Problem;
use crate::cluster::members::{KeyStatus, MemberInfo};
use crate::memory::{Lease, MemoryUse};
use crate::protocol::json::write_record;
use crate::record::{Payload, Record};

/// Size in bytes at which a page ends, whatever its limit, so that one request cannot cost a node more.
const PAGE_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Bytes of the JSON of a record besides its data, as most records have them.
const RECORD_FRAME_BYTES: usize = 512;

/// The list of members.
#[derive(Serialize)]
pub(super) struct MemberList<'a> {
    members: Vec<MemberEntry<'a>>,
}

/// The entry of one member in the list.
#[derive(Serialize)]
struct MemberEntry<'a> {
    id: &'a str,
    state: &'a str,
    http: Cow<'a, str>,
    gossip: SocketAddr,
    zone: &'a str,
    incarnation: u32,
    boot: u64,
    version: &'a str,
    rtt_us: Option<u32>,
    /// Whether the last connection over TCP from the asked node to this member succeeded.
    #[serde(skip_serializing_if = "Option::is_none")]
    tcp: Option<bool>,
    /// Whether the member reaches the asked node at the address that this one advertises: shown where it does not.
    #[serde(skip_serializing_if = "Option::is_none")]
    reaches: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    keys: Option<MemberKeys>,
}

/// What a member tells of its keys, each named by the beginning of its hash.
#[derive(Serialize)]
struct MemberKeys {
    seals: Option<String>,
    opens: Vec<String>,
    phase: &'static str,
}

impl MemberKeys {
    fn new(keys: &KeyStatus) -> MemberKeys {
        MemberKeys {
            seals: keys.seals.map(|id| id.to_string()),
            opens: keys.opens.iter().map(ToString::to_string).collect(),
            phase: keys.phase.as_str(),
        }
    }
}

impl<'a> MemberList<'a> {
    /// The list of `members`, in their order.
    pub(super) fn new(members: &'a [MemberInfo]) -> MemberList<'a> {
        let entry = |member: &'a MemberInfo| MemberEntry {
            id: member.identity.name.as_str(),
            state: member.state.as_str(),
            http: member.identity.http(),
            gossip: member.identity.gossip(),
            zone: member.identity.zone(),
            incarnation: member.incarnation,
            boot: member.identity.boot,
            version: member.identity.version(),
            rtt_us: member.rtt_us,
            tcp: None,
            reaches: member.cannot_reach_us.then_some(false),
            keys: member.keys.as_deref().map(MemberKeys::new),
        };
        MemberList { members: members.iter().map(entry).collect() }
    }

    /// The same list, with what came of connections over TCP to the gossip addresses of the members.
    pub(super) fn with_reach(mut self, reach: &BTreeMap<SocketAddr, bool>) -> MemberList<'a> {
        for member in &mut self.members {
            member.tcp = reach.get(&member.gossip).copied();
        }
        self
    }

    /// The list as JSON.
    pub(super) fn to_json(&self) -> Vec<u8> {
        // None of the types in the list can fail to be serialized.
        serde_json::to_vec(self).unwrap_or_default()
    }
}

/// A page of records while it is written: `{"records":[…],"after":…}`. Its memory is leased as it grows.
pub(super) struct RecordPage {
    out: Vec<u8>,
    lease: Lease,
    is_empty: bool,
    /// Size in bytes at which the page ends.
    bytes_max: usize,
}

impl RecordPage {
    /// A page without records. It has at most half of the memory that one request may have, so that its last record
    /// fits, too.
    pub(super) fn new(app: &App) -> RecordPage {
        let memory = app.node.memory();
        let bytes_max = PAGE_BYTES_MAX.min(memory.holder_max() / 2);
        RecordPage { out: b"{\"records\":[".to_vec(), lease: memory.lease(), is_empty: true, bytes_max }
    }

    /// Adds a record, or refuses the request if there is no memory for it.
    pub(super) fn push(&mut self, app: &App, record: &Record) -> Result<(), Problem> {
        let data = match &record.payload {
            Payload::Binary(bytes) => bytes.len().div_ceil(3) * 4,
            payload => payload.bytes().len(),
        };
        // The memory grows by small parts, because a page that becomes twice as large at once may need more than a
        // request may have.
        let wanted = RECORD_FRAME_BYTES + data;
        if self.out.capacity() - self.out.len() < wanted {
            self.out.reserve_exact(wanted.max(self.out.len() / 4));
        }
        if !self.is_empty {
            self.out.push(b',');
        }
        self.is_empty = false;
        write_record(&mut self.out, record, false);
        match self.out.capacity() == self.lease.bytes() {
            true => Ok(()),
            false => resize(app, MemoryUse::Pages, &mut self.lease, self.out.capacity()),
        }
    }

    /// Returns whether the page has as many bytes as it may have.
    pub(super) fn is_full(&self) -> bool {
        self.out.len() >= self.bytes_max
    }

    /// The answer with the whole page. `after` is the cursor of the next page, if there is a next page.
    pub(super) fn finish(mut self, app: &App, after: Option<&str>) -> Result<Response, Problem> {
        // Serializing an optional string cannot fail.
        let after = serde_json::to_string(&after).unwrap_or_default();
        self.out.extend_from_slice(b"],\"after\":");
        self.out.extend_from_slice(after.as_bytes());
        self.out.push(b'}');
        self.out.shrink_to_fit();
        resize(app, MemoryUse::Pages, &mut self.lease, self.out.capacity())?;
        Ok(typed("application/json", leased_body(self.out, self.lease)))
    }
}
