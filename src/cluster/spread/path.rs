//! Finds out how large the datagrams may be that the path to a peer carries.
//!
//! Every path carries [`DATAGRAM_BYTES_MAX`]. Loopback and networks with large frames carry several times as much,
//! and one datagram with forty records costs both ends hardly more than one with six. So a link over which much is
//! sent is tried out: a probe is a datagram of the size in question that contains padding and a number, and the
//! peer answers with that number. Until the answer has come, no record depends on the larger size.
//!
//! A path may carry less later, when the network changes. If large datagrams are not acknowledged, the link is checked: a
//! probe of the size that every path carries, and right behind it one of the size in use. If the peer answers the
//! first and not the second, the link goes back to the small size, and is tried out again after a pause. A peer that
//! is short of processor time answers both late, and one that is dead answers neither. Rejected: to ask the kernel for
//! the size of the path, since it only knows what routers tell it, and many do not; and to conclude it from the time
//! for which nothing was acknowledged, which is as long where processors are short.

use crate::limits::{DATAGRAM_BYTES_CEILING, DATAGRAM_BYTES_MAX};

/// The sizes that are tried, in bytes without IP and UDP headers: what every path carries, what an Ethernet
/// carries inside of a tunnel, and what a network with large frames carries.
pub(super) const PATH_BYTES: [usize; 3] = [DATAGRAM_BYTES_MAX, 1_400, DATAGRAM_BYTES_CEILING];
/// A link is tried out when this many bytes were sent over it since it was last: the probes add less than a tenth.
const SEARCH_AFTER_BYTES: usize = 256 * 1024;
/// Number of probes of one size that may be lost before a smaller size is tried.
const TRIES_PER_SIZE: u8 = 2;
/// A probe counts as lost if no answer came for this long, in microseconds.
const PROBE_US: u64 = 500_000;
/// First and longest pause before a link is tried out again, in microseconds. Each pause is twice as long as the one
/// before.
const PAUSE_US: u64 = 2_000_000;
const PAUSE_US_MAX: u64 = 600_000_000;
/// A link is checked if no large datagram was acknowledged for this long since the first that timed out, in microseconds.
const SUSPECT_US: u64 = 20_000;
/// The large probe of a check is lost if its answer is missing for this long after that to the small one, in
/// microseconds.
const LOST_US: u64 = 50_000;
/// A check to which nothing was answered is repeated after this long, in microseconds.
const CHECK_US: u64 = 1_000_000;

const _: () = assert!(PATH_BYTES[0] < PATH_BYTES[1] && PATH_BYTES[1] < PATH_BYTES[2]);

/// How far the search for the size that a path carries has come.
#[derive(Clone, Copy, Debug)]
enum Search {
    /// No size is being tried.
    Idle,
    /// A probe is to be sent.
    Due(Attempt),
    /// A probe with this number was sent at this time, in microseconds.
    Sent { attempt: Attempt, number: u64, sent_us: u64 },
    /// It is checked whether the path still carries the size in use.
    Check(Check),
}

/// A check of the size in use.
#[derive(Clone, Copy, Debug, Default)]
struct Check {
    /// Number of the small probe; `None`: it is to be sent.
    small: Option<u64>,
    /// Number of the large probe, and when it was sent, in microseconds; `None`: it is to be sent.
    large: Option<(u64, u64)>,
    /// Time of the answer to the small probe, in microseconds.
    answered_us: Option<u64>,
}

/// The conclusion from a large datagram that was not acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PathFate {
    /// It may have been lost like any other.
    Unknown,
    /// The path is to be checked: a probe is to be sent.
    Checked,
    /// The path carries less than before.
    Shrunk,
}

/// The size that is being tried, as an index of [`PATH_BYTES`], and the number of probes of it that were lost.
#[derive(Clone, Copy, Debug)]
struct Attempt {
    step: u8,
    lost: u8,
}

/// The size of the datagrams that the path to one peer is known to carry.
#[derive(Debug)]
pub(super) struct PathSize {
    /// The size, as an index of [`PATH_BYTES`].
    step: u8,
    search: Search,
    /// Bytes that were sent since the link was last tried out.
    sent_bytes: usize,
    /// No search begins before this time, in microseconds.
    again_us: u64,
    /// The next pause between two searches, in microseconds.
    pause_us: u64,
    /// Time of the first large datagram that timed out since one was acknowledged, in microseconds; 0: there is none.
    lost_us: u64,
}

impl Default for PathSize {
    fn default() -> PathSize {
        PathSize { step: 0, search: Search::Idle, sent_bytes: 0, again_us: 0, pause_us: PAUSE_US, lost_us: 0 }
    }
}

impl PathSize {
    /// The size that the path carries, as an index of [`PATH_BYTES`].
    pub fn step(&self) -> usize {
        usize::from(self.step)
    }

    /// Bytes by which the datagrams of the link may be larger than those that every path carries.
    pub fn extra_bytes(&self) -> usize {
        extra_bytes(self.step)
    }

    /// Notes that a datagram with records of this size was sent. Returns whether a probe is to be sent.
    pub fn note_sent(&mut self, now_us: u64, bytes: usize) -> bool {
        match self.search {
            Search::Due(_) | Search::Check(_) => {}
            Search::Sent { attempt, sent_us, .. } if now_us >= sent_us + PROBE_US => {
                self.search = match attempt.after_loss(self.step) {
                    Some(next) => Search::Due(next),
                    None => self.rest(now_us),
                };
            }
            Search::Sent { .. } => {}
            Search::Idle if self.step() + 1 < PATH_BYTES.len() && now_us >= self.again_us => {
                self.sent_bytes += bytes;
                if self.sent_bytes >= SEARCH_AFTER_BYTES {
                    self.sent_bytes = 0;
                    self.search = Search::Due(Attempt { step: PATH_BYTES.len() as u8 - 1, lost: 0 });
                }
            }
            Search::Idle => {}
        }
        self.is_probe_due()
    }

    /// Takes the probe that is to be sent now with this number; returns by how many bytes it is larger than the
    /// datagrams that every path carries.
    pub fn take_probe(&mut self, now_us: u64, number: u64) -> Option<usize> {
        match &mut self.search {
            Search::Due(attempt) => {
                let attempt = *attempt;
                self.search = Search::Sent { attempt, number, sent_us: now_us };
                Some(extra_bytes(attempt.step))
            }
            Search::Check(check) if check.small.is_none() => {
                check.small = Some(number);
                Some(0)
            }
            Search::Check(check) if check.large.is_none() => {
                check.large = Some((number, now_us));
                Some(extra_bytes(self.step))
            }
            _ => None,
        }
    }

    /// Returns whether a probe is to be sent.
    pub fn is_probe_due(&self) -> bool {
        match self.search {
            Search::Due(_) => true,
            Search::Check(check) => check.large.is_none(),
            Search::Idle | Search::Sent { .. } => false,
        }
    }

    /// Takes the peer's answer that it got the probe of this number. Other numbers are ignored: they are of an
    /// earlier probe, or made up.
    pub fn handle_carried(&mut self, now_us: u64, number: u64) {
        match &mut self.search {
            Search::Sent { attempt, number: expected, .. } if *expected == number => {
                (self.step, self.lost_us) = (attempt.step, 0);
                self.search = self.rest(now_us);
            }
            Search::Check(check) if check.large.is_some_and(|(large, _)| large == number) => {
                self.handle_receipt()
            }
            Search::Check(check) if check.small == Some(number) => {
                check.answered_us.get_or_insert(now_us);
            }
            _ => {}
        }
    }

    /// Notes that a datagram that is larger than every path carries was acknowledged.
    pub fn handle_receipt(&mut self) {
        self.lost_us = 0;
        if matches!(self.search, Search::Check(_)) {
            self.search = Search::Idle;
        }
    }

    /// Notes that a datagram that is larger than every path carries was not acknowledged in time.
    pub fn handle_loss(&mut self, now_us: u64) -> PathFate {
        if self.step == 0 {
            return PathFate::Unknown;
        }
        if let Search::Check(Check { large, answered_us, .. }) = self.search {
            let is_over = |since_us: u64, us: u64| now_us >= since_us + us;
            if answered_us.is_some_and(|answered_us| is_over(answered_us, LOST_US)) {
                (self.step, self.lost_us) = (0, 0);
                self.search = self.rest(now_us);
                return PathFate::Shrunk;
            }
            let is_unanswered =
                answered_us.is_none() && large.is_some_and(|(_, sent_us)| is_over(sent_us, CHECK_US));
            return if is_unanswered { self.check() } else { PathFate::Unknown };
        }
        if self.lost_us == 0 {
            self.lost_us = now_us.max(1);
        }
        if now_us >= self.lost_us + SUSPECT_US { self.check() } else { PathFate::Unknown }
    }

    /// Begins a check.
    fn check(&mut self) -> PathFate {
        self.search = Search::Check(Check::default());
        PathFate::Checked
    }

    /// Forgets what is known of the path: the peer has restarted, perhaps elsewhere.
    pub fn restart(&mut self) {
        *self = PathSize { step: self.step, ..PathSize::default() };
    }

    /// Ends a search, and lets the next one wait.
    fn rest(&mut self, now_us: u64) -> Search {
        self.again_us = now_us + self.pause_us;
        self.pause_us = (2 * self.pause_us).min(PAUSE_US_MAX);
        self.sent_bytes = 0;
        Search::Idle
    }
}

impl Attempt {
    /// What is to be tried after a probe was lost, where `step` is known to be carried.
    fn after_loss(self, step: u8) -> Option<Attempt> {
        if self.lost + 1 < TRIES_PER_SIZE {
            return Some(Attempt { lost: self.lost + 1, ..self });
        }
        let smaller = self.step - 1;
        (smaller > step).then_some(Attempt { step: smaller, lost: 0 })
    }
}

/// Bytes by which datagrams of this index of [`PATH_BYTES`] are larger than those of the first.
fn extra_bytes(step: u8) -> usize {
    PATH_BYTES.get(usize::from(step)).map_or(0, |bytes| bytes - DATAGRAM_BYTES_MAX)
}

/// Which sizes of datagrams the paths carry over which this node hands out its own records, weighed by bytes. A batch
/// is made for several peers at once, so its size follows what most of them can take; for the others it is cut
/// into fragments.
#[derive(Debug, Default)]
pub(super) struct PathUse {
    bytes: [usize; PATH_BYTES.len()],
}

impl PathUse {
    /// Bytes after which older ones count half.
    const MEMORY_BYTES: usize = 1024 * 1024;

    /// Notes that bytes of this node's own records were sent over a path that carries `PATH_BYTES[step]`.
    pub fn note(&mut self, step: usize, bytes: usize) {
        if let Some(sum) = self.bytes.get_mut(step) {
            *sum += bytes;
        }
        if self.bytes.iter().sum::<usize>() > PathUse::MEMORY_BYTES {
            self.bytes.iter_mut().for_each(|sum| *sum /= 2);
        }
    }

    /// The largest size of a datagram, in bytes, that the paths of at least three quarters of the bytes carry.
    pub fn usual_bytes(&self) -> usize {
        let total: usize = self.bytes.iter().sum();
        let mut carried = 0;
        for (bytes, size) in self.bytes.iter().zip(PATH_BYTES).rev() {
            carried += bytes;
            if carried > 0 && 4 * carried >= 3 * total {
                return size;
            }
        }
        DATAGRAM_BYTES_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000;

    /// Sends until a probe is due, and takes it.
    fn probe(path: &mut PathSize, now_us: u64, number: u64) -> Option<usize> {
        (0..SEARCH_AFTER_BYTES / 1_000 + 1).find(|_| path.note_sent(now_us, 1_000))?;
        path.take_probe(now_us, number)
    }

    #[test]
    fn the_largest_size_that_is_answered_is_used() {
        let mut path = PathSize::default();
        assert_eq!(probe(&mut path, S, 1), Some(DATAGRAM_BYTES_CEILING - DATAGRAM_BYTES_MAX));
        path.handle_carried(S, 77);
        assert_eq!(path.extra_bytes(), 0, "a number that was never sent proves nothing");
        assert!(!path.note_sent(S + PROBE_US - 1, 1_000));
        assert!(path.note_sent(S + PROBE_US, 1_000), "the first probe may have been lost by chance");
        assert_eq!(path.take_probe(2 * S, 2), Some(DATAGRAM_BYTES_CEILING - DATAGRAM_BYTES_MAX));
        assert!(path.note_sent(3 * S, 1_000));
        assert_eq!(path.take_probe(3 * S, 3), Some(200));
        path.handle_carried(3 * S, 1);
        path.handle_carried(3 * S, 3);
        assert_eq!((path.step(), path.extra_bytes()), (1, 200));
        assert_eq!(probe(&mut path, 3 * S + PAUSE_US - 1, 4), None, "it pauses");
        assert!(probe(&mut path, 3 * S + PAUSE_US, 5).is_some_and(|extra| extra > 200));
        path.handle_carried(3 * S + PAUSE_US, 5);
        assert_eq!(path.step(), 2);
        assert_eq!(probe(&mut path, 1_000_000 * S, 6), None, "nothing larger is tried");
    }

    #[test]
    fn a_path_that_answers_no_probe_is_left_as_it_is() {
        let mut path = PathSize::default();
        let mut now_us = S;
        let mut probes = 0;
        for number in 0..5_000 {
            now_us += PROBE_US;
            path.note_sent(now_us, 100_000);
            probes += usize::from(path.take_probe(now_us, number).is_some());
        }
        assert_eq!(path.step(), 0);
        let seconds = (now_us / S) as usize;
        assert!(
            probes > 4
                && probes < 2 * TRIES_PER_SIZE as usize * (10 + seconds * S as usize / PAUSE_US_MAX as usize)
        );
    }

    /// A path of the largest size.
    fn large() -> PathSize {
        let mut path = PathSize::default();
        probe(&mut path, S, 1);
        path.handle_carried(S, 1);
        assert_eq!(path.step(), 2);
        path
    }

    /// Lets the path be checked, by probes with the numbers 10 and 11.
    fn check(path: &mut PathSize, now_us: u64) {
        assert_eq!(path.handle_loss(now_us), PathFate::Unknown);
        assert_eq!(path.handle_loss(now_us + SUSPECT_US - 1), PathFate::Unknown);
        assert_eq!(path.handle_loss(now_us + SUSPECT_US), PathFate::Checked);
        let large = DATAGRAM_BYTES_CEILING - DATAGRAM_BYTES_MAX;
        let probes = [10, 11, 12].map(|number| path.take_probe(now_us + SUSPECT_US, number));
        assert_eq!(probes, [Some(0), Some(large), None]);
    }

    #[test]
    fn a_path_that_carries_less_is_noticed() {
        let mut path = large();
        assert_eq!(path.handle_loss(S), PathFate::Unknown);
        path.handle_receipt();
        check(&mut path, 2 * S);
        assert_eq!(path.handle_loss(2 * S + LOST_US), PathFate::Unknown, "nothing is answered yet");
        path.handle_carried(3 * S, 10);
        assert_eq!(path.handle_loss(3 * S + LOST_US - 1), PathFate::Unknown);
        assert_eq!(path.handle_loss(3 * S + LOST_US), PathFate::Shrunk);
        assert_eq!((path.step(), path.handle_loss(9 * S)), (0, PathFate::Unknown));
        assert_eq!(probe(&mut path, 4 * S, 2), None, "it pauses");
        path.restart();
        assert!(probe(&mut path, 4 * S, 3).is_some());
    }

    /// Where nodes shared too few processors, receipts were so late that paths were given up that carried everything,
    /// and small datagrams made the processors scarcer still.
    #[test]
    fn a_peer_that_is_late_or_dead_does_not_change_the_path() {
        let mut path = large();
        check(&mut path, 2 * S);
        let loss = path.handle_loss(2 * S + SUSPECT_US + CHECK_US);
        assert_eq!(loss, PathFate::Checked, "nothing was answered");
        let probes = [20, 21].map(|number| path.take_probe(4 * S, number).is_some());
        assert_eq!(probes, [true, true]);
        path.handle_carried(5 * S, 20);
        path.handle_carried(5 * S + 1_000, 21);
        assert_eq!((path.handle_loss(5 * S + LOST_US), path.step()), (PathFate::Unknown, 2));
        path.handle_receipt();
        check(&mut path, 7 * S);
        path.handle_carried(8 * S, 10);
        path.handle_receipt();
        assert_eq!((path.handle_loss(9 * S), path.step()), (PathFate::Unknown, 2), "a late receipt came");
    }

    #[test]
    fn batches_follow_what_most_paths_carry() {
        let mut paths = PathUse::default();
        assert_eq!(paths.usual_bytes(), DATAGRAM_BYTES_MAX);
        paths.note(2, 700);
        paths.note(1, 100);
        paths.note(0, 200);
        assert_eq!(paths.usual_bytes(), PATH_BYTES[1]);
        (0..100).for_each(|_| paths.note(2, 50_000));
        assert_eq!(paths.usual_bytes(), PATH_BYTES[2]);
        (0..200).for_each(|_| paths.note(0, 50_000));
        assert_eq!(paths.usual_bytes(), PATH_BYTES[0]);
    }
}
