//! `anode list`: prints the newest records of all sources that match a pattern.

use std::io::{BufWriter, Write};

use serde::Deserialize;
use serde_json::value::RawValue;

use super::client::{AccessArguments, fetch, percent_encoded};
use super::format::FormatArguments;
use super::{CliError, Given, whole_number};
use crate::record::Pattern;

/// Most records that are requested from the node at once.
const LIST_PAGE: u64 = 1_000;

/// The arguments of `anode list`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n\
    \x20 anode list\n\
    \x20 anode list 'sensors/*/temp' --limit 20\n\
    \x20 anode list 'sensors/**' --names | wc -l\n\n\
    Records are printed in order of their names, a JSON object a line.")]
pub struct Arguments {
    /// Names of sources, in which * stands for any one segment and a last ** for one or more
    #[arg(value_name = "PATTERN", default_value = "**")]
    pattern: String,
    /// Print the names of the sources alone
    #[arg(long)]
    names: bool,
    /// Most records to print [default: all]
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = whole_number(1..=u64::MAX))]
    limit: Option<u64>,
    #[command(flatten)]
    access: AccessArguments,
    #[command(flatten)]
    format: FormatArguments,
}

#[derive(Deserialize)]
struct ListPage<'a> {
    #[serde(borrow)]
    records: Vec<&'a RawValue>,
    after: Option<String>,
}

#[derive(Deserialize)]
struct Named {
    source: String,
}

/// Prints the records, which are requested page by page.
pub fn run(arguments: &Arguments, given: &Given) -> Result<(), CliError> {
    let nodes = arguments.access.nodes(given, ("--url", &[]))?;
    Pattern::parse(&arguments.pattern).map_err(|error| CliError::Usage(error.to_string()))?;
    let unreadable =
        |error: serde_json::Error| CliError::Failed(format!("the node's answer cannot be read: {error}"));
    let path = format!("/v1/sources?pattern={}", percent_encoded(&arguments.pattern));
    let mut missing = arguments.limit.unwrap_or(u64::MAX);
    let mut after = None::<String>;
    let mut out = BufWriter::new(std::io::stdout().lock());
    while missing > 0 {
        let mut page = format!("{path}&limit={}", missing.min(LIST_PAGE));
        if let Some(cursor) = &after {
            page.push_str(&format!("&after={}", percent_encoded(cursor)));
        }
        let body = fetch(&nodes, &page)?.ok()?;
        let page: ListPage<'_> = serde_json::from_str(&body).map_err(unreadable)?;
        for record in &page.records {
            if !arguments.names {
                writeln!(out, "{record}")?;
                continue;
            }
            let Named { source } = serde_json::from_str(record.get()).map_err(unreadable)?;
            match arguments.format.is_json(given) {
                true => writeln!(out, "{}", serde_json::Value::from(source))?,
                false => writeln!(out, "{source}")?,
            }
        }
        out.flush()?;
        missing = missing.saturating_sub(u64::try_from(page.records.len()).unwrap_or(u64::MAX));
        after = page.after;
        if after.is_none() {
            break;
        }
    }
    Ok(())
}
