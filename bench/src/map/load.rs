//! The records that are merged. They are made in advance, and are the same for every map.

use std::sync::Arc;

use anode::record::{Birth, NodeName, Payload, Record, SharedRecord, Source, Stamp};
use anode_loadgen::Outcome;
use anode_loadgen::random::Random;
use anode_loadgen::zipf::Zipf;
use bytes::Bytes;

/// The law by which the sources of merges are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keys {
    /// All sources are written equally often.
    Uniform,
    /// The k-th source is written 1/k times as often as the first (Zipf's law).
    Zipf,
}

/// Size of each record's data, in bytes.
pub const DATA_BYTES: usize = 128;
/// One merge in this number brings a record that is older than the held one.
const STALE_ONE_OF: u64 = 10;

/// The records with which a map is filled, and those that are merged then.
pub struct Load {
    first: Vec<SharedRecord>,
    merges: Vec<SharedRecord>,
}

impl Load {
    /// Makes one record of each of `sources` sources, and then `merges` records whose sources `keys` draws.
    pub fn new(keys: Keys, sources: usize, merges: usize, seed: u64) -> Outcome<Load> {
        let names: Vec<Source> = (0..sources)
            .map(|number| Source::parse(&format!("sensors/site-{}/temperature-{number}", number % 100)))
            .collect::<Result<_, _>>()?;
        let (mut random, origin) = (Random::new(seed, 0), NodeName::parse("bench-node")?);
        let zipf = Zipf::new(sources as u64, if keys == Keys::Zipf { 1.0 } else { 0.0 });
        let record = |source: &Source, ts: u64, seq: u64| {
            let data = Bytes::from(format!("\"{seq:0width$}\"", width = DATA_BYTES - 2));
            let birth = Birth { origin: origin.clone(), boot: 1, seq };
            Arc::new(Record::new(
                source.clone(),
                Stamp::of_data(ts, &data),
                Payload::Json(data),
                birth,
                ts,
                0,
            ))
        };
        let first = names.iter().zip(1..).map(|(name, seq)| record(name, 1, seq)).collect();
        // Ranks are dealt out to the names by chance, so that frequent sources are not neighbours in memory.
        let spread = |rank: u64| &names[(rank.wrapping_mul(0x9E37_79B1) % sources as u64) as usize];
        let merges = (0..merges as u64).map(|number| {
            let is_stale = random.next_u64() % STALE_ONE_OF == 0;
            let ts = if is_stale { 0 } else { number + 2 };
            record(spread(zipf.draw(&mut random)), ts, sources as u64 + number)
        });
        let merges = merges.collect();
        Ok(Load { first, merges })
    }

    /// Returns one record of each source.
    pub fn first(&self) -> &[SharedRecord] {
        &self.first
    }

    /// Returns the records that are merged, in order.
    pub fn merges(&self) -> &[SharedRecord] {
        &self.merges
    }
}
