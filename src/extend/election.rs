//! Which member runs what.
//!
//! Every member has a weight for every task, which is a hash of both names, and the candidate with the greatest weight
//! runs the task (rendezvous hashing: Thaler and Ravishankar, 1998). So nodes that see the same candidates agree without
//! a word, tasks are spread evenly, and when a member goes or comes, only its own tasks move.

use xxhash_rust::xxh3::xxh3_64;

use super::ability::Abilities;

/// Returns the candidate that should run the task, among those that can.
pub fn elect<'a>(task: &str, candidates: &'a Abilities) -> Option<&'a str> {
    let able = candidates.iter().filter(|(_, ability)| ability.can(task));
    runner(task, able.map(|(member, _)| member.as_str()))
}

/// Returns the candidate that runs the task; `None` without a candidate. The order of the candidates does not matter.
pub fn runner<'a>(task: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let mut both = Vec::with_capacity(task.len() + 64);
    both.extend_from_slice(task.as_bytes());
    // No name has this byte, so no two pairs have the same text.
    both.push(0);
    candidates.into_iter().max_by_key(|candidate| {
        both.truncate(task.len() + 1);
        both.extend_from_slice(candidate.as_bytes());
        (weight(&both), *candidate)
    })
}

/// The weight of a member for a task, of which `both` has the names with a zero between them: the same at every node,
/// whatever version of the program it runs.
fn weight(both: &[u8]) -> u64 {
    xxh3_64(both)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn names(count: usize) -> Vec<String> {
        (0..count).map(|index| format!("node-{index}")).collect()
    }

    #[test]
    fn nodes_of_all_versions_elect_the_same() {
        // The numbers are part of what nodes agree on.
        assert_eq!(runner("pull/weather", ["a", "b", "c"]), runner("pull/weather", ["c", "a", "b"]));
        assert_eq!(weight(b"pull/weather\0a"), xxh3_64(b"pull/weather\0a"));
        let heaviest = ["a", "b", "c"]
            .into_iter()
            .max_by_key(|member| xxh3_64(format!("pull/weather\0{member}").as_bytes()));
        assert_eq!(runner("pull/weather", ["a", "b", "c"]), heaviest);
        assert_eq!(runner("pull/weather", []), None);
    }

    #[test]
    fn tasks_are_spread_evenly_and_only_those_of_a_member_that_goes_move() {
        let members = names(20);
        let all: Vec<&str> = members.iter().map(String::as_str).collect();
        let mut tasks_of = BTreeMap::<&str, usize>::new();
        for index in 0..2_000 {
            let task = format!("pull/{index}");
            let before = runner(&task, all.iter().copied()).expect("a runner");
            *tasks_of.entry(before).or_default() += 1;
            let after = runner(&task, all[1..].iter().copied()).expect("a runner");
            assert!(before == all[0] || after == before, "{task} moved from {before} to {after}");
        }
        assert_eq!(tasks_of.len(), 20);
        // A hundred each, with the spread that chance has: five standard deviations.
        assert!(tasks_of.values().all(|count| (50..=150).contains(count)), "{tasks_of:?}");
    }
}
