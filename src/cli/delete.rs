//! `anode delete`: publishes a deletion.

use super::client::AccessArguments;
use super::format::FormatArguments;
use super::pipeline::Pipeline;
use super::publish::{deletion, end_single};
use super::{CliError, Given, whole_number};
use crate::limits::TS_MAX;
use crate::protocol::AckLevel;

/// The arguments of `anode delete`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n\
    \x20 anode delete sensors/7/temp\n\
    \x20 anode delete sensors/7/temp --ack replicated\n\
    \x20 anode list 'old/**' --names | xargs -r -n 1 anode delete\n\n\
    A deletion is a record like any other: subscribers get it, and an older value does not come back.")]
pub struct Arguments {
    /// Name of the source, for example sensors/7/temp
    source: String,
    /// When the deletion is answered: accepted (the node has it), stored (it survives a power cut), replicated
    /// (every live node has it)
    #[arg(long, value_name = "LEVEL", default_value = "accepted", value_parser = AckLevel::ALL.map(AckLevel::as_str))]
    ack: String,
    /// The ts of the deletion, in microseconds since 1970 [default: the node's clock]
    #[arg(long, value_name = "MICROS", allow_negative_numbers = true, value_parser = whole_number(0..=TS_MAX))]
    ts: Option<u64>,
    #[command(flatten)]
    access: AccessArguments,
    #[command(flatten)]
    _format: FormatArguments,
}

/// Publishes the deletion and prints its result. Returns an error if it is refused.
pub fn run(arguments: &Arguments, given: &Given) -> Result<(), CliError> {
    let nodes = arguments.access.nodes(given, ("--url", &[]))?;
    let mut pipeline = Pipeline::open(&nodes, &arguments.ack)?;
    pipeline.send(None, &deletion(&arguments.source, arguments.ts))?;
    end_single(pipeline)
}
