//! What is known of every origin's life: which records are held, which recent batches are kept, and
//! which ranges this node answers for.
//!
//! A line is one life of one origin. Heads are what the rest of the program sees of it. Batches are
//! kept for two reasons: to fill others' gaps, and to know, when one comes again, what of its range
//! is served already (custody). Both end when the batch is pushed out by newer ones.

use std::cmp::Ordering;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;

use super::batch::{Batch, BatchId, line_hash};
use super::by_key::ByKey;
use super::seqs::SeqSet;
use super::span::{Rest, Span, Spans};
use crate::cluster::Heads;
use crate::cluster::stats::Gauge;
use crate::record::NodeName;

/// Bytes of recent batches kept, all lines together.
const KEPT_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Of a line's batches, how many are looked at from the newest on before all are searched.
const NEWEST_LOOKED_AT: usize = 32;
/// Most lines known. Beyond it the one that changed least recently is forgotten.
const LINES_MAX: usize = 32 * 1024;
/// How often a changed head is told.
const TELLINGS: u8 = 3;
/// A line that did not change for so long is quiet: if its end got lost, it was reconciled since.
const QUIET_US: u64 = 30_000_000;
/// Quiet lines in a digest: every probe of an idle node and every answer carries them.
const QUIET_MAX: usize = 3;
/// Most bytes of one entry of a digest: tag and length, tag and line, tag and varint.
const DIGEST_ENTRY_BYTES: usize = 3 + 9 + 1 + 10;

/// One batch, and the places this node answers for with it.
#[derive(Debug)]
struct Kept {
    batch: Arc<Batch>,
    custody: Spans,
}

/// What is known of one life of one origin.
#[derive(Debug, Default)]
pub(super) struct Line {
    /// `None` while only a digest spoke of it.
    pub birth: Option<(NodeName, u64)>,
    /// What is held, or known to be superseded.
    pub have: SeqSet,
    /// The greatest number known to exist.
    pub seen: u64,
    /// Who last said that it holds more than this node.
    pub holder: Option<SocketAddr>,
    /// Holes up to this are left to reconciliation: nobody asked could fill them.
    pub abandoned: u64,
    /// When the gap is asked for next; 0: it is not.
    pub ask_due_us: u64,
    /// Up to where the gap had stood long enough when it was last looked at.
    pub asked_to: u64,
    /// How often it was asked for without progress.
    pub asks: u32,
    /// Ascending by number.
    kept: VecDeque<Kept>,
    changed_us: u64,
    /// The head that is being told.
    head: u64,
    tellings: u8,
}

impl Line {
    /// The first holes that are still worth asking for, at most `count`.
    pub fn gaps(&self, count: usize) -> Vec<(u64, u64)> {
        let mut holes = self.have.holes(self.seen, count);
        holes.retain(|hole| hole.1 > self.abandoned);
        holes
    }

    /// Batches kept that overlap `first..=last`, ascending.
    pub fn kept(&self, first: u64, last: u64) -> impl Iterator<Item = &Arc<Batch>> {
        let from = self.kept.partition_point(|kept| kept.batch.id.first_seq <= first).saturating_sub(1);
        let batches = self.kept.range(from..).map(|kept| &kept.batch);
        batches
            .take_while(move |batch| batch.id.first_seq <= last)
            .filter(move |batch| batch.last_seq >= first)
    }

    fn find_kept(&self, first_seq: u64) -> Result<usize, usize> {
        // What comes is nearly always the newest, what goes the oldest. A search among thousands of
        // batches all over the memory costs as much as all else that is done with one.
        let seq_at = |kept: Option<&Kept>| kept.map(|kept| kept.batch.id.first_seq);
        match (seq_at(self.kept.front()), seq_at(self.kept.back())) {
            (_, newest) if newest < Some(first_seq) => return Err(self.kept.len()),
            (_, newest) if newest == Some(first_seq) => return Ok(self.kept.len() - 1),
            (oldest, _) if oldest == Some(first_seq) => return Ok(0),
            _ => {}
        }
        // What was sent together comes in another order, but not in a very different one.
        let newest = self.kept.iter().enumerate().rev().take(NEWEST_LOOKED_AT);
        for (at, kept) in newest {
            match kept.batch.id.first_seq.cmp(&first_seq) {
                Ordering::Equal => return Ok(at),
                Ordering::Less => return Err(at + 1),
                Ordering::Greater => {}
            }
        }
        self.kept.binary_search_by_key(&first_seq, |kept| kept.batch.id.first_seq)
    }

    /// Keeps a batch; `false`: it was kept already.
    fn keep(&mut self, batch: &Arc<Batch>) -> bool {
        let Err(at) = self.find_kept(batch.id.first_seq) else { return false };
        if self.kept.is_empty() {
            // Many lines have one batch and no more for a long time.
            self.kept.reserve_exact(1);
        }
        self.kept.insert(at, Kept { batch: batch.clone(), custody: Spans::default() });
        true
    }

    fn drop_kept(&mut self, first_seq: u64) {
        if let Ok(at) = self.find_kept(first_seq) {
            self.kept.remove(at);
        }
    }
}

/// All lines.
#[derive(Debug)]
pub(super) struct Lines {
    own: u64,
    lines: ByKey<u64, Line>,
    /// How often a head changed.
    version: u64,
    /// Batches in the order they came.
    order: VecDeque<(BatchId, usize)>,
    kept_bytes: usize,
    /// Lines whose head is to be told, in turn.
    changed: VecDeque<u64>,
    /// Whose turn it was to be told last.
    turn: usize,
}

impl Lines {
    /// The lines of a node that just started.
    pub fn new(name: &NodeName, boot: u64) -> Lines {
        let own = line_hash(name, boot);
        let mut lines = ByKey::default();
        lines.get_or_insert_with(own, || Line { birth: Some((name.clone(), boot)), ..Line::default() });
        Lines {
            own,
            lines,
            version: 0,
            order: VecDeque::new(),
            kept_bytes: 0,
            changed: VecDeque::new(),
            turn: 0,
        }
    }

    /// How full it is.
    pub fn visit_gauges(&self, visit: &mut dyn FnMut(Gauge)) {
        visit(Gauge::new("lines", self.lines.len(), LINES_MAX));
        visit(Gauge::new("bytes of batches kept", self.kept_bytes, KEPT_BYTES_MAX));
    }

    /// Heads of all lines, this node's own included. Made when they are asked for: keeping them in
    /// order of name with every record would cost more than all the rest of this file.
    pub fn heads(&self) -> Heads {
        let held = self.lines.iter().filter(|(_, line)| line.have.head() > 0);
        held.filter_map(|(_, line)| line.birth.clone().map(|birth| (birth, line.have.head()))).collect()
    }

    /// Grows whenever a head does, or is forgotten.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Up to where this node has published.
    pub fn own_head(&self) -> u64 {
        self.lines.get(self.own).map_or(0, |line| line.have.head())
    }

    /// The line of this hash.
    pub fn get(&self, line: u64) -> Option<&Line> {
        self.lines.get(line)
    }

    /// The line of this hash, to be changed.
    pub fn get_mut(&mut self, line: u64) -> Option<&mut Line> {
        self.lines.get_mut(line)
    }

    /// The batch, if it is kept.
    pub fn batch(&self, id: BatchId) -> Option<&Arc<Batch>> {
        let line = self.lines.get(id.line)?;
        line.find_kept(id.first_seq).ok().and_then(|at| line.kept.get(at)).map(|kept| &kept.batch)
    }

    /// Whether everything the batch covers is held.
    pub fn has(&self, batch: &Batch) -> bool {
        self.lines.get(batch.id.line).is_some_and(|line| line.have.covers(batch.id.first_seq, batch.last_seq))
    }

    /// Keeps the batch and counts as held what it covers.
    pub fn hold(&mut self, now_us: u64, batch: &Arc<Batch>) {
        let at = self.name(now_us, batch.id.line, &batch.origin, batch.boot);
        let Some(line) = self.lines.at_mut(at) else { return };
        line.seen = line.seen.max(batch.last_seq);
        line.have.insert(batch.id.first_seq, batch.last_seq);
        line.changed_us = now_us;
        if line.keep(batch) {
            self.order.push_back((batch.id, batch.cost_bytes()));
            self.kept_bytes += batch.cost_bytes();
        }
        self.head_changed(at, batch.id.line);
        while self.kept_bytes > KEPT_BYTES_MAX
            && let Some((id, bytes)) = self.order.pop_front()
        {
            self.kept_bytes -= bytes;
            if let Some(line) = self.lines.get_mut(id.line) {
                line.drop_kept(id.first_seq);
            }
        }
    }

    /// Counts this node's own records up to this number as held, and keeps no batch of them.
    pub fn raise_own(&mut self, now_us: u64, seq: u64) {
        let Some(at) = self.lines.place(self.own) else { return };
        let Some(line) = self.lines.at_mut(at) else { return };
        line.seen = line.seen.max(seq);
        line.have.raise(seq);
        line.changed_us = now_us;
        self.head_changed(at, self.own);
    }

    /// Takes a span of the batch into custody, asked for after so many hops; returns what of it was
    /// not yet.
    pub fn take_custody(&mut self, id: BatchId, span: Span, hops: u32) -> Rest {
        let kept = self.lines.get_mut(id.line).and_then(|line| {
            let at = line.find_kept(id.first_seq).ok()?;
            line.kept.get_mut(at)
        });
        match kept {
            Some(kept) => kept.custody.insert(span, hops),
            None => Rest::whole(span),
        }
    }

    /// Counts everything up to these heads as held.
    pub fn merge_heads(&mut self, now_us: u64, heads: &Heads) {
        for ((origin, boot), head) in heads {
            let line = line_hash(origin, *boot);
            let is_full = self.lines.len() >= LINES_MAX && self.lines.place(line).is_none();
            if line == self.own || is_full {
                continue;
            }
            let at = self.name(now_us, line, origin, *boot);
            if let Some(known) = self.lines.at_mut(at) {
                known.have.raise(*head);
                known.seen = known.seen.max(*head);
            }
            self.head_changed(at, line);
        }
    }

    /// Forgets what is held of all lines but this node's own: the copy was dropped.
    pub fn forget_held(&mut self) {
        let own = self.own;
        self.changed.retain(|line| *line == own);
        for (_, line) in self.lines.iter_mut().filter(|line| line.0 != own) {
            // The batches stay, and with them what was passed on already.
            let (birth, kept) = (line.birth.take(), std::mem::take(&mut line.kept));
            self.version += 1;
            *line = Line { birth, kept, changed_us: line.changed_us, ..Line::default() };
        }
    }

    /// Notes that `holder` holds the line up to `seq`. `true`: that is more than this node holds.
    pub fn note(&mut self, now_us: u64, line: u64, seq: u64, holder: SocketAddr) -> bool {
        if line == self.own {
            return false;
        }
        // What only a digest speaks of pushes nobody out.
        if self.lines.len() >= LINES_MAX && self.lines.place(line).is_none() {
            return false;
        }
        let line = self.lines.get_or_insert_with(line, || Line { changed_us: now_us, ..Line::default() });
        line.seen = line.seen.max(seq);
        let more = seq > line.have.head();
        if more {
            line.holder = Some(holder);
        }
        more
    }

    /// Heads to be told, as (line, head): what changed, and with every third entry others in turn,
    /// few of them if they have been quiet for long.
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
            quiet += usize::from(now_us > line.changed_us.saturating_add(QUIET_US));
            if changed.is_some() {
                line.tellings = line.tellings.saturating_sub(1);
                if line.tellings > 0 {
                    self.changed.push_back(told);
                }
            }
            let head = line.have.head();
            if head > 0 && digest.iter().all(|entry| entry.0 != told) {
                bytes += DIGEST_ENTRY_BYTES - 10 + varint_bytes(head);
                digest.push((told, head));
            }
        }
        digest
    }

    /// Names a line, making it if it is new; its place.
    fn name(&mut self, now_us: u64, line: u64, origin: &NodeName, boot: u64) -> usize {
        self.make_room(line);
        let make = || Line { changed_us: now_us, ..Line::default() };
        let at = self.lines.place(line).unwrap_or_else(|| self.lines.insert(line, make()));
        if let Some(line) = self.lines.at_mut(at).filter(|line| line.birth.is_none()) {
            line.birth = Some((origin.clone(), boot));
        }
        at
    }

    fn make_room(&mut self, line: u64) {
        if self.lines.len() < LINES_MAX || self.lines.place(line).is_some() {
            return;
        }
        let own = self.lines.place(self.own);
        let others = self.lines.iter().filter(|other| Some(other.0) != own);
        let Some((oldest, _)) = others.min_by_key(|other| other.1.changed_us) else { return };
        self.lines.remove(oldest);
        self.version += 1;
    }

    fn head_changed(&mut self, at: usize, hash: u64) {
        let Some(line) = self.lines.at_mut(at) else { return };
        if line.head == line.have.head() {
            return;
        }
        line.head = line.have.head();
        self.version += 1;
        if line.tellings == 0 {
            self.changed.push_back(hash);
        }
        line.tellings = TELLINGS;
    }
}

/// Bytes of a number as protobuf writes it.
fn varint_bytes(number: u64) -> usize {
    (64 - (number | 1).leading_zeros()).div_ceil(7) as usize
}
