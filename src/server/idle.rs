//! How a worker waits: by looking again and again for a while, where that has paid off, before it sleeps.
//!
//! To be woken costs tens of microseconds where the processor is halted meanwhile, as virtual ones are: at light
//! load most of what a record takes, and all of its tail. So a worker may look for `--busy-poll-us` before it
//! sleeps, as long as what it waits for nearly always comes within that time. An idle one finds out after a few
//! vain looks and sleeps at once; now and then events that come in time bring it back.

use std::io;
use std::time::Duration;

use mio::{Events, Poll};

use super::clock;
use super::mailbox::Mailbox;

/// In so many waits the last word is spoken of whether looking pays.
const CREDIT_MAX: u32 = 16;
/// From here on it does.
const CREDIT_ENOUGH: u32 = 8;

/// What is known of how long waits take.
#[derive(Debug)]
pub struct BusyPoll {
    most_us: u64,
    /// Up by one with each wait that was short enough, halved by one that was not.
    credit: u32,
}

impl BusyPoll {
    /// Looks for so long at most, in microseconds; 0: never.
    pub fn new(most_us: u64) -> BusyPoll {
        BusyPoll { most_us, credit: 0 }
    }

    /// Waits for an event or the mailbox, `timeout_us` at most.
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
        let since_us = clock::now().mono_us;
        let has_come = self.look(poll, events, mailbox, timeout_us, since_us)?;
        let looked_us = clock::now().mono_us - since_us;
        if !has_come {
            sleep(poll, events, mailbox, timeout_us.saturating_sub(looked_us))?;
        }
        self.note(clock::now().mono_us - since_us);
        Ok(())
    }

    /// Looks as long as it may; whether something came, or is due.
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
            let looked_us = clock::now().mono_us - since_us;
            if !events.is_empty() || !mailbox.is_quiet() || looked_us >= timeout_us {
                return Ok(true);
            }
            if looked_us >= self.most_us {
                return Ok(false);
            }
            // Whoever else wants this core goes first.
            std::thread::yield_now();
        }
    }

    fn note(&mut self, waited_us: u64) {
        self.credit = match waited_us <= self.most_us {
            true => (self.credit + 1).min(CREDIT_MAX),
            false => self.credit / 2,
        };
    }
}

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
        let since_us = clock::now().mono_us;
        busy.wait(&mut poll, &mut events, &mailbox, 2_000).expect("poll");
        assert!(clock::now().mono_us - since_us >= 2_000, "a timer that is due ends it, and nothing before");
    }
}
