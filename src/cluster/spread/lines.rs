//! Keeps for every line which records are held, which recent batches are kept, and which ranges this node
//! answers for.
//!
//! A line is one life of one origin, that is a name and a boot number. The rest of the program sees only
//! its head: the number up to which nothing is missing. Recent batches are kept for two reasons: to fill
//! gaps of others, and to know, when a batch comes again, what of its range is served already (custody).
//! Both end when newer batches push the batch out.
//!
//! Two lives may have the same hash: names of three bytes that differ in the last one, with boot numbers that differ
//! by one, often do. Then the life with the greater boot number has the line, at its own node this node's own one. Of
//! the other life nothing is known here: its batches are merged and passed on whenever they come, and its gaps are left
//! to reconciliation.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;

use super::batch::{Batch, BatchId, line_hash};
use super::line::OriginLine;
use super::span::{Rest, Span};
use crate::cluster::Heads;
use crate::cluster::by_key::ByKey;
use crate::cluster::stats::QueueGauge;
use crate::record::NodeName;

/// Most bytes of batches that are kept, all lines together.
const KEPT_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Bytes of batches that are kept however old they are.
const KEPT_BYTES_MIN: usize = 2 * 1024 * 1024;
/// Beyond [`KEPT_BYTES_MIN`], a batch is kept for this long, in microseconds: several times as long as others wait
/// until they ask for a record that they lack. To keep more would only push other things out of the
/// processor's caches.
const KEPT_US: u64 = 400_000;
/// Most lines that are known. For one more, the one that changed least recently is forgotten.
const LINES_MAX: usize = 32 * 1024;
/// A line that did not change for this long is quiet, in microseconds: if its last records were lost, they
/// have been reconciled since.
const QUIET_US: u64 = 30_000_000;
/// Most quiet lines in one digest: every probe of an idle node carries a digest, and so does every answer.
const QUIET_MAX: usize = 3;
/// Most bytes of one entry of a digest: tag and length, tag and line, tag and number.
const DIGEST_ENTRY_BYTES: usize = 3 + 9 + 1 + 10;

/// One of the kept batches.
#[derive(Debug)]
struct KeptOrder {
    batch: BatchId,
    bytes: usize,
    /// Time at which the batch came, in microseconds.
    since_us: u64,
}

/// All lines that are known, this node's own included.
#[derive(Debug)]
pub(super) struct Lines {
    /// Hash of this node's own line.
    own: u64,
    /// The lines by their hashes.
    lines: ByKey<u64, OriginLine>,
    /// Place of the line that was changed last: everything that is done with a batch is about the same line.
    latest: usize,
    /// Number of times that a head changed or was forgotten.
    version: u64,
    /// Kept batches in the order in which they came.
    order: VecDeque<KeptOrder>,
    /// Bytes of the batches in `order`.
    kept_bytes: usize,
    /// Hashes of the lines whose heads changed and are to be told, in turn.
    changed: VecDeque<u64>,
    /// Among the lines that did not change, the place of the one whose head was told last.
    turn: usize,
}

impl Lines {
    /// The lines of a node that just started.
    pub fn new(name: &NodeName, boot: u64) -> Lines {
        let own = line_hash(name, boot);
        let mut lines = ByKey::default();
        lines.get_or_insert_with(own, || OriginLine::new(0)).set_birth(name, boot);
        Lines {
            own,
            lines,
            latest: 0,
            version: 0,
            order: VecDeque::new(),
            kept_bytes: 0,
            changed: VecDeque::new(),
            turn: 0,
        }
    }

    /// Calls `visit` with the number of lines and of bytes of kept batches, and their bounds.
    pub fn visit_gauges(&self, visit: &mut dyn FnMut(QueueGauge)) {
        visit(QueueGauge::new("lines", self.lines.len(), LINES_MAX));
        visit(QueueGauge::new("bytes of batches kept", self.kept_bytes, KEPT_BYTES_MAX));
    }

    /// Heads of all lines, this node's own included. They are collected when they are asked for: to keep them
    /// in order of name with every record would cost more than all the rest of this file.
    pub fn heads(&self) -> Heads {
        let held = self.lines.iter().filter(|(_, line)| line.head() > 0);
        held.filter_map(|(_, line)| line.birth().cloned().map(|birth| (birth, line.head()))).collect()
    }

    /// A number that grows whenever a head grows or is forgotten.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Number of the last record that this node published.
    pub fn own_head(&self) -> u64 {
        self.get(self.own).map_or(0, OriginLine::head)
    }

    /// The line with this hash.
    pub fn get(&self, line: u64) -> Option<&OriginLine> {
        self.lines.at(self.place(line)?)
    }

    /// The line with this hash, to be changed.
    pub fn get_mut(&mut self, line: u64) -> Option<&mut OriginLine> {
        self.latest = self.place(line)?;
        self.lines.at_mut(self.latest)
    }

    /// Place of the line with this hash.
    fn place(&self, line: u64) -> Option<usize> {
        self.lines.place_near(self.latest, line)
    }

    /// The batch of this name, if it is kept.
    pub fn batch(&self, id: BatchId) -> Option<&Arc<Batch>> {
        self.get(id.line)?.batch(id.first_seq)
    }

    /// Returns whether all records that the batch covers are held.
    pub fn has(&self, batch: &Batch) -> bool {
        let line = self.get(batch.id.line).filter(|line| line.is_of(batch.boot));
        line.is_some_and(|line| line.covers(batch.id.first_seq, batch.last_seq))
    }

    /// Keeps a batch, and counts the records that it covers as held.
    pub fn hold(&mut self, now_us: u64, batch: &Arc<Batch>) {
        let Some(at) = self.name(now_us, batch.id.line, &batch.origin, batch.boot) else { return };
        let Some(line) = self.lines.at_mut(at) else { return };
        if line.hold(now_us, batch) {
            let bytes = batch.cost_bytes();
            self.order.push_back(KeptOrder { batch: batch.id, bytes, since_us: now_us });
            self.kept_bytes += bytes;
        }
        self.head_changed(at, batch.id.line);
        let is_over = |kept_bytes: usize, oldest: &KeptOrder| {
            let is_old = now_us.saturating_sub(oldest.since_us) > KEPT_US;
            kept_bytes > KEPT_BYTES_MAX || kept_bytes > KEPT_BYTES_MIN && is_old
        };
        while let Some(KeptOrder { batch: id, bytes, .. }) =
            self.order.pop_front_if(|oldest| is_over(self.kept_bytes, oldest))
        {
            debug_assert!(bytes <= self.kept_bytes, "{bytes} of {} bytes are kept", self.kept_bytes);
            self.kept_bytes -= bytes;
            if let Some(line) = self.place(id.line).and_then(|place| self.lines.at_mut(place)) {
                line.drop_kept(id.first_seq);
            }
        }
        debug_assert!(!self.order.is_empty() || self.kept_bytes == 0, "{} bytes", self.kept_bytes);
    }

    /// Counts this node's own records up to number `seq` as held, without keeping a batch of them.
    pub fn raise_own(&mut self, now_us: u64, seq: u64) {
        let Some(at) = self.lines.place(self.own) else { return };
        let Some(line) = self.lines.at_mut(at) else { return };
        line.raise(seq);
        line.touch(now_us);
        self.head_changed(at, self.own);
    }

    /// Takes custody of a span for a batch, as asked for after `hops` hand-overs. Returns the parts of the
    /// span that were not in custody.
    pub fn take_custody(&mut self, batch: &Batch, span: Span, hops: u32) -> Rest {
        let line = self.get_mut(batch.id.line).filter(|line| line.is_of(batch.boot));
        let rest = line.and_then(|line| line.take_custody(batch.id.first_seq, span, hops));
        rest.unwrap_or_else(|| Rest::whole(span))
    }

    /// Counts all records up to these heads as held.
    pub fn merge_heads(&mut self, now_us: u64, heads: &Heads) {
        for ((origin, boot), head) in heads {
            let line = line_hash(origin, *boot);
            let is_full = self.lines.len() >= LINES_MAX && self.lines.place(line).is_none();
            if line == self.own || is_full {
                continue;
            }
            let Some(at) = self.name(now_us, line, origin, *boot) else { continue };
            if let Some(known) = self.lines.at_mut(at) {
                known.raise(*head);
            }
            self.head_changed(at, line);
        }
    }

    /// Forgets which records of other nodes are held: the copy was dropped.
    pub fn forget_held(&mut self) {
        let own = self.own;
        self.changed.retain(|line| *line == own);
        for (_, line) in self.lines.iter_mut().filter(|line| line.0 != own) {
            line.forget_held();
            self.version += 1;
        }
    }

    /// Notes that the peer `holder` holds a line up to `seq`. Returns whether that is more than this node
    /// holds.
    pub fn note(&mut self, now_us: u64, line: u64, seq: u64, holder: SocketAddr) -> bool {
        if line == self.own {
            return false;
        }
        // A line that only heads speak of pushes no other out.
        if self.lines.len() >= LINES_MAX && self.lines.place(line).is_none() {
            return false;
        }
        let line = self.lines.get_or_insert_with(line, || OriginLine::new(now_us));
        line.see(seq);
        let more = seq > line.head();
        if more {
            line.search.holder = Some(holder);
        }
        more
    }

    /// Heads to tell a peer, as (hash of the line, head), in about `bytes_max` bytes. Those that changed come
    /// first; every third entry is another in turn, and only few of these have been quiet for long.
    pub fn digest(&mut self, now_us: u64, bytes_max: usize) -> Vec<(u64, u64)> {
        let mut digest: Vec<(u64, u64)> = Vec::with_capacity(bytes_max / DIGEST_ENTRY_BYTES + 1);
        let (mut bytes, mut quiet) = (0, 0);
        for index in 0..self.lines.len() {
            if bytes + DIGEST_ENTRY_BYTES > bytes_max {
                break;
            }
            let changed = if index % 3 == 2 { None } else { self.changed.pop_front() };
            if changed.is_none() && quiet == QUIET_MAX {
                match self.changed.is_empty() {
                    true => break,
                    false => continue,
                }
            }
            let place = match changed {
                Some(told) => self.lines.place(told),
                None if self.lines.turn(&mut self.turn) => Some(self.turn),
                None => break,
            };
            let Some((told, line)) = place.and_then(|place| self.lines.entry_at(place)) else { continue };
            quiet += usize::from(now_us > line.changed_us().saturating_add(QUIET_US));
            if changed.is_some() && line.tell_head() {
                self.changed.push_back(told);
            }
            let head = line.head();
            if head > 0 && digest.iter().all(|entry| entry.0 != told) {
                bytes += DIGEST_ENTRY_BYTES - 10 + varint_bytes(head);
                digest.push((told, head));
            }
        }
        digest
    }

    /// Sets the origin of a line, which is added if it is new. Returns the place of the line. `None`: the line is that of
    /// another life with the same hash, which keeps it.
    fn name(&mut self, now_us: u64, hash: u64, origin: &NodeName, boot: u64) -> Option<usize> {
        let at = self.place(hash).unwrap_or_else(|| {
            self.make_room();
            self.lines.insert(hash, OriginLine::new(now_us))
        });
        self.latest = at;
        let line = self.lines.at_mut(at)?;
        if let Some(&(_, known)) = line.birth().filter(|(_, known)| *known != boot) {
            if known > boot || hash == self.own {
                return None;
            }
            *line = OriginLine::new(now_us);
            self.changed.retain(|changed| *changed != hash);
            self.version += 1;
        }
        line.set_birth(origin, boot);
        Some(at)
    }

    /// Forgets a line, if there are too many for one more.
    fn make_room(&mut self) {
        if self.lines.len() < LINES_MAX {
            return;
        }
        let own = self.lines.place(self.own);
        let others = self.lines.iter().filter(|other| Some(other.0) != own);
        let Some((oldest, _)) = others.min_by_key(|other| other.1.changed_us()) else { return };
        self.lines.remove(oldest);
        self.version += 1;
    }

    fn head_changed(&mut self, at: usize, hash: u64) {
        let Some(line) = self.lines.at_mut(at) else { return };
        let Some(is_new) = line.take_changed_head() else { return };
        self.version += 1;
        if is_new {
            self.changed.push_back(hash);
        }
    }
}

/// Number of bytes that protobuf takes for a number.
fn varint_bytes(number: u64) -> usize {
    (64 - (number | 1).leading_zeros()).div_ceil(7) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::spread::codec::pack;
    use crate::cluster::spread::harness::record;

    fn name(text: &str) -> NodeName {
        NodeName::parse(text).expect("a name")
    }

    /// Two nodes of which the second life of the one has the hash of the first life of the other.
    fn twins() -> (NodeName, NodeName) {
        let names: Vec<NodeName> = (10..100).map(|index| name(&format!("n{index}"))).collect();
        let pairs = names.iter().flat_map(|one| names.iter().map(move |other| (one, other)));
        let mut twins = pairs.filter(|(one, other)| line_hash(one, 1) == line_hash(other, 2));
        twins.next().map(|(one, other)| (one.clone(), other.clone())).expect("two lives with one hash")
    }

    /// A batch that covers the records 1 to `last` of a life.
    fn batch(origin: &NodeName, boot: u64, last: u64) -> Arc<Batch> {
        Arc::new(pack(origin, boot, 0, 0, &[record(origin, boot, last, 10)]).remove(0))
    }

    // In a simulated cluster of a hundred nodes, what some nodes published just after they had come back reached the others
    // after ten seconds only: the others took it for records that they held already, of another node with the same hash.
    #[test]
    fn of_two_lives_with_one_hash_the_later_has_the_line() {
        let (one, other) = twins();
        let mut lines = Lines::new(&name("me"), 1);
        let (earlier, later) = (batch(&one, 1, 5), batch(&other, 2, 1));
        assert_eq!(earlier.id, later.id);
        lines.hold(1, &earlier);
        assert!(lines.has(&earlier) && !lines.has(&later), "another life's records are not held");
        let span = Span::whole_after(0);
        let parts = |lines: &mut Lines, batch: &Batch| lines.take_custody(batch, span, 1).count();
        assert_eq!((parts(&mut lines, &earlier), parts(&mut lines, &earlier)), (1, 0));
        assert_eq!(
            (parts(&mut lines, &later), parts(&mut lines, &later)),
            (1, 1),
            "nothing is remembered of it"
        );
        lines.hold(2, &later);
        lines.hold(3, &earlier);
        lines.merge_heads(4, &[((one.clone(), 1), 9)].into_iter().collect());
        assert!(lines.has(&later) && !lines.has(&earlier));
        assert_eq!(lines.heads(), [((other, 2), 1)].into_iter().collect());
        assert_eq!((parts(&mut lines, &later), parts(&mut lines, &later)), (1, 0));
    }

    #[test]
    fn a_node_keeps_its_own_line_from_a_later_life_with_its_hash() {
        let (one, other) = twins();
        let mut lines = Lines::new(&one, 1);
        lines.raise_own(1, 3);
        let later = batch(&other, 2, 5);
        lines.hold(2, &later);
        assert_eq!((lines.own_head(), lines.has(&later)), (3, false));
    }
}
