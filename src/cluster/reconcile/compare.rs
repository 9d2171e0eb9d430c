//! Comparing maps by datagram, and judging what a difference means.
//!
//! On a busy cluster two maps hardly ever agree: records are on their way. So a difference alone means
//! nothing. A shard is suspect when it differed in two successive comparisons (a second apart, and mostly
//! with two members). If it did not even change here in between, nothing was on its way, and something is
//! really missing: that is reconciled at once. If it did change, it is probably busy: that is looked into as
//! well, but without the youngest records, and ever more rarely while nothing is found.
//!
//! Shards may also differ for good without lacking anything: one side has collected a deletion that
//! the other still keeps, or one side holds a record that the other refuses, because its timestamp is too
//! far ahead. A session finds nothing then, or what it finds changes neither side, which shows when the same
//! pair of fingerprints is there again after it. That very pair is not looked into again for an hour.

use xxhash_rust::xxh3::Xxh3;

use super::initiator::SessionPlan;
use super::link::SessionReport;
use super::wire::{Compare, ShardSet};
use crate::limits::SHARDS;
use crate::record::Now;

/// Time for which busy shards are left alone after a first session about them, in microseconds.
const BUSY_US_MIN: u64 = 2_000_000;
/// Greatest time for which busy shards are left alone after a session about them, in microseconds.
const BUSY_US_MAX: u64 = 32_000_000;
/// Among this many sessions about busy shards there is one that leaves nothing out: only such a session can
/// show that nothing at all is missing.
const WHOLE_EVERY: u32 = 8;

/// Time after which all pairs of fingerprints behind which nothing was missing are forgotten, in
/// microseconds: a timestamp that is too far ahead for one side is not so for ever.
const HARMLESS_US_MAX: u64 = 3_600_000_000;

/// Returns one hash over the fingerprints of all shards.
pub(super) fn root_of(fingerprints: &[u64; SHARDS]) -> u64 {
    let mut hash = Xxh3::new();
    for print in fingerprints {
        hash.update(&print.to_le_bytes());
    }
    hash.digest()
}

fn short(print: u64) -> u32 {
    (print ^ (print >> 32)) as u32
}

/// Builds the answer to a comparison that a peer asked for.
pub(super) fn answer(fingerprints: &[u64; SHARDS], asked: &Compare) -> Compare {
    let root = root_of(fingerprints);
    let is_equal = root == asked.root;
    let shards = if is_equal {
        Default::default()
    } else {
        fingerprints.iter().flat_map(|&print| short(print).to_le_bytes()).collect()
    };
    Compare { root, nonce: asked.nonce, is_answer: true, shards }
}

/// The conclusion from the answer to a comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CompareVerdict {
    /// The maps were equal when they were compared.
    Equal,
    /// The maps differ, and nothing is to be done about it yet.
    Wait,
    /// A session with the member that answered is to be begun, with this plan.
    Reconcile(SessionPlan),
}

/// The fingerprints of the last comparison that found a difference.
#[derive(Clone, Debug)]
struct LastComparison {
    own: [u64; SHARDS],
    theirs: [u32; SHARDS],
    differing: ShardSet,
}

/// Judges comparisons, and remembers what it needs from one to the next.
#[derive(Clone, Debug)]
pub(super) struct Comparison {
    seen: Option<Box<LastComparison>>,
    /// For each shard, the pair of fingerprints (this node's and the peer's) that differ although a session
    /// found nothing to change on either side.
    harmless: Option<Box<[(u64, u32); SHARDS]>>,
    /// For each shard the pair of fingerprints before the last complete session that found a difference.
    tried: Option<Box<[(u64, u32); SHARDS]>>,
    /// Time at which `harmless` is forgotten, on the monotonic clock in microseconds.
    harmless_until_us: u64,
    suspect: usize,
    busy_us: u64,
    busy_until_us: u64,
    busy_sessions: u32,
    is_whole_next: bool,
}

impl Comparison {
    /// Begins without any comparison to look back at.
    pub fn new() -> Comparison {
        Comparison {
            seen: None,
            harmless: None,
            tried: None,
            harmless_until_us: 0,
            suspect: 0,
            busy_us: BUSY_US_MIN,
            busy_until_us: 0,
            busy_sessions: 0,
            is_whole_next: false,
        }
    }

    /// Number of shards that differed in the last two comparisons, and not harmlessly.
    pub fn suspect(&self) -> usize {
        self.suspect
    }

    /// Judges the answer to a comparison that this node asked for when `asked` was the hash over its shards.
    pub fn judge(&mut self, now: Now, own: &[u64; SHARDS], asked: u64, answer: &Compare) -> CompareVerdict {
        let theirs = answer.shards.as_chunks::<4>().0;
        if answer.root == asked || answer.root == root_of(own) {
            self.seen = None;
            self.suspect = 0;
            self.busy_us = BUSY_US_MIN;
            return CompareVerdict::Equal;
        }
        let Ok(theirs) = <[[u8; 4]; SHARDS]>::try_from(theirs) else { return CompareVerdict::Wait };
        let theirs = theirs.map(u32::from_le_bytes);
        if now.mono_us >= self.harmless_until_us {
            self.harmless = None;
        }
        let mut differing = ShardSet::default();
        for shard in 0..SHARDS {
            let is_harmless =
                self.harmless.as_ref().is_some_and(|pairs| pairs[shard] == (own[shard], theirs[shard]));
            if short(own[shard]) != theirs[shard] && !is_harmless {
                differing.insert(shard);
            }
        }
        // 32 bits may agree by chance while the roots tell that something differs.
        if (0..SHARDS).all(|shard| short(own[shard]) == theirs[shard]) {
            differing = ShardSet::all();
        }
        let (mut twice, mut is_quiet) = (ShardSet::default(), false);
        if let Some(seen) = &self.seen {
            twice = differing.and(&seen.differing);
            is_quiet = twice.iter().any(|shard| seen.own[shard] == own[shard]);
        }
        self.suspect = twice.len();
        self.seen = Some(Box::new(LastComparison { own: *own, theirs, differing }));
        if twice == ShardSet::default() {
            return CompareVerdict::Wait;
        }
        if is_quiet || self.is_whole_next {
            return CompareVerdict::Reconcile(SessionPlan::Whole);
        }
        if now.mono_us < self.busy_until_us {
            return CompareVerdict::Wait;
        }
        self.busy_sessions = self.busy_sessions.wrapping_add(1);
        let is_whole = self.busy_sessions.is_multiple_of(WHOLE_EVERY);
        CompareVerdict::Reconcile(if is_whole { SessionPlan::Whole } else { SessionPlan::Settled(twice) })
    }

    /// Learns from the end of a session that was begun after a comparison.
    pub fn learn(&mut self, now: Now, report: &SessionReport) {
        self.suspect = 0;
        self.is_whole_next = !report.is_whole && report.found > 0;
        if self.is_whole_next {
            return;
        }
        self.busy_until_us = now.mono_us.saturating_add(self.busy_us);
        self.busy_us = (self.busy_us * 2).min(BUSY_US_MAX);
        let Some(seen) = self.seen.take() else { return };
        // A session in which one side left something out proves nothing.
        if !(report.has_shown && report.has_seen) {
            return;
        }
        let mut proved = report.equal;
        if report.found > 0 {
            let tried = self.tried.get_or_insert_with(|| Box::new([(0, 0); SHARDS]));
            for shard in seen.differing.iter() {
                let pair = (seen.own[shard], seen.theirs[shard]);
                if std::mem::replace(&mut tried[shard], pair) == pair {
                    proved.insert(shard);
                }
            }
        }
        if proved == ShardSet::default() {
            return;
        }
        if self.harmless.is_none() {
            self.harmless_until_us = now.mono_us.saturating_add(HARMLESS_US_MAX);
        }
        let harmless = self.harmless.get_or_insert_with(|| Box::new([(0, 0); SHARDS]));
        for shard in proved.iter() {
            harmless[shard] = (seen.own[shard], seen.theirs[shard]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::NodeName;

    const NOW: Now = Now { mono_us: 1_000_000, wall_us: 0 };

    fn report(is_whole: bool, found: u64, equal: ShardSet) -> SessionReport {
        SessionReport {
            peer: NodeName::parse("peer").expect("name"),
            peer_has_shown: is_whole,
            peer_is_reconciled: true,
            is_whole,
            found,
            equal,
            has_shown: is_whole,
            has_seen: is_whole,
            heads: Default::default(),
        }
    }

    fn ask(
        comparison: &mut Comparison,
        now: Now,
        own: &[u64; SHARDS],
        theirs: &[u64; SHARDS],
    ) -> CompareVerdict {
        let asked = Compare { root: root_of(own), ..Default::default() };
        comparison.judge(now, own, asked.root, &answer(theirs, &asked))
    }

    fn one(shard: usize) -> ShardSet {
        let mut set = ShardSet::default();
        set.insert(shard);
        set
    }

    #[test]
    fn a_lasting_difference_is_reconciled_at_the_second_look() {
        let (own, mut theirs) = ([7; SHARDS], [7; SHARDS]);
        let mut comparison = Comparison::new();
        assert_eq!(ask(&mut comparison, NOW, &own, &theirs), CompareVerdict::Equal);
        theirs[9] = 8;
        assert_eq!(ask(&mut comparison, NOW, &own, &theirs), CompareVerdict::Wait);
        assert_eq!(ask(&mut comparison, NOW, &own, &theirs), CompareVerdict::Reconcile(SessionPlan::Whole));
        assert_eq!(comparison.suspect(), 1);
        theirs[9] = 7;
        assert_eq!(ask(&mut comparison, NOW, &own, &theirs), CompareVerdict::Equal);
        assert_eq!(comparison.suspect(), 0);
    }

    #[test]
    fn records_on_their_way_cause_few_sessions() {
        let mut comparison = Comparison::new();
        let (mut now, mut sessions) = (NOW, 0);
        for second in 0..120u64 {
            now = now.plus_us(1_000_000);
            let own = std::array::from_fn(|shard| shard as u64 + second * 1000);
            let theirs = own.map(|print| print + 500);
            if let CompareVerdict::Reconcile(plan) = ask(&mut comparison, now, &own, &theirs) {
                sessions += 1;
                let equal = ShardSet::all();
                comparison.learn(now, &report(plan == SessionPlan::Whole, 0, equal));
            }
        }
        assert!((4..10).contains(&sessions), "{sessions} sessions in two minutes");
    }

    #[test]
    fn what_a_busy_session_finds_leads_to_a_whole_one() {
        let mut comparison = Comparison::new();
        let busy = |round: u64| std::array::from_fn(|_| round);
        ask(&mut comparison, NOW, &busy(1), &busy(2));
        assert!(matches!(
            ask(&mut comparison, NOW, &busy(3), &busy(4)),
            CompareVerdict::Reconcile(SessionPlan::Settled(shards)) if shards == ShardSet::all()
        ));
        comparison.learn(NOW, &report(false, 1, ShardSet::default()));
        assert_eq!(
            ask(&mut comparison, NOW, &busy(5), &busy(6)),
            CompareVerdict::Reconcile(SessionPlan::Whole)
        );
    }

    #[test]
    fn a_harmless_difference_is_looked_into_once() {
        let (own, mut theirs) = ([7; SHARDS], [7; SHARDS]);
        theirs[9] = 8;
        let mut comparison = Comparison::new();
        ask(&mut comparison, NOW, &own, &theirs);
        assert_eq!(ask(&mut comparison, NOW, &own, &theirs), CompareVerdict::Reconcile(SessionPlan::Whole));
        comparison.learn(NOW, &report(true, 0, one(9)));
        for _ in 0..5 {
            assert_eq!(ask(&mut comparison, NOW, &own, &theirs), CompareVerdict::Wait);
        }
        theirs[9] = 10;
        assert_eq!(ask(&mut comparison, NOW, &own, &theirs), CompareVerdict::Wait);
        assert_eq!(ask(&mut comparison, NOW, &own, &theirs), CompareVerdict::Reconcile(SessionPlan::Whole));
    }

    /// One side holds a record that the other refuses, and the other one an older record of that source.
    #[test]
    fn a_difference_that_sessions_do_not_change_is_harmless() {
        let (own, mut theirs) = ([7; SHARDS], [7; SHARDS]);
        theirs[9] = 8;
        let mut comparison = Comparison::new();
        for _ in 0..2 {
            ask(&mut comparison, NOW, &own, &theirs);
            let verdict = ask(&mut comparison, NOW, &own, &theirs);
            assert_eq!(verdict, CompareVerdict::Reconcile(SessionPlan::Whole));
            comparison.learn(NOW, &report(true, 1, ShardSet::default()));
        }
        for _ in 0..5 {
            assert_eq!(ask(&mut comparison, NOW, &own, &theirs), CompareVerdict::Wait);
        }
        // An hour later it may be different.
        let later = NOW.plus_us(HARMLESS_US_MAX);
        assert_eq!(ask(&mut comparison, later, &own, &theirs), CompareVerdict::Wait);
        assert_eq!(ask(&mut comparison, later, &own, &theirs), CompareVerdict::Reconcile(SessionPlan::Whole));
    }

    /// An answer with fewer bytes than promised, more, or none is ignored without a panic.
    #[test]
    fn answers_of_the_wrong_length() {
        let mut comparison = Comparison::new();
        for length in [0usize, 1, 3, 1023, 1025, 2048] {
            let answer = Compare { root: 1, shards: vec![1; length].into(), ..Default::default() };
            let _ = comparison.judge(NOW, &[7; SHARDS], 2, &answer);
        }
    }
}
