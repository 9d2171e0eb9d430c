//! Rules for links: which links, when, and what happens to their packets.

use std::time::Duration;

use serde::Deserialize;

use super::group::Group;
use crate::link::shape::{Bursts, Shape, Spread};

/// A part of the shapes of some links during some time. Fields that are not given stay as earlier rules, or a perfect
/// link, have them.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Rule {
    /// Nodes that send.
    pub from: Group,
    /// Nodes that receive.
    pub to: Group,
    /// Whether the rule holds in the other direction too.
    pub both: bool,
    /// Begin of the rule, as a part of the run.
    pub at: f64,
    /// End of the rule, as a part of the run; 1 means that it holds until the program ends.
    pub until: f64,
    /// Length in seconds of the cycles in which the rule holds and does not hold.
    pub cycle_s: Option<f64>,
    /// Seconds at the begin of each cycle for which the rule holds.
    pub cycle_on_s: f64,
    /// Whether nothing passes.
    pub cut: Option<bool>,
    /// Delay in milliseconds.
    pub delay_ms: Option<f64>,
    /// Jitter in milliseconds.
    pub jitter_ms: Option<f64>,
    /// Distribution of the jitter.
    pub distribution: Option<Spread>,
    /// Loss in percent.
    pub loss: Option<f64>,
    /// Loss in bursts.
    pub bursts: Option<Bursts>,
    /// Duplicates in percent.
    pub duplicate: Option<f64>,
    /// Damaged packets in percent.
    pub corrupt: Option<f64>,
    /// Packets that overtake, in percent.
    pub reorder: Option<f64>,
    /// Rate in megabits a second.
    pub rate_mbit: Option<f64>,
}

impl Default for Rule {
    fn default() -> Rule {
        Rule {
            from: Group::all(),
            to: Group::all(),
            both: false,
            at: 0.0,
            until: 1.0,
            cycle_s: None,
            cycle_on_s: 0.0,
            cut: None,
            delay_ms: None,
            jitter_ms: None,
            distribution: None,
            loss: None,
            bursts: None,
            duplicate: None,
            corrupt: None,
            reorder: None,
            rate_mbit: None,
        }
    }
}

impl Rule {
    /// Says what is wrong with the rule.
    pub fn check(&self) -> Result<(), String> {
        let bursts = self.bursts.as_ref();
        let percents = [
            ("loss", self.loss),
            ("duplicate", self.duplicate),
            ("corrupt", self.corrupt),
            ("reorder", self.reorder),
            ("bursts.begin", bursts.map(|bursts| bursts.begin)),
            ("bursts.end", bursts.map(|bursts| bursts.end)),
            ("bursts.loss_bad", bursts.map(|bursts| bursts.loss_bad)),
            ("bursts.loss_good", bursts.map(|bursts| bursts.loss_good)),
        ];
        for (field, value) in percents {
            if let Some(value) = value.filter(|value| !(0.0..=100.0).contains(value)) {
                return Err(format!("{field}: {value} is not a percentage from 0 to 100"));
            }
        }
        for (field, value) in [("delay-ms", self.delay_ms), ("jitter-ms", self.jitter_ms)] {
            if let Some(value) = value.filter(|value| !(0.0..=60_000.0).contains(value)) {
                return Err(format!("{field}: {value} is not from 0 to 60000"));
            }
        }
        if let Some(rate) = self.rate_mbit.filter(|rate| !(0.01..=100_000.0).contains(rate)) {
            return Err(format!("rate-mbit: {rate} is not from 0.01 to 100000"));
        }
        if !(0.0..=1.0).contains(&self.at) || !(0.0..=1.0).contains(&self.until) || self.at > self.until {
            return Err(format!("at {} and until {} are not parts of the run in order", self.at, self.until));
        }
        if let Some(cycle) = self.cycle_s.filter(|cycle| !(*cycle > 0.0 && self.cycle_on_s <= *cycle)) {
            return Err(format!("cycle-s: {cycle} is not longer than cycle-on-s {}", self.cycle_on_s));
        }
        Ok(())
    }

    /// Returns whether the rule is there for the whole run, as a property of the network, and is not a fault.
    pub fn is_always(&self) -> bool {
        self.at == 0.0 && self.until == 1.0 && self.cycle_s.is_none()
    }

    /// Returns what the rule does to packets, in words. What it takes back of earlier rules is not named.
    pub fn named_parts(&self) -> Vec<&'static str> {
        let is_some = |value: Option<f64>| value.is_some_and(|value| value > 0.0);
        let parts = [
            ("cuts", self.cut == Some(true)),
            ("loss", is_some(self.loss)),
            ("bursts of loss", self.bursts.is_some()),
            ("delays", is_some(self.delay_ms) || is_some(self.jitter_ms)),
            ("packets that come twice", is_some(self.duplicate)),
            ("damaged packets", is_some(self.corrupt)),
            ("packets that overtake", is_some(self.reorder)),
            ("bounds on the rate", self.rate_mbit.is_some()),
        ];
        parts.into_iter().filter(|(_, is_there)| *is_there).map(|(part, _)| part).collect()
    }

    /// Returns whether the rule holds at `at_s` seconds of a run of `run_s` seconds.
    pub fn holds_at(&self, at_s: f64, run_s: f64) -> bool {
        let begin = self.at * run_s;
        if at_s < begin || (self.until < 1.0 && at_s >= self.until * run_s) {
            return false;
        }
        // Cycles end with the run, so that the network is as it was when the nodes must become equal.
        self.cycle_s.is_none_or(|cycle| at_s < run_s && (at_s - begin) % cycle < self.cycle_on_s)
    }

    /// Returns whether the rule is about the link from one node to another, both counted from 0.
    pub fn is_about(&self, from: usize, to: usize, nodes: usize) -> bool {
        let one_way = self.from.has(from, nodes) && self.to.has(to, nodes);
        one_way || (self.both && self.from.has(to, nodes) && self.to.has(from, nodes))
    }

    /// Puts what the rule says into a shape.
    pub fn apply(&self, shape: &mut Shape) {
        let ms = |value: f64| Duration::from_nanos((value * 1e6) as u64);
        set(&mut shape.is_cut, self.cut);
        set(&mut shape.delay, self.delay_ms.map(ms));
        set(&mut shape.jitter, self.jitter_ms.map(ms));
        set(&mut shape.spread, self.distribution);
        set(&mut shape.loss, self.loss);
        set(&mut shape.duplicate, self.duplicate);
        set(&mut shape.corrupt, self.corrupt);
        set(&mut shape.reorder, self.reorder);
        if self.bursts.is_some() {
            shape.bursts = self.bursts;
        }
        if let Some(rate) = self.rate_mbit {
            shape.rate_bits = Some((rate * 1e6) as u64);
        }
    }
}

fn set<T>(to: &mut T, from: Option<T>) {
    if let Some(value) = from {
        *to = value;
    }
}

/// Returns the shapes of all links at `at_s` seconds of a run of `run_s` seconds, by sender and receiver. The clients
/// are the last of both.
pub fn shapes_at(rules: &[Rule], nodes: usize, at_s: f64, run_s: f64) -> Vec<Vec<Shape>> {
    let mut shapes = vec![vec![Shape::default(); nodes + 1]; nodes + 1];
    for rule in rules.iter().filter(|rule| rule.holds_at(at_s, run_s)) {
        for (from, row) in shapes.iter_mut().enumerate() {
            for (to, shape) in row.iter_mut().enumerate() {
                if from != to && rule.is_about(from, to, nodes) {
                    rule.apply(shape);
                }
            }
        }
    }
    shapes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::Profile;

    fn rules(text: &str) -> Vec<Rule> {
        Profile::parse(&format!("about = \"A test.\"\n{text}")).expect(text).links
    }

    #[test]
    fn later_rules_change_what_they_name_and_end() {
        let rules = rules(
            "[[link]]\ndelay-ms = 10\nloss = 1\n[[link]]\nfrom = \"1\"\nto = \"2\"\nloss = 9\nat = 0.5\nuntil = 0.6",
        );
        let shape = |at_s: f64, from: usize, to: usize| shapes_at(&rules, 3, at_s, 100.0)[from][to];
        assert_eq!(shape(55.0, 0, 1).loss, 9.0);
        assert_eq!(shape(55.0, 0, 1).delay, Duration::from_millis(10));
        assert_eq!(shape(55.0, 1, 0).loss, 1.0);
        assert_eq!(shape(49.0, 0, 1).loss, 1.0);
        assert_eq!(shape(60.0, 0, 1).loss, 1.0);
        assert_eq!(shape(500.0, 2, 1).loss, 1.0);
        assert!(shape(0.0, 3, 1).is_perfect(), "the clients are not among all nodes");
    }

    #[test]
    fn a_rule_with_cycles_comes_and_goes_and_ends_with_the_run() {
        let rules = rules(
            "[[link]]\nfrom = \"part 1/2\"\nto = \"part 2/2\"\nboth = true\ncut = true\nat = 0.1\ncycle-s = 4\n\
             cycle-on-s = 1",
        );
        let is_cut = |at_s: f64| shapes_at(&rules, 4, at_s, 100.0)[3][0].is_cut;
        let cut: Vec<bool> = [9.0, 10.5, 11.5, 14.5, 99.0, 102.5].map(is_cut).to_vec();
        assert_eq!(cut, [false, true, false, true, false, false]);
        assert!(!shapes_at(&rules, 4, 10.5, 100.0)[0][1].is_cut);
        assert!(!rules[0].is_always());
    }
}
