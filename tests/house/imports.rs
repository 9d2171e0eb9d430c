//! The imports between the files of a crate, and the circles that they make.
//!
//! File A imports file B if production code of A names something that B defines: in a `use`, or by a
//! path in the code. A name that is reached through another file's `use` (a room's `mod.rs` handing on
//! what its files define) counts as the file that defines it. Three things are no imports: a parent's
//! `mod x;`, a `pub use` of a name that the file itself does not need, and what stands in tests.
//!
//! A file that lies in a room and names what the room's own `mod.rs` defines is not counted either:
//! it is inside that room, as much as the `mod.rs` is. So a `mod.rs` may define what all its files
//! share and call them, but no file beside or outside the room may take part in such a circle.

use std::collections::{BTreeMap, BTreeSet};

use crate::source::{File, is_name, tokens};

/// Through how many `use`s a name is followed at most.
const HANDED_ON_MAX: usize = 8;

/// The files of one crate, and what they name of each other.
pub struct Crate<'a> {
    files: Vec<Parsed<'a>>,
    /// The files of each module: of the root there may be two, `lib.rs` and `main.rs`.
    modules: BTreeMap<Vec<String>, Vec<usize>>,
    /// The name by which other crates, and `main.rs`, call the root module.
    name: String,
}

/// One file, and the names in it.
struct Parsed<'a> {
    file: &'a File,
    module: Vec<String>,
    imports: Vec<Import>,
    /// Names that the file defines outside functions and types.
    defined: BTreeSet<String>,
    /// Paths of at least two segments in the code, `use`s apart.
    paths: BTreeSet<Vec<String>>,
    /// Names that stand in the code by themselves, `use`s apart.
    named: BTreeSet<String>,
}

/// One leaf of a `use`.
struct Import {
    path: Vec<String>,
    /// The name by which the file calls it; `*` for everything that is there.
    name: String,
    is_handed_on: bool,
}

/// Where a path leads.
enum Target {
    /// Something that this file defines, by that name.
    Item(usize, String),
    /// A module itself.
    Module(Vec<String>),
    /// Something outside the crate, or a name that is no path.
    Elsewhere,
}

/// Files that import each other in a loop, and the names that tie them.
pub struct Circle {
    /// The paths of the files, sorted.
    pub files: Vec<String>,
    /// A line for each import between them: who imports which names of whom.
    pub ties: Vec<String>,
}

impl<'a> Crate<'a> {
    /// Reads the files beneath `root` (`src`, `loadgen/src`) of the crate that is called `name`.
    pub fn read(root: &str, name: &str, files: &'a [File]) -> Crate<'a> {
        let mut parsed = Vec::new();
        let mut modules: BTreeMap<Vec<String>, Vec<usize>> = BTreeMap::new();
        for file in files.iter().filter(|file| !file.is_test()) {
            let module = module_of(root, &file.path);
            for length in 0..module.len() {
                modules.entry(module[..length].to_vec()).or_default();
            }
            modules.entry(module.clone()).or_default().push(parsed.len());
            parsed.push(Parsed::read(file, module));
        }
        Crate { files: parsed, modules, name: name.into() }
    }

    /// Finds all circles, each once.
    pub fn circles(&self) -> Vec<Circle> {
        let edges: Vec<BTreeMap<usize, BTreeSet<String>>> =
            (0..self.files.len()).map(|from| self.imports_of(from)).collect();
        let reach: Vec<BTreeSet<usize>> = (0..edges.len()).map(|from| reached(&edges, from)).collect();
        let mut done: BTreeSet<usize> = BTreeSet::new();
        let mut found = Vec::new();
        for (start, from_here) in reach.iter().enumerate() {
            if !from_here.contains(&start) || done.contains(&start) {
                continue;
            }
            let is_in_it = |file: &usize| reach[*file].contains(&start);
            let circle: BTreeSet<usize> = from_here.iter().copied().filter(is_in_it).collect();
            done.extend(&circle);
            found.push(self.circle(&edges, &circle));
        }
        found
    }

    fn circle(&self, edges: &[BTreeMap<usize, BTreeSet<String>>], circle: &BTreeSet<usize>) -> Circle {
        let path = |file: usize| self.files[file].file.path.clone();
        let mut ties = Vec::new();
        for &from in circle {
            for (&to, names) in edges[from].iter().filter(|(to, _)| circle.contains(to)) {
                let names = names.iter().cloned().collect::<Vec<String>>().join(", ");
                ties.push(format!("{} -> {}: {names}", path(from), path(to)));
            }
        }
        let mut files: Vec<String> = circle.iter().map(|file| path(*file)).collect();
        files.sort();
        Circle { files, ties }
    }

    /// Returns the files that one file imports, with the names that it takes of each.
    fn imports_of(&self, from: usize) -> BTreeMap<usize, BTreeSet<String>> {
        let Parsed { imports, paths, named, .. } = &self.files[from];
        let uses = imports.iter().filter(|import| !import.is_handed_on || named.contains(&import.name));
        let mut found: BTreeMap<usize, BTreeSet<String>> = BTreeMap::new();
        for path in uses.map(|import| &import.path).chain(paths) {
            // Importing a module names nothing of it yet: the paths that begin with it do.
            if let Target::Item(target, name) = self.resolve(from, path, HANDED_ON_MAX)
                && target != from
                && !self.is_room_of(target, from)
            {
                found.entry(target).or_default().insert(name);
            }
        }
        found
    }

    /// Returns whether `outer` is the face of a room that `inner` lies in.
    fn is_room_of(&self, outer: usize, inner: usize) -> bool {
        let (outer, inner) = (&self.files[outer].module, &self.files[inner].module);
        outer.len() < inner.len() && inner.starts_with(outer)
    }

    /// Follows a path that stands in a file.
    fn resolve(&self, from: usize, path: &[String], handed_on_max: usize) -> Target {
        let Parsed { module, imports, defined, .. } = &self.files[from];
        let Some((first, mut rest)) = path.split_first() else { return Target::Elsewhere };
        let mut at = match first.as_str() {
            "crate" => Vec::new(),
            "self" => module.clone(),
            "super" => parent(module),
            name if name == self.name => Vec::new(),
            name => {
                let child = [module.as_slice(), &[name.to_owned()]].concat();
                let alias = imports.iter().find(|import| import.name == name && import.path != path);
                if self.modules.contains_key(&child) {
                    child
                } else if let (Some(alias), false, 1..) = (alias, defined.contains(name), handed_on_max) {
                    match self.resolve(from, &alias.path, handed_on_max - 1) {
                        Target::Module(module) => module,
                        other => return other,
                    }
                } else {
                    return Target::Elsewhere;
                }
            }
        };
        while let Some((name, further)) = rest.split_first() {
            let child = [at.as_slice(), std::slice::from_ref(name)].concat();
            if name == "super" {
                at = parent(&at);
            } else if self.modules.contains_key(&child) {
                at = child;
            } else if name != "self" {
                return self.item(&at, name, further, handed_on_max);
            }
            rest = further;
        }
        Target::Module(at)
    }

    /// Follows a path in a module, whose next segment is `name` and no module of its own; `further`
    /// comes after it.
    fn item(&self, module: &[String], name: &str, further: &[String], handed_on_max: usize) -> Target {
        let files = self.modules.get(module).map_or(&[][..], Vec::as_slice);
        for &file in files {
            if self.files[file].defined.contains(name) {
                return Target::Item(file, name.into());
            }
        }
        for &file in files.iter().filter(|_| handed_on_max > 0) {
            for import in &self.files[file].imports {
                let path = match import.name.as_str() {
                    "*" => [import.path.as_slice(), &[name.to_owned()], further].concat(),
                    own if own == name => [import.path.as_slice(), further].concat(),
                    _ => continue,
                };
                match self.resolve(file, &path, handed_on_max - 1) {
                    // Not there, of all that `*` stands for.
                    Target::Elsewhere if import.name == "*" => {}
                    target => return target,
                }
            }
        }
        Target::Elsewhere
    }
}

/// Returns all files that can be reached from one, by at least one import.
fn reached(edges: &[BTreeMap<usize, BTreeSet<String>>], from: usize) -> BTreeSet<usize> {
    let mut seen = BTreeSet::new();
    let mut open: Vec<usize> = edges[from].keys().copied().collect();
    while let Some(file) = open.pop() {
        if seen.insert(file) {
            open.extend(edges[file].keys());
        }
    }
    seen
}

fn parent(module: &[String]) -> Vec<String> {
    module.split_last().map_or(Vec::new(), |(_, parent)| parent.to_vec())
}

/// Returns the module of a file: `src/a/b.rs` is `[a, b]`, `src/a/mod.rs` is `[a]`, `src/lib.rs` is `[]`.
fn module_of(root: &str, path: &str) -> Vec<String> {
    let inner = path.strip_prefix(root).unwrap_or(path).trim_start_matches('/').trim_end_matches(".rs");
    let mut parts: Vec<String> = inner.split('/').map(str::to_owned).collect();
    if parts.last().is_some_and(|last| matches!(last.as_str(), "mod" | "lib" | "main")) {
        parts.pop();
    }
    parts
}

impl<'a> Parsed<'a> {
    fn read(file: &'a File, module: Vec<String>) -> Parsed<'a> {
        let code = file.production();
        let tokens = tokens(&code);
        let mut parsed = Parsed {
            file,
            module,
            imports: Vec::new(),
            defined: BTreeSet::new(),
            paths: BTreeSet::new(),
            named: BTreeSet::new(),
        };
        let (mut at, mut depth) = (0, 0usize);
        while let Some(&token) = tokens.get(at) {
            let next = tokens.get(at + 1).copied().unwrap_or_default();
            match token {
                "{" => depth += 1,
                "}" => depth = depth.saturating_sub(1),
                "use" => {
                    at = parsed.read_use(&tokens, at);
                    continue;
                }
                "fn" | "struct" | "enum" | "union" | "trait" | "type" | "const" | "static" | "mod"
                    if depth == 0 && is_name(next) =>
                {
                    // A module in a file of its own is no definition.
                    if token != "mod" || tokens.get(at + 2) == Some(&"{") {
                        parsed.defined.insert(next.into());
                    }
                    // `const fn` names what follows it.
                    at += if next == "fn" { 1 } else { 2 };
                    continue;
                }
                "macro_rules" if depth == 0 => {
                    parsed.defined.extend(tokens.get(at + 2).map(|name| (*name).to_owned()));
                }
                name if is_name(name) => {
                    at = parsed.read_name(&tokens, at);
                    continue;
                }
                _ => {}
            }
            at += 1;
        }
        parsed
    }

    /// Reads a name, or the path that begins with it. Returns the place of the token after it.
    fn read_name(&mut self, tokens: &[&str], start: usize) -> usize {
        let before = &tokens[..start];
        let mut path = vec![tokens[start].to_owned()];
        let mut at = start + 1;
        while tokens.get(at) == Some(&"::") && tokens.get(at + 1).is_some_and(|next| is_name(next)) {
            path.push(tokens[at + 1].to_owned());
            at += 2;
        }
        // A field or a method is named after one dot; a field's own name stands before a colon.
        let is_after_dot = before.ends_with(&["."]) && !before.ends_with(&[".", "."]);
        let is_member = is_after_dot || before.ends_with(&["::"]) || tokens.get(at) == Some(&":");
        if !is_member {
            self.named.insert(path[0].clone());
            if path.len() > 1 {
                self.paths.insert(path);
            }
        }
        at
    }

    /// Reads the `use` that begins at `start`. Returns the place of the token after it.
    fn read_use(&mut self, tokens: &[&str], start: usize) -> usize {
        let end =
            tokens[start..].iter().position(|token| *token == ";").map_or(tokens.len(), |at| start + at);
        let before = &tokens[..start];
        let is_handed_on = before.ends_with(&["pub"])
            || before.ends_with(&["pub", "(", "crate", ")"])
            || before.ends_with(&["pub", "(", "super", ")"]);
        if tokens.get(start + 1) == Some(&"<") {
            // `use<'a>` is a bound.
            return start + 1;
        }
        if before.ends_with(&["#", "[", "cfg", "(", "test", ")", "]"]) {
            return end;
        }
        let mut at = start + 1;
        self.read_tree(&tokens[..end], &mut at, &[], is_handed_on);
        end
    }

    /// Reads one branch of a `use`, whose beginning is `path`.
    fn read_tree(&mut self, tokens: &[&str], at: &mut usize, path: &[String], is_handed_on: bool) {
        let mut path = path.to_vec();
        while let Some(&token) = tokens.get(*at) {
            *at += 1;
            match token {
                "::" => continue,
                "{" => {
                    while tokens.get(*at).is_some_and(|token| *token != "}") {
                        self.read_tree(tokens, at, &path, is_handed_on);
                        *at += usize::from(tokens.get(*at) == Some(&","));
                    }
                    *at += 1;
                    return;
                }
                "*" => {
                    self.imports.push(Import { path, name: "*".into(), is_handed_on });
                    return;
                }
                "self" if !path.is_empty() => {}
                name => path.push(name.into()),
            }
            if tokens.get(*at) == Some(&"::") {
                continue;
            }
            let mut name = path.last().cloned().unwrap_or_default();
            if let (Some(&"as"), Some(alias)) = (tokens.get(*at), tokens.get(*at + 1)) {
                name = (*alias).into();
                *at += 2;
            }
            self.imports.push(Import { path, name, is_handed_on });
            return;
        }
    }
}

/// Returns what the circles of these files are, a line for each import in them.
pub fn circles(root: &str, name: &str, files: &[File]) -> Vec<String> {
    let told =
        |circle: Circle| format!("circle of {}:\n  {}", circle.files.join(", "), circle.ties.join("\n  "));
    Crate::read(root, name, files).circles().into_iter().map(told).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The circles of a made-up crate, as the files in each.
    fn circles_of(files: &[(&str, &str)]) -> Vec<Vec<String>> {
        let files: Vec<File> = files.iter().map(|(path, text)| File::new(path, text)).collect();
        Crate::read("src", "anode", &files).circles().into_iter().map(|circle| circle.files).collect()
    }

    #[test]
    fn a_circle_is_seen_however_it_is_written() {
        let b = ("src/room/b.rs", "use super::a::A;\npub struct B;");
        for a in [
            "use super::b::B;\npub struct A;",
            "use crate::room::{b::{self, B}};\npub struct A;",
            "use anode::room::b::B as Other;\npub struct A;",
            "pub struct A;\nfn f() { crate::room::b::B; }",
            "use super::b;\npub struct A;\nfn f() -> b::B { b::B }",
            "pub use super::b::B;\npub struct A(B);",
            "pub struct A;\nfn f() { for _ in 0..super::b::B {} }",
        ] {
            assert_eq!(circles_of(&[("src/room/a.rs", a), b]), [["src/room/a.rs", "src/room/b.rs"]], "{a}");
        }
    }

    #[test]
    fn a_tree_is_no_circle() {
        let b = ("src/room/b.rs", "use super::a::A;\npub struct B(A);");
        for a in [
            "pub struct A;",
            // Handing on is no import.
            "pub use super::b::B;\npub struct A;",
            "mod b;\npub struct A { b: u8 }\nfn f(a: A) { a.b::<B>(); }",
            "pub struct A;\n#[cfg(test)]\nmod tests {\n    use crate::room::b::B;\n}",
            "pub struct A;\n#[cfg(test)]\nuse super::b::B;",
            "pub struct A; // use super::b::B;",
        ] {
            assert_eq!(circles_of(&[("src/room/a.rs", a), b]), [[""; 0]; 0], "{a}");
        }
    }

    #[test]
    fn a_name_counts_as_the_file_that_defines_it() {
        let face = "mod a;\nmod b;\npub use b::B;\npub(crate) use a::*;";
        let files = |other: &'static str| {
            [
                ("src/room/mod.rs", face),
                ("src/room/a.rs", "use crate::other::Other;\npub struct A;"),
                ("src/room/b.rs", "pub struct B;"),
                ("src/other.rs", other),
            ]
        };
        // B needs nothing of `other`, A does; both are reached by the face.
        assert_eq!(circles_of(&files("use crate::room::B;\npub struct Other(B);")), [[""; 0]; 0]);
        let circle = [["src/other.rs", "src/room/a.rs"]];
        assert_eq!(circles_of(&files("use crate::room::A;\npub struct Other(A);")), circle);
        assert_eq!(circles_of(&files("use crate::room;\npub struct Other(room::A);")), circle);
    }

    #[test]
    fn a_room_and_its_files_are_no_circle_but_one_through_others_is() {
        let face = "mod a;\npub struct Room(a::A);";
        let inside = [("src/room/mod.rs", face), ("src/room/a.rs", "use super::Room;\npub struct A;")];
        assert_eq!(circles_of(&inside), [[""; 0]; 0]);
        let other = ("src/other.rs", "use crate::room::Room;\npub struct Other;");
        let a = ("src/room/a.rs", "use crate::other::Other;\npub struct A;");
        let circle = [["src/other.rs", "src/room/a.rs", "src/room/mod.rs"]];
        assert_eq!(circles_of(&[inside[0], a, other]), circle);
    }
}
