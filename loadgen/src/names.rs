//! Names of sources and patterns of subscribers, in the spelling of each target.

use std::sync::Arc;

/// The character between the segments of a name. Apart from wildcards, names differ between targets in
/// nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Separator {
    /// A slash, as in aNode, MQTT and Redis.
    Slash,
    /// A dot, as in NATS.
    Dot,
}

impl Separator {
    fn byte(self) -> u8 {
        match self {
            Separator::Slash => b'/',
            Separator::Dot => b'.',
        }
    }
}

/// The sources that a subscriber asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pattern {
    /// Every source of the run.
    All,
    /// All sources of one group.
    Group(u32),
    /// One source, by its name.
    One(u32),
    /// The n-th of the patterns that no source matches.
    Unrelated(u32),
}

/// All sources of a run: a prefix, then a group and a number, or a recorded name.
#[derive(Clone, Debug)]
pub struct Names {
    separator: Separator,
    /// The prefix with a separator at its end; empty if there is none.
    prefix: Vec<u8>,
    kind: Kind,
}

#[derive(Clone, Debug)]
enum Kind {
    Numbered { groups: u32, digits: usize },
    Listed(Arc<Vec<Vec<u8>>>),
}

impl Names {
    /// Makes `sources` names `PREFIX/GROUP/NUMBER`, dealt out to `groups` groups in turn.
    pub fn numbered(separator: Separator, prefix: &str, sources: u32, groups: u32) -> Names {
        let kind = Kind::Numbered { groups: groups.max(1), digits: digits(sources.saturating_sub(1)) };
        Names { separator, prefix: spell(separator, prefix, true), kind }
    }

    /// Makes a name `PREFIX/NAME` for every name of the list.
    pub fn listed(separator: Separator, prefix: &str, names: &[String]) -> Names {
        let listed = names.iter().map(|name| spell(separator, name, false)).collect();
        Names { separator, prefix: spell(separator, prefix, true), kind: Kind::Listed(Arc::new(listed)) }
    }

    /// Returns the group of a source.
    pub fn group(&self, source: u32) -> u32 {
        match &self.kind {
            Kind::Numbered { groups, .. } => source % groups,
            Kind::Listed(_) => 0,
        }
    }

    /// Returns whether a pattern matches a source.
    pub fn matches(&self, pattern: Pattern, source: u32) -> bool {
        match pattern {
            Pattern::All => true,
            Pattern::Group(group) => self.group(source) == group,
            Pattern::One(one) => one == source,
            Pattern::Unrelated(_) => false,
        }
    }

    /// Appends the name of a source.
    pub fn write(&self, source: u32, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.prefix);
        match &self.kind {
            Kind::Numbered { groups, digits } => {
                self.write_group(source % groups, out);
                write_hex(source, *digits, out);
            }
            Kind::Listed(names) => {
                out.extend_from_slice(names.get(source as usize).map_or(b"unnamed", |name| name));
            }
        }
    }

    /// Appends a pattern in the target's spelling; `rest` is the target's wildcard for any further segments.
    pub fn write_pattern(&self, pattern: Pattern, rest: &str, out: &mut Vec<u8>) {
        match pattern {
            Pattern::One(source) => self.write(source, out),
            Pattern::All => {
                out.extend_from_slice(&self.prefix);
                out.extend_from_slice(rest.as_bytes());
            }
            Pattern::Group(group) => {
                out.extend_from_slice(&self.prefix);
                self.write_group(group, out);
                out.extend_from_slice(rest.as_bytes());
            }
            Pattern::Unrelated(n) => {
                out.extend_from_slice(b"unrelated");
                out.push(self.separator.byte());
                write_hex(n, 8, out);
                out.push(self.separator.byte());
                out.extend_from_slice(rest.as_bytes());
            }
        }
    }

    fn write_group(&self, group: u32, out: &mut Vec<u8>) {
        if let Kind::Numbered { groups, .. } = self.kind {
            write_hex(group, digits(groups - 1), out);
            out.push(self.separator.byte());
        }
    }
}

/// Spells a name for the target. NATS allows neither blanks nor wildcards in a segment, nor empty segments.
fn spell(separator: Separator, name: &str, is_prefix: bool) -> Vec<u8> {
    let mut out: Vec<u8> = match separator {
        Separator::Slash => name.as_bytes().to_vec(),
        Separator::Dot => {
            let safe = |byte: u8| if matches!(byte, b'.' | b' ' | b'*' | b'>') { b'_' } else { byte };
            name.bytes().map(|byte| if byte == b'/' { b'.' } else { safe(byte) }).collect()
        }
    };
    if is_prefix && !out.is_empty() {
        out.push(separator.byte());
    }
    out
}

/// Returns how many hexadecimal digits the greatest number has.
fn digits(greatest: u32) -> usize {
    (32 - greatest.leading_zeros()).div_ceil(4).max(1) as usize
}

fn write_hex(value: u32, digits: usize, out: &mut Vec<u8>) {
    for digit in (0..digits).rev() {
        let nibble = (value >> (4 * digit)) & 15;
        out.push(b"0123456789abcdef"[nibble as usize]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl Fn(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn names_and_patterns_are_spelled_as_the_target_does() {
        let names = Names::numbered(Separator::Slash, "lg/1", 1_000, 20);
        assert_eq!(written(|out| names.write(0x123, out)), "lg/1/0b/123");
        assert_eq!(written(|out| names.write_pattern(Pattern::All, "**", out)), "lg/1/**");
        assert_eq!(written(|out| names.write_pattern(Pattern::Group(3), "*", out)), "lg/1/03/*");
        let names = Names::numbered(Separator::Dot, "lg/1", 1, 1);
        assert_eq!(written(|out| names.write(0, out)), "lg.1.0.0");
        assert_eq!(written(|out| names.write_pattern(Pattern::Group(0), "*", out)), "lg.1.0.*");
    }

    #[test]
    fn recorded_names_keep_what_the_target_allows() {
        let list = ["a/b c".to_owned(), "x.y".to_owned()];
        let names = Names::listed(Separator::Dot, "", &list);
        assert_eq!(written(|out| names.write(0, out)), "a.b_c");
        assert_eq!(written(|out| names.write(1, out)), "x_y");
        let names = Names::listed(Separator::Slash, "again", &list);
        assert_eq!(written(|out| names.write(0, out)), "again/a/b c");
    }

    #[test]
    fn what_is_written_is_what_matches() {
        let names = Names::numbered(Separator::Slash, "p", 64, 4);
        for source in 0..64 {
            let name = written(|out| names.write(source, out));
            for group in 0..4 {
                let pattern = written(|out| names.write_pattern(Pattern::Group(group), "", out));
                assert_eq!(name.starts_with(&pattern), names.matches(Pattern::Group(group), source));
            }
        }
    }
}
