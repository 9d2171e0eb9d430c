//! The JSON of lists: the members, and pages of records.
//!
//! A record is written by the same function as in messages to subscribers, so that it looks the same
//! everywhere. A page is therefore assembled from records that are JSON already. Rejected: a serde type of
//! raw values, which would read every record again to check that it is JSON.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::SocketAddr;

use axum::response::Response;
use bytes::Bytes;
use serde::Serialize;

use super::app::{App, typed};
use super::leased::{leased_pieces, resize};
use super::problem::Problem;
use crate::cluster::members::{KeyStatus, MemberInfo};
use crate::memory::{Lease, MemoryUse};
use crate::protocol::json::{write_record, write_up_to_data};
use crate::record::{Payload, Record};

/// Size in bytes at which a page ends, whatever its limit, so that one request cannot cost a node more.
const PAGE_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Bytes from which on the data of a record is not copied into a page.
const SHARED_BYTES_MIN: usize = 4 * 1024;
/// Most bytes of a piece of a page that contains several records. A single larger record has a piece of its own.
const PIECE_BYTES: usize = 64 * 1024;
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
    /// Number that is another one each time that the member begins to take part at the asked node: shown while it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    joined: Option<u32>,
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
            joined: member.joined,
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
    /// The pieces that are complete. Large data is a piece by itself, which it shares with its record.
    pieces: Vec<Bytes>,
    /// Length of the complete pieces in bytes.
    len: usize,
    /// Memory of the complete pieces in bytes.
    held_bytes: usize,
    /// The piece that is being written.
    piece: Vec<u8>,
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
        let piece = b"{\"records\":[".to_vec();
        let lease = memory.lease();
        RecordPage { pieces: Vec::new(), len: 0, held_bytes: 0, piece, lease, is_empty: true, bytes_max }
    }

    /// Adds a record, or refuses the request if there is no memory for it.
    pub(super) fn push(&mut self, app: &App, record: &Record) -> Result<(), Problem> {
        let shared = match &record.payload {
            Payload::Json(data) if data.len() >= SHARED_BYTES_MIN => Some(data),
            _ => None,
        };
        let data_bytes = match &record.payload {
            Payload::Binary(bytes) => bytes.len().div_ceil(3) * 4,
            payload => payload.bytes().len(),
        };
        self.make_room(RECORD_FRAME_BYTES + if shared.is_some() { 0 } else { data_bytes });
        if !self.is_empty {
            self.piece.push(b',');
        }
        self.is_empty = false;
        match shared {
            None => write_record(&mut self.piece, record, false),
            Some(data) => {
                write_up_to_data(&mut self.piece, record);
                self.end_piece();
                self.len += data.len();
                self.held_bytes += data.len();
                self.pieces.push(data.clone());
                self.piece.push(b'}');
            }
        }
        let held_bytes = self.memory_bytes();
        match held_bytes == self.lease.bytes() {
            true => Ok(()),
            false => resize(app, MemoryUse::Pages, &mut self.lease, held_bytes),
        }
    }

    /// Makes room for so many bytes in the piece that is being written, or begins another one. Large pieces never grow,
    /// since their bytes would be copied to new memory each time.
    fn make_room(&mut self, wanted: usize) {
        if self.piece.capacity() - self.piece.len() >= wanted {
            return;
        }
        if self.piece.len() + wanted > PIECE_BYTES {
            self.end_piece();
        }
        self.piece.reserve_exact(wanted.max(self.piece.len()));
    }

    /// Completes the piece that is being written.
    fn end_piece(&mut self) {
        let piece = std::mem::take(&mut self.piece);
        self.len += piece.len();
        self.held_bytes += piece.capacity();
        self.pieces.push(piece.into());
    }

    /// Memory of all pieces in bytes.
    fn memory_bytes(&self) -> usize {
        self.held_bytes + self.piece.capacity()
    }

    /// Returns whether the page has as many bytes as it may have.
    pub(super) fn is_full(&self) -> bool {
        self.len + self.piece.len() >= self.bytes_max
    }

    /// The answer with the whole page. `after` is the cursor of the next page, if there is a next page.
    pub(super) fn finish(mut self, app: &App, after: Option<&str>) -> Result<Response, Problem> {
        // Serializing an optional string cannot fail.
        let after = serde_json::to_string(&after).unwrap_or_default();
        self.piece.extend_from_slice(b"],\"after\":");
        self.piece.extend_from_slice(after.as_bytes());
        self.piece.push(b'}');
        self.piece.shrink_to_fit();
        self.end_piece();
        let held_bytes = self.memory_bytes();
        resize(app, MemoryUse::Pages, &mut self.lease, held_bytes)?;
        Ok(typed("application/json", leased_pieces(self.pieces, self.lease)))
    }
}
