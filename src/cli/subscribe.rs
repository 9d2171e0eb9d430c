//! `anode sub`: matching records as they come.

use std::io::{self, BufWriter, Write};

use super::client::{DEFAULT_URL, Endpoint, Event, Interrupt, Subscription, Wanted};
use super::{CliError, whole_number};
use crate::limits::PATTERNS_PER_SUBSCRIPTION_MAX;
use crate::record::Pattern;

/// What and where from.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Names of sources; * stands for one segment, a last ** for one or more
    #[arg(required = true, value_name = "PATTERN", num_args = 1..=PATTERNS_PER_SUBSCRIPTION_MAX)]
    patterns: Vec<String>,
    /// A node: ws://HOST:PORT or http://HOST:PORT
    #[arg(long, value_name = "URL", default_value = DEFAULT_URL)]
    from: String,
    /// Only what comes from now on, not what is there
    #[arg(long)]
    no_snapshot: bool,
    /// latest: who cannot keep up gets the newest of each source; all: every record, or the end
    #[arg(long, value_name = "latest|all", default_value = "latest", value_parser = ["latest", "all"])]
    mode: String,
    /// End after so many records
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = whole_number(1..=u64::MAX))]
    count: Option<u64>,
}

/// Prints records until there are enough of them, Ctrl-C, or nobody reads any more.
pub fn run(arguments: &Arguments) -> Result<(), CliError> {
    let endpoint = Endpoint::parse(&arguments.from, "from")?;
    for pattern in &arguments.patterns {
        Pattern::parse(pattern).map_err(|error| CliError::Usage(error.to_string()))?;
    }
    let interrupt = Interrupt::watch()?;
    let wanted = Wanted {
        sources: arguments.patterns.clone(),
        has_snapshot: !arguments.no_snapshot,
        mode: arguments.mode.clone(),
    };
    let mut subscription = Subscription::open(endpoint, wanted)?;
    let printed = print(&mut subscription, arguments.count, &interrupt);
    subscription.close();
    match printed {
        // Who reads the output has seen enough: `anode sub … | head -1`.
        Err(CliError::Told) => Ok(()),
        other => other,
    }
}

fn print(subscription: &mut Subscription, count: Option<u64>, interrupt: &Interrupt) -> Result<(), CliError> {
    let mut out = BufWriter::new(io::stdout().lock());
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
                eprintln!("anode: {}; trying again in {wait_ms} ms", lost.reason);
            }
            Event::Subscribed { node, recovered: Some(recovered) } => {
                let how = if recovered { "with what was missed" } else { "from a full snapshot" };
                eprintln!("anode: going on at {node}, {how}");
            }
            Event::Subscribed { .. } | Event::Nothing => {}
        }
    }
    Ok(())
}
