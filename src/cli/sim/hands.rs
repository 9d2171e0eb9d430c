//! Threads that work together on one simulated world.
//!
//! They are given work a thousand times a second or more, each time for about a tenth of a millisecond. So
//! they poll for work, and sleep only if there is none for long.

use std::hint::spin_loop;
use std::thread;

use crossbeam_channel::{Receiver, RecvError, Sender, TryRecvError, unbounded};

use crate::sim::{Hands, NodeShare};

/// How often a thread polls before it sleeps: about a millisecond.
const LOOKS: usize = 20_000;
/// Most threads that work on one world. There is not more work to do at the same time.
const THREADS_MAX: usize = 4;
/// Number of shares of work for each thread. A thread that finishes early takes more of them.
const SHARES_EACH: usize = 4;

/// A share of work and its position in the list of shares.
type Numbered = (usize, NodeShare);

/// The calling thread and the threads that help it.
struct Threads {
    count: usize,
    to_do: (Sender<Numbered>, Receiver<Numbered>),
    /// Finished shares. `None` means that a thread has ended and its share is lost.
    done: Receiver<Option<Numbered>>,
}

/// Sends `None` when its thread ends, even if it panics.
struct Teller(Sender<Option<Numbered>>);

impl Drop for Teller {
    fn drop(&mut self) {
        // The receiver may be gone already, and then nobody waits for the message.
        let _ = self.0.send(None);
    }
}

/// Starts threads, so that `count` of them work together including the caller, at most [`THREADS_MAX`].
/// Returns `None` if that is just the caller.
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

    fn work(&mut self, shares: Vec<NodeShare>) -> Vec<NodeShare> {
        let mut done: Vec<NodeShare> = Vec::with_capacity(shares.len());
        done.resize_with(shares.len(), NodeShare::default);
        let mut left = shares.len();
        // Sending cannot fail, because this struct holds both ends of the channel.
        shares.into_iter().enumerate().for_each(|share| self.to_do.0.send(share).unwrap_or_default());
        while let Ok((at, mut share)) = self.to_do.1.try_recv() {
            share.work();
            done[at] = share;
            left -= 1;
        }
        for _ in 0..left {
            // A thread ends early only if it panics, and then the world is incomplete.
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

    /// With more than one helping thread, the end of one let the world wait for its share for ever, because
    /// the other threads kept the channel open.
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
