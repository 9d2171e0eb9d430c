//! Groups of nodes, as profiles name them.

use serde::Deserialize;

/// A set of nodes that does not depend on how many there are: `*` for all nodes, `2` for the second, `2-4`, `3-*`
/// for the third and all after it, `last`, `part 1/2` for the first of two equal parts, `zone 2/3` for the second of
/// three zones that take turns, `clients` for the clients, or several of these separated by commas.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Group {
    terms: Vec<Term>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Term {
    /// Nodes from the first to the second number, counted from 1.
    Range(usize, usize),
    Last,
    Part {
        number: usize,
        of: usize,
    },
    Zone {
        number: usize,
        of: usize,
    },
    Clients,
}

impl Group {
    /// Returns the group of all nodes, without the clients.
    pub fn all() -> Group {
        Group { terms: vec![Term::Range(1, usize::MAX)] }
    }

    /// Returns the group of one node, counted from 0.
    pub fn one(index: usize) -> Group {
        Group { terms: vec![Term::Range(index + 1, index + 1)] }
    }

    /// Returns whether node `index` (from 0) of `nodes` is in the group. The clients have the index `nodes`.
    pub fn has(&self, index: usize, nodes: usize) -> bool {
        let is_clients = index == nodes;
        self.terms.iter().any(|term| match *term {
            Term::Clients => is_clients,
            _ if is_clients => false,
            Term::Range(first, last) => (first..=last).contains(&(index + 1)),
            Term::Last => index + 1 == nodes,
            Term::Part { number, of } => index * of / nodes.max(1) == number - 1,
            Term::Zone { number, of } => index % of == number - 1,
        })
    }

    /// Returns the nodes of the group, counted from 0.
    pub fn nodes(&self, nodes: usize) -> Vec<usize> {
        (0..nodes).filter(|index| self.has(*index, nodes)).collect()
    }
}

impl TryFrom<String> for Group {
    type Error = String;

    fn try_from(text: String) -> Result<Group, String> {
        let wrong = || {
            format!(
                "group {text:?}: allowed are *, NUMBER, FIRST-LAST, FIRST-*, last, part K/N, zone K/N, clients, and \
                 several separated by commas"
            )
        };
        let terms: Option<Vec<Term>> = text.split(',').map(|term| parse_term(term.trim())).collect();
        Ok(Group { terms: terms.ok_or_else(wrong)? })
    }
}

fn parse_term(text: &str) -> Option<Term> {
    let fraction = |text: &str| {
        let (number, of) = text.trim().split_once('/')?;
        let (number, of): (usize, usize) = (number.parse().ok()?, of.parse().ok()?);
        (number >= 1 && number <= of).then_some((number, of))
    };
    match text {
        "*" => return Some(Term::Range(1, usize::MAX)),
        "last" => return Some(Term::Last),
        "clients" => return Some(Term::Clients),
        _ => {}
    }
    if let Some(rest) = text.strip_prefix("part ") {
        return fraction(rest).map(|(number, of)| Term::Part { number, of });
    }
    if let Some(rest) = text.strip_prefix("zone ") {
        return fraction(rest).map(|(number, of)| Term::Zone { number, of });
    }
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let first: usize = first.parse().ok()?;
    let last = if last == "*" { usize::MAX } else { last.parse().ok()? };
    (first >= 1 && first <= last).then_some(Term::Range(first, last))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(text: &str, of: usize) -> Vec<usize> {
        Group::try_from(text.to_owned()).expect(text).nodes(of)
    }

    #[test]
    fn groups_follow_the_number_of_nodes() {
        assert_eq!(nodes("*", 3), [0, 1, 2]);
        assert_eq!(nodes("2", 3), [1]);
        assert_eq!(nodes("2-3", 5), [1, 2]);
        assert_eq!(nodes("4-*", 6), [3, 4, 5]);
        assert_eq!(nodes("1, last", 4), [0, 3]);
        assert_eq!(nodes("part 1/2", 5), [0, 1, 2]);
        assert_eq!(nodes("part 2/2", 5), [3, 4]);
        assert_eq!(nodes("zone 2/3", 6), [1, 4]);
        assert_eq!(nodes("clients", 3), [0; 0]);
        let clients = Group::try_from("clients".to_owned()).expect("clients");
        assert!(clients.has(3, 3) && !Group::all().has(3, 3));
    }

    #[test]
    fn every_node_is_in_exactly_one_part() {
        for of in 1..8 {
            for parts in 1..=of {
                let mut all: Vec<_> =
                    (1..=parts).flat_map(|part| nodes(&format!("part {part}/{parts}"), of)).collect();
                all.sort_unstable();
                assert_eq!(all, (0..of).collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn mistakes_are_refused() {
        for text in ["", "0", "3-2", "part 3/2", "part 0/2", "zone 1", "x", "1,,2"] {
            assert!(Group::try_from(text.to_owned()).is_err(), "{text}");
        }
    }
}
