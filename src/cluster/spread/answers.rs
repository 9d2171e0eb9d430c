//! Answers to the parts that a peer sent, which are kept until they were sent in receipts.
//!
//! Every receipt says which numbers were taken, of all parts so far. Besides that it answers single parts:
//! "send it", "its body is being pulled", "that member is not known here", "these members hold it". A receipt
//! has room for a few answers of each kind; the others wait for the next one.

use std::collections::VecDeque;

use super::seqs::SeqSet;
use super::tally::Tally;
use super::wire::{Receipt, Unserved, life_tag};

/// A receipt is sent at once if the last one is older than this, in microseconds; else it waits that long for
/// others to be sent together.
pub(super) const RECEIPT_DELAY_US: u64 = 1_000;
/// The receipt for a part that was passed on is sent twice, this long apart, in microseconds: if it were
/// lost, a whole subtree might get its data again. Few parts are passed on, so this costs little.
const REPEAT_US: u64 = 500;
/// Most answers of one kind that wait for receipts, except tallies.
const WAITING_MAX: usize = 64;
/// Most tallies that wait for receipts. The peer asks again for those that are dropped.
const TALLIES_WAITING_MAX: usize = 1_024;
/// Number of receipts that contain the same tally. Only the first of them is sent for the sake of the tally.
const TALLY_TELLINGS: u8 = 2;

/// Most ranges of taken numbers in one receipt: the latest ones.
const RUNS_MAX: usize = 48;
/// Most parts that one receipt reports as being pulled.
const PULLING_MAX: usize = 16;
/// Most parts that one receipt asks for.
const WANTED_MAX: usize = 16;
/// Most unknown members that one receipt reports.
const UNSERVED_MAX: usize = 12;
/// Most tallies in one receipt.
const TALLIES_MAX: usize = 8;
/// Most bytes of a tally: tag and length, and three fields with their tags.
const TALLY_BYTES: usize = 2 + 11 + 6 + 9;
/// Most bytes of a receipt: the rest of the packet is for parts.
const RECEIPT_BYTES_MAX: usize = 600;

const _: () = assert!(RUNS_MAX * 6 + TALLIES_MAX * TALLY_BYTES + 64 < RECEIPT_BYTES_MAX);

/// A tally that is to be sent to the peer.
#[derive(Clone, Copy, Debug)]
struct TallyAnswer {
    /// The part's number on the link.
    number: u64,
    tally: Tally,
    /// Number of further receipts that are to contain the tally.
    tellings: u8,
}

/// The answers for one peer. Times are on the monotonic clock, in microseconds.
#[derive(Debug, Default)]
pub(super) struct Answers {
    /// Numbers of the peer's parts that need not come again.
    taken: SeqSet,
    /// Latest time at which a receipt must be sent; 0: none is due.
    due_us: u64,
    /// Whether the next receipt is followed by another one, because it acknowledges a part that this node
    /// passed on.
    is_repeated: bool,
    /// Time at which the last receipt was sent.
    sent_us: u64,
    /// Numbers of parts that the peer asked about and that this node does not hold.
    wanted: Vec<u64>,
    /// Parts whose bodies are being pulled.
    pulling: VecDeque<u64>,
    /// Parts of two members of which this node does not know one.
    unserved: VecDeque<Unserved>,
    /// Tallies of the peer's parts that are complete.
    tallies: VecDeque<TallyAnswer>,
}

impl Answers {
    /// Returns whether there is nothing to put into a receipt.
    pub fn is_idle(&self) -> bool {
        self.due_us == 0
    }

    /// Latest time at which a receipt must be sent, in microseconds; `None`: there is nothing to put into
    /// one.
    pub fn due_us(&self) -> Option<u64> {
        (self.due_us != 0).then_some(self.due_us)
    }

    /// Returns whether the part of this number need not come again.
    pub fn has_taken(&self, number: u64) -> bool {
        self.taken.contains(number)
    }

    /// Notes that the part of this number need not come again.
    pub fn take(&mut self, number: u64) {
        self.taken.insert(number, number);
    }

    /// Notes that the peer will not send parts with numbers below `floor` any more.
    pub fn raise_floor(&mut self, floor: u64) {
        self.taken.raise(floor.saturating_sub(1));
        self.unserved.retain(|answer| answer.number >= floor);
    }

    /// Forgets everything, because the peer restarted: its parts are numbered anew, and nothing is owed to
    /// its earlier life.
    pub fn forget(&mut self) {
        self.taken = SeqSet::default();
        self.wanted.clear();
        self.pulling.clear();
        self.unserved.clear();
        self.tallies.clear();
    }

    /// Asks the peer to send the part of this number, because the peer only asked whether this node has it.
    pub fn want(&mut self, number: u64) {
        if self.wanted.len() < WAITING_MAX && !self.wanted.contains(&number) {
            self.wanted.push(number);
        }
    }

    /// Reports that the body that the part of this number announced is being pulled.
    pub fn pull(&mut self, number: u64) {
        if self.pulling.len() < WAITING_MAX && !self.pulling.contains(&number) {
            self.pulling.push_back(number);
        }
    }

    /// Reports that the member at the place `member`, which the part of this number is also for, is not known
    /// here.
    pub fn miss_member(&mut self, number: u64, member: u64) {
        let unserved = Unserved { number, member };
        if self.unserved.len() < WAITING_MAX && !self.unserved.contains(&unserved) {
            self.unserved.push_back(unserved);
        }
    }

    /// Reports the tally of the range that came with the part of this number.
    pub fn report(&mut self, number: u64, tally: Tally) {
        self.tallies.retain(|known| known.number != number);
        if self.tallies.len() < TALLIES_WAITING_MAX {
            self.tallies.push_back(TallyAnswer { number, tally, tellings: TALLY_TELLINGS });
        }
    }

    /// Requests that the next receipt is followed by another one.
    pub fn repeat(&mut self) {
        self.is_repeated = true;
    }

    /// Makes a receipt due soon; returns when, in microseconds. `None`: one was due already.
    pub fn schedule(&mut self, now_us: u64) -> Option<u64> {
        if self.due_us != 0 {
            return None;
        }
        self.due_us = (self.sent_us + RECEIPT_DELAY_US).max(now_us).max(1);
        Some(self.due_us)
    }

    /// The receipt for the life `boot` of the peer, if there is anything to put into it.
    pub fn receipt(&self, boot: u64) -> Option<Receipt> {
        if self.is_idle() {
            return None;
        }
        let islands = self.taken.islands();
        let latest = islands.get(islands.len().saturating_sub(RUNS_MAX)..).unwrap_or_default();
        let tallies = self.tallies.iter().take(TALLIES_MAX);
        Some(Receipt {
            life: life_tag(boot),
            below: self.taken.head().saturating_add(1),
            ranges: latest.to_vec(),
            wanted: self.wanted.iter().copied().take(WANTED_MAX).collect(),
            unserved: self.unserved.iter().copied().take(UNSERVED_MAX).collect(),
            pulling: self.pulling.iter().copied().take(PULLING_MAX).collect(),
            tallies: tallies.map(|answer| (answer.number, answer.tally)).collect(),
        })
    }

    /// Notes that the receipt was sent. Returns when the next one is due, in microseconds, if there is more
    /// to send.
    pub fn handle_sent(&mut self, now_us: u64) -> Option<u64> {
        self.due_us = 0;
        self.sent_us = now_us;
        self.wanted.drain(..self.wanted.len().min(WANTED_MAX));
        self.pulling.drain(..self.pulling.len().min(PULLING_MAX));
        let has_untold = self.tell_tallies();
        if std::mem::take(&mut self.is_repeated) || has_untold {
            self.due_us = now_us + REPEAT_US;
        } else if !self.pulling.is_empty() || !self.wanted.is_empty() {
            self.due_us = now_us;
        }
        self.due_us()
    }

    /// Counts that the tallies of a receipt were sent once more. Returns whether there are tallies that were
    /// never sent.
    fn tell_tallies(&mut self) -> bool {
        for _ in 0..TALLIES_MAX.min(self.tallies.len()) {
            if let Some(answer) = self.tallies.pop_front()
                && answer.tellings > 1
            {
                self.tallies.push_back(TallyAnswer { tellings: answer.tellings - 1, ..answer });
            }
        }
        self.tallies.front().is_some_and(|first| first.tellings == TALLY_TELLINGS)
    }

    /// Reads the memory of this value, so that it is in the processor's cache.
    pub fn warm(&self) -> u64 {
        let lens = [self.wanted.len(), self.pulling.len(), self.unserved.len(), self.tallies.len()];
        let lens = lens.into_iter().fold(self.taken.islands().len(), |sum, len| sum ^ len);
        self.due_us ^ self.taken.head() ^ lens as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_in_a_receipt_stands_in_the_next() {
        let mut answers = Answers::default();
        assert!(answers.receipt(1).is_none());
        (1..=20).for_each(|number| answers.pull(number));
        assert_eq!(answers.schedule(5_000), Some(5_000));
        assert_eq!(answers.schedule(5_000), None, "it is due already");
        let first = answers.receipt(1).expect("a receipt");
        assert_eq!(first.pulling, Vec::from_iter(1..=PULLING_MAX as u64));
        assert_eq!(answers.handle_sent(5_000), Some(5_000));
        let second = answers.receipt(1).expect("a receipt");
        assert_eq!(second.pulling, [17, 18, 19, 20]);
        assert_eq!(answers.handle_sent(5_100), None);
        assert_eq!(answers.schedule(5_200), Some(5_100 + RECEIPT_DELAY_US), "receipts are a while apart");
    }

    #[test]
    fn a_tally_is_told_twice_and_sent_once_for_its_own_sake() {
        let mut answers = Answers::default();
        (1..=TALLIES_MAX as u64 + 1).for_each(|number| answers.report(number, Tally::of(number)));
        answers.schedule(0);
        let mut told = Vec::new();
        let mut now_us = 0;
        loop {
            told.extend(answers.receipt(1).into_iter().flat_map(|it| it.tallies).map(|it| it.0));
            now_us += REPEAT_US;
            if answers.handle_sent(now_us).is_none() && answers.schedule(now_us).is_none() {
                break;
            }
            if told.len() >= 2 * (TALLIES_MAX + 1) {
                break;
            }
        }
        told.sort_unstable();
        let twice: Vec<u64> = (1..=TALLIES_MAX as u64 + 1).flat_map(|number| [number, number]).collect();
        assert_eq!(told, twice);
    }
}
