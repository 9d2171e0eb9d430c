//! What publishers offered, and what they were answered.

use std::collections::{BTreeMap, HashMap};

use super::observation::{Answer, Level, Name, Offer, Outcome};
use super::version::Version;

/// An offer, with names as numbers.
#[derive(Clone, Debug)]
pub(super) struct Offered {
    /// Number of the source.
    pub(super) source: u32,
    /// Number of the node.
    pub(super) node: u32,
    /// Level that was asked for.
    pub(super) level: Level,
    /// Time at which it was sent, in microseconds.
    pub(super) at_us: u64,
    /// Length of the data in bytes.
    pub(super) data_bytes: u32,
    ts: Option<u64>,
    data_hash: Option<u128>,
    ttl_us: u64,
    /// The state of the publish.
    pub(super) state: PublishState,
    /// The first place that showed the record: the time, the number of the node, and the version.
    pub(super) shown: Option<(u64, u32, Version)>,
    /// The code of the error that answered it, if one did.
    pub(super) code: Option<Name>,
}

/// States of a publish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum PublishState {
    /// No answer has come, or will come: the record may have been applied or not.
    Unknown,
    /// The level was reached.
    Done(Acked),
    /// The level was not reached; the record was applied with this timestamp all the same.
    Applied(u64),
    /// The record was refused and not applied.
    Refused,
}

/// A record that was acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Acked {
    /// The version that won: of this record, or at least the one that was newer.
    pub(super) winner: Version,
    /// Says that the record itself became the latest.
    pub(super) is_applied: bool,
    /// Time of the answer, in microseconds.
    pub(super) at_us: u64,
    /// Number of nodes that hold it, if the answer says so.
    pub(super) nodes: Option<u32>,
}

impl Offered {
    /// The version that the record has with a timestamp.
    pub(super) fn version(&self, ts: u64) -> Version {
        match self.data_hash {
            Some(hash) => Version { ts, deleted: false, hash },
            None => Version::of_deletion(ts),
        }
    }

    /// The timestamp, if it is known.
    pub(super) fn known_ts(&self) -> Option<u64> {
        match &self.state {
            PublishState::Done(acked) if acked.is_applied => Some(acked.winner.ts),
            PublishState::Applied(ts) => Some(*ts),
            _ => self.ts,
        }
    }

    /// The time from which readers see the record no more, as a wall clock in microseconds, if it has a time to live.
    pub(super) fn ends_us(&self, ts: u64, accepted_wall_us: u64) -> Option<u64> {
        (self.ttl_us > 0).then(|| ts.min(accepted_wall_us).saturating_add(self.ttl_us))
    }

    /// Returns whether the record has a time to live.
    pub(super) fn has_ttl(&self) -> bool {
        self.ttl_us > 0
    }
}

/// All publishes of a run.
#[derive(Debug, Default)]
pub(super) struct Publishes {
    offers: Vec<Offered>,
    by_number: HashMap<u64, usize>,
    /// Offers that can make a source empty: deletions, and those with a time to live.
    emptying: HashMap<u32, Vec<u32>>,
    /// Offers by source and hash of the data; 0 for deletions.
    by_data: HashMap<(u32, u128), Vec<u32>>,
    /// Offers with a time to live, by source.
    ending: HashMap<u32, Vec<u32>>,
    refused: HashMap<String, u64>,
    /// Deletions that were seen, each with the first place that showed it. All deletions of a source look alike, so
    /// which offer each belongs to can be said once all answers are known.
    deletions_shown: BTreeMap<(u32, Version), (u64, u32)>,
}

impl Publishes {
    /// Notes an offer.
    pub(super) fn handle_offer(
        &mut self,
        at_us: u64,
        publish: u64,
        offer: &Offer,
        (source, node): (u32, u32),
    ) {
        let index = self.offers.len();
        self.offers.push(Offered {
            source,
            node,
            level: offer.level,
            at_us,
            data_bytes: offer.data_bytes,
            ts: offer.ts,
            data_hash: offer.data_hash,
            ttl_us: offer.ttl_ms.saturating_mul(1_000),
            state: PublishState::Unknown,
            shown: None,
            code: None,
        });
        self.by_number.insert(publish, index);
        self.by_data.entry((source, offer.data_hash.unwrap_or(0))).or_default().push(index as u32);
        if offer.ttl_ms > 0 || offer.data_hash.is_none() {
            self.emptying.entry(source).or_default().push(index as u32);
        }
        if offer.ttl_ms > 0 {
            self.ending.entry(source).or_default().push(index as u32);
        }
    }

    /// Notes an answer. Returns the offer that it belongs to.
    pub(super) fn handle_answer(&mut self, at_us: u64, publish: u64, answer: &Answer) -> Option<&Offered> {
        let offered = self.offers.get_mut(*self.by_number.get(&publish)?)?;
        offered.state = match answer {
            Answer::Done { ts, outcome, nodes } => {
                let winner = match outcome {
                    Outcome::Applied | Outcome::Duplicate => offered.version(*ts),
                    Outcome::Stale { current_ts } => Version::at_least(*current_ts),
                };
                let is_applied = matches!(outcome, Outcome::Applied);
                PublishState::Done(Acked { winner, is_applied, at_us, nodes: *nodes })
            }
            Answer::Failed { code, applied } => {
                *self.refused.entry(code.to_string()).or_default() += 1;
                offered.code = Some(code.clone());
                applied.map_or(PublishState::Refused, PublishState::Applied)
            }
        };
        Some(offered)
    }

    /// Finds an offer that explains why somebody sees a version of a source, and notes where it shows. The end of a
    /// record's time to live shows as a deletion with its timestamp. `None` if nobody offered it.
    pub(super) fn explain(&mut self, source: u32, version: Version, shown: (u64, u32)) -> Option<&Offered> {
        let found = self.find(source, version)?;
        if version.deleted {
            self.deletions_shown.entry((source, version)).or_insert(shown);
        } else if let Some(offered) = self.offers.get_mut(found) {
            offered.shown.get_or_insert((shown.0, shown.1, version));
        }
        self.offers.get(found)
    }

    /// Says which offers the deletions belong to that were seen. To be called when all answers have come.
    pub(super) fn attribute_deletions(&mut self) {
        for ((source, version), shown) in std::mem::take(&mut self.deletions_shown) {
            let found = self.find(source, version);
            if let Some(offered) = found.and_then(|index| self.offers.get_mut(index)) {
                offered.shown.get_or_insert((shown.0, shown.1, version));
            }
        }
    }

    /// Finds the offer that most likely became this version by what is known so far: rather one that was not refused, and
    /// then rather one whose timestamp is known. A deletion may also be the end of a record's time to live.
    fn find(&self, source: u32, version: Version) -> Option<usize> {
        let same = self.by_data.get(&(source, version.hash)).into_iter().flatten();
        let ending = self.ending.get(&source).filter(|_| version.deleted).into_iter().flatten();
        let offers = same.chain(ending).filter_map(|index| Some((*index, self.offers.get(*index as usize)?)));
        let fitting = offers.filter(|(_, offered)| {
            let is_same_kind = offered.data_hash.is_none() == version.deleted;
            (is_same_kind || offered.has_ttl()) && offered.known_ts().is_none_or(|ts| ts == version.ts)
        });
        let doubt =
            |offered: &Offered| (offered.state == PublishState::Refused, offered.known_ts().is_none());
        fitting.min_by_key(|(_, offered)| doubt(offered)).map(|(index, _)| index as usize)
    }

    /// The offers of a source that can make it empty: deletions, and those with a time to live.
    pub(super) fn emptying(&self, source: u32) -> impl Iterator<Item = &Offered> {
        let indexes = self.emptying.get(&source).into_iter().flatten();
        indexes.filter_map(|index| self.offers.get(*index as usize))
    }

    /// All offers, in the order in which they were made.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Offered> {
        self.offers.iter()
    }

    /// Numbers of refusals by code.
    pub(super) fn refused(&self) -> &HashMap<String, u64> {
        &self.refused
    }
}
