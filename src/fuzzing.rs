//! The doors by which bytes from outside come into the program, each with a check that takes any bytes.
//!
//! A check has the bytes read by the code that reads them in a running node, and asserts what must hold
//! whatever they are: that they are refused or understood, that what was understood comes back after it was
//! written and read again, and that another reader of the same format, where there is one, understands the
//! same. A check that fails panics.
//!
//! Two programs call the checks. The fuzzers in `fuzz/` look for bytes that make one fail, for as long as they
//! are given. The tests below run them with the files in `fuzz/corpus`, which have been found by the fuzzers or
//! were made by [`Door::seeds`], and with some changes of each. So this module is compiled for tests and for
//! fuzzers only, and may name what is private to the rooms: each room has its checks in a file `fuzzing.rs`.
//!
//! To add a door, write its check and its seeds in the room that reads the bytes, and a line in [`DOORS`], and
//! copy one of the files in `fuzz/targets`.

/// A door: a place where bytes from outside are read.
#[derive(Debug)]
pub struct Door {
    /// The name of the fuzzing target, and of the folder of its corpus.
    pub name: &'static str,
    /// Has the bytes read, and panics if something is wrong with the way in which they are.
    pub check: fn(&[u8]),
    /// Makes inputs that are understood, from messages as they occur.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Memory that a check may take for an input of no bytes, in bytes.
    pub memory_bytes: usize,
}

/// Memory that a check may take for each byte of its input, in bytes. The most is needed where an item of two
/// bytes in a batch becomes a refusal with a text.
pub const MEMORY_BYTES_PER_BYTE: usize = 512;

/// Memory for the checks that decode messages.
const DECODING: usize = 256 * 1024;
/// Memory for the checks that drive a whole machine of the cluster, or open a store.
const MACHINE: usize = 16 * 1024 * 1024;

/// Every door, in the order in which `fuzz/run` takes them.
pub const DOORS: &[Door] = &[
    door("datagram", crate::cluster::fuzzing::datagram, crate::cluster::fuzzing::datagram_seeds, MACHINE),
    door("stream", crate::cluster::fuzzing::stream, crate::cluster::fuzzing::stream_seeds, MACHINE),
    door("batch", crate::cluster::fuzzing::batch, crate::cluster::fuzzing::batch_seeds, MACHINE),
    door("http_head", crate::server::fuzzing::http_head, crate::server::fuzzing::http_head_seeds, DECODING),
    door("websocket", crate::server::fuzzing::websocket, crate::server::fuzzing::websocket_seeds, DECODING),
    door("json", crate::protocol::fuzzing::json, crate::protocol::fuzzing::json_seeds, DECODING),
    door("protobuf", crate::protocol::fuzzing::protobuf, crate::protocol::fuzzing::protobuf_seeds, DECODING),
    door("pattern", crate::subscriptions::fuzzing::pattern, crate::subscriptions::fuzzing::seeds, MACHINE),
    door("config", crate::config::fuzzing::config, crate::config::fuzzing::seeds, DECODING),
    door("store", crate::store::fuzzing::store, crate::store::fuzzing::store_seeds, MACHINE),
    door("journal", crate::store::fuzzing::journal, crate::store::fuzzing::journal_seeds, MACHINE),
    door("token", crate::protocol::fuzzing::token, crate::protocol::fuzzing::token_seeds, DECODING),
    door("url", crate::http::fuzzing::url, crate::http::fuzzing::seeds, DECODING),
    door("graphql", crate::http::graphql::fuzzing::graphql, crate::http::graphql::fuzzing::seeds, MACHINE),
    door(
        "sealed_datagram",
        crate::cluster::fuzzing::sealed_datagram,
        crate::cluster::fuzzing::sealed_datagram_seeds,
        MACHINE,
    ),
    door(
        "sealed_stream",
        crate::cluster::fuzzing::sealed_stream,
        crate::cluster::fuzzing::sealed_stream_seeds,
        MACHINE,
    ),
    door("auth_file", crate::auth::fuzzing::auth_file, crate::auth::fuzzing::auth_file_seeds, MACHINE),
    door("jwt", crate::auth::fuzzing::jwt, crate::auth::fuzzing::jwt_seeds, MACHINE),
    door("jwks", crate::auth::fuzzing::issuer_keys, crate::auth::fuzzing::issuer_keys_seeds, MACHINE),
    door("pull", crate::extend::pull::fuzzing::pull, crate::extend::pull::fuzzing::pull_seeds, MACHINE),
    door(
        "cluster_key",
        crate::config::fuzzing::cluster_key,
        crate::config::fuzzing::cluster_key_seeds,
        DECODING,
    ),
    door(
        "archive",
        crate::extend::archive::fuzzing::archive,
        crate::extend::archive::fuzzing::archive_seeds,
        MACHINE,
    ),
    door(
        "delivery_definition",
        crate::extend::archive::fuzzing::delivery_definition,
        crate::extend::archive::fuzzing::delivery_definition_seeds,
        DECODING,
    ),
    door(
        "place_answer",
        crate::extend::archive::fuzzing::place_answer,
        crate::extend::archive::fuzzing::place_answer_seeds,
        DECODING,
    ),
    door("mqtt", crate::extend::pull::fuzzing::mqtt, crate::extend::pull::fuzzing::mqtt_seeds, DECODING),
    door(
        "pull_stream",
        crate::extend::pull::fuzzing::pull_stream,
        crate::extend::pull::fuzzing::pull_stream_seeds,
        DECODING,
    ),
    door("module", crate::extend::fuzzing::module, crate::extend::fuzzing::module_seeds, MACHINE),
    door("middleware", crate::extend::fuzzing::middleware, crate::extend::fuzzing::middleware_seeds, MACHINE),
    door("expression", crate::expression::fuzzing::expression, crate::expression::fuzzing::seeds, MACHINE),
];

const fn door(
    name: &'static str,
    check: fn(&[u8]),
    seeds: fn() -> Vec<Vec<u8>>,
    memory_bytes: usize,
) -> Door {
    Door { name, check, seeds, memory_bytes }
}

/// Cuts an input into pieces, for checks that need more than one. Each piece stands behind its length (two
/// bytes, little-endian). The last piece ends with the input, whatever its length says.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pieces<'a>(pub &'a [u8]);

impl<'a> Iterator for Pieces<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let (length, rest) = self.0.split_first_chunk()?;
        let (piece, rest) = rest.split_at(usize::from(u16::from_le_bytes(*length)).min(rest.len()));
        self.0 = rest;
        Some(piece)
    }
}

/// Joins pieces into an input from which [`Pieces`] takes them.
pub(crate) fn join<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut input = Vec::new();
    for piece in pieces {
        let length = u16::try_from(piece.len()).expect("a seed is small");
        input.extend_from_slice(&length.to_le_bytes());
        input.extend_from_slice(piece);
    }
    input
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::cluster::random::Random;

    /// Number of changed inputs that each file of a corpus is tried with.
    const CHANGES: usize = 12;
    /// Most bytes that all files of a corpus have together.
    const CORPUS_BYTES_MAX: usize = 64 * 1024;

    fn corpus(door: &Door) -> Vec<(PathBuf, Vec<u8>)> {
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(door.name);
        let files =
            std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        let mut paths: Vec<PathBuf> = files.map(|file| file.expect("a file").path()).collect();
        paths.sort();
        paths.into_iter().map(|path| (path.clone(), std::fs::read(path).expect("readable"))).collect()
    }

    /// Runs the check, and names the input if it fails.
    fn run(door: &Door, input: &[u8], from: &str) {
        let outcome = std::panic::catch_unwind(|| (door.check)(input));
        assert!(outcome.is_ok(), "the check of door {:?} fails on {from}: {input:?}", door.name);
    }

    #[test]
    fn every_door_has_a_target_and_a_corpus() {
        let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz");
        let manifest = std::fs::read_to_string(root.join("Cargo.toml")).expect("the manifest");
        for door in DOORS {
            let target = std::fs::read_to_string(root.join(format!("targets/{}.rs", door.name)));
            let target = target.unwrap_or_else(|error| panic!("target of {}: {error}", door.name));
            assert!(target.contains(&format!("target!(\"{}\");", door.name)), "{}: {target}", door.name);
            assert!(manifest.contains(&format!("name = \"{}\"", door.name)), "manifest for {}", door.name);
            let files = corpus(door);
            let bytes: usize = files.iter().map(|(_, input)| input.len()).sum();
            assert!(files.len() >= (door.seeds)().len().min(8), "{}: {} files", door.name, files.len());
            assert!(bytes <= CORPUS_BYTES_MAX, "{}: {bytes} bytes", door.name);
        }
    }

    /// Whatever strangers, clients, peers and operators may write has a door.
    #[test]
    fn what_others_may_write_has_a_door() {
        for name in [
            "sealed_datagram",
            "datagram",
            "sealed_stream",
            "stream",
            "http_head",
            "websocket",
            "json",
            "protobuf",
            "pattern",
            "expression",
            "config",
            "auth_file",
            "cluster_key",
            "store",
            "journal",
            "token",
        ] {
            assert_eq!(DOORS.iter().filter(|door| door.name == name).count(), 1, "{name}");
        }
    }

    /// `fuzz/run` once stopped before it had compiled anything, for several days: a dependency had been added, and the
    /// fuzzers have a lock file of their own, which did not know it.
    #[test]
    fn the_fuzzers_lock_file_knows_all_dependencies() {
        let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
        let read = |name: &str| std::fs::read_to_string(root.join(name)).expect(name);
        let manifest: toml::Table = read("Cargo.toml").parse().expect("the manifest");
        let lock: toml::Table = read("fuzz/Cargo.lock").parse().expect("the lock file");
        let packages = lock["package"].as_array().expect("packages");
        let known: Vec<&str> = packages.iter().filter_map(|package| package["name"].as_str()).collect();
        let own = packages.iter().find(|package| package["name"].as_str() == Some("anode")).expect("anode");
        let own: Vec<&str> = own["dependencies"]
            .as_array()
            .expect("its dependencies")
            .iter()
            .filter_map(|name| name.as_str()?.split(' ').next())
            .collect();
        for (name, dependency) in manifest["dependencies"].as_table().expect("dependencies") {
            // The fuzzers are built without those that are optional.
            if dependency.get("optional").is_some() {
                continue;
            }
            let package = dependency.get("package").and_then(|name| name.as_str()).unwrap_or(name);
            assert!(
                own.contains(&package) && known.contains(&package),
                "`cargo update -w` in fuzz/ for {package}"
            );
        }
    }

    #[test]
    fn seeds_are_understood() {
        for door in DOORS {
            for (at, seed) in (door.seeds)().iter().enumerate() {
                run(door, seed, &format!("seed {at}"));
            }
        }
    }

    #[test]
    fn corpora_are_replayed() {
        for door in DOORS {
            for (path, input) in corpus(door) {
                run(door, &input, &path.display().to_string());
            }
        }
    }

    #[test]
    fn corpora_with_changes_are_survived() {
        DOORS.iter().for_each(|door| survives_changes(door, CHANGES, 17));
    }

    /// Tries as many changes of each file as one wants, where there is no time to compile the fuzzers:
    /// `FUZZ_DOOR=jwt FUZZ_CHANGES=1000 FUZZ_SEED=7 cargo test --lib fuzzing::tests::many_changes -- --ignored`.
    #[test]
    #[ignore = "takes as long as one wants"]
    fn many_changes_are_survived() {
        let number =
            |name: &str, default| std::env::var(name).map_or(default, |text| text.parse().expect(name));
        let wanted = std::env::var("FUZZ_DOOR").ok();
        let (changes, seed) = (number("FUZZ_CHANGES", 1_000), number("FUZZ_SEED", 1) as u64);
        for door in DOORS.iter().filter(|door| wanted.as_ref().is_none_or(|name| name == door.name)) {
            survives_changes(door, changes, seed);
            println!("{}: {changes} changes of each file, seed {seed}", door.name);
        }
    }

    fn survives_changes(door: &Door, changes: usize, seed: u64) {
        let mut random = Random::new(seed);
        let inputs: Vec<Vec<u8>> = corpus(door).into_iter().map(|(_, input)| input).collect();
        for (at, input) in inputs.iter().enumerate() {
            for change in 0..changes {
                let other = &inputs[random.index(inputs.len())];
                let changed = changed(input, other, &mut random);
                run(door, &changed, &format!("file {at}, change {change}, seed {seed}"));
            }
        }
    }

    /// An input that differs a little: a bit, a byte, a piece left out or repeated, or the end of another one.
    fn changed(input: &[u8], other: &[u8], random: &mut Random) -> Vec<u8> {
        let mut changed = input.to_vec();
        for _ in 0..=random.index(3) {
            let at = random.index(changed.len() + 1);
            let end = (at + random.index(9)).min(changed.len());
            match random.index(6) {
                0 if at < changed.len() => changed[at] ^= 1 << random.index(8),
                1 if at < changed.len() => changed[at] = random.index(256) as u8,
                2 => changed.insert(at, random.index(256) as u8),
                3 => drop(changed.drain(at..end)),
                4 => {
                    let piece = changed[at..end].to_vec();
                    changed.splice(at..at, piece);
                }
                _ => {
                    changed.truncate(at);
                    changed.extend_from_slice(&other[random.index(other.len() + 1)..]);
                }
            }
        }
        changed
    }

    /// Writes the seeds into the corpora. To be called when a seed was added:
    /// `cargo test --lib fuzzing::tests::seeds_are_written -- --ignored`.
    #[test]
    #[ignore = "changes files of the repository"]
    fn seeds_are_written() {
        for door in DOORS {
            let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(door.name);
            std::fs::create_dir_all(&folder).expect("a folder");
            for (at, seed) in (door.seeds)().iter().enumerate() {
                std::fs::write(folder.join(format!("seed-{at:02}")), seed).expect("writable");
            }
        }
    }
}
