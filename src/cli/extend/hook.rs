//! `anode hook`: addresses that are sent records as they come.

use serde_json::{Map, Value};

use super::{list, put, remove};
use crate::cli::client::{AccessArguments, Body};
use crate::cli::format::FormatArguments;
use crate::cli::{CliError, Given};
use crate::protocol::extension::ExtensionKind;

/// The arguments of `anode hook`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n\
    \x20 anode hook put alarms --on 'alarms/**' --url https://example.org/hook --secret env:ALARM_SECRET\n\
    \x20 anode hook list\n\
    \x20 anode hook rm alarms\n\n\
    Batches of records are posted, signed by Standard Webhooks, and sent again until they are taken.\n\
    As hook put --url names the receiver, its node is named before it (anode --url NODE hook put ...) or by ANODE_URL.")]
pub struct Arguments {
    #[command(subcommand)]
    command: HookCommand,
    #[command(flatten)]
    access: AccessArguments,
    #[command(flatten)]
    format: FormatArguments,
}

#[derive(Debug, clap::Subcommand)]
enum HookCommand {
    /// Send records to an address
    Put(Box<HookPut>),
    /// Print all webhooks: which member runs each, and how it is doing
    List {
        #[command(flatten)]
        node: HookNode,
    },
    /// Take a webhook away
    Rm {
        /// Name of the webhook
        name: String,
        #[command(flatten)]
        node: HookNode,
    },
}

/// The node, where `--url` is not the receiver.
#[derive(Debug, Default, clap::Args)]
struct HookNode {
    /// URL of a node: ws://HOST:PORT or http://HOST:PORT, with TLS wss:// or https://; of several, the next is tried
    /// when one does not answer [env: ANODE_URL] [default: ws://127.0.0.1:7070]
    #[arg(id = "node_url", long = "url", value_name = "URL[,…]", value_delimiter = ',')]
    urls: Vec<String>,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n\
    \x20 anode hook put alarms --on 'alarms/**' --url https://example.org/in --secret env:ALARM_SECRET\n\
    \x20 anode --url http://10.0.0.1:7070 hook put hot --on 'sensors/**' --url https://example.org/in --filter 'data.c > 80'\n\n\
    --url is the address of the receiver here, so the node is named before `hook`, or by ANODE_URL.\n\
    A secret is whsec_ and 24 to 64 random bytes in base64: echo whsec_$(head -c 32 /dev/urandom | base64 -w 0)")]
struct HookPut {
    /// Name of the webhook
    name: String,
    /// Pattern of the sources whose records are sent; may be given several times
    #[arg(long, value_name = "PATTERN", required = true)]
    on: Vec<String>,
    /// Address that batches are posted to
    #[arg(long, value_name = "URL")]
    url: String,
    /// Secret that batches are signed with, by its name in the environment of the nodes: env:NAME, holding whsec_...
    #[arg(long, value_name = "env:NAME")]
    secret: Option<String>,
    /// Send only records for which this CEL expression is true, and deletions
    #[arg(long, value_name = "CEL")]
    filter: Option<String>,
    /// A further header field, NAME=VALUE or NAME=env:VARIABLE; may be given several times
    #[arg(long, value_name = "NAME=VALUE")]
    header: Vec<String>,
    /// Most records of a batch [default: 100]
    #[arg(long, value_name = "COUNT")]
    batch_records: Option<u64>,
    /// Most bytes of a batch [default: 262144]
    #[arg(long, value_name = "BYTES")]
    batch_bytes: Option<u64>,
    /// How long records wait for others to be sent with [default: 0s]
    #[arg(long, value_name = "TIME")]
    linger: Option<String>,
    /// Longest time for an answer [default: 15s]
    #[arg(long, value_name = "TIME")]
    timeout: Option<String>,
    /// Send the latest records of all sources first
    #[arg(long)]
    snapshot: bool,
}

impl HookPut {
    /// The definition as a JSON object.
    fn definition(&self) -> Result<Value, CliError> {
        let mut body = Map::new();
        let mut add = |name: &str, value: Option<Value>| {
            if let Some(value) = value {
                body.insert(name.into(), value);
            }
        };
        let text = |text: &Option<String>| text.clone().map(Value::from);
        add("on", Some(self.on.clone().into()));
        add("url", Some(self.url.clone().into()));
        add("secret", text(&self.secret));
        add("filter", text(&self.filter));
        add("batch_records", self.batch_records.map(Value::from));
        add("batch_bytes", self.batch_bytes.map(Value::from));
        add("linger", text(&self.linger));
        add("timeout", text(&self.timeout));
        add("snapshot", self.snapshot.then_some(true.into()));
        let mut headers = Map::new();
        for header in &self.header {
            let (name, value) = header.split_once('=').ok_or_else(|| {
                CliError::Usage(format!("--header: \"{header}\" cannot be used; allowed: NAME=VALUE"))
            })?;
            headers.insert(name.into(), value.into());
        }
        add("headers", (!headers.is_empty()).then_some(headers.into()));
        Ok(body.into())
    }
}

/// Does what the arguments ask for.
pub fn run(arguments: &Arguments, given: &Given) -> Result<(), CliError> {
    let urls: &[String] = match &arguments.command {
        HookCommand::Put(_) => &[],
        HookCommand::List { node } | HookCommand::Rm { node, .. } => &node.urls,
    };
    let nodes = arguments.access.nodes(given, ("--url", urls))?;
    let kind = ExtensionKind::Hook;
    match &arguments.command {
        HookCommand::Put(hook) => {
            let text = hook.definition()?.to_string();
            let body = Body { media_type: "application/json", bytes: text.as_bytes() };
            put(&nodes, kind, &hook.name, body)
        }
        HookCommand::Rm { name, .. } => remove(&nodes, kind, name),
        HookCommand::List { .. } => {
            let is_json = arguments.format.is_json(given);
            list(
                &nodes,
                kind,
                is_json,
                ["NAME", "URL", "RUNNER", "RECORDS", "WAITING", "FAILURES", "DEAD", "ERROR"],
                |one| {
                    let told = |field| one.told(field);
                    let (records, waiting) = (told("records"), told("waiting"));
                    let (failures, dead, error) = (told("failures"), told("dead"), told("error"));
                    let url = one.definition["url"].as_str().unwrap_or("-").to_owned();
                    [one.name.clone(), url, one.runner_cell(), records, waiting, failures, dead, error]
                },
            )
        }
    }
}
