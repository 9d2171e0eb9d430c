//! How Cassandra is reached: the flags that are allowed with `--store cassandra`.

use std::path::PathBuf;

use super::{ConfigError, HostPort, Raw, StoreKind, raw, values};

/// Longest name of a keyspace, in bytes. Cassandra has the same bound.
const KEYSPACE_BYTES_MAX: usize = 48;
/// Most copies of a row in one data centre.
const COPIES_MAX: usize = 100;
/// Allowed `--history-ttl`, in microseconds: from one minute, for tests, to the longest time to live in
/// Cassandra.
const HISTORY_TTL_US: std::ops::RangeInclusive<u64> = 60_000_000..=20 * 365 * 24 * 3_600_000_000;

/// The checked configuration of Cassandra.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cassandra {
    /// Nodes of Cassandra that are connected to first, at least one. Their data centre counts as the local
    /// one.
    pub contacts: Vec<HostPort>,
    /// The keyspace with the tables, created if it does not exist.
    pub keyspace: String,
    /// Name of the user, and the file that holds the password on its first line.
    pub login: Option<(String, PathBuf)>,
    /// PEM file with the authorities that sign Cassandra's certificates; `None` means no TLS.
    pub tls_ca: Option<PathBuf>,
    /// Consistency level of all reads and writes.
    pub consistency: Consistency,
    /// Replication of the keyspace when it is created.
    pub replication: Replication,
    /// How long history is kept, in seconds.
    pub history_ttl_s: u32,
}

/// How many copies of a row must have answered a read or write. The names are Cassandra's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Consistency {
    /// Any one copy.
    One,
    /// Any two copies.
    Two,
    /// Any three copies.
    Three,
    /// More than half of the copies in all data centres together.
    Quorum,
    /// All copies in all data centres.
    All,
    /// More than half of the copies in the local data centre.
    #[default]
    LocalQuorum,
    /// Any one copy in the local data centre.
    LocalOne,
}

/// How many copies of a row each data centre has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Replication {
    /// Each data centre has as many copies as nodes, at most three.
    #[default]
    Everywhere,
    /// Each data centre has this number of copies.
    Each(u32),
    /// A number for each data centre, by its name.
    Named(Vec<(String, u32)>),
}

const CONSISTENCIES: [(&str, Consistency); 7] = [
    ("ONE", Consistency::One),
    ("TWO", Consistency::Two),
    ("THREE", Consistency::Three),
    ("QUORUM", Consistency::Quorum),
    ("ALL", Consistency::All),
    ("LOCAL_QUORUM", Consistency::LocalQuorum),
    ("LOCAL_ONE", Consistency::LocalOne),
];

/// Checks the flags about Cassandra. Any of them without `--store cassandra` is an error, so that nobody
/// relies on a store that is not used.
pub(super) fn check(raw: &Raw, store: StoreKind) -> Result<Option<Cassandra>, ConfigError> {
    if store != StoreKind::Cassandra {
        return refuse(raw).map(|()| None);
    }
    let text = |value: &Option<raw::Text>| value.as_ref().map(|raw::Text(text)| text.clone());
    let contacts = values::hosts("cassandra", &text(&raw.cassandra).unwrap_or_default())?;
    if contacts.is_empty() {
        return Err(ConfigError::new(
            "cassandra",
            "",
            "HOST:PORT[,HOST:PORT…] of at least one node of Cassandra",
        ));
    }
    let password = text(&raw.cassandra_password_file);
    let login = match (text(&raw.cassandra_user), password) {
        (None, None) => None,
        (Some(user), Some(file)) if !user.is_empty() && !file.is_empty() => Some((user, file.into())),
        (Some(user), _) => {
            return Err(ConfigError::new(
                "cassandra-user",
                user,
                "a name, together with --cassandra-password-file",
            ));
        }
        (None, Some(file)) => {
            return Err(ConfigError::new(
                "cassandra-password-file",
                file,
                "a file, together with --cassandra-user",
            ));
        }
    };
    let consistency = text(&raw.consistency).unwrap_or_else(|| "LOCAL_QUORUM".into());
    let history_ttl = text(&raw.history_ttl).unwrap_or_else(|| "30d".into());
    let history_ttl_us = values::duration_us("history-ttl", &history_ttl, HISTORY_TTL_US)?;
    Ok(Some(Cassandra {
        contacts,
        keyspace: keyspace(&text(&raw.keyspace).unwrap_or_else(|| "anode".into()))?,
        login,
        tls_ca: text(&raw.cassandra_tls_ca).map(PathBuf::from),
        consistency: values::choice("consistency", &consistency, &CONSISTENCIES)?,
        replication: replication(text(&raw.replication).as_deref())?,
        history_ttl_s: u32::try_from(history_ttl_us / 1_000_000).unwrap_or(u32::MAX),
    }))
}

fn refuse(raw: &Raw) -> Result<(), ConfigError> {
    let flags = [
        ("cassandra", &raw.cassandra),
        ("keyspace", &raw.keyspace),
        ("cassandra-user", &raw.cassandra_user),
        ("cassandra-password-file", &raw.cassandra_password_file),
        ("cassandra-tls-ca", &raw.cassandra_tls_ca),
        ("consistency", &raw.consistency),
        ("replication", &raw.replication),
        ("history-ttl", &raw.history_ttl),
    ];
    match flags.into_iter().find_map(|(flag, value)| value.as_ref().map(|given| (flag, given))) {
        Some((flag, raw::Text(value))) => {
            Err(ConfigError::new(flag, value, "nothing, unless the records are kept by --store cassandra"))
        }
        None => Ok(()),
    }
}

/// Checks the name of a keyspace. Only lower case is allowed, because Cassandra folds names that are not
/// quoted, and two spellings must not mean two keyspaces.
fn keyspace(text: &str) -> Result<String, ConfigError> {
    let is_name = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
    if (1..=KEYSPACE_BYTES_MAX).contains(&text.len())
        && text.bytes().all(is_name)
        && text.starts_with(|c: char| c.is_ascii_lowercase())
        && !text.starts_with("system")
    {
        return Ok(text.into());
    }
    let allowed =
        format!("1 to {KEYSPACE_BYTES_MAX} characters of a-z 0-9 _, a letter first, not \"system…\"");
    Err(ConfigError::new("keyspace", text, allowed))
}

fn replication(text: Option<&str>) -> Result<Replication, ConfigError> {
    let Some(text) = text else { return Ok(Replication::Everywhere) };
    let error = || {
        let allowed = format!("copies in each data centre (1 to {COPIES_MAX}), or DC:COPIES[,DC:COPIES…]");
        ConfigError::new("replication", text, allowed)
    };
    let copies = |text: &str| {
        let count = values::count("replication", text, 1..=COPIES_MAX).map_err(|_| error())?;
        u32::try_from(count).map_err(|_| error())
    };
    if !text.contains(':') {
        return copies(text).map(Replication::Each);
    }
    let is_name = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
    let mut named: Vec<(String, u32)> = Vec::new();
    for part in text.split(',').map(str::trim) {
        let (name, count) = part.rsplit_once(':').ok_or_else(error)?;
        if name.is_empty() || !name.bytes().all(is_name) || named.iter().any(|(known, _)| known == name) {
            return Err(error());
        }
        named.push((name.into(), copies(count)?));
    }
    Ok(Replication::Named(named))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(set: impl FnOnce(&mut Raw)) -> Result<Cassandra, ConfigError> {
        let mut raw = Raw { cassandra: Some("127.0.0.1:9042, c2:9043".into()), ..Raw::default() };
        set(&mut raw);
        check(&raw, StoreKind::Cassandra).map(|checked| checked.expect("asked for"))
    }

    fn refused(set: impl FnOnce(&mut Raw)) -> String {
        checked(set).expect_err("refused").field
    }

    #[test]
    fn the_defaults_are_those_of_the_readme() {
        let cassandra = checked(|_| {}).expect("defaults");
        assert_eq!(cassandra.contacts.len(), 2);
        assert_eq!(cassandra.keyspace, "anode");
        assert_eq!(cassandra.consistency, Consistency::LocalQuorum);
        assert_eq!(cassandra.replication, Replication::Everywhere);
        assert_eq!((cassandra.login, cassandra.tls_ca), (None, None));
        assert_eq!(cassandra.history_ttl_s, 30 * 24 * 3600);
    }

    #[test]
    fn copies_are_a_number_or_named() {
        let replication =
            |text: &str| checked(|raw| raw.replication = Some(text.into())).map(|c| c.replication);
        assert_eq!(replication("2"), Ok(Replication::Each(2)));
        let named = vec![("dc1".into(), 3), ("dc-2".into(), 1)];
        assert_eq!(replication("dc1:3, dc-2:1"), Ok(Replication::Named(named)));
        for bad in ["", "0", "x", "dc1:", ":1", "dc1:0", "dc1:1,dc1:2", "d'c:1", "101"] {
            assert!(replication(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        assert_eq!(refused(|raw| raw.cassandra = None), "--cassandra");
        assert_eq!(refused(|raw| raw.cassandra = Some("host".into())), "--cassandra");
        for bad in ["", "Anode", "1a", "system_x", "a-b", &"a".repeat(49)] {
            assert_eq!(refused(|raw| raw.keyspace = Some(bad.into())), "--keyspace");
        }
        assert_eq!(refused(|raw| raw.cassandra_user = Some("u".into())), "--cassandra-user");
        let alone = refused(|raw| raw.cassandra_password_file = Some("f".into()));
        assert_eq!(alone, "--cassandra-password-file");
        assert_eq!(refused(|raw| raw.consistency = Some("SOME".into())), "--consistency");
        assert_eq!(refused(|raw| raw.history_ttl = Some("1s".into())), "--history-ttl");
    }

    #[test]
    fn its_flags_are_refused_without_it() {
        let raw = Raw { replication: Some("3".into()), ..Raw::default() };
        let error = check(&raw, StoreKind::Embedded).expect_err("refused");
        assert!(error.field == "--replication" && error.allowed.contains("--store cassandra"), "{error}");
    }
}
