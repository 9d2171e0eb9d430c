use std::path::Path;

use super::*;

const MACHINE: Hardware = Hardware { cores: 4, memory_bytes: 8 << 30 };

fn checked(set: impl FnOnce(&mut Raw)) -> Result<Config, ConfigError> {
    let mut raw = Raw::default();
    set(&mut raw);
    check(&raw, MACHINE)
}

fn refused(set: impl FnOnce(&mut Raw)) -> ConfigError {
    checked(set).expect_err("refused")
}

#[test]
fn defaults_are_those_of_the_contract() {
    let config = checked(|_| {}).expect("defaults");
    assert_eq!(config.http.to_string(), "127.0.0.1:7070");
    assert_eq!(config.gossip.to_string(), "127.0.0.1:7946");
    assert_eq!((config.advertise, config.join), (None, vec![]));
    assert_eq!((config.cluster_name.as_str(), config.zone.as_str()), ("anode", ""));
    assert_eq!((config.node_name, config.store), (None, StoreKind::Embedded));
    assert_eq!(config.data_dir, Path::new("./anode-data"));
    assert_eq!((config.history.get(), config.tombstones_us), (256, 24 * 3_600_000_000));
    assert_eq!((config.workers.get(), config.max_memory_bytes), (4, 4 << 30));
    assert_eq!((config.max_record_bytes, config.max_frame_bytes), (65_536, 1 << 20));
    assert_eq!((config.max_connections, config.profile), (100_000, Profile::Lan));
    assert_eq!(config.cluster_key, None);
    assert_eq!((config.log, config.log_level), (LogFormat::Text, LogLevel::Info));
}

#[test]
fn sizes_and_durations_take_units() {
    let config = checked(|raw| {
        raw.max_memory = Some("3 GiB".into());
        raw.max_record_bytes = Some("128KiB".into());
        raw.tombstones = Some("1500ms".into());
    });
    let config = config.expect("units");
    assert_eq!((config.max_memory_bytes, config.max_record_bytes), (3 << 30, 128 << 10));
    assert_eq!(config.tombstones_us, 1_500_000);
    for bad in ["", "KiB", "1.5MiB", "-1", "+1", "1KB", "99999999999999999999", "18446744073709551615GiB"] {
        assert_eq!(refused(|raw| raw.max_memory = Some(bad.into())).field, "--max-memory", "{bad:?}");
    }
    for bad in ["24", "h", "10ms", "1w", "24 hours", "99999999999d"] {
        assert_eq!(refused(|raw| raw.tombstones = Some(bad.into())).field, "--tombstones", "{bad:?}");
    }
}

#[test]
fn memory_for_clients_is_a_quarter_of_the_machine_and_enough_for_a_few_frames() {
    let limits = |client: Option<&str>, frame: &str| {
        let config = checked(|raw| {
            raw.max_client_memory = client.map(Into::into);
            raw.max_frame_bytes = Some(frame.into());
        });
        config.map(|config| (config.max_client_memory_bytes, config.client_memory_share_bytes()))
    };
    assert_eq!(limits(None, "1MiB"), Ok((2 << 30, 256 << 20)));
    assert_eq!(limits(Some("16MiB"), "1MiB"), Ok((16 << 20, 4 << 20)));
    assert_eq!(limits(Some("1GiB"), "64MiB"), Ok((1 << 30, 256 << 20)));
    let error = limits(Some("7MiB"), "1MiB").expect_err("too little");
    assert_eq!((error.field.as_str(), error.value.as_str()), ("--max-client-memory", "7MiB"));
    assert!(error.allowed.contains("at least 8388608 bytes"), "{error}");
    let small = Hardware { cores: 1, memory_bytes: 100 << 20 };
    let raw = Raw { max_frame_bytes: Some("16MiB".into()), ..Raw::default() };
    assert_eq!(check(&raw, small).map(|config| config.max_client_memory_bytes), Ok(128 << 20));
}

#[test]
fn join_targets() {
    let config = checked(|raw| raw.join = Some("a.example:1, [::1]:2,10.0.0.1:3,a.example:1,".into()));
    let shown: Vec<String> = config.expect("join").join.iter().map(HostPort::to_string).collect();
    assert_eq!(shown, ["a.example:1", "[::1]:2", "10.0.0.1:3"]);
    for bad in ["a", "a:", "a:0", "a:65536", "::1:7", "[::1]", "[a]:1", ":1", "a b:1", "a:+1"] {
        assert_eq!(refused(|raw| raw.join = Some(bad.into())).value, bad);
    }
}

/// `--join ,` was taken for no targets at all, and the node ran alone in silence.
#[test]
fn an_entry_of_a_list_is_not_empty() {
    for bad in [",", ",,", " ", " , ", "a:1,,b:1", ",a:1", "a:1,,"] {
        let error = refused(|raw| raw.join = Some(bad.into()));
        assert_eq!((error.field.as_str(), error.value.as_str()), ("--join", bad));
        assert!(error.allowed.contains("HOST:PORT"), "{error}");
    }
    assert_eq!(checked(|raw| raw.join = Some("".into())).map(|config| config.join), Ok(Vec::new()));
}

#[test]
fn names_have_no_white_space() {
    for bad in ["a b", " a", "a\t", "a\u{a0}b", "a\n"] {
        assert_eq!(refused(|raw| raw.zone = Some(bad.into())).field, "--zone", "{bad:?}");
        assert_eq!(refused(|raw| raw.cluster_name = Some(bad.into())).field, "--cluster-name", "{bad:?}");
    }
    assert!(checked(|raw| raw.zone = Some("eu/west-1".into())).is_ok());
}

#[test]
fn a_record_of_the_largest_size_fits_into_a_frame() {
    let limits = |record: &str, frame: &str| {
        checked(|raw| {
            raw.max_record_bytes = Some(record.into());
            raw.max_frame_bytes = Some(frame.into());
        })
    };
    assert!(limits("65527", "64KiB").is_ok());
    let error = limits("64KiB", "64KiB").expect_err("larger than what a frame has room for");
    assert_eq!((error.field.as_str(), error.value.as_str()), ("--max-record-bytes", "64KiB"));
    assert!(error.allowed.contains("65527") && error.allowed.contains("--max-frame-bytes"), "{error}");
    let config = checked(|raw| raw.max_frame_bytes = Some("32KiB".into())).expect("a smaller default");
    assert_eq!(config.max_record_bytes, (32 << 10) - 9);
}

#[test]
fn an_unspecified_gossip_address_must_be_advertised_or_join() {
    let any = |raw: &mut Raw| raw.gossip = Some("0.0.0.0:7946".into());
    assert_eq!(refused(any).field, "--advertise");
    assert!(checked(|raw| (any(raw), raw.join = Some("a:1".into())).1).is_ok());
    let advertised = |text: &str| {
        checked(|raw| (any(raw), raw.advertise = Some(text.into())).1).map(|config| config.advertise)
    };
    for (text, host, port) in [
        ("10.0.0.9:1", "10.0.0.9", 1),
        ("10.0.0.9", "10.0.0.9", 0),
        ("node-1", "node-1", 0),
        ("[2001:db8::1]:5", "2001:db8::1", 5),
        ("[2001:db8::1]", "2001:db8::1", 0),
    ] {
        assert_eq!(advertised(text), Ok(Some(HostPort { host: host.into(), port })), "{text}");
    }
    for bad in ["0.0.0.0:1", "[::]:1", "", "a:0", "a b", "[x]:1"] {
        assert!(advertised(bad).is_err(), "{bad:?}");
        let error = refused(|raw| raw.advertise_http = Some(bad.into()));
        assert_eq!((error.field.as_str(), error.value.as_str()), ("--advertise-http", bad));
    }
    let told = checked(|raw| raw.advertise_http = Some("anode".into())).map(|config| config.advertise_http);
    assert_eq!(told, Ok(Some(HostPort { host: "anode".into(), port: 0 })));
}

#[test]
fn keys_of_the_cluster_are_read_and_have_phases() {
    use cluster_key::KeyPhase;
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("keys");
    let path = file.display().to_string();
    let with = |phase: Option<&str>| {
        checked(|raw| {
            raw.cluster_key = Some(path.as_str().into());
            raw.cluster_key_phase = phase.map(Into::into);
        })
    };
    let error = with(None).expect_err("there is no file");
    assert_eq!((error.field.as_str(), error.value.as_str()), ("--cluster-key", path.as_str()));
    std::fs::write(&file, "1".repeat(64)).expect("written");
    for (given, phase) in [
        (None, KeyPhase::Require),
        (Some("accept"), KeyPhase::Accept),
        (Some("send"), KeyPhase::Send),
        (Some("require"), KeyPhase::Require),
    ] {
        let keys = with(given).map(|config| config.cluster_key.map(|keys| keys.phase));
        assert_eq!(keys, Ok(Some(phase)), "{given:?}");
    }
    assert_eq!(with(Some("sealed")).expect_err("no phase").field, "--cluster-key-phase");
    std::fs::write(&file, "secret").expect("written");
    let error = with(None).expect_err("no key");
    assert!(error.allowed.contains("line 1") && !error.to_string().contains("secret"), "{error}");
    let error = refused(|raw| raw.cluster_key_phase = Some("send".into()));
    assert_eq!(error.field, "--cluster-key-phase");
}

#[test]
fn errors_name_flag_value_and_what_is_allowed() {
    let error = refused(|raw| raw.profile = Some("moon".into()));
    assert_eq!(error.to_string(), r#"--profile: "moon" cannot be used; allowed: lan, wan, local"#);
    assert_eq!(refused(|raw| raw.http = Some("7070".into())).field, "--http");
    assert_eq!(refused(|raw| raw.workers = Some("0".into())).field, "--workers");
    assert_eq!(refused(|raw| raw.history = Some("0".into())).field, "--history");
    assert_eq!(refused(|raw| raw.busy_poll_us = Some("1001".into())).field, "--busy-poll-us");
    let error = refused(|raw| raw.pin_workers = Some("maybe".into()));
    assert_eq!(error.to_string(), r#"--pin-workers: "maybe" cannot be used; allowed: no, yes"#);
    assert_eq!(refused(|raw| raw.node_name = Some("a b".into())).field, "--node-name");
    assert_eq!(refused(|raw| raw.cluster_name = Some("".into())).field, "--cluster-name");
    assert_eq!(refused(|raw| raw.max_record_bytes = Some("3MiB".into())).field, "--max-record-bytes");
    assert_eq!(refused(|raw| raw.log_level = Some("loud".into())).field, "--log-level");
}

#[test]
fn the_file_has_the_flags_names_and_loses_to_them() {
    let file = "http = \"0.0.0.0:80\"\njoin = [\"a:1\", \"b:2\"]\nworkers = 3\nmax-memory = \"1GiB\"\n";
    let file = Raw::from_toml(file, Path::new("x.toml")).expect("file");
    let flags = Raw { workers: Some("2".into()), ..Raw::default() };
    let config = check(&flags.or(file), MACHINE).expect("config");
    assert_eq!((config.http.port(), config.join.len()), (80, 2));
    assert_eq!((config.workers.get(), config.max_memory_bytes), (2, 1 << 30));
}

#[test]
fn unknown_keys_and_wrong_kinds_in_the_file_are_errors() {
    let error = Raw::from_toml("http = \"a\"\nhtpt = 1\n", Path::new("x.toml")).expect_err("unknown key");
    assert_eq!((error.field.as_str(), error.value.as_str()), ("--config", "x.toml"));
    assert!(error.allowed.contains("htpt"), "{error}");
    for bad in ["http = true", "[http]", "workers = [1]", "http", "max_memory = 1"] {
        assert!(Raw::from_toml(bad, Path::new("x")).is_err(), "{bad}");
    }
    for (bad, flag) in
        [("http = 1.5", "--http"), ("workers = 1.5", "--workers"), ("trace-sample = 1.5", "--trace-sample")]
    {
        let raw = Raw::from_toml(bad, Path::new("x")).expect("a number");
        assert_eq!(check(&raw, MACHINE).expect_err(bad).field, flag);
    }
}
