//! One direction of the link between two nodes: decides what becomes of each packet. It reads no clock and does no
//! input or output, so a test can send a million packets through it.

use anode_loadgen::random::Random;

use super::shape::{Shape, happens};

/// How much may wait for a link with a rate. Packets beyond it are dropped, as the queue of a router does.
pub const QUEUE_NS_MAX: u64 = 400_000_000;

/// A packet that is to arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Copy {
    /// When it arrives, in nanoseconds.
    pub at_ns: u64,
    /// Whether one of its bits is to be changed.
    pub is_corrupt: bool,
}

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The link is cut.
    Cut,
    /// The packet is lost by chance.
    Lost,
    /// Too much waits for the rate of the link.
    QueueFull,
    /// The packet arrives, perhaps twice.
    Arrives(Copy, Option<Copy>),
}

/// The state of one direction of a link.
#[derive(Clone, Debug)]
pub struct Path {
    random: Random,
    is_bad: bool,
    /// When the link has sent everything that it has taken.
    free_at_ns: u64,
}

impl Path {
    /// Makes the path from node `from` to node `to`. Each pair has random numbers of its own.
    pub fn new(seed: u64, from: usize, to: usize) -> Path {
        let stream = (from as u64) << 32 | to as u64;
        Path { random: Random::new(seed, stream), is_bad: false, free_at_ns: 0 }
    }

    /// Decides what becomes of a packet of `bytes` that comes at `now_ns`.
    pub fn judge(&mut self, shape: &Shape, now_ns: u64, bytes: usize) -> Fate {
        if shape.is_cut {
            return Fate::Cut;
        }
        if shape.is_perfect() {
            return Fate::Arrives(Copy { at_ns: now_ns, is_corrupt: false }, None);
        }
        if self.is_lost(shape) {
            return Fate::Lost;
        }
        let has_twin = happens(shape.duplicate, &mut self.random);
        let Some(first) = self.send(shape, now_ns, bytes) else { return Fate::QueueFull };
        let twin = if has_twin { self.send(shape, now_ns, bytes) } else { None };
        Fate::Arrives(first, twin)
    }

    /// Returns the random numbers with which a packet is changed.
    pub fn random(&mut self) -> &mut Random {
        &mut self.random
    }

    fn is_lost(&mut self, shape: &Shape) -> bool {
        let mut is_lost = happens(shape.loss, &mut self.random);
        if let Some(bursts) = shape.bursts {
            let change = if self.is_bad { bursts.end } else { bursts.begin };
            self.is_bad ^= happens(change, &mut self.random);
            let loss = if self.is_bad { bursts.loss_bad } else { bursts.loss_good };
            is_lost |= happens(loss, &mut self.random);
        }
        is_lost
    }

    fn send(&mut self, shape: &Shape, now_ns: u64, bytes: usize) -> Option<Copy> {
        let mut at_ns = now_ns;
        if let Some(rate) = shape.rate_bits.filter(|rate| *rate > 0) {
            let begin = self.free_at_ns.max(now_ns);
            if begin - now_ns > QUEUE_NS_MAX {
                return None;
            }
            self.free_at_ns = begin + (bytes as u64 * 8).saturating_mul(1_000_000_000) / rate;
            at_ns = self.free_at_ns;
        }
        let delay = shape.draw_delay(&mut self.random);
        let is_corrupt = happens(shape.corrupt, &mut self.random);
        Some(Copy { at_ns: at_ns + delay.as_nanos() as u64, is_corrupt })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::link::shape::Bursts;

    /// Sends packets of 1,000 bytes, one a millisecond, and returns the fates.
    fn send(shape: &Shape, count: u64) -> Vec<Fate> {
        let mut path = Path::new(7, 0, 1);
        (0..count).map(|number| path.judge(shape, number * 1_000_000, 1_000)).collect()
    }

    fn part(fates: &[Fate], is: impl Fn(&Fate) -> bool) -> f64 {
        fates.iter().filter(|fate| is(fate)).count() as f64 / fates.len() as f64
    }

    #[test]
    fn loss_is_what_the_arithmetic_says() {
        let bursts = Bursts { begin: 1.0, end: 9.0, loss_bad: 90.0, loss_good: 0.5 };
        for shape in [
            Shape { loss: 5.0, ..Shape::default() },
            Shape { bursts: Some(bursts), ..Shape::default() },
            Shape { loss: 3.0, bursts: Some(bursts), ..Shape::default() },
        ] {
            let lost = part(&send(&shape, 300_000), |fate| *fate == Fate::Lost);
            let expected = shape.expected_loss();
            assert!((lost - expected).abs() < 0.1 * expected, "{lost} of {expected}");
        }
    }

    #[test]
    fn lost_packets_stand_together_in_bursts() {
        let bursts = Bursts { begin: 1.0, end: 20.0, loss_bad: 100.0, loss_good: 0.0 };
        let fates = send(&Shape { bursts: Some(bursts), ..Shape::default() }, 200_000);
        let pairs = fates.windows(2).filter(|pair| pair[0] == Fate::Lost);
        let (after, both) =
            pairs.fold((0, 0), |(after, both), pair| (after + 1, both + u32::from(pair[1] == Fate::Lost)));
        // A burst goes on after a lost packet in four of five cases.
        assert!((f64::from(both) / f64::from(after) - 0.8).abs() < 0.02, "{both} of {after}");
    }

    #[test]
    fn copies_and_damage_are_as_frequent_as_the_profile_says() {
        let shape = Shape { duplicate: 2.0, corrupt: 1.0, ..Shape::default() };
        let fates = send(&shape, 200_000);
        let twins = part(&fates, |fate| matches!(fate, Fate::Arrives(_, Some(_))));
        let corrupt = part(&fates, |fate| matches!(fate, Fate::Arrives(copy, _) if copy.is_corrupt));
        assert!((twins - 0.02).abs() < 0.002, "{twins}");
        assert!((corrupt - 0.01).abs() < 0.001, "{corrupt}");
    }

    #[test]
    fn a_rate_delays_and_then_drops() {
        // 8 Mbit/s come, 4 Mbit/s pass: the queue fills in less than a second, then half is dropped.
        let shape = Shape { rate_bits: Some(4_000_000), ..Shape::default() };
        let fates = send(&shape, 10_000);
        let Fate::Arrives(first, None) = fates[0] else { panic!("{:?}", fates[0]) };
        assert_eq!(first.at_ns, 2_000_000);
        let dropped = part(&fates[5_000..], |fate| *fate == Fate::QueueFull);
        assert!((dropped - 0.5).abs() < 0.01, "{dropped}");
    }

    #[test]
    fn the_same_seed_makes_the_same_fates_and_a_cut_link_passes_nothing() {
        let shape = Shape {
            loss: 10.0,
            delay: Duration::from_millis(9),
            jitter: Duration::from_millis(3),
            ..Shape::default()
        };
        assert_eq!(send(&shape, 1_000), send(&shape, 1_000));
        let cut = Shape { is_cut: true, ..shape };
        assert_eq!(part(&send(&cut, 100), |fate| *fate == Fate::Cut), 1.0);
    }
}
