//! `anode members`: prints the members of the cluster as a node sees them.

use std::io::Write;

use serde::Deserialize;

use super::CliError;
use super::client::{AccessArguments, DEFAULT_URL, NodeUrl, fetch};

/// The arguments of `anode members`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// URL of a node: ws://HOST:PORT or http://HOST:PORT; with TLS wss:// or https://
    #[arg(long, value_name = "URL", default_value = DEFAULT_URL)]
    from: String,
    #[command(flatten)]
    access: AccessArguments,
    /// Print the JSON as the node sent it
    #[arg(long)]
    json: bool,
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

#[derive(Deserialize)]
struct Members {
    members: Vec<Member>,
}

/// Asks a node for the members of the cluster.
pub fn ask(endpoint: &NodeUrl) -> Result<Vec<Member>, CliError> {
    let body = fetch(endpoint, "/v1/members")?.ok()?;
    read(&body)
}

fn read(body: &str) -> Result<Vec<Member>, CliError> {
    serde_json::from_str(body)
        .map(|Members { members }| members)
        .map_err(|error| CliError::Failed(format!("the node's answer cannot be read: {error}")))
}

/// Prints the members as a table, or as the JSON that the node sent.
pub fn run(arguments: &Arguments) -> Result<(), CliError> {
    let endpoint = arguments.access.node(&arguments.from, "from")?;
    let body = fetch(&endpoint, "/v1/members")?.ok()?;
    let text = if arguments.json { format!("{body}\n") } else { table(&read(&body)?) };
    Ok(std::io::stdout().write_all(text.as_bytes())?)
}

/// Formats one line for each member, with columns as wide as their longest cell.
fn table(members: &[Member]) -> String {
    let head = ["ID", "STATE", "HTTP", "GOSSIP", "ZONE", "RTT", "VERSION"].map(String::from);
    let lines = members.iter().map(|member| {
        let rtt = member.rtt_us.map_or("-".into(), |us| format!("{}.{:03} ms", us / 1000, us % 1000));
        let zone = if member.zone.is_empty() { "-".into() } else { member.zone.clone() };
        let Member { id, state, http, gossip, version, .. } = member.clone();
        [id, state, http, gossip, zone, rtt, version]
    });
    let rows: Vec<[String; 7]> = std::iter::once(head).chain(lines).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; 7] = std::array::from_fn(width);
    let mut text = String::new();
    for row in &rows {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
        let line = cells.collect::<Vec<String>>().join("  ");
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let body = r#"{"members":[
            {"id":"a","state":"alive","http":"h:1","gossip":"g:1","zone":"","incarnation":0,"boot":1,"version":"0.1.0","rtt_us":null},
            {"id":"long-name","state":"suspect","http":"h:22","gossip":"g:2","zone":"z","incarnation":2,"boot":1,"version":"0.1.0","rtt_us":1310}]}"#;
        assert_eq!(
            table(&read(body).expect("members")),
            "ID         STATE    HTTP  GOSSIP  ZONE  RTT       VERSION\n\
             a          alive    h:1   g:1     -     -         0.1.0\n\
             long-name  suspect  h:22  g:2     z     1.310 ms  0.1.0\n"
        );
        assert!(read("{}").is_err());
    }
}
