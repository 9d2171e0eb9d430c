//! The JSON of lists: the members, and pages of records.
//!
//! A record is written by the same function as in messages to subscribers, so that it looks the same
//! everywhere. A page is therefore assembled from records that are JSON already. Rejected: a serde type of
//! raw values, which would read every record again to check that it is JSON.

use std::borrow::Cow;

use serde::Serialize;

use crate::cluster::members::MemberInfo;
use crate::protocol::json::write_record;
use crate::record::Record;

/// Size in bytes at which a page ends, whatever its limit, so that one request cannot cost a node more.
const PAGE_BYTES_MAX: usize = 8 * 1024 * 1024;

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
    gossip: std::net::SocketAddr,
    zone: &'a str,
    incarnation: u32,
    boot: u64,
    version: &'a str,
    rtt_us: Option<u32>,
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
        };
        MemberList { members: members.iter().map(entry).collect() }
    }

    /// The list as JSON.
    pub(super) fn to_json(&self) -> Vec<u8> {
        // None of the types in the list can fail to be serialized.
        serde_json::to_vec(self).unwrap_or_default()
    }
}

/// A page of records while it is written: `{"records":[…],"after":…}`.
pub(super) struct RecordPage {
    out: Vec<u8>,
    is_empty: bool,
    /// Size in bytes at which the page ends.
    bytes_max: usize,
}

impl RecordPage {
    /// A page without records. `share_bytes` is the memory that one request may have: a page has at most half of
    /// it, so that its last record fits, too.
    pub(super) fn new(share_bytes: usize) -> RecordPage {
        let bytes_max = PAGE_BYTES_MAX.min(share_bytes / 2);
        RecordPage { out: b"{\"records\":[".to_vec(), is_empty: true, bytes_max }
    }

    /// Adds a record.
    pub(super) fn push(&mut self, record: &Record) {
        if !self.is_empty {
            self.out.push(b',');
        }
        self.is_empty = false;
        write_record(&mut self.out, record, false);
    }

    /// Returns whether the page has as many bytes as it may have.
    pub(super) fn is_full(&self) -> bool {
        self.out.len() >= self.bytes_max
    }

    /// The whole page. `after` is the cursor of the next page, if there is a next page.
    pub(super) fn finish(mut self, after: Option<&str>) -> Vec<u8> {
        // Serializing an optional string cannot fail.
        let after = serde_json::to_string(&after).unwrap_or_default();
        self.out.extend_from_slice(b"],\"after\":");
        self.out.extend_from_slice(after.as_bytes());
        self.out.push(b'}');
        self.out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_without_records_is_json() {
        let page = || RecordPage::new(usize::MAX);
        assert_eq!(page().finish(None), br#"{"records":[],"after":null}"#);
        assert_eq!(page().finish(Some("a\"b")), br#"{"records":[],"after":"a\"b"}"#);
    }
}
