//! Small deterministic random numbers: the same seed makes the same run.

/// Mixes 64 bits so that every bit of the input moves every bit of the output (the finalizer of
/// `SplitMix64`).
pub fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// A stream of random numbers. Each takes one addition and one [`mix`].
#[derive(Clone, Debug)]
pub struct Random {
    state: u64,
}

impl Random {
    /// Makes one of the streams of a seed; `stream` tells them apart, for example a publisher's index.
    pub fn new(seed: u64, stream: u64) -> Random {
        Random { state: mix(seed ^ mix(stream)) }
    }

    /// Returns 64 random bits.
    pub fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.state)
    }

    /// Returns a number in (0, 1]: never zero, so that its logarithm is finite.
    pub fn unit(&mut self) -> f64 {
        to_unit(self.next_u64())
    }
}

/// Turns 64 random bits into a number in (0, 1].
pub fn to_unit(bits: u64) -> f64 {
    ((bits >> 11) + 1) as f64 / (1u64 << 53) as f64
}
