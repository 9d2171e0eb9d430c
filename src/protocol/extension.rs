//! What users add to a cluster: its kinds, and the names of the system's records that keep it.
//!
//! A definition is the record `$KIND/NAME`, and what is told of it while it runs is `$KIND/NAME/state`. The member that may
//! run it is named by `$KIND/NAME/runner`. A node tells what it cannot run as `$extend/NODE`.

use std::fmt;

use crate::record::Pattern;

/// Longest name of a definition, in bytes.
pub const EXTENSION_NAME_BYTES_MAX: usize = 63;
/// First part of the names of the records by which nodes tell what they cannot run.
pub const ABILITY_PREFIX: &str = "$extend/";

/// A kind of things that users add.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ExtensionKind {
    /// Something that the cluster fetches and publishes.
    Pull,
    /// A rule that changes or refuses records on their way in.
    Middleware,
    /// A copy of records outside the cluster, made at intervals.
    Archive,
    /// An address that is sent records as they come.
    Hook,
}

/// The body of a request that puts a middleware.
#[derive(Clone, Debug)]
pub enum MiddlewareBody<'a> {
    /// A definition in JSON.
    Json(&'a [u8]),
    /// A definition in TOML.
    Toml(&'a [u8]),
    /// A module in WebAssembly; the fields beside it are parameters of the request.
    Module {
        /// The bytes of the module.
        module: &'a [u8],
        /// The other fields of the definition.
        fields: Vec<(String, String)>,
    },
}

/// A name that cannot be that of a definition.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "name {name:?}: allowed are 1 to {EXTENSION_NAME_BYTES_MAX} of A-Z a-z 0-9 . _ -, and neither . nor .."
)]
pub struct ExtensionNameError {
    name: String,
}

/// The name of a definition, unique among those of its kind.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ExtensionName(Box<str>);

impl ExtensionKind {
    /// All kinds, in the order in which definitions are listed.
    pub const ALL: [ExtensionKind; 4] =
        [ExtensionKind::Pull, ExtensionKind::Middleware, ExtensionKind::Archive, ExtensionKind::Hook];

    /// Name of the kind in paths, commands and names of records.
    pub fn as_str(self) -> &'static str {
        match self {
            ExtensionKind::Pull => "pull",
            ExtensionKind::Middleware => "middleware",
            ExtensionKind::Archive => "archive",
            ExtensionKind::Hook => "hook",
        }
    }

    /// The pattern that the records with definitions of this kind match, and no others.
    pub fn pattern(self) -> &'static str {
        match self {
            ExtensionKind::Pull => "$pull/*",
            ExtensionKind::Middleware => "$middleware/*",
            ExtensionKind::Archive => "$archive/*",
            ExtensionKind::Hook => "$hook/*",
        }
    }

    /// Name of the record that keeps a definition.
    pub fn record_name(self, name: &ExtensionName) -> String {
        format!("${}/{name}", self.as_str())
    }

    /// Name of the record that tells how a definition is doing.
    pub fn state_name(self, name: &ExtensionName) -> String {
        format!("${}/{name}/state", self.as_str())
    }

    /// Name of the record that names the member which runs a definition.
    pub fn claim_name(self, name: &ExtensionName) -> String {
        format!("${}/{name}/runner", self.as_str())
    }

    /// Returns the kind and the name of the definition that a record keeps; `None` if it keeps none.
    pub fn of_record(source: &str) -> Option<(ExtensionKind, ExtensionName)> {
        let (word, name) = source.strip_prefix('$')?.split_once('/')?;
        let kind = ExtensionKind::ALL.into_iter().find(|kind| kind.as_str() == word)?;
        Some((kind, ExtensionName::parse(name).ok()?))
    }
}

impl ExtensionName {
    /// Checks a name.
    pub fn parse(name: &str) -> Result<ExtensionName, ExtensionNameError> {
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        let is_name = (1..=EXTENSION_NAME_BYTES_MAX).contains(&name.len()) && !matches!(name, "." | "..");
        match is_name && name.bytes().all(is_allowed) {
            true => Ok(ExtensionName(name.into())),
            false => Err(ExtensionNameError { name: super::refusal::shortened(name).into_owned() }),
        }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ExtensionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a node knows of a definition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedExtension {
    /// Name of the definition.
    pub name: ExtensionName,
    /// Timestamp of the definition, in microseconds.
    pub ts: u64,
    /// The definition: the text of a JSON object.
    pub definition: Vec<u8>,
    /// Name of the member that runs it; `None` if none can, or if the kind runs at every member.
    pub runner: Option<String>,
    /// The reasons why members cannot run it, with the members' names.
    pub cannot: Vec<(String, String)>,
    /// How it is doing: the text of a JSON object. `None` if nothing was told so far.
    pub state: Option<Vec<u8>>,
}

/// What can be asked of the archives of a definition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ArchiveAsked {
    /// To read archives back and check them.
    Verify {
        /// Id of the archive; all without it.
        id: Option<String>,
    },
    /// To publish the records of an archive.
    Restore {
        /// Id of the archive; the newest one without it, or the one of the moment.
        id: Option<String>,
        /// Pattern of the sources; all without it.
        pattern: Option<Pattern>,
        /// The moment, in microseconds since the Unix epoch: no record with a later timestamp is restored.
        at: Option<u64>,
        /// Whether the records are published as if they came now.
        as_new: bool,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_records_lead_back_to_definitions() {
        let name = ExtensionName::parse("weather-1.x_Y").expect("a name");
        for kind in ExtensionKind::ALL {
            let record = kind.record_name(&name);
            assert_eq!(ExtensionKind::of_record(&record), Some((kind, name.clone())));
            let pattern = Pattern::parse(kind.pattern()).expect("a pattern");
            assert!(pattern.matches(&record) && !pattern.matches(&kind.state_name(&name)));
            for other in [kind.state_name(&name), kind.claim_name(&name)] {
                assert_eq!(ExtensionKind::of_record(&other), None, "{other}");
            }
        }
        for other in ["pull/a", "$pull", "$pull/", "$pull/a b", "$other/a", "$extend/a"] {
            assert_eq!(ExtensionKind::of_record(other), None, "{other}");
        }
    }

    #[test]
    fn what_is_no_name_is_refused_by_name() {
        for bad in ["", ".", "..", "a/b", "ä", "a b", "$x", "*", &"x".repeat(64)] {
            let error = ExtensionName::parse(bad).expect_err(bad);
            assert!(error.to_string().contains("allowed are 1 to 63"), "{error}");
        }
        assert!(ExtensionName::parse(&"x".repeat(63)).is_ok());
    }
}
