//! The streams of strangers: peers that opened a stream and are not members, as far as this node knows.
//!
//! A node that joins is a stranger, too, so strangers must be served, and none of them may keep the others
//! from it. A stranger has a short time to say who it is and what it wants, in one whole frame. When there
//! are too many streams of strangers, the one that has been silent for longest makes room: first among those
//! of the same host, else among those of the host that has most. A node that joins says something as soon as
//! it is connected, so the streams that are closed are those of peers that say nothing.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};

use super::stats::QueueGauge;
use super::streams::StreamId;

/// Time that a stranger has, from its connection on, until its first whole frame has come, in microseconds.
/// It is enough for a lost packet to be sent again.
pub(super) const INTRODUCTION_US_MAX: u64 = 3_000_000;
/// Most streams of strangers of one host. A node that joins has three at most.
pub(super) const STREAMS_PER_HOST_MAX: usize = 32;
/// Most streams of strangers.
pub(super) const STRANGER_STREAMS_MAX: usize = 128;

/// The stream of a stranger.
#[derive(Clone, Copy, Debug)]
struct StrangerStream {
    host: IpAddr,
    /// When bytes came last, or else when the stream was opened, on the monotonic clock in microseconds.
    heard_us: u64,
    /// When the stream is to be closed, on the same clock; `None` once the stranger has introduced itself.
    due_us: Option<u64>,
}

/// All streams of strangers.
#[derive(Debug, Default)]
pub(super) struct StrangerStreams {
    streams: BTreeMap<StreamId, StrangerStream>,
}

/// Returns the part of an address that stands for one host: an IPv4 address, or the network of an IPv6
/// address, which a single host may have 2^64 addresses of.
fn host_of(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
    }
}

impl StrangerStreams {
    /// Adds a stream that was opened from `address`. Returns the stream that is to be closed because there are
    /// too many.
    pub fn admit(&mut self, now_us: u64, stream: StreamId, address: IpAddr) -> Option<StreamId> {
        let host = host_of(address);
        let due_us = Some(now_us + INTRODUCTION_US_MAX);
        self.streams.insert(stream, StrangerStream { host, heard_us: now_us, due_us });
        let crowded = if self.of_host(host) > STREAMS_PER_HOST_MAX {
            host
        } else if self.streams.len() > STRANGER_STREAMS_MAX {
            self.streams.values().map(|stream| stream.host).max_by_key(|&host| self.of_host(host))?
        } else {
            return None;
        };
        let streams = self.streams.iter().filter(|(_, stream)| stream.host == crowded);
        let silent = streams.min_by_key(|&(&id, stream)| (stream.heard_us, id)).map(|(&id, _)| id)?;
        self.remove(silent);
        Some(silent)
    }

    fn of_host(&self, host: IpAddr) -> usize {
        self.streams.values().filter(|stream| stream.host == host).count()
    }

    /// Notes that bytes came on a stream.
    pub fn hear(&mut self, now_us: u64, stream: StreamId) {
        if let Some(stream) = self.streams.get_mut(&stream) {
            stream.heard_us = now_us;
        }
    }

    /// Returns whether the first frame of a stream is still waited for.
    #[cfg(test)]
    fn is_awaited(&self, stream: StreamId) -> bool {
        self.streams.get(&stream).is_some_and(|stream| stream.due_us.is_some())
    }

    /// Notes that the first frame of a stream has come.
    pub fn introduce(&mut self, stream: StreamId) {
        if let Some(stream) = self.streams.get_mut(&stream) {
            stream.due_us = None;
        }
    }

    /// Forgets a stream that has ended, or that turned out to be of a member.
    pub fn remove(&mut self, stream: StreamId) {
        self.streams.remove(&stream);
    }

    /// When the next stream is to be closed, on the monotonic clock in microseconds; `u64::MAX` if none is.
    pub fn due_us(&self) -> u64 {
        self.streams.values().filter_map(|stream| stream.due_us).min().unwrap_or(u64::MAX)
    }

    /// Takes out the streams of strangers that did not introduce themselves in time.
    pub fn take_overdue(&mut self, now_us: u64) -> Vec<StreamId> {
        let is_overdue =
            |_: &StreamId, stream: &mut StrangerStream| stream.due_us.is_some_and(|due_us| due_us <= now_us);
        self.streams.extract_if(.., is_overdue).map(|(id, _)| id).collect()
    }

    /// Calls `visit` with the number of streams and its bound.
    pub fn visit_gauges(&self, visit: &mut dyn FnMut(QueueGauge)) {
        visit(QueueGauge::new("streams of strangers", self.streams.len(), STRANGER_STREAMS_MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(number: u32) -> IpAddr {
        std::net::Ipv4Addr::from(0x0a00_0000 + number).into()
    }

    #[test]
    fn of_one_host_the_longest_silent_stream_makes_room() {
        let mut strangers = StrangerStreams::default();
        for number in 0..STREAMS_PER_HOST_MAX as u64 {
            assert_eq!(strangers.admit(number, StreamId(2 * number), host(1)), None);
        }
        strangers.hear(1_000, StreamId(0));
        strangers.introduce(StreamId(0));
        assert_eq!(strangers.admit(1_000, StreamId(900), host(2)), None);
        assert_eq!(strangers.admit(1_000, StreamId(902), host(1)), Some(StreamId(2)));
        assert!(!strangers.is_awaited(StreamId(0)) && strangers.is_awaited(StreamId(902)));
        assert_eq!(strangers.due_us(), 2 + INTRODUCTION_US_MAX, "that of stream 0 does not count");
        assert_eq!(strangers.take_overdue(2 + INTRODUCTION_US_MAX), [StreamId(4)]);
    }

    #[test]
    fn of_many_hosts_the_one_with_most_streams_makes_room() {
        let mut strangers = StrangerStreams::default();
        for number in 0..STRANGER_STREAMS_MAX as u32 {
            let stream = StreamId(2 * u64::from(number));
            // The last twenty are of one host.
            let from = number.min(STRANGER_STREAMS_MAX as u32 - 20);
            assert_eq!(strangers.admit(number.into(), stream, host(from)), None);
        }
        let first = StreamId(2 * (STRANGER_STREAMS_MAX as u64 - 20));
        assert_eq!(strangers.admit(500, StreamId(900), host(999)), Some(first));
        // A host with many IPv6 addresses is one host.
        let v6 = |low: u16| IpAddr::from([0x2001, 0xdb8, 0, 7, 1, 2, 3, low]);
        let mut closed = Vec::new();
        for low in 0..100 {
            closed.extend(strangers.admit(600, StreamId(1_000 + 2 * u64::from(low)), v6(low)));
        }
        let displaced = closed.iter().filter(|stream| stream.0 < 1_000);
        assert!(displaced.clone().all(|stream| stream.0 >= first.0), "{closed:?}");
        assert!((9..=11).contains(&strangers.of_host(host_of(v6(0)))), "{} displaced", displaced.count());
    }
}
