//! Environment variables that look as if they were meant for this program and are not: `ANODE_HTPP`.
//!
//! A misspelt flag is an error, and a misspelt variable should not pass in silence either. It cannot be an error in
//! general, because variables have other sources: Kubernetes makes some for every service, and a shell may have those of
//! another version. Where the variable that was meant protects the node, going on without it would be unsafe.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fmt;

use clap::Command;

use super::client::{TOKEN_VARIABLE, URL_VARIABLE};
use crate::config::nearest;

/// Beginning of the names of all variables of this program.
const OUR_PREFIX: &str = "ANODE_";
/// Variables without which a node lets in, or tells, more than its operator meant.
const PROTECTING: [&str; 8] = [
    "ANODE_AUTH",
    "ANODE_CLUSTER_KEY",
    "ANODE_CLUSTER_KEY_PHASE",
    "ANODE_TLS_CERT",
    "ANODE_TLS_KEY",
    "ANODE_TLS_CLIENT_CA",
    "ANODE_CASSANDRA_TLS_CA",
    "ANODE_CONFIG",
];

/// A variable that this program does not know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StrangeVariable {
    /// Name of the variable.
    pub name: String,
    /// The variable that was most likely meant.
    pub meant: Option<String>,
}

impl StrangeVariable {
    /// Returns whether a node that does not know the variable is less protected than its operator believes.
    pub fn is_unsafe(&self) -> bool {
        self.meant.as_deref().is_some_and(|meant| PROTECTING.contains(&meant))
    }
}

impl fmt::Display for StrangeVariable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the environment variable {} is not known and has no effect", self.name)?;
        match &self.meant {
            Some(meant) => write!(f, "; did you mean {meant}?"),
            None => Ok(()),
        }
    }
}

/// Returns the variables among `environment` that begin like ours and are not.
pub fn strange(
    command: &Command,
    environment: impl Iterator<Item = (OsString, OsString)>,
) -> Vec<StrangeVariable> {
    let known = known(command);
    let names = environment.filter_map(|(name, _)| name.into_string().ok());
    let ours = names.filter(|name| name.starts_with(OUR_PREFIX) && !known.contains(name));
    let mut strange: Vec<StrangeVariable> = ours
        .filter(|name| !is_of_kubernetes(name))
        .map(|name| StrangeVariable { meant: meant(&name, &known), name })
        .collect();
    strange.sort_by(|one, next| one.name.cmp(&next.name));
    strange
}

/// Returns the variable that was most likely meant. The beginning that all share tells nothing.
fn meant(name: &str, known: &BTreeSet<String>) -> Option<String> {
    let rest = |name: &str| name.strip_prefix(OUR_PREFIX).unwrap_or(name).to_owned();
    let others: Vec<String> = known.iter().map(|name| rest(name)).collect();
    nearest(&rest(name), others.iter().map(String::as_str)).map(|meant| format!("{OUR_PREFIX}{meant}"))
}

/// Returns the names of all variables that any command reads.
fn known(command: &Command) -> BTreeSet<String> {
    let commands = std::iter::once(command).chain(command.get_subcommands());
    let variables = commands.flat_map(Command::get_arguments).filter_map(|argument| argument.get_env());
    let variables = variables.map(|name| name.to_string_lossy().into_owned());
    variables.chain([URL_VARIABLE, TOKEN_VARIABLE].map(str::to_owned)).collect()
}

/// Returns whether Kubernetes makes a variable of this name in every container, for a service called `anode…`.
fn is_of_kubernetes(name: &str) -> bool {
    let has_port =
        name.split("_PORT_").nth(1).is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
    has_port || name.ends_with("_PORT") || name.contains("_SERVICE_HOST") || name.contains("_SERVICE_PORT")
}

#[cfg(test)]
mod tests {
    use clap::Arg;

    use super::*;

    #[test]
    fn misspelt_variables_are_named_with_what_was_meant() {
        let argument = |name: &'static str, variable: &'static str| Arg::new(name).long(name).env(variable);
        let serve = Command::new("serve").args([
            argument("http", "ANODE_HTTP"),
            argument("auth", "ANODE_AUTH"),
            argument("zone", "ANODE_ZONE"),
        ]);
        let command = Command::new("anode").subcommand(serve);
        let found = |names: &[&str]| {
            let environment = names.iter().map(|name| (OsString::from(name), OsString::new()));
            let found = strange(&command, environment);
            found.into_iter().map(|it| (it.is_unsafe(), it.name, it.meant)).collect::<Vec<_>>()
        };
        assert_eq!(found(&["ANODE_HTTP", "ANODE_TOKEN", "ANODE_URL", "HTTP", "PATH"]), []);
        assert_eq!(found(&["ANODE_SERVICE_HOST", "ANODE_PORT", "ANODE_PORT_7070_TCP_ADDR"]), []);
        let of = |name: &str, meant: Option<&str>| (name.to_owned(), meant.map(str::to_owned));
        let (name, meant) = of("ANODE_HTPP", Some("ANODE_HTTP"));
        assert_eq!(found(&["ANODE_HTPP"]), [(false, name, meant)]);
        let (name, meant) = of("ANODE_AUTH_FILE", Some("ANODE_AUTH"));
        assert_eq!(found(&["ANODE_AUTH_FILE"]), [(true, name, meant)]);
        let (name, meant) = of("ANODE_COLOUR", None);
        assert_eq!(found(&["ANODE_COLOUR"]), [(false, name, meant)]);
    }
}
