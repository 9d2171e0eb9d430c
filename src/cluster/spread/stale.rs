//! Drops timers that have become obsolete, so that the driver is not woken for them.

use super::env::Base;
use super::replication::Replication;
use super::timers::Timer;

/// Drops the first timers for as long as they are obsolete.
pub(super) fn drop_stale(base: &mut Base, replication: &Replication) {
    while let Some((at_us, timer)) = base.timers.first()
        && is_stale(base, replication, at_us, timer)
    {
        base.timers.pop();
        if let Timer::Parts { link } = timer {
            base.disarm_parts(link, at_us);
        }
    }
}

/// Returns whether a timer has become obsolete.
fn is_stale(base: &mut Base, replication: &Replication, at_us: u64, timer: Timer) -> bool {
    let link = |id| base.links.get(id);
    match timer {
        Timer::Parts { link } => base.links.get_mut(link).is_none_or(|link| !link.is_armed(at_us)),
        Timer::Receipt { link: id } => link(id).is_none_or(|link| link.answers.due_us() != Some(at_us)),
        Timer::Pace { link: id } => link(id).is_none_or(|link| link.next_queued().is_none()),
        Timer::Gap { line } => base.lines.get(line).is_none_or(|line| line.search.due_us != at_us),
        Timer::Count { batch, .. } => !replication.is_counting(batch),
        Timer::Await => !replication.is_armed(at_us),
        Timer::Sweep => false,
    }
}
