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
    done: Receiver<Numbered>,
}

/// So many threads, this one among them, up to [`THREADS_MAX`]; `None` if that is one alone.
pub fn threads(count: usize) -> Option<Box<dyn Hands>> {
    let count = count.min(THREADS_MAX);
    if count < 2 {
        return None;
    }
    let (to_do, (told, done)) = (unbounded(), unbounded());
    for _ in 1..count {
        let (to_do, told) = (to_do.1.clone(), told.clone());
        thread::spawn(move || help(&to_do, &told));
    }
    Some(Box::new(Threads { count, to_do, done }))
}

fn help(to_do: &Receiver<Numbered>, told: &Sender<Numbered>) {
    while let Ok((at, mut share)) = next(to_do) {
        share.work();
        if told.send((at, share)).is_err() {
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
            // What ends a thread is a panic, which it has told: there is no world to go on with.
            let (at, share) = next(&self.done).expect("threads that work on the world");
            done[at] = share;
        }
        done
    }
}

fn next(from: &Receiver<Numbered>) -> Result<Numbered, RecvError> {
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
