//! Docs that can be understood without the code: a mechanical guard against the worst.
//!
//! It knows nothing of meaning. It complains of doc comments that are too short to be a statement, and
//! of those that begin with a word that refers to something which is not there.

use crate::source::{File, closing, line_of};

/// A doc comment says something with at least as many words.
const WORDS_MIN: usize = 3;

/// Beginnings that refer to another comment, to the name of the item, or to nothing that is said.
const RIDDLES: &[&str] = &[
    "As ever",
    "As usual",
    "Its ",
    "Likewise",
    "None wait",
    "So large",
    "So long",
    "So many",
    "So much",
    "So often",
    "The same,",
    "The same.",
    "The same:",
    "Their ",
    "What is fixed",
    "Whether it ",
];

/// Derives that turn docs into the help text of the command line, which is as short as it can be.
const HELP: &[&str] = &["Args", "Parser", "Subcommand", "ValueEnum"];

/// Returns the doc comments of a file that say too little.
pub fn riddles(file: &File) -> Vec<String> {
    let help = help_of(file);
    let mut found = Vec::new();
    for (line, words) in doc_comments(file) {
        let is_help = help.iter().any(|(start, end)| (*start..=*end).contains(&line));
        let is_riddle = RIDDLES.iter().any(|riddle| format!("{words} ").starts_with(riddle));
        if !is_help && (is_riddle || words.split(' ').count() < WORDS_MIN) {
            found.push(format!("{}:{line}: {words:?}", file.path));
        }
    }
    found
}

/// Returns the doc comments of a file, each in one line of text, with the number of its first line.
fn doc_comments(file: &File) -> Vec<(usize, String)> {
    let mut found: Vec<(usize, String)> = Vec::new();
    let mut is_inside = false;
    for (number, (line, code)) in file.text.lines().zip(file.code.lines()).enumerate() {
        let line = line.trim_start();
        let is_doc = (line.starts_with("///") && !line.starts_with("////")) || line.starts_with("//!");
        let words = line.get(3..).filter(|_| is_doc && code.trim().is_empty());
        if let Some(words) = words {
            if !is_inside {
                found.push((number + 1, String::new()));
            }
            if let Some((_, text)) = found.last_mut() {
                text.extend(words.split_whitespace().flat_map(|word| [" ", word]));
            }
        }
        is_inside = words.is_some();
    }
    found.into_iter().map(|(line, text)| (line, text.trim_start().to_owned())).collect()
}

/// Returns the first and last lines of the types whose docs are help texts.
fn help_of(file: &File) -> Vec<(usize, usize)> {
    let code = &file.code;
    let mut found = Vec::new();
    for (at, _) in code.match_indices("#[derive(") {
        let Some(end) = code[at..].find(')').map(|offset| at + offset) else { continue };
        let is_help = code[at + "#[derive(".len()..end]
            .split(',')
            .any(|derive| HELP.contains(&derive.trim().rsplit("::").next().unwrap_or_default()));
        let body = code[end..].find('{').and_then(|offset| closing(code, end + offset));
        if let Some(body) = body.filter(|_| is_help) {
            found.push((line_of(code, at), line_of(code, body)));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn riddles_of(text: &str) -> Vec<String> {
        riddles(&File::new("src/a.rs", text))
    }

    #[test]
    fn riddles_are_seen() {
        for bad in [
            "/// Likewise.\nfn f() {}",
            "    /// As usual.\n    X,",
            "/// So many by now.\nfn f() {}",
            "/// The same, but faster than before and with more memory.\nfn f() {}",
            "/// Its name.\nstruct A;",
            "//! What is fixed here,\n//! and what is not.",
            "/// Where.\nstruct A;",
            "/// Whether it is the last frame.\nstruct A;",
            "/// Two words\n\nstruct A;",
            "/// Enough words here.\nstruct A { /// Both\n/// halves\nx: u8 }",
        ] {
            assert_eq!(riddles_of(bad).len(), 1, "{bad}");
        }
        assert_eq!(riddles_of("\n/// As usual.\nfn f() {}"), ["src/a.rs:2: \"As usual.\""]);
    }

    #[test]
    fn plain_words_are_not() {
        for good in [
            "/// Current value of the gauge.\nfn f() {}",
            "/// Number of\n/// bytes.\nfn f() {}",
            "// Likewise.\nfn f() {}",
            "//// So many.\nfn f() {}",
            "/// Itself a tree.\nfn f() {}",
            "#[derive(Clone, Args)]\nstruct Options {\n    /// aNode only\n    ack: u8,\n}",
            "#[derive(clap::Parser)]\nenum Command {\n    /// Never\n    Not,\n}",
        ] {
            assert_eq!(riddles_of(good), [""; 0], "{good}");
        }
    }
}
