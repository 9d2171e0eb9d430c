//! The command line of `netem/run`.

use std::path::{Path, PathBuf};

use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{CommandFactory, FromArgMatches, Parser};

use crate::peer::Peer;
use crate::world::Links;

/// The compose file that `--compose` stands for without a file.
pub const COMPOSE_FILE: &str = "docker-compose.yml";

/// Runs a cluster of real nodes under the faults of a profile, and checks what its clients were promised.
#[derive(Clone, Debug, Parser)]
#[command(name = "netem/run", max_term_width = 120, after_help = AFTER)]
pub struct Arguments {
    /// A profile by its name, or a file that ends in .toml
    pub profile: Option<String>,
    /// Number of nodes [default: that of the profile]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(2..=100))]
    pub nodes: Option<u16>,
    /// Store of the nodes
    #[arg(long, default_value = "embedded", value_parser = ["embedded", "memory", "cassandra"])]
    pub store: String,
    /// With --store cassandra: options of anode serve, such as "--cassandra 10.1.2.3:9042" [default: the Cassandra of
    /// scripts/cassandra, which netem/run starts, and a keyspace for the run]
    #[arg(
        long,
        value_name = "OPTIONS",
        default_value = "",
        hide_default_value = true,
        allow_hyphen_values = true
    )]
    pub store_options: String,
    /// Records a second, of all publishers together
    #[arg(long, value_name = "RATE", default_value_t = 2_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub load: u32,
    /// Number of sources
    #[arg(long, value_name = "N", default_value_t = 500, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub sources: u64,
    /// Bytes of the data of a record
    #[arg(long, value_name = "BYTES", default_value_t = 100, value_parser = clap::value_parser!(u32).range(20..=60_000))]
    pub bytes: u32,
    /// Seconds of load [default: those of the profile]
    #[arg(long, value_name = "S", value_parser = clap::value_parser!(u32).range(5..=86_400))]
    pub seconds: Option<u32>,
    /// Seed of the links, the faults and the records
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// Seal what nodes send each other with a key of the cluster
    #[arg(long)]
    pub sealed: bool,
    /// The program that plays the links between the nodes
    #[arg(long, value_enum, default_value_t = Links::Auto)]
    pub links: Links,
    /// Runs the profile with the services of a compose file, in containers, as far as these can play it; to be given after the
    /// profile [default FILE: docker-compose.yml of this project, with secrets that are made for the run]
    #[arg(long, value_name = "FILE", num_args = 0..=1, default_missing_value = COMPOSE_FILE,
        conflicts_with_all = ["ci", "store", "store_options", "sealed", "links", "previous"])]
    pub compose: Option<PathBuf>,
    /// With --compose: profile of the compose file [default: embedded for this project's own file]
    #[arg(long, value_name = "NAME", requires = "compose")]
    pub compose_profile: Option<String>,
    /// With --compose: PEM file of the authorities that sign the nodes' certificates, if the file does not take them from
    /// ANODE_SECRETS
    #[arg(long, value_name = "FILE", requires = "compose")]
    pub ca: Option<PathBuf>,
    /// With --compose: file with a token that may do everything, if the file does not take the rights from ANODE_SECRETS
    #[arg(long, value_name = "FILE", requires = "compose")]
    pub token_file: Option<PathBuf>,
    /// Runs the profile with servers of another system in place of aNode, to compare the two: nats-server with a key-value
    /// bucket of JetStream that has three replicas
    #[arg(long, value_enum, value_name = "NAME")]
    pub peer: Option<Peer>,
    /// With --peer jetstream: the nats-server program [default: that of PATH]
    #[arg(long, value_name = "FILE", requires = "peer")]
    pub nats_server: Option<PathBuf>,
    /// Runs every profile
    #[arg(long, conflicts_with = "profile")]
    pub all: bool,
    /// With a profile or --all: as short as the profile allows
    #[arg(long, conflicts_with = "seconds")]
    pub short: bool,
    /// Runs the profiles that the tests run, in at most four minutes
    #[arg(long, conflicts_with_all = ["profile", "all"])]
    pub ci: bool,
    /// Names all profiles, with what happens in them
    #[arg(long)]
    pub list: bool,
    /// Removes what runs have left behind whose program is gone
    #[arg(long)]
    pub clean: bool,
    /// The anode program that the nodes run
    #[arg(long, value_name = "FILE", env = "ANODE_BINARY")]
    pub binary: Option<PathBuf>,
    /// For rolling-upgrade: the anode program of the previous release
    #[arg(long, value_name = "FILE")]
    pub previous: Option<PathBuf>,
    /// Directory for reports, plots and logs
    #[arg(long, value_name = "DIR", default_value = "target/netem")]
    pub out: PathBuf,
}

const AFTER: &str = "\
Exit codes: 0 all promises kept, 1 a promise broken or a run failed, 2 unusable arguments, 3 not permitted here.
With --peer, nothing is promised: 0 means that the run was made, 2 that it could not be made or that it failed.
With --compose, 2 also means that docker or compose is missing, or that containers can play nothing of the profile.
Network namespaces need root. Profiles are files in netem/profiles; docs/faults.md describes them.";

/// Options that are about aNode, by their names in clap.
const OF_ANODE: [&str; 10] = [
    "store",
    "store_options",
    "sealed",
    "compose",
    "compose_profile",
    "ca",
    "token_file",
    "ci",
    "binary",
    "previous",
];
/// Options that may be given together with `--peer`, as the error says that refuses the others.
const BESIDE: &str = "PROFILE or --all, --nodes, --load, --sources, --bytes, --seconds or --short, --seed, --links, \
                      --nats-server, --out";

impl Arguments {
    /// Reads the words of a command line, of which the first is the program.
    pub fn read<I, T>(words: I) -> Result<Arguments, clap::Error>
    where
        I: IntoIterator<Item = T>,
        T: Into<std::ffi::OsString> + Clone,
    {
        let mut command = Arguments::command();
        let matches = command.try_get_matches_from_mut(words)?;
        let arguments = Arguments::from_arg_matches(&matches)?;
        let is_given = |name: &&str| matches.value_source(name) == Some(ValueSource::CommandLine);
        if let Some(peer) = arguments.peer
            && let Some(name) = OF_ANODE.iter().find(|name| is_given(name))
        {
            let option = name.replace('_', "-");
            let peer = peer.name();
            let why =
                format!("--{option} is about aNode and cannot go with --peer {peer}; allowed are {BESIDE}");
            return Err(command.error(ErrorKind::ArgumentConflict, why));
        }
        Ok(arguments)
    }

    /// Returns the command that runs a profile again as it is run now.
    pub fn again(&self, profile: &str, nodes: usize, seconds: u64) -> String {
        let place = match (&self.compose, self.peer) {
            (None, Some(peer)) => format!("--peer {}", peer.name()),
            (None, None) => format!("--store {}", self.store),
            (Some(file), _) if file == Path::new(COMPOSE_FILE) => "--compose".to_owned(),
            (Some(file), _) => format!("--compose {}", file.display()),
        };
        let mut line = format!(
            "netem/run {profile} {place} --nodes {nodes} --load {} --seconds {seconds} --seed {}",
            self.load, self.seed
        );
        if let Some(name) = &self.compose_profile {
            line += &format!(" --compose-profile {name}");
        }
        if !self.store_options.is_empty() {
            line += &format!(" --store-options \"{}\"", self.store_options);
        }
        let files =
            [("--ca", &self.ca), ("--token-file", &self.token_file), ("--nats-server", &self.nats_server)];
        for (option, file) in files {
            if let Some(file) = file {
                line += &format!(" {option} {}", file.display());
            }
        }
        if self.sealed {
            line += " --sealed";
        }
        if self.sources != 500 {
            line += &format!(" --sources {}", self.sources);
        }
        if let Some(previous) = &self.previous {
            line += &format!(" --previous {}", previous.display());
        }
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_commands_of_the_page_are_understood() {
        let page = include_str!("../../docs/faults.md");
        let commands: Vec<&str> = page.lines().filter(|line| line.starts_with("netem/run ")).collect();
        assert!(commands.len() >= 6, "{commands:?}");
        for command in commands {
            // What a command does stands behind it, with space in between.
            let words = command.split("  ").next().unwrap_or_default().split_whitespace();
            if let Err(error) = Arguments::read(words) {
                panic!("{command}: {error}");
            }
        }
    }

    #[test]
    fn options_of_anode_are_refused_beside_another_system() {
        let read = |line: &str| Arguments::read(line.split(' '));
        for (option, words) in [
            ("--store", "--store embedded"),
            ("--store-options", "--store-options x"),
            ("--sealed", "--sealed"),
            ("--compose", "--compose"),
            ("--binary", "--binary anode"),
            ("--previous", "--previous anode"),
        ] {
            let error =
                read(&format!("netem/run lan --peer jetstream {words}")).expect_err(words).to_string();
            assert!(error.contains(&format!("{option} is about aNode")), "{error}");
            assert!(error.contains("--nodes, --load"), "{error}");
        }
        assert!(read("netem/run --ci --peer jetstream").is_err());
        assert!(read("netem/run lan --peer kafka").is_err());
        assert!(read("netem/run lan --nats-server f").is_err());
        let told = read("netem/run lan --peer jetstream --nats-server f --links user-space");
        let told = told.expect("arguments").again("lan", 5, 60);
        let expected =
            "netem/run lan --peer jetstream --nodes 5 --load 2000 --seconds 60 --seed 1 --nats-server f";
        assert_eq!(told, expected);
        assert!(read(&told).is_ok());
    }

    #[test]
    fn a_compose_file_is_optional_and_is_named_again() {
        let parse = |line: &str| Arguments::try_parse_from(line.split(' '));
        for (line, again) in [
            ("netem/run kill-half --compose --short", "netem/run kill-half --compose --nodes 3 --load 2000"),
            ("netem/run kill-half --compose my.yaml", "netem/run kill-half --compose my.yaml --nodes 3"),
            (
                "netem/run kill-half --compose --compose-profile cassandra --ca a.crt --token-file t",
                "netem/run kill-half --compose --nodes 3 --load 2000 --seconds 60 --seed 1 --compose-profile cassandra \
                 --ca a.crt --token-file t",
            ),
            ("netem/run kill-half", "netem/run kill-half --store embedded --nodes 3"),
            ("netem/run lan --store cassandra", "netem/run kill-half --store cassandra --nodes 3"),
        ] {
            let told = parse(line).expect(line).again("kill-half", 3, 60);
            assert!(told.starts_with(again), "{told}");
            assert!(parse(&told).is_ok(), "{told}");
        }
        for line in
            ["netem/run x --compose --store memory", "netem/run --ci --compose", "netem/run x --ca a.crt"]
        {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
