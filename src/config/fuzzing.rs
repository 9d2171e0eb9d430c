//! The check of the configuration file.

use std::path::Path;

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
        "tombstones = \"1500ms\"\nhistory = 3\nworkers = 2\nbusy-poll-us = 150\nmax-connections = 5\n",
        "profile = \"wan\"\nlog = \"json\"\nlog-level = \"debug\"\nzone = \"z\"\ncluster-name = \"c\"\n",
        "node-name = \"n1\"\ndata-dir = \"/var/lib/anode/*\"\nmax-client-memory = \"64MiB\"\n",
        "htpp = 1\n[x]\ny = [1, {z = 'a'}]\n",
    ];
    seeds.iter().map(|seed| seed.as_bytes().to_vec()).collect()
}
