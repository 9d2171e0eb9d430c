//! Runs several worlds in parallel and shows the progress.

use std::io::{IsTerminal, stderr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::hands;
use super::plan::Plan;
use crate::cli::CliError;
use crate::server::clock;
use crate::sim::scenario::{self, RunOutcome};

/// Number of nodes from which on a world is so large that only one is kept in memory at a time.
const LARGE_NODES: usize = 4_000;
/// Number of steps of the progress bar for each run.
const STEPS: u64 = 1_000;
/// Number of runs from which on a line is printed after every tenth of them, if there is no terminal for a
/// progress bar.
const MANY_RUNS: usize = 20;

/// Runs all plans and calls `each` with every outcome and its duration in microseconds, in the order of
/// `plans`.
pub fn run(plans: &[Plan], jobs: usize, mut each: impl FnMut(RunOutcome, u64)) -> Result<(), CliError> {
    let sizes: Vec<usize> = plans.iter().map(|plan| plan.scenario.nodes).collect();
    let done = in_parallel(&sizes, jobs, |at, step| match plans.get(at) {
        Some(plan) if plans.len() == 1 => {
            let hands = hands::threads(jobs);
            let (outcome, world) = scenario::run_and_keep(&plan.scenario, plan.seed, hands, step);
            // The process ends next, and freeing a gigabyte piece by piece would take another second.
            std::mem::forget(world);
            outcome
        }
        Some(plan) => scenario::run(&plan.scenario, plan.seed, step),
        None => RunOutcome::default(),
    });
    for (outcome, wall_us) in done {
        each(outcome, wall_us);
    }
    Ok(())
}

/// Makes a progress bar on stderr, which is hidden if stderr is not a terminal.
fn bar(steps: u64) -> ProgressBar {
    let target = match stderr().is_terminal() {
        true => ProgressDrawTarget::stderr(),
        false => ProgressDrawTarget::hidden(),
    };
    let bar = ProgressBar::with_draw_target(Some(steps), target);
    match ProgressStyle::with_template("{bar:40} {percent}% {elapsed}, {eta} left") {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

/// The runs that have not been started, by their index.
#[derive(Debug, Default)]
struct Pending {
    large: Vec<usize>,
    small: Vec<usize>,
    /// Whether a large run is going on.
    is_large_busy: bool,
}

impl Pending {
    /// Takes the next run to be started, and tells whether it is large. The inner `None` means that only
    /// large runs are left and one is going on; the outer one, that none is left.
    fn next(&mut self) -> Option<Option<(usize, bool)>> {
        if !self.is_large_busy
            && let Some(at) = self.large.pop()
        {
            self.is_large_busy = true;
            return Some(Some((at, true)));
        }
        match self.small.pop() {
            Some(at) => Some(Some((at, false))),
            None if self.large.is_empty() => None,
            None => Some(None),
        }
    }
}

/// Calls `work` for every index of `sizes` on `jobs` threads, and returns the results in that order, each
/// with its duration in microseconds. A size is a number of nodes: large worlds are run one at a time and
/// first. `work` is given a function that it calls with its progress from 0 to 1.
pub fn in_parallel<R: Send>(
    sizes: &[usize],
    jobs: usize,
    work: impl Fn(usize, &mut dyn FnMut(f64)) -> R + Sync,
) -> Vec<(R, u64)> {
    let bar = bar(sizes.len() as u64 * STEPS);
    let (large, small) = (0..sizes.len()).rev().partition(|at| sizes[*at] >= LARGE_NODES);
    let pending = Mutex::new(Pending { large, small, is_large_busy: false });
    let is_free = Condvar::new();
    let finished = AtomicUsize::new(0);
    let tenth = |runs: usize| runs * 10 / sizes.len();
    let done: Mutex<Vec<Option<(R, u64)>>> = Mutex::new(sizes.iter().map(|_| None).collect());
    let worker = || {
        while let Some((at, is_large)) = take(&pending, &is_free) {
            let since_us = clock::mono_us();
            let mut shown = 0;
            let result = work(at, &mut |part| {
                let reached = ((part.clamp(0.0, 1.0) * STEPS as f64) as u64).max(shown);
                bar.inc(reached - shown);
                shown = reached;
            });
            bar.inc(STEPS - shown);
            let before = finished.fetch_add(1, Ordering::Relaxed);
            if bar.is_hidden() && sizes.len() >= MANY_RUNS && tenth(before) < tenth(before + 1) {
                eprintln!("{} of {} runs done", before + 1, sizes.len());
            }
            let wall_us = clock::mono_us() - since_us;
            if let Some(place) = lock(&done).get_mut(at) {
                *place = Some((result, wall_us));
            }
            if is_large {
                lock(&pending).is_large_busy = false;
                is_free.notify_all();
            }
        }
    };
    std::thread::scope(|scope| {
        (1..jobs.min(sizes.len())).for_each(|_| {
            scope.spawn(worker);
        });
        worker();
    });
    bar.finish_and_clear();
    done.into_inner().unwrap_or_else(PoisonError::into_inner).into_iter().flatten().collect()
}

fn take(pending: &Mutex<Pending>, is_free: &Condvar) -> Option<(usize, bool)> {
    let mut left = lock(pending);
    loop {
        match left.next() {
            None => return None,
            Some(Some(next)) => return Some(next),
            Some(None) => left = is_free.wait(left).unwrap_or_else(PoisonError::into_inner),
        }
    }
}

/// Locks a mutex even if it is poisoned. A panic of a thread ends the scope and the program, so a
/// half-finished result is never used.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_come_in_order_and_large_worlds_one_at_a_time() {
        let sizes: Vec<usize> = (0..40).map(|at| if at % 4 == 0 { LARGE_NODES } else { 1 }).collect();
        let (busy, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let done = in_parallel(&sizes, 4, |at, step| {
            if sizes[at] >= LARGE_NODES {
                most.fetch_max(busy.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                step(0.5);
                busy.fetch_sub(1, Ordering::SeqCst);
            }
            at
        });
        assert_eq!(done.iter().map(|done| done.0).collect::<Vec<_>>(), (0..40).collect::<Vec<_>>());
        assert_eq!(most.into_inner(), 1);
    }
}
