//! Every block of code in the documentation is run or checked by something. The files beside this one run what no other
//! test does. The table knows for every block by what it is checked, so that a new one cannot be forgotten.

mod closed;
mod commands;
mod extensions;
mod reference;
mod settings;
mod table;
mod terminal;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

pub use reference::assert_alike;
use table::{BLOCKS, Block, CheckedBy, READ_WHOLE};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All pages for users: the README and everything under docs/, without the figures that runs have written.
fn pages() -> BTreeMap<String, String> {
    let mut folders = vec![root().join("docs")];
    let mut found = vec![root().join("README.md")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                found.push(path);
            }
        }
    }
    let name = |path: &PathBuf| path.strip_prefix(root()).expect("beneath").display().to_string();
    found.iter().map(|path| (name(path), std::fs::read_to_string(path).expect("a page"))).collect()
}

/// The blocks of code of a page, each with the heading of second level that it stands under.
fn blocks(text: &str) -> Vec<(String, String)> {
    let (mut found, mut heading, mut open) = (Vec::new(), String::new(), None::<String>);
    for line in text.lines() {
        match (&mut open, line.trim_start().starts_with("```")) {
            (Some(block), true) => {
                found.push((heading.clone(), std::mem::take(block)));
                open = None;
            }
            (Some(block), false) => {
                block.push_str(line);
                block.push('\n');
            }
            (None, true) => open = Some(String::new()),
            (None, false) => {
                if let Some(title) = line.strip_prefix("## ") {
                    heading = title.to_owned();
                }
            }
        }
    }
    assert_eq!(open, None, "a block has no end");
    found
}

/// The first block of a page that begins with a text.
pub fn block_of(page: &str, begins: &str) -> String {
    let text = std::fs::read_to_string(root().join(page)).expect("a page");
    let found = blocks(&text).into_iter().find(|(_, block)| block.starts_with(begins));
    found.unwrap_or_else(|| panic!("{page} has no block that begins with {begins:?}")).1
}

/// All blocks that the table must know, each with its page and its heading: those that no test reads as a whole. Those of
/// a page that is read as a whole are among them if the table names them all the same.
fn blocks_of_the_table() -> Vec<(String, String, String)> {
    let mut found = Vec::new();
    for (page, text) in pages() {
        for (heading, block) in blocks(&text) {
            let is_read_whole = READ_WHOLE.iter().any(|(whole, section, _)| {
                *whole == page && (section.is_empty() || heading.starts_with(section))
            });
            let is_named = BLOCKS.iter().any(|entry| entry.page == page && block.starts_with(entry.begins));
            if !is_read_whole || is_named {
                found.push((page.clone(), heading, block));
            }
        }
    }
    found
}

/// Whether a text has the name of a page, not as the end of another name, such as that of the README of a client.
fn names(text: &str, page: &str) -> bool {
    text.match_indices(page).any(|(at, _)| {
        let before = &text[..at];
        before.ends_with("../")
            || !before.ends_with(|last: char| last.is_alphanumeric() || matches!(last, '/' | '-' | '_' | '.'))
    })
}

/// Whether the text of a test or script names the page of a block, or holds every line of the block. The comments behind its
/// lines do not count.
fn tells_of(text: &str, page: &str, block: &str) -> bool {
    let mut lines = block.lines().map(|line| line.split(" #").next().unwrap_or(line).trim());
    names(text, page) || lines.all(|line| text.contains(line))
}

/// What is wrong with the way in which a block is said to be checked, or nothing.
fn doubt(entry: &Block, block: &str) -> Option<String> {
    let Block { page, begins, checked_by } = entry;
    match checked_by {
        CheckedBy::File(file) => {
            let Ok(text) = std::fs::read_to_string(root().join(file)) else {
                return Some(format!("there is no {file}"));
            };
            let is_told = tells_of(&text, page, block);
            (!is_told).then(|| format!("{file} neither names {page} nor holds the lines of:\n{block}"))
        }
        CheckedBy::Here => {
            // As a test writes it: with quotation marks that are escaped.
            let written = format!("{begins:?}");
            let written = written.trim_end_matches('"');
            let is_read = beside().iter().any(|text| text.contains(page) && text.contains(written));
            (!is_read).then(|| format!("no test beside the table reads {written}\" of {page}"))
        }
        CheckedBy::Options(reason) => {
            let count = commands::commands(&format!("```\n{block}```\n")).len();
            let is_short = reason.is_empty() || count == 0;
            is_short.then(|| format!("{page} has {count} commands in:\n{block}"))
        }
        CheckedBy::Nothing(reason) => reason.is_empty().then(|| format!("no reason for {begins} of {page}")),
    }
}

/// The texts of the files with the tests beside the table.
fn beside() -> Vec<String> {
    let folder = std::fs::read_dir(root().join("tests/black_box/snippets")).expect("the tests");
    let files = folder.flatten().map(|entry| entry.path()).filter(|path| !path.ends_with("table.rs"));
    files.map(|path| std::fs::read_to_string(path).expect("a test")).collect()
}

#[test]
fn every_block_of_code_is_checked_by_something() {
    let (mut unknown, mut doubts, mut used) = (Vec::new(), Vec::new(), BTreeSet::new());
    for (page, heading, block) in blocks_of_the_table() {
        match BLOCKS.iter().position(|entry| entry.page == page && block.starts_with(entry.begins)) {
            Some(at) => {
                used.insert(at);
                doubts.extend(doubt(&BLOCKS[at], &block));
            }
            None => unknown.push(format!("{page}, {heading}:\n{block}")),
        }
    }
    assert!(unknown.is_empty(), "say in BLOCKS by what these are checked:\n{}", unknown.join("\n"));
    assert!(doubts.is_empty(), "these may not be checked as BLOCKS says:\n{}", doubts.join("\n"));
    for (at, entry) in BLOCKS.iter().enumerate() {
        assert!(used.contains(&at), "{} has no block that begins with {:?}", entry.page, entry.begins);
    }
    for (page, _, file) in READ_WHOLE {
        let test = std::fs::read_to_string(root().join(file)).expect("a test");
        assert!(names(&test, page), "{file} does not read {page}");
    }
}

#[test]
fn a_file_that_does_not_know_a_block_is_seen() {
    let block = "anode put a   # a comment\n\nanode get a\n";
    assert!(tells_of("include_str!(\"../../docs/a.md\")", "docs/a.md", block));
    assert!(tells_of("# As docs/a.md says.", "docs/a.md", block));
    assert!(tells_of("anode put a\nanode get a", "docs/a.md", block));
    assert!(!tells_of("anode put a", "docs/a.md", block), "one line is missing");
    assert!(!tells_of("see clients/README.md", "README.md", block), "that is another page");
    let entry = |checked_by| Block { page: "README.md", begins: "anode put \"x", checked_by };
    assert!(doubt(&entry(CheckedBy::File("tests/none.rs")), block).is_some());
    assert!(doubt(&entry(CheckedBy::File("LICENSE-MIT")), block).is_some());
    assert!(doubt(&entry(CheckedBy::Here), block).is_some(), "no test reads such a block");
    assert!(doubt(&entry(CheckedBy::Options("slow")), block).is_none());
    assert!(doubt(&entry(CheckedBy::Options("slow")), "make\n").is_some());
    assert!(doubt(&entry(CheckedBy::Nothing("")), block).is_some());
}

/// The comparison named versions of other systems that nobody had measured.
#[test]
fn the_comparison_names_the_versions_that_were_measured() {
    let page = |name: &str| std::fs::read_to_string(root().join(name)).expect("a page");
    let (told, measured) = (page("docs/comparison.md"), page("docs/benchmarks.md"));
    for version in ["2.15.3", "7.0.15", "2.0.11", "1.4.5", "8.23.0"] {
        assert!(told.contains(version) && measured.contains(version), "{version}");
    }
}
