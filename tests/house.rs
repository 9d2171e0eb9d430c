//! The house's own rules, read from its source: who may know whom, what stays outside the pure rooms,
//! how long things may be, that no files import each other in a circle, that names tell things apart,
//! and that docs say something. Each check is a function from one file or all files to complaints, and
//! each has a test that it complains.

#[path = "house/imports.rs"]
mod imports;
#[path = "house/links.rs"]
mod links;
#[path = "house/names.rs"]
mod names;
#[path = "house/purity.rs"]
mod purity;
#[path = "house/rooms.rs"]
mod rooms;
#[path = "house/source.rs"]
mod source;
#[path = "house/words.rs"]
mod words;

use source::{File, closing, line_of, test_module};

/// Names that may stand for several things, each with the reason.
const NAMES: &[(&str, &str)] = &[
    ("Arguments", "the options of a subcommand; always written with the module: `get::Arguments`"),
    ("Output", "what a machine of the core wants done; always written with the module: `swim::Output`"),
];

const FILE_LINES_MAX: usize = 500;
const FUNCTION_LINES_MAX: usize = 70;
const INLINE_TEST_LINES_MAX: usize = 200;

type Check = fn(&File) -> Vec<String>;

fn word(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

fn mentions(file: &File, code: &str, words: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for name in words {
        for (at, _) in code.match_indices(name) {
            let before = code[..at].bytes().next_back();
            if !before.is_some_and(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
                found.push(format!("{}:{}: {name}", file.path, line_of(code, at)));
            }
        }
    }
    found
}

/// Complains of notes that something is still to be done.
fn nothing_is_left_for_later(file: &File) -> Vec<String> {
    let mut found = mentions(file, &file.code, &["todo!", "unimplemented!"]);
    for (number, line) in file.text.lines().enumerate() {
        for word in [concat!("TO", "DO"), concat!("FIX", "ME")] {
            if line.contains(word) {
                found.push(format!("{}:{}: {word}", file.path, number + 1));
            }
        }
    }
    found
}

/// Complains of files of more than 500 lines without their tests, and of more than 200 lines of tests that
/// are not in a file of their own.
fn files_are_short(file: &File) -> Vec<String> {
    if file.is_test() {
        return Vec::new();
    }
    let total = file.code.lines().count();
    let tests = test_module(&file.code).map_or(0, |(start, end)| file.code[start..end].lines().count());
    let mut found = Vec::new();
    if total - tests > FILE_LINES_MAX {
        found.push(format!("{}: {} lines without its tests", file.path, total - tests));
    }
    if tests > INLINE_TEST_LINES_MAX {
        found.push(format!("{}: {tests} lines of tests; give them a file of their own", file.path));
    }
    found
}

/// Complains of functions of more than 70 lines.
fn functions_are_short(file: &File) -> Vec<String> {
    let code = &file.code;
    let mut found = Vec::new();
    for (at, _) in code.match_indices("fn ") {
        let before = code[..at].bytes().next_back();
        let name = word(&code[at + 3..]);
        if name.is_empty() || before.is_some_and(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
            continue;
        }
        let Some(open) = code[at..].find(['{', ';']).map(|offset| at + offset) else { continue };
        if code.as_bytes()[open] == b';' {
            continue;
        }
        let Some(end) = closing(code, open) else { continue };
        let lines = code[at..end].lines().count();
        if lines > FUNCTION_LINES_MAX {
            found.push(format!("{}:{}: fn {name} has {lines} lines", file.path, line_of(code, at)));
        }
    }
    found
}

/// Fails with all complaints of a check about the files beneath these folders.
fn hold(check: Check, folders: &[&str]) {
    let files: Vec<File> = folders.iter().flat_map(|folder| File::all_beneath(folder)).collect();
    assert!(!files.is_empty(), "nothing to read in {folders:?}");
    let complaints: Vec<String> = files.iter().flat_map(check).collect();
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

/// Asserts that a check complains of `bad` at `path`, and of nothing in `good`.
fn tells_apart(check: Check, path: &str, good: &str, bad: &str) {
    let complaints = |text: &str| check(&File::new(path, text));
    assert_eq!(complaints(good), [""; 0], "{good}");
    assert!(!complaints(bad).is_empty(), "no complaint of {bad}");
}

#[test]
fn no_notes_to_oneself() {
    hold(nothing_is_left_for_later, &["src", "tests", "loadgen", "bench", "clients/rust", "netem"]);
}

#[test]
fn notes_to_oneself_are_seen() {
    let note = format!("// {}: later", concat!("TO", "DO"));
    tells_apart(nothing_is_left_for_later, "src/a.rs", "// done", &note);
    let gap = format!("fn f() {{ {}!() }}", "unimplemented");
    tells_apart(nothing_is_left_for_later, "src/a.rs", "fn f() {}", &gap);
}

#[test]
fn files_stay_short() {
    hold(files_are_short, &["src", "loadgen", "bench", "clients/rust", "netem"]);
}

#[test]
fn long_files_are_seen() {
    let line = "const A: u8 = 1;\n";
    tells_apart(files_are_short, "src/a.rs", &line.repeat(500), &line.repeat(501));
    let with_tests = |lines: usize| format!("{line}#[cfg(test)]\nmod tests {{\n{}}}\n", line.repeat(lines));
    tells_apart(files_are_short, "src/a.rs", &with_tests(150), &with_tests(250));
}

#[test]
fn functions_stay_short() {
    hold(functions_are_short, &["src", "tests", "loadgen", "bench", "clients/rust", "netem"]);
}

#[test]
fn long_functions_are_seen() {
    let function = |lines: usize| {
        format!("impl X {{\n    pub fn f() {{\n{}    }}\n}}\n", "        x();\n".repeat(lines))
    };
    tells_apart(functions_are_short, "src/a.rs", &function(68), &function(69));
}

#[test]
fn no_files_import_each_other_in_a_circle() {
    let crates = [
        ("src", "anode"),
        ("loadgen/src", "anode_loadgen"),
        ("bench/src", "anode_bench"),
        ("clients/rust/src", "anode_client"),
    ];
    let found = crates.iter().flat_map(|(root, name)| {
        let files = File::all_beneath(root);
        assert!(!files.is_empty(), "nothing to read in {root}");
        imports::circles(root, name, &files)
    });
    let found: Vec<String> = found.collect();
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn names_tell_things_apart() {
    let found = names::clashes(&File::all_beneath("src"), NAMES);
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn docs_say_something() {
    hold(words::riddles, &["src", "tests", "loadgen", "bench", "clients/rust", "netem"]);
}

#[test]
fn links_of_the_documentation_lead_somewhere() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut complaints = Vec::new();
    for page in links::pages(root) {
        let text = std::fs::read_to_string(&page).expect("a page");
        let name = page.strip_prefix(root).unwrap_or(&page).display().to_string();
        complaints.extend(links::broken(&page, &text).into_iter().map(|target| format!("{name}: {target}")));
    }
    assert!(complaints.is_empty(), "links that lead nowhere:\n{}", complaints.join("\n"));
}
