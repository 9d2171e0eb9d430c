//! What a run beside another system has shown, in a line, in a row of a table, and as JSON.

use std::path::Path;

use anode_loadgen::Outcome;
use anode_loadgen::machine::Machine;
use serde::Serialize;

use super::accounting::Account;
use super::pace::Back;
use crate::checker::{FaultTime, Figures, Second};
use crate::link::counts::Totals;

/// The end of a run, as the runner saw it.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Ending {
    /// Seconds for which values were put.
    pub load_s: f64,
    /// Values that were due and not sent, because no server could be reached or too many were unanswered.
    pub held: u64,
    /// Number of values delivered, those of snapshots included.
    pub delivered: u64,
    /// Number of values that a subscriber got after a newer one of the same key.
    pub older_after_newer: u64,
    /// Seconds from the end of faults and load until all replicas had the same; `None` if they had not.
    pub equal_s: Option<f64>,
    /// Seconds from there until all subscribers had what the bucket holds; `None` if they had not.
    pub subscribers_s: Option<f64>,
    /// For each subscriber the number of keys of which it lacked the value that the bucket holds.
    pub subscribers_lacked: Vec<usize>,
    /// Number of keys that the bucket holds; `None` if it could not be read.
    pub keys: Option<usize>,
    /// Counts of the links in user space.
    pub links: Option<Totals>,
    /// What faults and servers have had to tell.
    pub notes: Vec<String>,
}

/// The outcome of a run.
#[derive(Debug, Serialize)]
pub struct Comparison {
    /// Name of the profile.
    pub profile: String,
    /// The other system, with its version.
    pub peer: String,
    /// Number of servers.
    pub nodes: usize,
    /// Seconds of load.
    pub seconds: u64,
    /// Seed of the run.
    pub seed: u64,
    /// Values a second that were to be sent.
    pub rate: u32,
    /// Number of keys.
    pub sources: u64,
    /// Bytes of a value.
    pub bytes: u32,
    /// Command that makes the run again.
    pub again: String,
    /// The machine that it was measured on.
    pub machine: Machine,
    /// Commit of the source beside which it was made; empty outside of a repository.
    pub commit: String,
    /// Parts of the profile that were applied, and by what.
    pub applied: Vec<String>,
    /// Parts of the profile that were not applied, and why.
    pub left_out: Vec<String>,
    /// Number of puts that were acknowledged, refused, not answered and lost, and the times without any acknowledgement.
    pub account: Account,
    /// The end of the run.
    pub ending: Ending,
    /// The figures that runs of aNode have too. Those about members and stamps do not apply.
    pub figures: Figures,
    /// The faults, in the order of their numbers.
    pub faults: Vec<FaultTime>,
    /// Every second of the run.
    pub timeline: Vec<Second>,
}

/// The columns of the table.
pub const HEAD: [&str; 20] = [
    "profile",
    "nodes",
    "s",
    "seed",
    "acknowledged/s",
    "delivered/s",
    "p99 ms before",
    "during",
    "after",
    "refused",
    "unanswered",
    "longest without s",
    "acks back s",
    "deliveries back s",
    "equal s",
    "lost",
    "subscribers newest",
    "wire/useful",
    "MiB max",
    "waited ms",
];

impl Comparison {
    /// Returns the outcome in a few lines.
    pub fn text(&self) -> String {
        let (account, ending) = (&self.account, &self.ending);
        let mut text = format!(
            "{} beside {}: {} of {} puts acknowledged, {} refused, {} without an answer, {} held back; {} lost; {} \
             subscribers ended with the newest value of each key",
            self.profile,
            self.peer,
            account.acknowledged,
            account.sent,
            account.refused,
            account.unanswered,
            ending.held,
            self.lost(),
            self.newest(),
        );
        let figures = &self.figures;
        text += &format!(
            "\n  p99 from put to delivery: {} ms before, {} during, {} after; at most {:.1} s without an \
             acknowledgement; acknowledgements were back after {} s, deliveries after {} s, replicas equal after {} s",
            p99(figures.latency_before.p99_us, figures.latency_before.count),
            p99(figures.latency_during.p99_us, figures.latency_during.count),
            p99(figures.latency_after.p99_us, figures.latency_after.count),
            account.longest_without_us as f64 / 1e6,
            back(account.acknowledgements_back),
            back(account.deliveries_back),
            seconds(ending.equal_s),
        );
        let (wire, memory) = (self.wire(), self.memory());
        text += &format!("\n  {wire} bytes on the wire for a useful one; {memory} MiB in the largest server");
        for (reason, count) in &account.refusals {
            text += &format!("\n  refused {count} times: {reason}");
        }
        let lost = account.lost.iter().flat_map(|lost| &lost.first);
        lost.for_each(|put| text += &format!("\n  LOST {put}"));
        if ending.older_after_newer > 0 {
            text +=
                &format!("\n  note: {} values came after a newer one of their key", ending.older_after_newer);
        }
        ending.notes.iter().for_each(|note| text += &format!("\n  note: {note}"));
        let scarcity = figures.scarcity;
        if scarcity.is_too_great() {
            text += &format!(
                "\n  note: the machine had too much to do, and no time says anything: threads waited for a processor for \
                 {:.1} ms on average, and for {:.0} ms in the worst half second",
                scarcity.mean_us as f64 / 1e3,
                scarcity.longest_us as f64 / 1e3
            );
        }
        if let Some(why) = ending.links.and_then(|links| links.bottleneck()) {
            text += &format!("\n  note: the links were the bottleneck: {why}");
        }
        text
    }

    /// Returns the row of the run in a table; [`HEAD`] names the columns.
    pub fn row(&self) -> Vec<String> {
        let (figures, account, ending) = (&self.figures, &self.account, &self.ending);
        let rate = |count: u64| format!("{:.0}", count as f64 / ending.load_s.max(1.0));
        vec![
            self.profile.clone(),
            self.nodes.to_string(),
            self.seconds.to_string(),
            self.seed.to_string(),
            rate(account.acknowledged),
            rate(ending.delivered),
            p99(figures.latency_before.p99_us, figures.latency_before.count),
            p99(figures.latency_during.p99_us, figures.latency_during.count),
            p99(figures.latency_after.p99_us, figures.latency_after.count),
            account.refused.to_string(),
            account.unanswered.to_string(),
            format!("{:.1}", account.longest_without_us as f64 / 1e6),
            back(account.acknowledgements_back),
            back(account.deliveries_back),
            seconds(ending.equal_s),
            self.lost(),
            self.newest(),
            self.wire(),
            self.memory(),
            format!(
                "{:.1}/{:.0}",
                figures.scarcity.mean_us as f64 / 1e3,
                figures.scarcity.longest_us as f64 / 1e3
            ),
        ]
    }

    fn lost(&self) -> String {
        self.account.lost.as_ref().map_or("unknown".to_owned(), |lost| lost.puts.to_string())
    }

    fn newest(&self) -> String {
        let lacked = &self.ending.subscribers_lacked;
        let newest = lacked.iter().filter(|lacked| **lacked == 0).count();
        self.ending.keys.map_or("unknown".to_owned(), |_| format!("{newest}/{}", lacked.len()))
    }

    fn wire(&self) -> String {
        let (wire, useful) = (self.figures.wire_bytes, self.figures.useful_bytes);
        if useful == 0 { "–".to_owned() } else { format!("{:.1}", wire as f64 / useful as f64) }
    }

    fn memory(&self) -> String {
        let largest = self.figures.memory_bytes_max.values().max().copied().unwrap_or(0);
        (largest / (1024 * 1024)).to_string()
    }

    /// Writes the report as JSON into a directory.
    pub fn write(&self, dir: &Path) -> Outcome<()> {
        Ok(std::fs::write(dir.join("report.json"), serde_json::to_string_pretty(self)?)?)
    }
}

fn p99(us: u32, count: u64) -> String {
    if count == 0 { "–".to_owned() } else { format!("{:.1}", f64::from(us) / 1e3) }
}

fn seconds(seconds: Option<f64>) -> String {
    seconds.map_or("never".to_owned(), |seconds| format!("{seconds:.1}"))
}

fn back(back: Back) -> String {
    match back {
        Back::NotMeasured => "–".to_owned(),
        Back::AfterUs(us) => format!("{:.1}", us as f64 / 1e6),
        Back::NotWithinUs(us) => format!("> {:.1}", us as f64 / 1e6),
    }
}
