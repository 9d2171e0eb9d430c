//! Everything that nodes hold at the end, and whether it is the same everywhere.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anode_loadgen::Outcome;
use serde::Deserialize;

use crate::checker::{Name, Version};
use crate::http;
use crate::load::ROOT;
use crate::target::Target;

/// Records of a page.
const PAGE: usize = 1_000;
/// How long a node may take for a page.
const ANSWER: Duration = Duration::from_secs(5);
/// Pause between two looks.
const PAUSE: Duration = Duration::from_millis(100);

/// The latest record of every source.
pub type Holdings = BTreeMap<Name, Version>;

#[derive(Deserialize)]
struct Page<'a> {
    #[serde(borrow)]
    records: Vec<RecordOf<'a>>,
    after: Option<String>,
}

#[derive(Deserialize)]
struct RecordOf<'a> {
    source: String,
    ts: u64,
    #[serde(borrow)]
    data: &'a serde_json::value::RawValue,
}

/// Reads everything that a node holds, page by page.
pub fn read(target: &Target) -> Outcome<Holdings> {
    let mut all = Holdings::new();
    let mut after = String::new();
    loop {
        let path = format!("/v1/sources?pattern={ROOT}/**&limit={PAGE}{after}");
        let body = http::get_text(target, &path, ANSWER)?;
        let page: Page = serde_json::from_str(&body).map_err(|error| format!("{target:?}{path}: {error}"))?;
        for record in page.records {
            let version = Version::of_data(record.ts, record.data.get().as_bytes());
            all.insert(record.source.into(), version);
        }
        match page.after {
            Some(cursor) => after = format!("&after={}", encode(&cursor)),
            None => return Ok(all),
        }
    }
}

fn encode(text: &str) -> String {
    let keep = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes()
        .map(|byte| if keep(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

/// What the nodes hold, and how they differ.
pub struct Comparison {
    /// What each node holds; `None` for one that did not answer.
    pub holdings: Vec<Option<Holdings>>,
    /// A sentence about the first difference, if there is one.
    pub difference: Option<String>,
    /// Time until the nodes were equal, or until the deadline.
    pub took: Duration,
}

impl Comparison {
    /// Returns whether a node did not answer, so that nothing is known of what it holds.
    pub fn is_incomplete(&self) -> bool {
        self.holdings.iter().any(Option::is_none)
    }
}

/// Reads all nodes again and again until they hold the same, or until the deadline. `go_on` is asked between.
pub fn wait_equal(nodes: &[(Name, Target)], most: Duration, go_on: impl Fn() -> bool) -> Outcome<Comparison> {
    let begin = Instant::now();
    loop {
        let read: Vec<Outcome<Holdings>> = nodes.iter().map(|(_, target)| read(target)).collect();
        let failed = read.iter().find_map(|read| read.as_ref().err().map(|error| error.to_string()));
        let holdings: Vec<Option<Holdings>> = read.into_iter().map(Result::ok).collect();
        let difference = failed.or_else(|| {
            let all: Vec<&Holdings> = holdings.iter().flatten().collect();
            difference(nodes, &all)
        });
        let took = begin.elapsed();
        if difference.is_none() || took >= most || !go_on() {
            return Ok(Comparison { holdings, difference, took });
        }
        std::thread::sleep(PAUSE);
    }
}

fn difference(nodes: &[(Name, Target)], holdings: &[&Holdings]) -> Option<String> {
    let (first, others) = holdings.split_first()?;
    for (index, other) in others.iter().enumerate() {
        let names = first.keys().chain(other.keys());
        let mut differing = names.filter(|name| first.get(*name) != other.get(*name)).peekable();
        if let Some(source) = differing.peek().copied() {
            let ts =
                |of: &Holdings| of.get(source).map_or("nothing".to_owned(), |version| version.ts.to_string());
            return Some(format!(
                "{} has {} of {source}, {} has {}; {} sources differ",
                nodes[0].0,
                ts(first),
                nodes[index + 1].0,
                ts(other),
                differing.count()
            ));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_difference_is_told() {
        let nodes: Vec<(Name, Target)> = ["a", "b"].map(|name| (name.into(), Target::nowhere(None))).to_vec();
        let one = Holdings::from([("x".into(), Version::of_data(1, b"1"))]);
        let two = Holdings::from([("x".into(), Version::of_data(2, b"1"))]);
        assert_eq!(difference(&nodes, &[&one, &one]), None);
        let told = difference(&nodes, &[&one, &two]).expect("a difference");
        assert!(told.contains("a has 1 of x, b has 2"), "{told}");
        let told = difference(&nodes, &[&one, &Holdings::new()]).expect("a difference");
        assert!(told.contains("b has nothing"), "{told}");
    }

    #[test]
    fn cursors_are_encoded() {
        assert_eq!(encode("a/b+c~1="), "a%2Fb%2Bc~1%3D");
    }
}
