//! Links of the documentation: each leads to a file that is there, and to a heading that is there. And to every picture
//! leads a link.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Folders whose pages are not the project's own.
const FOREIGN: [&str; 5] = ["target", "node_modules", ".git", "dist", "corpus"];

/// All pages in Markdown under a folder.
pub fn pages(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
        if path.is_dir() && !FOREIGN.contains(&name.as_str()) {
            found.extend(pages(&path));
        } else if name.ends_with(".md") {
            found.push(path);
        }
    }
    found
}

/// The text without its blocks of code.
fn prose(text: &str) -> String {
    let mut is_code = false;
    let lines = text.lines().filter(|line| {
        let is_fence = line.trim_start().starts_with("```");
        is_code ^= is_fence;
        !is_code && !is_fence
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// The names by which the headings of a page are linked to.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for line in prose(text).lines().filter(|line| line.starts_with('#')) {
        let title = line.trim_start_matches('#').trim().to_lowercase();
        let kept = title.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        let name: String = kept.map(|c| if c == ' ' { '-' } else { c }).collect();
        let again = (1..).map(|nth| format!("{name}-{nth}")).find(|name| !found.contains(name));
        let is_first = !found.contains(&name);
        found.extend(if is_first { Some(name) } else { again });
    }
    found
}

/// The targets of the links and pictures in a text.
fn targets(text: &str) -> Vec<String> {
    let text = prose(text);
    let after = text.split("](").skip(1);
    let found = after.filter_map(|rest| rest.split([')', ' ', '\n']).next());
    found.map(str::to_owned).collect()
}

/// The links of a page that lead nowhere.
pub fn broken(page: &Path, text: &str) -> Vec<String> {
    let folder = page.parent().unwrap_or(page);
    let leads_nowhere = |target: &String| {
        let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
        let path = if file.is_empty() { page.to_owned() } else { folder.join(file) };
        let has_anchor = || {
            anchor.is_empty()
                || std::fs::read_to_string(&path).is_ok_and(|text| anchors(&text).contains(anchor))
        };
        !path.exists() || (path.is_file() && !has_anchor())
    };
    let is_foreign = |target: &String| target.contains("://") || target.starts_with("mailto:");
    targets(text).into_iter().filter(|target| !is_foreign(target) && leads_nowhere(target)).collect()
}

/// The pictures, of those with these names, to which no link of these pages leads.
fn pictures_without_a_page(pictures: &[String], pages: &[String]) -> Vec<String> {
    let all: Vec<String> = pages.iter().flat_map(|text| targets(text)).collect();
    let names = all.iter().filter_map(|target| target.rsplit_once("pictures/"));
    let linked: BTreeSet<&str> = names.map(|(_, name)| name).collect();
    pictures.iter().filter(|name| !linked.contains(name.as_str())).cloned().collect()
}

#[test]
fn every_picture_stands_on_a_page() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    let folder = std::fs::read_dir(docs.join("pictures")).expect("the pictures");
    let names = folder.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    let pictures: Vec<String> = names.collect();
    assert!(!pictures.is_empty());
    let texts = pages(&docs).into_iter().map(|page| std::fs::read_to_string(page).expect("a page"));
    let found = pictures_without_a_page(&pictures, &texts.collect::<Vec<_>>());
    assert!(found.is_empty(), "no page of docs shows these pictures: {}", found.join(", "));
}

#[test]
fn a_picture_without_a_page_is_seen() {
    let pictures = ["a.png", "b.png", "c.png", "d.png"].map(str::to_owned);
    let page =
        "![A](pictures/a.png) and ![B](../pictures/b.png)\nNot `c.png`.\n```\n![D](pictures/d.png)\n```\n";
    assert_eq!(pictures_without_a_page(&pictures, &[page.to_owned()]), ["c.png", "d.png"]);
}

#[test]
fn headings_are_linked_to_by_their_words() {
    let text = "# One & two\n## `--flag`, a thing\n```\n# no heading\n```\n## Same\n## Same\n";
    let names: Vec<String> = anchors(text).into_iter().collect();
    assert_eq!(names, ["--flag-a-thing", "one--two", "same", "same-1"]);
    assert_eq!(targets("[a](b.md#c) ![p](d.png) `[x](y)`\n```\n[z](z)\n```"), ["b.md#c", "d.png", "y"]);
}
