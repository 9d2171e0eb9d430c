//! How a worker waits: it may poll for events in a loop for a while (busy polling) before it sleeps.
//!
//! To be woken costs tens of microseconds where the processor is halted meanwhile, as virtual processors are.
//! At light load that is most of the time that a record takes, and all of its tail. So a worker may poll for
//! `--busy-poll-us` before it sleeps, as long as the events that it waits for nearly always come within that
//! time. An idle worker notices after a few waits that were too long, and then sleeps at once; waits that
//! turn out to be short make it poll again.

use std::io;
use std::time::Duration;

use mio::{Events, Poll};

use super::clock;
use super::mailbox::Mailbox;

/// Largest credit: two long waits in a row end busy polling, however many waits before them were short.
const CREDIT_MAX: u32 = 16;
/// Least credit at which a worker polls before it sleeps.
const CREDIT_ENOUGH: u32 = 8;

/// Decides from the length of past waits whether a worker polls before it sleeps.
#[derive(Debug)]
pub struct BusyPoll {
    /// Longest time of busy polling, in microseconds.
    most_us: u64,
    /// The credit grows by one with each wait that was short enough, and is halved by one that was not.
    credit: u32,
}

impl BusyPoll {
    /// For a worker that may poll for `most_us` microseconds before it sleeps; with 0 it never does.
    pub fn new(most_us: u64) -> BusyPoll {
        BusyPoll { most_us, credit: 0 }
    }

    /// Returns whether the worker may poll before it sleeps.
    pub fn is_on(&self) -> bool {
        self.most_us > 0
    }

    /// Waits for an event or for the mailbox, for at most `timeout_us` microseconds.
    pub fn wait(
        &mut self,
        poll: &mut Poll,
        events: &mut Events,
        mailbox: &Mailbox,
        timeout_us: u64,
    ) -> io::Result<()> {
        if self.most_us == 0 || timeout_us == 0 {
            return sleep(poll, events, mailbox, timeout_us);
        }
        let since_us = clock::mono_us();
        let has_come = self.look(poll, events, mailbox, timeout_us, since_us)?;
        let looked_us = clock::mono_us() - since_us;
        if !has_come {
            sleep(poll, events, mailbox, timeout_us.saturating_sub(looked_us))?;
        }
        self.note(clock::mono_us() - since_us);
        Ok(())
    }

    /// Polls for as long as it may. Returns whether something came, or the timeout has passed.
    fn look(
        &self,
        poll: &mut Poll,
        events: &mut Events,
        mailbox: &Mailbox,
        timeout_us: u64,
        since_us: u64,
    ) -> io::Result<bool> {
        if self.credit < CREDIT_ENOUGH {
            return Ok(false);
        }
        loop {
            poll.poll(events, Some(Duration::ZERO))?;
            let looked_us = clock::mono_us() - since_us;
            if !events.is_empty() || !mailbox.is_quiet() || looked_us >= timeout_us {
                return Ok(true);
            }
            if looked_us >= self.most_us {
                return Ok(false);
            }
            // Other threads that want this core go first.
            std::thread::yield_now();
        }
    }

    /// Adjusts the credit after a wait of `waited_us` microseconds.
    fn note(&mut self, waited_us: u64) {
        self.credit = match waited_us <= self.most_us {
            true => (self.credit + 1).min(CREDIT_MAX),
            false => self.credit / 2,
        };
    }
}

/// Blocks until an event, a wake of the mailbox, or the timeout.
fn sleep(poll: &mut Poll, events: &mut Events, mailbox: &Mailbox, timeout_us: u64) -> io::Result<()> {
    let timeout_us = if timeout_us > 0 && mailbox.fall_asleep() { timeout_us } else { 0 };
    poll.poll(events, Some(Duration::from_micros(timeout_us)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_worker_stops_looking_and_a_busy_one_begins() {
        let mut busy = BusyPoll::new(100);
        let looks = |busy: &BusyPoll| busy.credit >= CREDIT_ENOUGH;
        (0..CREDIT_ENOUGH).for_each(|_| busy.note(90));
        assert!(looks(&busy));
        (0..100).for_each(|_| busy.note(90));
        (0..2).for_each(|_| busy.note(5_000));
        assert!(!looks(&busy), "two vain waits after any number of good ones");
    }

    #[test]
    fn what_comes_while_it_looks_is_seen_without_a_wake() {
        let mut poll = Poll::new().expect("poll");
        let waker = mio::Waker::new(poll.registry(), mio::Token(0)).expect("waker");
        let mailbox = Mailbox::new(waker);
        let mut events = Events::with_capacity(8);
        let mut busy = BusyPoll { most_us: 10_000_000, credit: CREDIT_MAX };
        mailbox.wake();
        busy.wait(&mut poll, &mut events, &mailbox, 10_000_000).expect("poll");
        assert!(events.is_empty() && !mailbox.is_quiet(), "told by memory alone");
        mailbox.wake_up();
        let since_us = clock::mono_us();
        busy.wait(&mut poll, &mut events, &mailbox, 2_000).expect("poll");
        assert!(clock::mono_us() - since_us >= 2_000, "a timer that is due ends it, and nothing before");
    }
}
