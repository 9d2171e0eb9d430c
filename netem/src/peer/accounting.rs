//! Decides from what clients saw what became of the puts, and for how long none was acknowledged.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::Serialize;

use super::bucket::Contents;
use super::pace::{Back, Pace};
use crate::checker::{Answer, Name, Observation, Seen, Version};

/// Number of lost puts that are told in full.
const TOLD_MAX: usize = 5;

/// A put, and its answer.
#[derive(Clone, Debug)]
struct Put {
    key: Name,
    hash: u128,
    sent_us: u64,
    answer: Option<Result<Acknowledged, Name>>,
}

/// The sequence that a put got, and when its answer came.
#[derive(Clone, Copy, Debug)]
struct Acknowledged {
    sequence: u64,
    at_us: u64,
}

/// Takes in what clients saw. Call [`Accounting::observe`] for each observation, then [`Accounting::judge`] once.
#[derive(Debug, Default)]
pub struct Accounting {
    puts: BTreeMap<u64, Put>,
    acknowledged: Pace,
    delivered: Pace,
    lasting: BTreeSet<u32>,
    first_fault_us: Option<u64>,
    last_fault_us: u64,
}

/// Puts that were acknowledged, and of which the bucket holds neither the value nor a newer one of the key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Lost {
    /// Number of such puts.
    pub puts: u64,
    /// The first of them, in words.
    pub first: Vec<String>,
}

/// Counts of puts by what became of them, and the times without any.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Account {
    /// Number of puts that were sent.
    pub sent: u64,
    /// Number of puts that were acknowledged, be it late.
    pub acknowledged: u64,
    /// Number of puts that were refused.
    pub refused: u64,
    /// Number of puts without an answer.
    pub unanswered: u64,
    /// Numbers of refusals by their reason.
    pub refusals: BTreeMap<String, u64>,
    /// Longest time without an acknowledgement while values were put, in microseconds.
    pub longest_without_us: u64,
    /// Time until acknowledgements were back.
    pub acknowledgements_back: Back,
    /// Time until deliveries were back, those of snapshots aside.
    pub deliveries_back: Back,
    /// Acknowledged puts that are lost; `None` if the bucket could not be read.
    pub lost: Option<Lost>,
}

impl Accounting {
    /// Takes in an observation.
    pub fn observe(&mut self, observation: &Observation) {
        let at_us = observation.at_us;
        match &observation.seen {
            Seen::Offered { publish, offer } => {
                let (key, hash) = (offer.source.clone(), offer.data_hash.unwrap_or_default());
                self.puts.insert(*publish, Put { key, hash, sent_us: at_us, answer: None });
            }
            Seen::Answered { publish, answer } => {
                let Some(put) = self.puts.get_mut(publish) else { return };
                put.answer = Some(match answer {
                    Answer::Done { ts, .. } => Ok(Acknowledged { sequence: *ts, at_us }),
                    Answer::Failed { code, .. } => Err(code.clone()),
                });
                if matches!(answer, Answer::Done { .. }) {
                    self.acknowledged.count(at_us);
                }
            }
            Seen::Delivered { delivery, .. } if !delivery.is_snapshot => self.delivered.count(at_us),
            Seen::FaultBegan { fault } => {
                self.first_fault_us.get_or_insert(at_us);
                self.lasting.insert(fault.id);
            }
            Seen::FaultEnded { fault } => {
                self.lasting.remove(fault);
                self.last_fault_us = at_us;
            }
            _ => {}
        }
    }

    /// Judges the run as a whole by what the bucket holds at the end, if it could be read.
    pub fn judge(&self, bucket: Option<&Contents>) -> Account {
        let mut refusals = BTreeMap::<String, u64>::new();
        let (mut acknowledged, mut unanswered) = (0, 0);
        for put in self.puts.values() {
            match &put.answer {
                None => unanswered += 1,
                Some(Ok(_)) => acknowledged += 1,
                Some(Err(code)) => *refusals.entry(code.to_string()).or_default() += 1,
            }
        }
        let sent_us = || self.puts.values().map(|put| put.sent_us);
        let publishing_us = (sent_us().min().unwrap_or(0), sent_us().max().unwrap_or(0));
        let faults_us = self.first_fault_us.filter(|_| self.lasting.is_empty());
        let faults_us = faults_us.map(|first_us| (first_us, self.last_fault_us));
        Account {
            sent: self.puts.len() as u64,
            acknowledged,
            refused: refusals.values().sum(),
            unanswered,
            refusals,
            longest_without_us: self.longest_without_us(publishing_us),
            acknowledgements_back: self.acknowledged.back(faults_us, publishing_us),
            deliveries_back: self.delivered.back(faults_us, publishing_us),
            lost: bucket.map(|bucket| self.lost(bucket)),
        }
    }

    fn longest_without_us(&self, (first_us, last_us): (u64, u64)) -> u64 {
        let answered = self.puts.values().filter_map(|put| Some(put.answer.as_ref()?.as_ref().ok()?.at_us));
        let mut times: Vec<u64> = answered.filter(|at_us| *at_us < last_us).collect();
        times.extend([first_us, last_us]);
        times.sort_unstable();
        times.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(0)
    }

    /// Finds the acknowledged puts of which the bucket holds neither the value nor a newer one. A value is newer if its
    /// sequence is greater, or if it was sent only after the put had been acknowledged: a bucket that has lost its end gives
    /// sequences a second time.
    fn lost(&self, bucket: &Contents) -> Lost {
        let sent_us: HashMap<(&str, u128), u64> =
            self.puts.values().map(|put| ((&*put.key, put.hash), put.sent_us)).collect();
        let is_kept = |put: &Put, acknowledged: Acknowledged, held: &Version| {
            let was_sent_later =
                || sent_us.get(&(&*put.key, held.hash)).is_some_and(|sent_us| *sent_us >= acknowledged.at_us);
            held.hash == put.hash || held.ts > acknowledged.sequence || was_sent_later()
        };
        let mut lost = Lost::default();
        for put in self.puts.values() {
            let Some(Ok(acknowledged)) = put.answer else { continue };
            let held = bucket.get(&put.key);
            if held.is_some_and(|held| is_kept(put, acknowledged, held)) {
                continue;
            }
            lost.puts += 1;
            if lost.first.len() < TOLD_MAX {
                lost.first.push(format!(
                    "{} was acknowledged at {:.3} s as {}, and the bucket holds {}",
                    put.key,
                    acknowledged.at_us as f64 / 1e6,
                    acknowledged.sequence,
                    held.map_or("nothing".to_owned(), |held| held.ts.to_string()),
                ));
            }
        }
        lost
    }
}
