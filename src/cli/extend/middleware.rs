//! `anode middleware`: what changes or refuses records on their way in.

use std::io::{Read, Write};
use std::path::PathBuf;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::ArgGroup;
use serde_json::{Map, Value, json};

use super::{list, path_of, put, read_file, remove};
use crate::cli::client::{AccessArguments, Body, Nodes, request};
use crate::cli::format::FormatArguments;
use crate::cli::{CliError, Given};
use crate::protocol::extension::ExtensionKind;

/// Kind of all that is done here.
const KIND: ExtensionKind = ExtensionKind::Middleware;
/// The media type of what is sent.
const JSON: &str = "application/json";

/// The arguments of `anode middleware`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n\
    \x20 anode middleware put celsius --on 'sensors/**' --cel '{\"c\": (data.f - 32.0) / 1.8}' --when 'has(data.f)'\n\
    \x20 anode middleware put checks --on '**' --wasm checks.wasm --on-failure pass\n\
    \x20 echo '{\"source\":\"sensors/1\",\"data\":{\"f\":70}}' | anode middleware test celsius\n\
    \x20 anode middleware rollback celsius\n\n\
    A middleware runs once, at the node that accepts a record, before the record is stamped.")]
pub struct Arguments {
    #[command(subcommand)]
    command: MiddlewareCommand,
    #[command(flatten)]
    access: AccessArguments,
    #[command(flatten)]
    format: FormatArguments,
}

#[derive(Debug, clap::Subcommand)]
enum MiddlewareCommand {
    /// Put a middleware in force, or another version of it
    Put(PutArguments),
    /// Print all middlewares
    List,
    /// Take a middleware away
    Rm(NamedArguments),
    /// Put the version before in force again
    Rollback(NamedArguments),
    /// Read publish objects from the input, one a line, and print what would become of each; nothing is published
    Test(NamedArguments),
}

#[derive(Debug, clap::Args)]
struct NamedArguments {
    /// Name of the middleware
    name: String,
}

#[derive(Debug, clap::Args)]
#[command(group = ArgGroup::new("decider").required(true).args(["cel", "wasm"]))]
struct PutArguments {
    /// Name of the middleware
    name: String,
    /// The sources whose records it is for
    #[arg(long, value_name = "PATTERN")]
    on: String,
    /// Its place among the middlewares: those with smaller numbers decide first, equal ones in the order of names
    #[arg(long, value_name = "N", default_value_t = 0, allow_negative_numbers = true)]
    order: i64,
    /// An expression whose result is the new data, or drop(), or reject("why")
    #[arg(long, value_name = "EXPR")]
    cel: Option<String>,
    /// A file with a module in WebAssembly: a component of the world in wit/anode.wit
    #[arg(long, value_name = "FILE")]
    wasm: Option<PathBuf>,
    /// It decides only about records for which this expression is true
    #[arg(long, value_name = "EXPR")]
    when: Option<String>,
    /// What becomes of a record when it fails
    #[arg(long, value_name = "WHAT", default_value = "refuse", value_parser = ["refuse", "pass"])]
    on_failure: String,
}

/// Does what the arguments ask for.
pub fn run(arguments: &Arguments, given: &Given) -> Result<(), CliError> {
    let nodes = arguments.access.nodes(given, ("--url", &[]))?;
    match &arguments.command {
        MiddlewareCommand::Put(wanted) => {
            let body = definition(wanted)?.to_string();
            put(&nodes, KIND, &wanted.name, Body { media_type: JSON, bytes: body.as_bytes() })
        }
        MiddlewareCommand::Rm(NamedArguments { name }) => remove(&nodes, KIND, name),
        MiddlewareCommand::Rollback(NamedArguments { name }) => {
            let path = format!("{}/rollback", path_of(KIND, name)?);
            let body = Body { media_type: JSON, bytes: b"" };
            let answer = request(&nodes, "POST", &path, Some(body))?.ok()?;
            Ok(writeln!(std::io::stdout(), "{answer}")?)
        }
        MiddlewareCommand::Test(NamedArguments { name }) => test(&nodes, name),
        MiddlewareCommand::List => {
            let is_json = arguments.format.is_json(given);
            list(&nodes, KIND, is_json, ["NAME", "ON", "ORDER", "KIND", "VERSION", "STATE"], |one| {
                let field = |name: &str| match one.definition.get(name) {
                    None | Some(Value::Null) => "-".into(),
                    Some(Value::String(text)) => text.clone(),
                    Some(other) => other.to_string(),
                };
                let is_off = one.state.get("off") == Some(&Value::Bool(true));
                let state = if is_off { format!("off: {}", one.told("reason")) } else { "on".into() };
                let cells = ["on", "order", "kind", "version"].map(field);
                let [on, order, kind, version] = cells;
                [one.name.clone(), on, order, kind, version, state]
            })
        }
    }
}

/// The definition that the arguments tell.
fn definition(wanted: &PutArguments) -> Result<Value, CliError> {
    let mut fields = Map::new();
    for (name, value) in [("on", json!(wanted.on)), ("order", json!(wanted.order))] {
        fields.insert(name.into(), value);
    }
    fields.insert("on_failure".into(), json!(wanted.on_failure));
    if let Some(cel) = &wanted.cel {
        fields.insert("cel".into(), json!(cel));
    }
    if let Some(file) = &wanted.wasm {
        fields.insert("wasm".into(), json!(STANDARD.encode(read_file(file)?)));
    }
    if let Some(when) = &wanted.when {
        fields.insert("when".into(), json!(when));
    }
    Ok(Value::Object(fields))
}

/// Prints what would become of the records on the input. Fails if any would be refused.
fn test(nodes: &Nodes, name: &str) -> Result<(), CliError> {
    let mut records = Vec::new();
    std::io::stdin().lock().read_to_end(&mut records)?;
    let path = format!("{}/test", path_of(KIND, name)?);
    let answer = request(nodes, "POST", &path, Some(Body { media_type: JSON, bytes: &records }))?.ok()?;
    let told: Vec<Value> = serde_json::from_str(&answer)
        .map_err(|error| CliError::Failed(format!("the node's answer cannot be read: {error}")))?;
    let mut out = std::io::stdout().lock();
    for one in &told {
        writeln!(out, "{one}")?;
    }
    match told.iter().filter(|one| one.get("error").is_some()).count() {
        0 => Ok(()),
        refused => Err(CliError::Failed(format!("{refused} of {} records would be refused", told.len()))),
    }
}
