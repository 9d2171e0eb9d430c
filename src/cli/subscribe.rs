//! `anode sub`: prints matching records as they arrive.

use std::io::{self, BufWriter, Write};

use super::client::{AccessArguments, Event, Interrupt, Subscription, WantedSources};
use super::format::{FormatArguments, note};
use super::{CliError, Given, whole_number};
use crate::limits::PATTERNS_PER_SUBSCRIPTION_MAX;
use crate::protocol::request::filter;
use crate::record::Pattern;

/// The arguments of `anode sub`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n\
    \x20 anode sub 'sensors/**'\n\
    \x20 anode sub 'sensors/*/temp' weather --no-snapshot --count 10\n\
    \x20 anode sub 'sensors/**' --filter 'data.c > 25.0'\n\
    \x20 anode sub '**' --url ws://10.0.0.1:7070,ws://10.0.0.2:7070 | jq .data\n\n\
    A node that is not there yet, or no longer, is waited for; a lost connection goes on where it ended, on any node of \
    the cluster. What happens to the connection is told on stderr.")]
pub struct Arguments {
    /// Names of sources, in which * stands for any one segment and a last ** for one or more
    #[arg(required = true, value_name = "PATTERN", num_args = 1..=PATTERNS_PER_SUBSCRIPTION_MAX)]
    patterns: Vec<String>,
    #[arg(long, value_name = "URL", value_delimiter = ',', hide = true)]
    from: Vec<String>,
    #[command(flatten)]
    access: AccessArguments,
    #[command(flatten)]
    _format: FormatArguments,
    /// Only print records that are published from now on, not those that exist already
    #[arg(long)]
    no_snapshot: bool,
    /// For a reader that is too slow. latest: only the newest record of each source is sent; all: every
    /// record is sent, or the connection ends
    #[arg(long, value_name = "latest|all", default_value = "latest", value_parser = ["latest", "all"])]
    mode: String,
    /// Only print records for which this expression of CEL is true, and deletions: it may use source, data, ts and
    /// deleted. In the mode latest, a record with "gone" tells that it is not true of a source any longer
    #[arg(long, value_name = "EXPRESSION")]
    filter: Option<String>,
    /// End after this number of records
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = whole_number(1..=u64::MAX))]
    count: Option<u64>,
}

/// Prints records until there are as many as wanted, until Ctrl-C, or until the reader of stdout is gone.
pub fn run(arguments: &Arguments, given: &Given) -> Result<(), CliError> {
    let nodes = arguments.access.nodes(given, ("--from", &arguments.from))?;
    for pattern in &arguments.patterns {
        Pattern::parse(pattern).map_err(|error| CliError::Usage(error.to_string()))?;
    }
    if let Some(text) = &arguments.filter {
        filter(text).map_err(|refusal| CliError::Usage(refusal.message))?;
    }
    let interrupt = Interrupt::watch()?;
    let wanted = WantedSources {
        sources: arguments.patterns.clone(),
        has_snapshot: !arguments.no_snapshot,
        mode: arguments.mode.clone(),
        filter: arguments.filter.clone(),
    };
    let mut subscription = Subscription::new(nodes, wanted);
    let printed = print(&mut subscription, arguments.count, &interrupt);
    subscription.close();
    match printed {
        // The reader of stdout is gone because it has read enough, as in `anode sub … | head -1`.
        Err(CliError::Told) => Ok(()),
        other => other,
    }
}

fn print(subscription: &mut Subscription, count: Option<u64>, interrupt: &Interrupt) -> Result<(), CliError> {
    let mut out = BufWriter::new(io::stdout().lock());
    let mut has_begun = false;
    let mut missing = count.unwrap_or(u64::MAX);
    while missing > 0 && !interrupt.came() {
        match subscription.next()? {
            Event::Records(records) => {
                for record in records.iter().take(usize::try_from(missing).unwrap_or(usize::MAX)) {
                    writeln!(out, "{record}")?;
                    missing -= 1;
                }
                out.flush()?;
            }
            Event::Lost(lost) => {
                let wait_ms = lost.retry_us / 1000;
                let waits = if has_begun { "" } else { "waiting for the node; " };
                note(&format!("{}; {waits}trying again in {wait_ms} ms", lost.reason));
            }
            Event::Subscribed { node, recovered: Some(recovered) } => {
                let how = if recovered { "with what was missed" } else { "from a full snapshot" };
                note(&format!("going on at {node}, {how}"));
            }
            Event::Subscribed { .. } => has_begun = true,
            Event::Nothing => {}
        }
    }
    Ok(())
}
