//! Threads that work on one world side by side.
//!
//! They have work a thousand times a second and more, for a tenth of a millisecond each: so they look for it again
//! and again, and fall asleep only when there is none for long.

use std::hint::spin_loop;
use std::thread;

use crossbeam_channel::{Receiver, RecvError, Sender, TryRecvError, unbounded};

use crate::sim::{Hands, Share};

/// Looks before a thread falls asleep: about a millisecond.
const LOOKS: usize = 20_000;
/// Threads of one world at most: there is not more to do at a time.
const THREADS_MAX: usize = 4;
/// Shares for each thread: who is done sooner takes more of them.
const SHARES_EACH: usize = 4;

/// A share, and which one it is.
type Numbered = (usize, Share);

/// This thread and some others.
struct Threads {
    count: usize,
    to_do: (Sender<Numbered>, Receiver<Numbered>),
    /// `None`: a thread has ended, with what it was working on.
    done: Receiver<Option<Numbered>>,
}

/// Tells that a thread ends, whatever ends it.
struct Teller(Sender<Option<Numbered>>);

impl Drop for Teller {
    fn drop(&mut self) {
        // Who would have listened may be gone before it.
        let _ = self.0.send(None);
    }
}

/// So many threads, this one among them, up to [`THREADS_MAX`]; `None` if that is one alone.
pub fn threads(count: usize) -> Option<Box<dyn Hands>> {
    let count = count.min(THREADS_MAX);
    if count < 2 {
        return None;
    }
    let (to_do, (told, done)) = (unbounded(), unbounded());
    for _ in 1..count {
        let (to_do, told) = (to_do.1.clone(), Teller(told.clone()));
        thread::spawn(move || help(&to_do, &told));
    }
    Some(Box::new(Threads { count, to_do, done }))
}

fn help(to_do: &Receiver<Numbered>, told: &Teller) {
    while let Ok((at, mut share)) = next(to_do) {
        share.work();
        if told.0.send(Some((at, share))).is_err() {
            return;
        }
    }
}

impl Hands for Threads {
    fn count(&self) -> usize {
        self.count * SHARES_EACH
    }

    fn work(&mut self, shares: Vec<Share>) -> Vec<Share> {
        let mut done: Vec<Share> = Vec::with_capacity(shares.len());
        done.resize_with(shares.len(), Share::default);
        let mut left = shares.len();
        // Both ends of the one channel are here, and the others end with it.
        shares.into_iter().enumerate().for_each(|share| self.to_do.0.send(share).unwrap_or_default());
        while let Ok((at, mut share)) = self.to_do.1.try_recv() {
            share.work();
            done[at] = share;
            left -= 1;
        }
        for _ in 0..left {
            // What ends a thread before its time is a panic: there is no whole world to go on with.
            let (at, share) = next(&self.done).ok().flatten().expect("threads that work on the world");
            done[at] = share;
        }
        done
    }
}

fn next<T>(from: &Receiver<T>) -> Result<T, RecvError> {
    for _ in 0..LOOKS {
        match from.try_recv() {
            Ok(share) => return Ok(share),
            Err(TryRecvError::Disconnected) => return Err(RecvError),
            Err(TryRecvError::Empty) => spin_loop(),
        }
    }
    from.recv()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::World;
    use crate::sim::scenario::named::{Knobs, NAMES, scenario};
    use crate::sim::scenario::run_and_keep;

    /// With more than one other thread, the end of one left the world waiting for its share for ever: the others
    /// kept the channel open.
    #[test]
    fn a_thread_that_panics_is_told_while_others_live() {
        let (told, done) = unbounded();
        let other = Teller(told.clone());
        let ended = thread::spawn(move || {
            let _teller = Teller(told);
            panic!("as a node's might");
        });
        assert!(ended.join().is_err());
        assert!(matches!(next(&done), Ok(None)));
        drop(other);
    }

    #[test]
    fn several_threads_make_the_same_run() {
        for (name, _) in NAMES {
            let mut scenario = scenario(name, Some(40), Knobs::default()).expect("a name");
            scenario.publishing.records = 60;
            let digest = |hands| {
                let (outcome, world): (_, World) = run_and_keep(&scenario, 3, hands, &mut |_| {});
                assert_eq!(outcome.failure(), None, "{name}");
                (outcome.time_us, world.digest())
            };
            assert_eq!(digest(threads(3)), digest(None), "{name}");
        }
    }
}
