//! Rust text as the house's checks see it: the path of a file, and which part of it is code.

use std::path::{Path, PathBuf};

/// One source file.
pub struct File {
    /// Path from the package's root, with `/`: `src/record/mod.rs`.
    pub path: String,
    /// The text as it is on disk.
    pub text: String,
    /// The text with comments, strings and characters blanked, byte for byte as long.
    pub code: String,
}

impl File {
    /// Makes a file of this path and text.
    pub fn new(path: &str, text: &str) -> File {
        File { path: path.into(), text: text.into(), code: blank(text) }
    }

    /// Reads every Rust file beneath a folder of the package.
    pub fn all_beneath(dir: &str) -> Vec<File> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut paths = Vec::new();
        collect(&root.join(dir), &mut paths);
        paths.sort();
        let read = |path: PathBuf| {
            let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
            let path = path.strip_prefix(root).map(|path| path.to_string_lossy().into_owned());
            File::new(&path.unwrap_or_default(), &text)
        };
        paths.into_iter().map(read).collect()
    }

    /// Returns whether the whole file is a test's: `tests.rs`, `…_tests.rs`, `testing.rs`, `harness.rs`,
    /// `fuzzing.rs`, or it lies in a folder `tests` or `harness`.
    pub fn is_test(&self) -> bool {
        let name = self.path.rsplit('/').next().unwrap_or_default().trim_end_matches(".rs");
        matches!(name, "tests" | "testing" | "harness" | "fuzzing")
            || name.ends_with("_tests")
            || self.path.contains("/tests/")
            || self.path.contains("/harness/")
    }

    /// Returns the code without what stands in `#[cfg(test)] mod … { }`.
    pub fn production(&self) -> String {
        let mut code = self.code.clone();
        while let Some((start, end)) = test_module(&code) {
            let blanked: String =
                code[start..end].chars().map(|c| if c == '\n' { '\n' } else { ' ' }).collect();
            code.replace_range(start..end, &blanked);
        }
        code
    }

    /// Returns the path of the file's module: `src/a/b.rs` is `[a, b]`, `src/a/mod.rs` is `[a]`.
    pub fn module(&self) -> Vec<&str> {
        let inner = self.path.trim_start_matches("src/").trim_end_matches(".rs");
        let mut parts: Vec<&str> = inner.split('/').collect();
        if parts.last().is_some_and(|last| matches!(*last, "mod" | "lib")) {
            parts.pop();
        }
        parts
    }

    /// Returns the room that the file belongs to.
    pub fn room(&self) -> &str {
        self.module().first().copied().unwrap_or("lib")
    }
}

fn collect(dir: &Path, into: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            collect(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push(path);
        }
    }
}

/// Returns start and end of the first `#[cfg(test)] mod … { }` of `code`.
pub fn test_module(code: &str) -> Option<(usize, usize)> {
    let mut from = 0;
    while let Some(found) = code[from..].find("#[cfg(test)]") {
        let start = from + found;
        let rest = code[start + "#[cfg(test)]".len()..].trim_start();
        let at = code.len() - rest.len();
        from = at;
        if rest.starts_with("mod ") || rest.starts_with("pub mod ") {
            let open = at + rest.find(['{', ';'])?;
            if code.as_bytes()[open] == b'{' {
                return Some((start, closing(code, open)?));
            }
        }
    }
    None
}

/// Returns the place after the brace that closes the one at `open`.
pub fn closing(code: &str, open: usize) -> Option<usize> {
    let mut depth = 0usize;
    for (offset, byte) in code.bytes().enumerate().skip(open) {
        match byte {
            b'{' => depth += 1,
            b'}' if depth == 1 => return Some(offset + 1),
            b'}' => depth = depth.checked_sub(1)?,
            _ => {}
        }
    }
    None
}

/// Returns the line, from 1, of a place in a text.
pub fn line_of(text: &str, at: usize) -> usize {
    text.as_bytes()[..at].iter().filter(|&&byte| byte == b'\n').count() + 1
}

/// Blanks comments, strings and character literals; keeps every newline and every length.
fn blank(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let end = match literal_end(bytes, at) {
            Some(end) => end,
            None => {
                at += 1;
                continue;
            }
        };
        for byte in &mut out[at..end] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
        at = end;
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Returns where the comment or literal ends that begins at `at`, if one does.
fn literal_end(bytes: &[u8], at: usize) -> Option<usize> {
    let rest = &bytes[at..];
    let before = at.checked_sub(1).map(|before| bytes[before]);
    let in_word = before.is_some_and(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if rest.starts_with(b"//") {
        return Some(at + rest.iter().position(|&byte| byte == b'\n').unwrap_or(rest.len()));
    }
    if rest.starts_with(b"/*") {
        return Some(at + block_comment(rest));
    }
    let prefix = [&b"br"[..], b"cr", b"r"].into_iter().find(|prefix| rest.starts_with(prefix));
    if let Some(prefix) = prefix.filter(|_| !in_word) {
        let hashes = rest[prefix.len()..].iter().take_while(|&&byte| byte == b'#').count();
        let quote = prefix.len() + hashes;
        if rest.get(quote) == Some(&b'"') {
            let close = [&b"\""[..], &vec![b'#'; hashes]].concat();
            let body = &rest[quote + 1..];
            let length = body.windows(close.len()).position(|window| window == close);
            return Some(at + quote + 1 + length.map_or(body.len(), |length| length + close.len()));
        }
    }
    match rest {
        [b'"', ..] => Some(at + 1 + quoted(&rest[1..], b'"')),
        // A lifetime has no quote after its first character; a character has, or an escape.
        [b'\'', b'\\', ..] => Some(at + 1 + quoted(&rest[1..], b'\'')),
        [b'\'', first, ..] => {
            let width = match first {
                0..0x80 => 1,
                0x80..0xe0 => 2,
                0xe0..0xf0 => 3,
                _ => 4,
            };
            (rest.get(1 + width) == Some(&b'\'')).then_some(at + width + 2)
        }
        _ => None,
    }
}

fn block_comment(rest: &[u8]) -> usize {
    let (mut depth, mut at) = (0usize, 0);
    while at < rest.len() {
        if rest[at..].starts_with(b"/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if rest[at..].starts_with(b"*/") {
            (depth, at) = (depth - 1, at + 2);
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    rest.len()
}

fn quoted(body: &[u8], quote: u8) -> usize {
    let mut at = 0;
    while at < body.len() {
        match body[at] {
            b'\\' => at += 2,
            byte if byte == quote => return at + 1,
            _ => at += 1,
        }
    }
    body.len()
}

/// Returns whether a token of [`tokens`] is a name or a keyword.
pub fn is_name(token: &str) -> bool {
    token.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// Cuts code into names, `::`, and every other character that is no blank.
pub fn tokens(code: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut rest = code.trim_start();
    while let Some(first) = rest.chars().next() {
        let length = if first.is_alphanumeric() || first == '_' {
            rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len())
        } else if rest.starts_with("::") {
            2
        } else {
            first.len_utf8()
        };
        found.push(&rest[..length]);
        rest = rest[length..].trim_start();
    }
    found
}

#[test]
fn only_code_is_left() {
    let text = "let a = \"x // y\"; // std::thread\nlet b = 'c'; /* crate::server /* nested */ */ fn f<'a>(x: &'a str) {}\nlet r = r#\"crate::\"#; let q = '\\''; let u = 'ä'; b\"tokio\"";
    let code = blank(text);
    assert_eq!(code.len(), text.len());
    for gone in ["x //", "thread", "crate", "nested", "tokio", "'c'", "ä"] {
        assert!(!code.contains(gone), "{gone:?} in {code:?}");
    }
    for kept in ["let a =", "fn f<'a>(x: &'a str) {}", "let u ="] {
        assert!(code.contains(kept), "{kept:?} in {code:?}");
    }
}

#[test]
fn test_modules_are_no_production() {
    let file = File::new(
        "src/a/b.rs",
        "fn a() {}\n#[cfg(test)]\nmod tests {\n    use crate::server::x;\n}\nfn b() {}\n",
    );
    let code = file.production();
    assert!(code.contains("fn a") && code.contains("fn b") && !code.contains("server"));
    assert_eq!((file.room(), file.module()), ("a", vec!["a", "b"]));
}
