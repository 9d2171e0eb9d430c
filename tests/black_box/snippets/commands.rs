//! Every command of `anode` in the documentation exists, with all of its options.

use std::collections::BTreeMap;

use super::pages;
use crate::harness::anode;

/// The words of a command as a shell would split it, up to a comment, a redirection or the next command.
pub fn words(command: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), String::new(), None);
    for letter in command.chars() {
        match (quote, letter) {
            (Some(open), _) if open == letter => quote = None,
            (Some(_), _) => word.push(letter),
            (None, '\'' | '"') => quote = Some(letter),
            (None, '|' | ';' | '<' | '>' | '&' | ')' | '(') => break,
            (None, '#') if word.is_empty() => break,
            (None, ' ') => {
                words.extend((!word.is_empty()).then(|| std::mem::take(&mut word)));
            }
            (None, _) => word.push(letter),
        }
    }
    words.extend((!word.is_empty()).then_some(word));
    words
}

/// The commands of `anode` in a page: in its blocks, and within its lines as `code`.
pub fn commands(text: &str) -> Vec<Vec<String>> {
    let text = text.replace("\\\n", " ").replace("target/release/anode ", "anode ").replace("\\|", "/");
    let mut found = Vec::new();
    for (at, _) in text.match_indices("anode ") {
        let before = &text[..at];
        let is_in_line = before.ends_with('`');
        // Where a shell expects a command.
        let begins =
            ["\n", "| ", "&& ", "; ", "until ", "do ", "$ ", "$("].iter().any(|end| before.ends_with(end));
        if is_in_line || (begins && before.matches("```").count() % 2 == 1) {
            let line = text[at..].split(['\n', '`']).next().unwrap_or_default();
            found.push(words(&line.replace(['[', ']'], " ")));
        }
    }
    found
}

/// Help of a command, by its names.
fn help(path: &[String], known: &mut BTreeMap<Vec<String>, String>) -> String {
    let told = known.entry(path.to_vec()).or_insert_with(|| {
        let words: Vec<&str> = path.iter().map(String::as_str).chain(["--help"]).collect();
        let output = anode(&words);
        assert_eq!(output.code, Some(0), "anode {words:?}: {}", output.stderr);
        output.stdout
    });
    told.clone()
}

/// Names of the commands beneath one, as its help has them.
fn beneath(help: &str) -> Vec<String> {
    let lines = help.split("\nCommands:\n").nth(1).unwrap_or_default().lines();
    let lines = lines.take_while(|line| !line.is_empty());
    lines.filter_map(|line| line.strip_prefix("  ")?.split(' ').next()).map(str::to_owned).collect()
}

#[test]
fn every_command_and_option_in_the_pages_exists() {
    let (mut known, mut count) = (BTreeMap::new(), 0);
    for (page, text) in pages() {
        for command in commands(&text) {
            let mut path = Vec::new();
            for word in command.iter().skip(1).filter(|word| *word != "help") {
                let told = help(&path, &mut known);
                if beneath(&told).contains(word) {
                    path.push(word.clone());
                } else if let Some(option) = word.strip_prefix("--").filter(|option| !option.is_empty()) {
                    let option = option.split('=').next().unwrap_or(option);
                    let is_there = |help: &str| {
                        help.match_indices(&format!("--{option}")).any(|(at, name)| {
                            !help[at + name.len()..]
                                .starts_with(|next: char| next.is_alphanumeric() || next == '-')
                        })
                    };
                    assert!(
                        is_there(&told) || is_there(&help(&[], &mut known)),
                        "{page}: {command:?} has no option --{option}"
                    );
                    count += 1;
                } else if word == "--" {
                    break;
                }
            }
            let first = command.get(1).map_or("", String::as_str);
            let is_plain = first != "help"
                && !first.is_empty()
                && first.chars().all(|letter| letter.is_ascii_lowercase());
            assert!(!is_plain || !path.is_empty(), "{page}: there is no {command:?}");
        }
    }
    assert!(count > 100, "only {count} options were found in the pages");
}

#[test]
fn a_command_that_is_not_there_would_be_found() {
    let found =
        commands("Run `anode sub 'a b' --count 3 | sort` and anode is up.\n```\nanode get x # --no\n```\n");
    assert_eq!(found, [vec!["anode", "sub", "a b", "--count", "3"], vec!["anode", "get", "x"]]);
    assert_eq!(beneath("x\nCommands:\n  put   Puts\n  list  Lists\n\nOptions:\n"), ["put", "list"]);
}
