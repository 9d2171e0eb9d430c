//! The shape of a link in one direction, in the vocabulary of tc-netem, and the arithmetic of what it must do.

use std::time::Duration;

use anode_loadgen::random::Random;

/// The distribution of the jitter around the delay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Spread {
    /// Every delay from `delay − jitter` to `delay + jitter` is as likely as any other.
    #[default]
    Uniform,
    /// The jitter is the standard deviation of a normal distribution.
    Normal,
    /// Most packets are early and few are very late. The jitter is the standard deviation.
    Pareto,
    /// A quarter of a normal and three quarters of a Pareto distribution, as tc-netem mixes them.
    Paretonormal,
}

/// Loss in bursts by the model of Gilbert and Elliott: the link is in a good or in a bad state, and every packet may
/// move it from one to the other.
#[derive(Clone, Copy, Debug, PartialEq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bursts {
    /// Probability, in percent, that a packet moves the link from the good into the bad state.
    pub begin: f64,
    /// Probability, in percent, that a packet moves the link from the bad into the good state.
    pub end: f64,
    /// Probability, in percent, that a packet is lost in the bad state.
    #[serde(default = "all")]
    pub loss_bad: f64,
    /// Probability, in percent, that a packet is lost in the good state.
    #[serde(default)]
    pub loss_good: f64,
}

fn all() -> f64 {
    100.0
}

/// What a link does to packets in one direction. The default is a perfect link.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Shape {
    /// Whether nothing passes at all.
    pub is_cut: bool,
    /// Middle of the delays.
    pub delay: Duration,
    /// Width of the distribution of the delays.
    pub jitter: Duration,
    /// Form of the distribution of the delays.
    pub spread: Spread,
    /// Packets lost independently of each other, in percent.
    pub loss: f64,
    /// Packets lost in bursts, in addition to `loss`.
    pub bursts: Option<Bursts>,
    /// Packets that come twice, in percent.
    pub duplicate: f64,
    /// Packets of which one bit is changed, in percent.
    pub corrupt: f64,
    /// Packets that overtake those that are delayed, in percent.
    pub reorder: f64,
    /// Bits per second that the link carries; `None` for no bound.
    pub rate_bits: Option<u64>,
}

/// Standard deviation and mean of a Pareto distribution with exponent 3 and a least value of 1.
const PARETO_MEAN: f64 = 1.5;
const PARETO_DEVIATION: f64 = 0.866_025_403_784_438_6;

impl Shape {
    /// Returns whether packets pass as if the link were not there.
    pub fn is_perfect(&self) -> bool {
        *self == Shape::default()
    }

    /// Returns the part of the packets, 0 to 1, that are lost on average.
    pub fn expected_loss(&self) -> f64 {
        if self.is_cut {
            return 1.0;
        }
        let alone = self.loss / 100.0;
        let bursts = self.bursts.map_or(0.0, |bursts| bursts.expected_loss());
        1.0 - (1.0 - alone) * (1.0 - bursts)
    }

    /// Returns the mean delay, without the time that packets wait for the rate.
    pub fn expected_delay(&self) -> Duration {
        self.delay.mul_f64(1.0 - self.reorder / 100.0)
    }

    /// Draws the delay of one packet.
    pub fn draw_delay(&self, random: &mut Random) -> Duration {
        if self.reorder > 0.0 && happens(self.reorder, random) {
            return Duration::ZERO;
        }
        if self.jitter.is_zero() {
            return self.delay;
        }
        let by = match self.spread {
            Spread::Uniform => 2.0 * random.unit() - 1.0,
            Spread::Normal => normal(random),
            Spread::Pareto => pareto(random),
            Spread::Paretonormal => normal(random) / 4.0 + pareto(random) * 3.0 / 4.0,
        };
        let ns = self.delay.as_nanos() as f64 + by * self.jitter.as_nanos() as f64;
        Duration::from_nanos(ns.max(0.0) as u64)
    }
}

impl Bursts {
    /// Returns the part of the packets that are lost on average: the parts of the time that the link spends in its
    /// states are in the ratio of `end` to `begin`.
    pub fn expected_loss(&self) -> f64 {
        let sum = self.begin + self.end;
        if sum <= 0.0 {
            return self.loss_good / 100.0;
        }
        (self.begin * self.loss_bad + self.end * self.loss_good) / sum / 100.0
    }
}

/// Returns true with a probability of `percent`.
pub fn happens(percent: f64, random: &mut Random) -> bool {
    percent > 0.0 && random.unit() * 100.0 <= percent
}

/// Draws from a normal distribution with mean 0 and standard deviation 1 (Box and Muller).
fn normal(random: &mut Random) -> f64 {
    (-2.0 * random.unit().ln()).sqrt() * (std::f64::consts::TAU * random.unit()).cos()
}

/// Draws from a Pareto distribution with exponent 3, moved and scaled to mean 0 and standard deviation 1, and cut
/// off at four deviations as the tables of tc-netem are.
fn pareto(random: &mut Random) -> f64 {
    let value = random.unit().powf(-1.0 / 3.0);
    ((value - PARETO_MEAN) / PARETO_DEVIATION).min(4.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mean_ms(shape: &Shape) -> f64 {
        let mut random = Random::new(1, 2);
        let count = 100_000;
        let sum: f64 = (0..count).map(|_| shape.draw_delay(&mut random).as_secs_f64() * 1e3).sum();
        sum / f64::from(count)
    }

    #[test]
    fn delays_have_the_mean_that_the_profile_says() {
        for spread in [Spread::Uniform, Spread::Normal, Spread::Pareto, Spread::Paretonormal] {
            let shape = Shape {
                delay: Duration::from_millis(50),
                jitter: Duration::from_millis(8),
                spread,
                ..Shape::default()
            };
            let mean = mean_ms(&shape);
            assert!((mean - 50.0).abs() < 0.8, "{spread:?}: {mean} ms");
        }
    }

    #[test]
    fn packets_that_overtake_lower_the_mean() {
        let shape = Shape { delay: Duration::from_millis(40), reorder: 25.0, ..Shape::default() };
        assert_eq!(shape.expected_delay(), Duration::from_millis(30));
        assert!((mean_ms(&shape) - 30.0).abs() < 0.5);
    }

    #[test]
    fn loss_of_both_kinds_adds_up() {
        let bursts = Bursts { begin: 2.0, end: 8.0, loss_bad: 100.0, loss_good: 0.0 };
        assert!((bursts.expected_loss() - 0.2).abs() < 1e-9);
        let shape = Shape { loss: 5.0, bursts: Some(bursts), ..Shape::default() };
        assert!((shape.expected_loss() - 0.24).abs() < 1e-9);
        assert_eq!(Shape { is_cut: true, ..shape }.expected_loss(), 1.0);
    }
}
