//! One clock for all threads: nanoseconds since the Unix epoch, which never go back.

use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use rustix::time::{
    ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, clock_gettime,
    timerfd_create, timerfd_settime,
};

/// A clock that shows the wall clock at its start, advanced by the monotonic clock.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    began: Instant,
    began_ns: u64,
}

impl Clock {
    /// Reads both clocks.
    pub fn start() -> Clock {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Clock { began: Instant::now(), began_ns: wall.as_nanos() as u64 }
    }

    /// Returns the time in nanoseconds since the Unix epoch.
    #[inline]
    pub fn now_ns(&self) -> u64 {
        self.began_ns + self.began.elapsed().as_nanos() as u64
    }
}

/// Returns the CPU time that the calling thread has used, in nanoseconds.
pub fn thread_cpu_ns() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// A timer that wakes a poll to the microsecond; a poll's own timeout is rounded to milliseconds.
pub struct Alarm {
    timer: OwnedFd,
}

impl Alarm {
    /// Makes a timer that is not set.
    pub fn new() -> std::io::Result<Alarm> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        Ok(Alarm { timer: timerfd_create(TimerfdClockId::Monotonic, flags)? })
    }

    /// Returns the descriptor to poll. Polled edge-triggered, nothing need be read from it.
    pub fn fd(&self) -> RawFd {
        self.timer.as_raw_fd()
    }

    /// Sets the timer to fire after so many nanoseconds, at least one.
    pub fn set(&self, after_ns: u64) -> std::io::Result<()> {
        let after_ns = after_ns.max(1);
        let it_value = Timespec {
            tv_sec: (after_ns / 1_000_000_000) as i64,
            tv_nsec: (after_ns % 1_000_000_000) as i64,
        };
        let it_interval = Timespec { tv_sec: 0, tv_nsec: 0 };
        timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &Itimerspec { it_interval, it_value })?;
        Ok(())
    }
}
