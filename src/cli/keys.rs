//! `anode keys`: makes a key for a cluster, or shows which keys the members of a cluster have.

use std::io::Write;

use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::client::{AccessArguments, fetch};
use super::format::{self, FormatArguments};
use super::{CliError, Given};
use crate::config::cluster_key::{CLUSTER_KEY_BYTES, ClusterKey};

/// The arguments of `anode keys`.
#[derive(Debug, clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Examples:\n\
    \x20 anode keys new >>cluster.key\n\
    \x20 anode keys --url https://node1.example:7070 --ca ca.pem --token-file observe.token\n\n\
    A key is named by its id: the first 8 hexadecimal digits of its SHA-256. SEALS is the key with which a \
    member seals what it sends, OPENS are the keys in its file. A member that has just been heard of, or that has no \
    keys, shows none."
)]
pub struct Arguments {
    #[command(subcommand)]
    action: Option<KeysAction>,
    #[arg(long, value_name = "URL", value_delimiter = ',', hide = true)]
    from: Vec<String>,
    #[command(flatten)]
    access: AccessArguments,
    #[command(flatten)]
    format: FormatArguments,
}

#[derive(Debug, clap::Subcommand)]
enum KeysAction {
    /// Print a new key, for a line of the file of --cluster-key
    New(FormatArguments),
}

/// A member in the answer of a node, as far as keys are concerned.
#[derive(Debug, Deserialize, Serialize)]
struct KeyMember {
    id: String,
    state: String,
    keys: Option<KeysOfMember>,
}

#[derive(Debug, Deserialize, Serialize)]
struct KeysOfMember {
    seals: Option<String>,
    opens: Vec<String>,
    phase: String,
}

#[derive(Deserialize)]
struct KeyMembers {
    members: Vec<KeyMember>,
}

/// Prints a new key, or the keys of all members as a table.
pub fn run(arguments: &Arguments, given: &Given) -> Result<(), CliError> {
    let text = match &arguments.action {
        Some(KeysAction::New(format)) => {
            let key = new_key()?.to_text();
            if format.is_json(given) { format!("{}\n", json!({ "key": key })) } else { key + "\n" }
        }
        None => {
            let nodes = arguments.access.nodes(given, ("--from", &arguments.from))?;
            let members = read(&fetch(&nodes, "/v1/members")?.ok()?)?;
            match arguments.format.is_json(given) {
                true => format!("{}\n", json!({ "members": members })),
                false => table(&members),
            }
        }
    };
    Ok(std::io::stdout().write_all(text.as_bytes())?)
}

fn new_key() -> Result<ClusterKey, CliError> {
    let mut bytes = [0; CLUSTER_KEY_BYTES];
    let filled = SystemRandom::new().fill(&mut bytes);
    filled.map_err(|_| CliError::Failed("the operating system gives no random bytes".into()))?;
    Ok(ClusterKey::new(bytes))
}

fn read(body: &str) -> Result<Vec<KeyMember>, CliError> {
    serde_json::from_str(body)
        .map(|KeyMembers { members }| members)
        .map_err(|error| CliError::Failed(format!("the node's answer cannot be read: {error}")))
}

/// Formats one line for each member, with columns as wide as their longest cell.
fn table(members: &[KeyMember]) -> String {
    let head = ["ID", "STATE", "SEALS", "OPENS", "PHASE"].map(String::from);
    let none = || "-".to_owned();
    let lines = members.iter().map(|KeyMember { id, state, keys }| {
        let [seals, opens, phase] = match keys {
            Some(keys) => [keys.seals.clone().unwrap_or_else(none), keys.opens.join(","), keys.phase.clone()],
            None => [none(), none(), none()],
        };
        [id.clone(), state.clone(), seals, opens, phase]
    });
    format::table(&std::iter::once(head).chain(lines).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_new_each_time() {
        let (one, other) = (new_key().expect("a key"), new_key().expect("a key"));
        assert_ne!(one, other);
        assert_eq!(ClusterKey::parse(&one.to_text()), Some(one));
    }

    #[test]
    fn columns_line_up() {
        let body = r#"{"members":[
            {"id":"a","state":"alive","keys":{"seals":"11111111","opens":["11111111","22222222"],"phase":"require"}},
            {"id":"long-name","state":"alive","keys":{"seals":null,"opens":["11111111"],"phase":"accept"}},
            {"id":"c","state":"dead"}]}"#;
        assert_eq!(
            table(&read(body).expect("members")),
            "ID         STATE  SEALS     OPENS              PHASE\n\
             a          alive  11111111  11111111,22222222  require\n\
             long-name  alive  -         11111111           accept\n\
             c          dead   -         -                  -\n"
        );
        assert!(read("{}").is_err());
    }
}
