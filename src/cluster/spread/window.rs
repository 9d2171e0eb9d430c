//! Bounds the bytes that are in flight to a peer at a time, and the speed at which they are sent.

use super::rtt::Rtt;
use crate::limits::DATAGRAM_BYTES_MAX;

/// Least congestion window, in bytes: a handful of full datagrams.
const WINDOW_BYTES_MIN: usize = 8 * 1024;
/// Window of a new link, in bytes.
const WINDOW_BYTES_START: usize = 32 * 1024;
/// Greatest window, in bytes: 100 MB/s at a round trip of 10 ms.
const WINDOW_BYTES_MAX: usize = 1024 * 1024;
/// How far a link may send ahead of its pace, in microseconds of that pace.
const PACE_BURST_US: u64 = 2_000;
/// Round trip that is assumed for the pace before one was measured, in microseconds.
const PACE_RTT_US: u64 = 1_000;
/// Least round trip that counts for the pace, in microseconds.
const PACE_RTT_US_MIN: u64 = 100;

/// The congestion window and the pace of one link.
#[derive(Debug)]
pub(super) struct Window {
    /// Bytes that were sent and are neither acknowledged nor taken for lost.
    flying_bytes: usize,
    /// Most bytes that may be in flight.
    window_bytes: usize,
    /// Below this size every acknowledged byte opens the window by a byte; above, it grows slowly.
    threshold_bytes: usize,
    /// Losses before this time, in microseconds, do not close the window again.
    recovered_us: u64,
    /// When everything that was sent would have left this node at the link's pace, in microseconds.
    paced_us: u64,
}

impl Default for Window {
    fn default() -> Window {
        Window {
            flying_bytes: 0,
            window_bytes: WINDOW_BYTES_START,
            threshold_bytes: WINDOW_BYTES_MAX,
            recovered_us: 0,
            paced_us: 0,
        }
    }
}

impl Window {
    /// Counts `bytes` that went out just now; `rtt` is the link's round trip, once it was measured.
    pub fn fly(&mut self, now_us: u64, bytes: usize, rtt: Option<Rtt>) {
        self.flying_bytes += bytes;
        let window_us = rtt.map_or(PACE_RTT_US, |rtt| rtt.smooth_us().max(PACE_RTT_US_MIN));
        let pace_us = bytes as u64 * window_us * 4 / (5 * self.window_bytes as u64);
        self.paced_us = self.paced_us.max(now_us) + pace_us;
    }

    /// No longer counts `bytes` as in flight.
    pub fn land(&mut self, bytes: usize) {
        debug_assert!(bytes <= self.flying_bytes, "{bytes} of {} bytes in flight", self.flying_bytes);
        self.flying_bytes = self.flying_bytes.saturating_sub(bytes);
    }

    /// Returns whether something is in flight.
    pub fn is_in_use(&self) -> bool {
        self.flying_bytes > 0
    }

    /// Returns whether the window takes something more.
    pub fn has_room(&self) -> bool {
        self.flying_bytes == 0 || self.flying_bytes < self.window_bytes
    }

    /// When the pace allows the next packet, in microseconds; `None`: at once.
    pub fn paced_until_us(&self, now_us: u64) -> Option<u64> {
        (self.paced_us > now_us + PACE_BURST_US).then(|| self.paced_us - PACE_BURST_US)
    }

    /// Notes that the peer acknowledged `bytes`: the window opens, if it was in use.
    pub fn handle_receipt(&mut self, bytes: usize) {
        if self.flying_bytes + bytes < self.window_bytes / 2 {
            return;
        }
        let more = match self.window_bytes < self.threshold_bytes {
            true => bytes,
            false => bytes * DATAGRAM_BYTES_MAX / self.window_bytes,
        };
        self.window_bytes = (self.window_bytes + more).min(WINDOW_BYTES_MAX);
    }

    /// Notes a loss: the window closes by three tenths, at most once per round trip.
    pub fn handle_loss(&mut self, now_us: u64, rtt: Rtt) {
        if now_us < self.recovered_us {
            return;
        }
        self.recovered_us = now_us + rtt.smooth_us();
        self.window_bytes = (self.window_bytes * 7 / 10).max(WINDOW_BYTES_MIN);
        self.threshold_bytes = self.window_bytes;
        debug_assert!((WINDOW_BYTES_MIN..=WINDOW_BYTES_MAX).contains(&self.window_bytes));
    }

    /// Reads the memory of this value, so that it is in the processor's cache.
    pub fn warm(&self) -> u64 {
        self.paced_us ^ self.window_bytes as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opens_while_it_is_used_and_closes_once_a_round_trip() {
        let (mut window, rtt) = (Window::default(), Rtt::new(1_000));
        window.handle_receipt(1_000);
        assert_eq!(window.window_bytes, WINDOW_BYTES_START, "it was not in use");
        window.fly(0, WINDOW_BYTES_START, Some(rtt));
        assert!(!window.has_room());
        window.land(1_000);
        window.handle_receipt(1_000);
        assert_eq!(window.window_bytes, WINDOW_BYTES_START + 1_000);
        window.handle_loss(10, rtt);
        window.handle_loss(500, rtt);
        let closed = (WINDOW_BYTES_START + 1_000) * 7 / 10;
        assert_eq!(window.window_bytes, closed, "two losses of one round trip count once");
        (0..100).for_each(|loss| window.handle_loss(10_000 * (loss + 1), rtt));
        assert_eq!(window.window_bytes, WINDOW_BYTES_MIN);
    }

    #[test]
    fn a_window_in_flight_takes_about_four_fifths_of_a_round_trip() {
        let (mut window, rtt) = (Window::default(), Rtt::new(10_000));
        for _ in 0..32 {
            window.fly(0, 1_024, Some(rtt));
        }
        assert_eq!(window.paced_until_us(0), Some(8_000 - PACE_BURST_US));
        assert_eq!(window.paced_until_us(8_000 - PACE_BURST_US), None);
    }
}
