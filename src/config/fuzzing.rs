//! The check of the configuration file.

use std::path::Path;

use super::cluster_key::{CLUSTER_KEY_BYTES, CLUSTER_KEYS_MAX, ClusterKey, KeyFileError, Keyring};
use super::{Config, ConfigError, Hardware, HostPort, Raw, check, values};

const MACHINE: Hardware = Hardware { cores: 4, memory_bytes: 8 << 30 };

/// The input is the text of a configuration file.
pub(crate) fn config(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let raw = match Raw::from_toml(&text, Path::new("anode.toml")) {
        Ok(raw) => raw,
        Err(error) => return names_a_flag(&error),
    };
    assert_eq!(raw.clone().or(Raw::default()), raw, "flags win over a file without values");
    assert_eq!(Raw::default().or(raw.clone()), raw, "what only the file has is taken from it");
    match check(&raw, MACHINE) {
        Ok(config) => holds(&config),
        Err(error) => names_a_flag(&error),
    }
}

fn names_a_flag(error: &ConfigError) {
    assert!(error.field.starts_with("--") && error.field.len() > 2, "{error:?}");
    assert!(!error.allowed.is_empty(), "{error:?}");
}

/// What other code relies on when it is given a configuration.
fn holds(config: &Config) {
    assert!(config.max_record_bytes < config.max_frame_bytes, "{config:?}");
    assert!(config.max_frame_bytes <= super::FRAME_BYTES_CEILING, "{config:?}");
    assert!(config.workers.get() <= super::WORKERS_MAX, "{config:?}");
    assert!((1..=super::CONNECTIONS_CEILING).contains(&config.max_connections), "{config:?}");
    assert!(super::TOMBSTONES_US.contains(&config.tombstones_us), "{config:?}");
    assert!(config.busy_poll_us <= super::BUSY_POLL_US_MAX as u64, "{config:?}");
    assert!(config.client_memory_share_bytes() >= config.max_frame_bytes, "{config:?}");
    assert_eq!(config.cassandra.is_some(), config.store == super::StoreKind::Cassandra, "{config:?}");
    let is_found = config.advertise.is_some() || !config.join.is_empty();
    assert!(is_found || !config.gossip.ip().is_unspecified(), "{config:?}");
    let hosts = config.join.iter().map(HostPort::to_string).collect::<Vec<_>>().join(",");
    assert_eq!(values::hosts("join", &hosts).as_ref(), Ok(&config.join), "a written address is read again");
    for address in [config.http, config.gossip] {
        assert_eq!(values::address("http", &address.to_string()), Ok(address));
    }
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let seeds: [&str; 9] = [
        "http = \"127.0.0.1:7070\"\ngossip = \"[::1]:7946\"\n",
        "gossip = \"0.0.0.0:7946\"\njoin = [\"a:7946\", \"10.0.0.1:7946\", \"[fe80::1]:1\"]\n",
        "gossip = \"0.0.0.0:7946\"\nadvertise = \"10.0.0.1\"\n",
        "max-record-bytes = \"64KiB\"\nmax-frame-bytes = 1048576\nmax-memory = \"3 GiB\"\n",
        "store = \"cassandra\"\ncassandra = \"a:9042,b:9042\"\nconsistency = \"QUORUM\"\nreplication = \"dc1:3\"\n",
        "tombstones = \"1500ms\"\nhistory = 3\nworkers = 2\npin-workers = \"yes\"\nbusy-poll-us = 150\nmax-connections = 5\n",
        "profile = \"wan\"\nlog = \"json\"\nlog-level = \"debug\"\nzone = \"z\"\ncluster-name = \"c\"\n",
        "node-name = \"n1\"\ndata-dir = \"/var/lib/anode/*\"\nmax-client-memory = \"64MiB\"\n",
        "htpp = 1\n[x]\ny = [1, {z = 'a'}]\n",
    ];
    seeds.iter().map(|seed| seed.as_bytes().to_vec()).collect()
}

/// The input is the content of a file with the keys of a cluster.
pub(crate) fn cluster_key(input: &[u8]) {
    let keyring = match Keyring::from_bytes(input) {
        Ok(keyring) => keyring,
        Err(error) => return says_no_key(input, &error),
    };
    let text = std::str::from_utf8(input).expect("keys stand in a text");
    let lines: Vec<&str> =
        text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
    let texts: Vec<String> = keyring.keys().map(ClusterKey::to_text).collect();
    // Digits may be of either case.
    assert_eq!(texts, lines.iter().map(|line| line.to_ascii_lowercase()).collect::<Vec<_>>());
    assert!((1..=CLUSTER_KEYS_MAX).contains(&texts.len()), "{texts:?}");
    let ids: std::collections::BTreeSet<_> = keyring.keys().map(ClusterKey::id).collect();
    assert_eq!(ids.len(), texts.len(), "two keys have one id");
    assert_eq!(keyring.keys().next(), Some(keyring.first()));
    assert_eq!(Keyring::parse(&texts.join("\n")).as_ref(), Ok(&keyring), "written and read again");
    let shown = format!("{keyring:?}");
    assert!(texts.iter().all(|key| !shown.contains(key.as_str())), "a key is shown: {shown}");
}

/// An error names a line of the file, and repeats nothing that may be a part of a key.
fn says_no_key(input: &[u8], error: &KeyFileError) {
    let said = error.to_string();
    assert!(!said.is_empty() && said.len() < 100, "{said:?}");
    let lines = input.iter().filter(|byte| **byte == b'\n').count() + 1;
    if let KeyFileError::NoKey { line } | KeyFileError::Twice { line, .. } = error {
        assert!((1..=lines).contains(line), "line {line} of {lines}");
    }
}

pub(crate) fn cluster_key_seeds() -> Vec<Vec<u8>> {
    let key = |byte: u8| ClusterKey::new([byte; CLUSTER_KEY_BYTES]).to_text();
    let (one, two) = (key(0x1a), key(0xb2));
    let many: String = (0..9).map(|byte| key(byte) + "\n").collect();
    let seeds = [
        format!("{one}\n"),
        format!("# new since spring\r\n{one}\r\n\r\n\t{} \n", two.to_uppercase()),
        format!("{one}\n{one}\n"),
        format!("{one}{two}\n"),
        format!("{one}\n{}", &two[1..]),
        format!("{one}\u{2003}\n\u{b}{two}"),
        "# nothing\n\n".to_owned(),
        many,
    ];
    let mut inputs: Vec<Vec<u8>> = seeds.into_iter().map(String::into_bytes).collect();
    inputs.push([one.as_bytes(), b"\n\xff\n"].concat());
    inputs
}
