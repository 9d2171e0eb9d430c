//! Links of the documentation: each leads to a file that is there, and to a heading that is there.

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

#[test]
fn headings_are_linked_to_by_their_words() {
    let text = "# One & two\n## `--flag`, a thing\n```\n# no heading\n```\n## Same\n## Same\n";
    let names: Vec<String> = anchors(text).into_iter().collect();
    assert_eq!(names, ["--flag-a-thing", "one--two", "same", "same-1"]);
    assert_eq!(targets("[a](b.md#c) ![p](d.png) `[x](y)`\n```\n[z](z)\n```"), ["b.md#c", "d.png", "y"]);
}
