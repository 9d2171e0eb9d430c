//! The processors on which event loops stay (`--pin-workers`).
//!
//! The kernel may put two event loops on one processor while another program uses the other one, and takes some milliseconds
//! to notice. Event loops that may run on one processor each never wait for one another.

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Makes what a thread runs stay on a processor: the one of this event loop, if one is named.
pub fn on_processor(worker: Option<usize>, run: impl FnOnce()) -> impl FnOnce() {
    let processor = worker.and_then(|worker| Some(Processors::allowed()?.of(worker)));
    move || {
        processor.into_iter().for_each(stay_on);
        run()
    }
}

/// The processors that this process may use.
#[derive(Debug, PartialEq, Eq)]
struct Processors(Vec<usize>);

impl Processors {
    /// Asks the system. `None` if it does not tell, which is logged.
    fn allowed() -> Option<Processors> {
        match sched_getaffinity(None) {
            Ok(set) => {
                let all: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|number| set.is_set(*number)).collect();
                (!all.is_empty()).then_some(Processors(all))
            }
            Err(error) => {
                tracing::warn!(%error, "--pin-workers: the system does not tell the processors; event loops are not pinned");
                None
            }
        }
    }

    /// The processor of an event loop. If there are more event loops than processors, some share one.
    fn of(&self, worker: usize) -> usize {
        self.0[worker % self.0.len()]
    }
}

/// Keeps the present thread on a processor. It is logged if that is not permitted.
fn stay_on(processor: usize) {
    let mut set = CpuSet::new();
    set.set(processor);
    if let Err(error) = sched_setaffinity(None, &set) {
        tracing::warn!(%error, processor, "--pin-workers: an event loop could not be kept on its processor");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn event_loops_share_processors_if_there_are_too_few() {
        let two = Processors(vec![3, 5]);
        assert_eq!((0..4).map(|worker| two.of(worker)).collect::<Vec<_>>(), [3, 5, 3, 5]);
    }

    #[test]
    fn a_thread_stays_on_its_processor() {
        let stays = std::thread::spawn(|| {
            let last = *Processors::allowed().expect("processors").0.last().expect("one");
            stay_on(last);
            (Processors::allowed(), Processors(vec![last]))
        });
        let (allowed, last) = stays.join().expect("no panic");
        assert_eq!(allowed, Some(last));
    }
}
