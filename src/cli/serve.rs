//! `anode serve`: reads flags, environment and file, and runs a node.

use std::path::PathBuf;

use tracing_subscriber::EnvFilter;

use super::CliError;
use super::environment::StrangeVariable;
use super::format::may_colour;
use super::machine::this_machine;
use crate::config::watched::WatchedFiles;
use crate::config::{Config, ConfigError, LogFormat, LogLevel, Raw, check};
use crate::record::Now;
use crate::server::clock;
use crate::server::reload::Reloadable;

/// A flag overrides the environment (ANODE_HTTP for --http), which overrides the file given with --config.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n\
    \x20 anode serve\n\
    \x20 anode serve --http 0.0.0.0:7070 --gossip 10.0.0.1:7946 --join 10.0.0.2:7946,10.0.0.3:7946\n\
    \x20 ANODE_LOG=json anode serve --config /etc/anode/anode.toml\n\n\
    Sizes are in bytes, or have a unit of KiB, MiB or GiB; durations need one of ms, s, m, h or d.\n\
    When the node serves, it prints one line on stdout: `ready node=ID http=ADDR gossip=ADDR`.\n\
    Exit codes: 0 done, 1 failed while running, 2 unusable arguments.")]
pub struct Arguments {
    #[command(flatten)]
    settings: ConfigArguments,
}

/// Where the settings of a node are given.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct ConfigArguments {
    /// File of TOML with the same names as the flags, for example http = "0.0.0.0:7070"
    #[arg(long, env = "ANODE_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    raw: Raw,
}

/// Runs a node until a signal or an error ends it. `strange` are variables in the environment that have no effect.
pub fn run(arguments: Arguments, strange: &[StrangeVariable]) -> Result<(), CliError> {
    if let Some(variable) = strange.iter().find(|variable| variable.is_unsafe()) {
        let reason = "without it, the node would be open to more than you meant";
        return Err(CliError::Usage(format!("{variable} {reason}; correct or unset it")));
    }
    let settings = arguments.settings;
    let config = settings.config()?;
    let level = start_log(&config);
    for variable in strange {
        tracing::warn!(
            variable = variable.name,
            meant = variable.meant.as_deref().unwrap_or("none"),
            "an environment variable is not known and has no effect"
        );
    }
    let reload = ConfigReload::new(settings, config.clone(), level);
    Ok(crate::server::run(config, vec![Box::new(reload)])?)
}

impl ConfigArguments {
    /// Reads the file of the configuration, if there is one, and checks all values.
    pub fn config(&self) -> Result<Config, ConfigError> {
        let (text, file) = match &self.config {
            None => (String::new(), Raw::default()),
            Some(path) => {
                let text = std::fs::read_to_string(path).map_err(|error| {
                    let allowed = format!("a readable file of TOML ({error})");
                    ConfigError::new("config", path.display().to_string(), allowed)
                })?;
                let file = Raw::from_toml(&text, path)?;
                (text, file)
            }
        };
        check(&self.raw.clone().or(file), this_machine()).map_err(|error| self.placed(error, &text))
    }

    /// Adds to an error where the value stands, if it is in the file, whose text is `text`, or in the environment.
    fn placed(&self, error: ConfigError, text: &str) -> ConfigError {
        let flag = error.field.trim_start_matches('-').to_owned();
        if self.raw.has(&flag) {
            let variable = format!("ANODE_{}", flag.replace('-', "_").to_ascii_uppercase());
            let is_there = std::env::var(&variable).is_ok_and(|value| value == error.value);
            return error.at(is_there.then_some(variable));
        }
        let place = Raw::place_in(text, &flag).zip(self.config.as_ref());
        error.at(place.map(|((line, column), path)| format!("{}:{line}:{column}", path.display())))
    }
}

/// Sets the least severity that is logged, while the program runs.
pub type SetLevel = Box<dyn Fn(LogLevel) + Send>;

/// Starts the log. It is written to stderr, because stdout is for the line `ready …`. Returns a function that changes the
/// level.
pub fn start_log(config: &Config) -> SetLevel {
    let log = tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        // A line that cannot be written, such as to a file on a full disk, is lost. The attempt to report that on the same
        // stderr would end the thread that logs.
        .log_internal_errors(false)
        .with_env_filter(filter(config.log_level));
    // An error means that a test has started a log before, which is then used.
    match config.log {
        LogFormat::Json => {
            let log = log.json().flatten_event(true).with_filter_reloading();
            let handle = log.reload_handle();
            let _ = log.try_init();
            Box::new(move |level| drop(handle.reload(filter(level))))
        }
        LogFormat::Text => {
            let log = log.with_ansi(may_colour(&std::io::stderr())).with_filter_reloading();
            let handle = log.reload_handle();
            let _ = log.try_init();
            Box::new(move |level| drop(handle.reload(filter(level))))
        }
    }
}

fn filter(level: LogLevel) -> EnvFilter {
    // The Cassandra driver logs every lost connection as an error. The store logs what follows from it
    // instead.
    EnvFilter::new(format!("{},cdrs_tokio=off", level.as_str()))
}

/// The configuration file of a running node. It is read again when it changes, and on SIGHUP. The level of the log is
/// taken from it at once; all other settings need a restart, and the log names those that differ.
struct ConfigReload {
    arguments: ConfigArguments,
    /// The configuration that is in force.
    config: Config,
    files: WatchedFiles,
    set_level: SetLevel,
}

impl ConfigReload {
    fn new(arguments: ConfigArguments, config: Config, set_level: SetLevel) -> ConfigReload {
        let mut files = WatchedFiles::new(arguments.config.clone());
        // What the file holds now is in force. A failure is told when the file is looked at next.
        let _ = files.read(clock::now());
        ConfigReload { arguments, config, files, set_level }
    }

    fn take(&mut self, mut new: Config) {
        // The node itself reads the keys again.
        if let (Some(old), Some(new)) = (&self.config.cluster_key, &mut new.cluster_key) {
            new.keyring = old.keyring.clone();
        }
        if new.log_level != self.config.log_level {
            let (from, to) = (self.config.log_level.as_str(), new.log_level.as_str());
            // The line is written while the level lets it through.
            let is_before = matches!(new.log_level, LogLevel::Off | LogLevel::Error | LogLevel::Warn);
            if is_before {
                tracing::info!(from, to, "the level of the log changes");
            }
            (self.set_level)(new.log_level);
            if !is_before {
                tracing::info!(from, to, "the level of the log has changed");
            }
            self.config.log_level = new.log_level;
        }
        let differing = differing(&self.config, &new);
        if !differing.is_empty() {
            tracing::warn!(
                settings = differing.join(","),
                "the configuration file has settings that are taken at the next start only"
            );
        }
    }
}

impl Reloadable for ConfigReload {
    fn look(&mut self, now: Now, is_asked: bool) {
        if self.arguments.config.is_none() || self.files.read_changed(now, is_asked).is_none() {
            return;
        }
        match self.arguments.config() {
            Ok(new) => self.take(new),
            Err(error) => {
                tracing::error!(%error, "the configuration file is refused; the settings stay as they are")
            }
        }
    }
}

/// Names of fields that are not those of their flags.
const FLAGS_OF_FIELDS: [(&str, &str); 5] = [
    ("max-memory-bytes", "max-memory"),
    ("max-client-memory-bytes", "max-client-memory"),
    ("tombstones-us", "tombstones"),
    ("tls", "tls-cert, tls-key, tls-client-ca"),
    ("access", "auth, allow-origin, allow-host, max-connections-per-address, max-subscriptions"),
];

/// Returns the names of the settings in which two configurations differ.
fn differing(old: &Config, new: &Config) -> Vec<String> {
    let fields = |config: &Config| {
        let text = format!("{config:#?}");
        let top = |line: &str| {
            line.strip_prefix("    ").is_some_and(|rest| !rest.starts_with([' ', '}', ']', ')']))
        };
        let mut fields: Vec<(String, String)> = Vec::new();
        for line in text.lines() {
            match line.trim_start().split_once(": ").filter(|_| top(line)) {
                Some((name, value)) => fields.push((name.replace('_', "-"), value.to_owned())),
                None => {
                    if let Some((_, value)) = fields.last_mut() {
                        value.push_str(line);
                    }
                }
            }
        }
        fields
    };
    let pairs = fields(old).into_iter().zip(fields(new));
    let differing = pairs.filter(|(old, new)| old != new).map(|((name, _), _)| name);
    let flag = |name: String| {
        let known = FLAGS_OF_FIELDS.iter().find(|(field, _)| *field == name);
        known.map_or(name, |(_, flag)| (*flag).to_owned())
    };
    differing.map(flag).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_differ_are_named() {
        let of = |text: &str| {
            let raw = Raw::from_toml(text, std::path::Path::new("x.toml")).expect("a file");
            check(&raw, this_machine()).expect("a configuration")
        };
        let old = of("http = \"127.0.0.1:1\"\n");
        assert_eq!(differing(&old, &old), [""; 0]);
        let new =
            of("http = \"127.0.0.1:2\"\njoin = \"a:1,b:2\"\nmax-connections = 7\nmax-memory = \"1GiB\"\n");
        assert_eq!(differing(&old, &new), ["http", "join", "max-connections", "max-memory"]);
    }

    #[test]
    fn errors_tell_the_place_of_a_value_in_the_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("anode.toml");
        std::fs::write(&path, "# one\nzone = \"z\"\n  store = \"punchcards\"\n").expect("written");
        let arguments = ConfigArguments { config: Some(path), raw: Raw::default() };
        let error = arguments.config().expect_err("no such store").to_string();
        assert!(error.contains("anode.toml:3:11: --store: \"punchcards\""), "{error}");
    }
}
