//! `anode doctor`: looks for what may be wrong with a node, its cluster and this machine, and says what to do about it.
//!
//! A node that runs is asked for its health, metrics and members, and every member for its view of the others ([`node`]).
//! For a node that does not run yet, or that runs here, this machine is checked against the configuration ([`machine`]).
//! Join targets are asked directly, over UDP and TCP ([`targets`]).

mod machine;
mod node;
mod targets;

use std::fmt::Write as _;
use std::io::Write as _;

use serde::Serialize;
use serde_json::json;

use super::client::{AccessArguments, NodeUrl, Nodes, TrustArguments, URL_VARIABLE};
use super::environment::StrangeVariable;
use super::format::{FormatArguments, may_colour};
use super::serve::ConfigArguments;
use super::{CliError, Given};
use crate::config::Config;

/// The arguments of `anode doctor`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n\
    \x20 anode doctor                                        the node on 127.0.0.1:7070, or this machine before a start\n\
    \x20 anode doctor --config /etc/anode/anode.toml         with the configuration of the node\n\
    \x20 anode doctor --url https://node1.example:7070 --ca ca.pem --token-file observe.token\n\n\
    Besides its own options it takes those of `anode serve`, from the same places.\n\n\
    Exit codes: 0 nothing is wrong (there may be warnings), 1 something is wrong, 2 unusable arguments.")]
pub struct Arguments {
    #[command(flatten)]
    access: AccessArguments,
    #[command(flatten)]
    format: FormatArguments,
    #[command(flatten)]
    settings: ConfigArguments,
}

/// How something was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    /// It is as it should be.
    Ok,
    /// It could not be found out.
    Unknown,
    /// It may become a problem.
    Warning,
    /// It is a problem.
    Wrong,
}

/// What was found about one thing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Finding {
    /// Name of the thing: `clock`, `ports`.
    check: &'static str,
    verdict: Verdict,
    /// What was found, in words.
    message: String,
    /// What to do about it.
    advice: Option<String>,
}

/// Everything that was found so far.
#[derive(Debug, Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn ok(&mut self, check: &'static str, message: impl Into<String>) {
        self.0.push(Finding { check, verdict: Verdict::Ok, message: message.into(), advice: None });
    }

    fn add(&mut self, check: &'static str, verdict: Verdict, message: impl Into<String>, advice: &str) {
        let (message, advice) = (message.into(), Some(advice.to_owned()));
        self.0.push(Finding { check, verdict, message, advice });
    }

    fn worst(&self) -> Verdict {
        self.0.iter().map(|finding| finding.verdict).max().unwrap_or(Verdict::Ok)
    }

    /// The findings as lines for people. Colours mark what is not as it should be.
    fn text(&self, has_colour: bool) -> String {
        let mut text = String::new();
        for Finding { check, verdict, message, advice } in &self.0 {
            let (word, colour) = match verdict {
                Verdict::Ok => ("ok", "32"),
                Verdict::Unknown => ("unknown", "33"),
                Verdict::Warning => ("warning", "33"),
                Verdict::Wrong => ("WRONG", "31"),
            };
            let word = format!("{word:<8}");
            let word = if has_colour { format!("\x1b[{colour}m{word}\x1b[0m") } else { word };
            let _ = writeln!(text, "{word} {check:<8} {message}");
            if let Some(advice) = advice {
                let _ = writeln!(text, "{:17} -> {advice}", "");
            }
        }
        text
    }
}

/// Prints what was found. Returns an error if anything is wrong.
pub fn run(arguments: &Arguments, given: &Given, strange: &[StrangeVariable]) -> Result<(), CliError> {
    let config = arguments.settings.config()?;
    let nodes = arguments.access.nodes(given, ("--url", &[]))?;
    let is_chosen = arguments.access.is_chosen(given) || std::env::var_os(URL_VARIABLE).is_some();
    let nodes = if is_chosen { nodes } else { own_node(&config, nodes)? };
    let mut findings = Findings::default();
    for variable in strange {
        let verdict = if variable.is_unsafe() { Verdict::Wrong } else { Verdict::Warning };
        findings.add("config", verdict, variable.to_string(), "correct it, or unset it");
    }
    let is_running = node::check(&nodes, is_chosen, &mut findings);
    if !is_running && !is_chosen {
        machine::check(&config, &mut findings);
    }
    targets::check(&config, &mut findings);
    let worst = findings.worst();
    let text = match arguments.format.is_json(given) {
        true => {
            let told = json!({ "ok": worst < Verdict::Wrong, "findings": findings.0 });
            format!("{told}\n")
        }
        false => {
            let is = match worst {
                Verdict::Wrong => "something is wrong",
                Verdict::Warning => "nothing is wrong, and there are warnings",
                Verdict::Unknown => "nothing is wrong as far as can be seen",
                Verdict::Ok => "nothing is wrong",
            };
            format!("{}{is}\n", findings.text(may_colour(&std::io::stdout())))
        }
    };
    std::io::stdout().write_all(text.as_bytes())?;
    if worst == Verdict::Wrong { Err(CliError::Told) } else { Ok(()) }
}

/// Returns the node that the configuration is for, at the address on which it would serve clients on this machine.
fn own_node(config: &Config, default: Nodes) -> Result<Nodes, CliError> {
    if config.http.port() == 0 || config.tls.is_some() {
        // A certificate is for names, and none of them need be one of this machine's own addresses.
        return Ok(default);
    }
    let mut address = config.http;
    if address.ip().is_unspecified() {
        address.set_ip(if address.is_ipv4() {
            [127, 0, 0, 1].into()
        } else {
            std::net::Ipv6Addr::LOCALHOST.into()
        });
    }
    let node = NodeUrl::parse(&address.to_string(), "--http", &TrustArguments::default())?;
    Ok(node.with_token(default.first().token().cloned()).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_are_lines_with_advice() {
        let mut findings = Findings::default();
        findings.ok("clock", "fine");
        assert_eq!(findings.worst(), Verdict::Ok);
        findings.add("ports", Verdict::Wrong, "taken", "free it");
        assert_eq!(findings.worst(), Verdict::Wrong);
        let expected = "ok       clock    fine\nWRONG    ports    taken\n                  -> free it\n";
        assert_eq!(findings.text(false), expected);
        assert!(findings.text(true).contains("\x1b[31mWRONG"));
    }
}
