//! The command line of `netem/run`.

use std::path::PathBuf;

use clap::Parser;

use crate::world::Links;

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
    /// With --store cassandra: options of anode serve, such as "--cassandra 10.1.2.3:9042"
    #[arg(long, value_name = "OPTIONS", default_value = "", allow_hyphen_values = true)]
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
Network namespaces need root. Profiles are files in netem/profiles; docs/faults.md describes them.";

impl Arguments {
    /// Returns the command that runs a profile again as it is run now.
    pub fn again(&self, profile: &str, nodes: usize, seconds: u64) -> String {
        let mut line = format!(
            "netem/run {profile} --nodes {nodes} --store {} --load {} --seconds {seconds} --seed {}",
            self.store, self.load, self.seed
        );
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
            if let Err(error) = Arguments::try_parse_from(words) {
                panic!("{command}: {error}");
            }
        }
    }
}
