//! What became of the lines of an import.

use crate::protocol::answer::{Outcome, Published};
use crate::protocol::json::write_refusal;
use crate::protocol::refusal::Refusal;

/// Most refused lines that an answer names. Further ones are counted.
const REFUSED_SHOWN_MAX: usize = 1_000;

/// The numbers of lines by outcome, and the first of those that were refused.
#[derive(Debug, Default)]
pub(super) struct Tally {
    applied: u64,
    duplicate: u64,
    stale: u64,
    dropped: u64,
    refused: u64,
    shown: Vec<(u64, Refusal)>,
}

impl Tally {
    /// Counts the line with this number.
    pub(super) fn count(&mut self, line: u64, answer: Result<Published, Refusal>) {
        match answer.map(|published| published.outcome) {
            Ok(Outcome::Applied) => self.applied += 1,
            Ok(Outcome::Duplicate) => self.duplicate += 1,
            Ok(Outcome::Stale { .. }) => self.stale += 1,
            Ok(Outcome::Dropped) => self.dropped += 1,
            Err(refusal) => self.refuse(line, refusal),
        }
    }

    /// Counts the line with this number as refused.
    pub(super) fn refuse(&mut self, line: u64, refusal: Refusal) {
        self.refused += 1;
        if self.shown.len() < REFUSED_SHOWN_MAX {
            self.shown.push((line, refusal));
        }
    }

    /// Appends the counts as members of a JSON object. The refused lines are in the order of their numbers.
    pub(super) fn write_members(mut self, out: &mut Vec<u8>) {
        self.shown.sort_by_key(|(line, _)| *line);
        let Tally { applied, duplicate, stale, dropped, refused, shown } = self;
        // Told only where there are middlewares that drop records.
        let dropped = if dropped > 0 { format!("\"dropped\":{dropped},") } else { String::new() };
        let counts = format!(
            "\"applied\":{applied},\"duplicate\":{duplicate},\"stale\":{stale},{dropped}\"refused_total\":{refused},\
             \"refused\":["
        );
        out.extend_from_slice(counts.as_bytes());
        for (at, (line, refusal)) in shown.iter().enumerate() {
            let comma = if at > 0 { "," } else { "" };
            out.extend_from_slice(format!("{comma}{{\"line\":{line},\"error\":").as_bytes());
            write_refusal(out, refusal);
            out.push(b'}');
        }
        out.push(b']');
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::AckLevel;
    use crate::protocol::refusal::Code;

    #[test]
    fn lines_are_counted_and_the_refused_ones_named() {
        let mut tally = Tally::default();
        let published = |outcome| Ok(Published { ts: 1, outcome, level: AckLevel::Accepted, nodes: None });
        tally.count(1, published(Outcome::Applied));
        tally.count(2, published(Outcome::Stale { current_ts: 5 }));
        tally.count(9, Err(Refusal::new(Code::Forbidden, "no")));
        tally.count(3, published(Outcome::Duplicate));
        for line in (100..100 + REFUSED_SHOWN_MAX as u64).chain([4]) {
            tally.refuse(line, Refusal::new(Code::BadJson, "x"));
        }
        let mut out = b"{".to_vec();
        tally.write_members(&mut out);
        out.push(b'}');
        let told: serde_json::Value = serde_json::from_slice(&out).expect("json");
        assert_eq!((&told["applied"], &told["duplicate"], &told["stale"]), (&1.into(), &1.into(), &1.into()));
        assert_eq!(told["refused_total"], REFUSED_SHOWN_MAX + 2);
        assert_eq!(told["refused"].as_array().map(Vec::len), Some(REFUSED_SHOWN_MAX));
        assert_eq!(told["refused"][0]["line"], 9);
        assert_eq!(told["refused"][0]["error"]["code"], "forbidden");
    }
}
