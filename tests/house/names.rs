//! Names that tell things apart: no two types and no two constants of one name.
//!
//! Two definitions of one name clash if they stand in the same room, or if both are visible in the whole
//! crate (`pub` or `pub(crate)`). So a name that stays inside its room may return in another one, where
//! nobody sees both. What is defined inside functions, `impl`s and tests does not count.

use std::collections::BTreeMap;

use crate::source::{File, is_name, line_of, tokens};

/// A type or a constant, where it is defined.
struct Definition<'a> {
    file: &'a File,
    line: usize,
    /// Whether other rooms can see it.
    is_visible: bool,
}

/// Returns a line for each name that is defined more than once, with all places; not for those of
/// `allowed`, which are pairs of a name and the reason.
pub fn clashes(files: &[File], allowed: &[(&str, &str)]) -> Vec<String> {
    let mut all: BTreeMap<(bool, String), Vec<Definition>> = BTreeMap::new();
    for file in files.iter().filter(|file| !file.is_test()) {
        define(file, &mut all);
    }
    let mut found = Vec::new();
    for ((is_constant, name), definitions) in all {
        let clashes = |one: &Definition| {
            definitions.iter().any(|other| {
                let is_same_room = one.file.room() == other.file.room();
                one.file.path != other.file.path && (is_same_room || (one.is_visible && other.is_visible))
            })
        };
        let places: Vec<String> = definitions
            .iter()
            .filter(|definition| clashes(definition))
            .map(|definition| format!("{}:{}", definition.file.path, definition.line))
            .collect();
        if !places.is_empty() && !allowed.iter().any(|(allowed, _)| *allowed == name) {
            let kind = if is_constant { "constants" } else { "types" };
            found.push(format!("{} {kind} are called {name}: {}", places.len(), places.join(", ")));
        }
    }
    found
}

/// Adds the types and constants that a file defines.
fn define<'a>(file: &'a File, all: &mut BTreeMap<(bool, String), Vec<Definition<'a>>>) {
    let code = file.production();
    let tokens = tokens(&code);
    let mut depth = 0usize;
    for (at, &token) in tokens.iter().enumerate() {
        match token {
            "{" | "(" | "[" => depth += 1,
            "}" | ")" | "]" => depth = depth.saturating_sub(1),
            _ => {}
        }
        let is_constant = matches!(token, "const" | "static");
        let is_type = matches!(token, "struct" | "enum" | "union" | "trait" | "type");
        let Some(&name) = tokens.get(at + 1) else { return };
        // Behind `<` or a comma it is a generic parameter, and behind a quote a lifetime.
        let is_generic = matches!(tokens[..at].last(), Some(&"<" | &"," | &"'"));
        let is_named = is_name(name) && !matches!(name, "_" | "fn");
        if depth > 0 || !(is_constant || is_type) || is_generic || !is_named {
            continue;
        }
        let place = name.as_ptr() as usize - code.as_ptr() as usize;
        let before = &tokens[..at];
        let is_visible = before.ends_with(&["pub"]) || before.ends_with(&["pub", "(", "crate", ")"]);
        let definition = Definition { file, line: line_of(&code, place), is_visible };
        all.entry((is_constant, name.to_owned())).or_default().push(definition);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clashes_of(files: &[(&str, &str)]) -> Vec<String> {
        let files: Vec<File> = files.iter().map(|(path, text)| File::new(path, text)).collect();
        clashes(&files, &[("Output", "of each machine")])
    }

    #[test]
    fn one_name_for_two_things_is_seen() {
        for (one, other) in [
            ("pub struct Frame;", "pub(crate) enum Frame { A }"),
            ("pub(crate) type Frame = u8;", "pub trait Frame {}"),
            ("pub const LEN: usize = 1;", "pub static LEN: usize = 2;"),
            ("fn f() -> bool { 1 < 2 }\npub struct Frame;", "pub struct Frame<'a>(&'a u8);"),
        ] {
            assert_eq!(clashes_of(&[("src/a/x.rs", one), ("src/b/y.rs", other)]).len(), 1, "{one} {other}");
        }
        // Private ones too, within a room.
        let (one, other) = (("src/a/x.rs", "const LEN: u8 = 1;"), ("src/a/y.rs", "\nconst LEN: u8 = 2;"));
        assert_eq!(clashes_of(&[one, other]), ["2 constants are called LEN: src/a/x.rs:1, src/a/y.rs:2"]);
    }

    #[test]
    fn what_nobody_sees_together_is_no_clash() {
        for (one, other) in [
            ("struct Entry;", "struct Entry;"),
            ("pub struct Entry;", "struct Entry;"),
            ("pub struct Entry;", "pub(super) struct Entry;"),
            ("pub(super) struct Entry;", "pub(in crate::b) struct Entry;"),
            ("pub struct Output;", "pub struct Output;"),
            ("pub struct Len;", "pub const LEN: u8 = 1;"),
            ("pub const fn f() {}", "pub const fn f() {}"),
            ("const _: () = ();", "const _: () = ();"),
            ("fn f() -> &'static str {}", "fn g() -> &'static str {}"),
            ("impl A { pub const LEN: u8 = 1; }", "impl B { pub const LEN: u8 = 1; }"),
            ("fn f() -> u8 { const LEN: u8 = 1; LEN }", "fn f<const N: usize>() {}\npub const LEN: u8 = 1;"),
            ("#[cfg(test)]\nmod tests { pub struct Frame; }", "pub struct Frame;"),
        ] {
            assert_eq!(clashes_of(&[("src/a/x.rs", one), ("src/b/y.rs", other)]), [""; 0], "{one} {other}");
        }
    }
}
