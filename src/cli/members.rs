//! `anode members`: prints the members of the cluster as a node sees them.

use std::io::Write;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::client::{AccessArguments, NodeUrl, fetch, fetch_from};
use super::format::{self, FormatArguments};
use super::{CliError, Given};

/// The arguments of `anode members`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n\
    \x20 anode members\n\
    \x20 anode members --all --json --url https://node1.example:7070 --ca ca.pem --token-file observe.token\n\n\
    States: joining (has not answered at its own address), alive, suspect, dead, left. RTT is the round trip from the \
    node that was asked.")]
pub struct Arguments {
    #[arg(long, value_name = "URL", value_delimiter = ',', hide = true)]
    from: Vec<String>,
    #[command(flatten)]
    access: AccessArguments,
    #[command(flatten)]
    format: FormatArguments,
    /// Also print members that are dead or have left
    #[arg(long)]
    all: bool,
}

/// A member in the answer of a node.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub struct Member {
    /// Name of the member.
    pub id: String,
    /// State of the member: `joining`, `alive`, `suspect`, `dead` or `left`.
    pub state: String,
    /// Address for clients, `host:port`.
    pub http: String,
    /// Address for other nodes, `host:port`.
    pub gossip: String,
    /// Name of the member's zone; empty if it has none.
    pub zone: String,
    /// How often the member has refuted the suspicion that it is dead.
    pub incarnation: u64,
    /// Version of the member's program.
    pub version: String,
    /// Smoothed round-trip time from the asked node, in microseconds; `None` if it has not been measured.
    pub rtt_us: Option<u64>,
}

impl Member {
    /// Returns whether the member runs, as far as the asked node knows.
    pub fn is_live(&self) -> bool {
        !matches!(self.state.as_str(), "dead" | "left")
    }
}

/// Returns whether clients are told `address` of exactly one of the members with these addresses. If members share one,
/// such as the name of a service, whoever is asked there may be any of them.
pub fn is_of_one<'a>(addresses: impl Iterator<Item = &'a str>, address: &str) -> bool {
    addresses.filter(|other| *other == address).count() == 1
}

#[derive(Deserialize)]
struct Members<'a> {
    #[serde(borrow)]
    members: Vec<&'a RawValue>,
}

/// Asks a node for the members of the cluster, also those that are dead or have left.
pub fn ask(node: &NodeUrl) -> Result<Vec<Member>, CliError> {
    let body = fetch_from(node, "/v1/members")?.ok()?;
    Ok(read(&body)?.into_iter().map(|(member, _)| member).collect())
}

/// Reads the members in an answer of a node, each with its text.
fn read(body: &str) -> Result<Vec<(Member, &str)>, CliError> {
    let unreadable =
        |error: serde_json::Error| CliError::Failed(format!("the node's answer cannot be read: {error}"));
    let Members { members } = serde_json::from_str(body).map_err(unreadable)?;
    let each = members.into_iter().map(|text| Ok((serde_json::from_str(text.get())?, text.get())));
    each.collect::<Result<Vec<(Member, &str)>, serde_json::Error>>().map_err(unreadable)
}

/// Prints the members as a table, or as the JSON that the node sent.
pub fn run(arguments: &Arguments, given: &Given) -> Result<(), CliError> {
    let nodes = arguments.access.nodes(given, ("--from", &arguments.from))?;
    let body = fetch(&nodes, "/v1/members")?.ok()?;
    let all = read(&body)?;
    let shown: Vec<&(Member, &str)> =
        all.iter().filter(|(member, _)| arguments.all || member.is_live()).collect();
    let hidden = all.len() - shown.len();
    if arguments.format.is_json(given) {
        let texts: Vec<&str> = shown.iter().map(|(_, text)| *text).collect();
        return Ok(writeln!(std::io::stdout(), "{{\"members\":[{}]}}", texts.join(","))?);
    }
    let members: Vec<&Member> = shown.iter().map(|(member, _)| member).collect();
    std::io::stdout().write_all(table(&members).as_bytes())?;
    if hidden > 0 {
        format::note(&format!("{hidden} that died or left are not shown: see --all"));
    }
    Ok(())
}

/// Formats one line for each member, with columns as wide as their longest cell.
fn table(members: &[&Member]) -> String {
    let head = ["ID", "STATE", "HTTP", "GOSSIP", "ZONE", "RTT", "VERSION"].map(String::from);
    let lines = members.iter().map(|member| {
        let rtt = member.rtt_us.map_or("-".into(), |us| format!("{}.{:03} ms", us / 1000, us % 1000));
        let zone = if member.zone.is_empty() { "-".into() } else { member.zone.clone() };
        let Member { id, state, http, gossip, version, .. } = (*member).clone();
        [id, state, http, gossip, zone, rtt, version]
    });
    format::table(&std::iter::once(head).chain(lines).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let body = r#"{"members":[
            {"id":"a","state":"alive","http":"h:1","gossip":"g:1","zone":"","incarnation":0,"boot":1,"version":"0.1.0","rtt_us":null},
            {"id":"long-name","state":"suspect","http":"h:22","gossip":"g:2","zone":"z","incarnation":2,"boot":1,"version":"0.1.0","rtt_us":1310}]}"#;
        let members: Vec<Member> =
            read(body).expect("members").into_iter().map(|(member, _)| member).collect();
        assert_eq!(
            table(&members.iter().collect::<Vec<&Member>>()),
            "ID         STATE    HTTP  GOSSIP  ZONE  RTT       VERSION\n\
             a          alive    h:1   g:1     -     -         0.1.0\n\
             long-name  suspect  h:22  g:2     z     1.310 ms  0.1.0\n"
        );
        assert!(read("{}").is_err());
    }
}
