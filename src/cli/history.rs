//! `anode history`: prints the past records of a source.

use std::io::Write;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::client::{AccessArguments, fetch, percent_encoded};
use super::format::FormatArguments;
use super::{CliError, Given, whole_number};
use crate::limits::TS_MAX;
use crate::record::Source;

/// Most records that are requested from the node at once.
const PAGE: u64 = 1_000;

/// The arguments of `anode history`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n\
    \x20 anode history sensors/7/temp --limit 10\n\
    \x20 anode history sensors/7/temp --from 1763800000000000 --to 1763803600000000 --url http://10.0.0.1:7070\n\n\
    For compatibility, a --from that is no number is taken for the URL of a node.")]
pub struct Arguments {
    /// Name of the source, for example sensors/7/temp
    source: String,
    /// The least ts, in microseconds since 1970
    #[arg(long, value_name = "MICROS", allow_negative_numbers = true)]
    from: Vec<String>,
    #[command(flatten)]
    access: AccessArguments,
    #[command(flatten)]
    _format: FormatArguments,
    /// The greatest ts, in microseconds since 1970
    #[arg(long, value_name = "MICROS", allow_negative_numbers = true, value_parser = whole_number(0..=TS_MAX))]
    to: Option<u64>,
    /// Most records to print
    #[arg(long, value_name = "N", default_value_t = 100, allow_negative_numbers = true, value_parser = whole_number(1..=u64::MAX))]
    limit: u64,
}

#[derive(Deserialize)]
struct Page<'a> {
    #[serde(borrow)]
    records: Vec<&'a RawValue>,
    after: Option<String>,
}

/// Prints the records, the newest first. They are requested page by page.
pub fn run(arguments: &Arguments, given: &Given) -> Result<(), CliError> {
    let (from_us, urls) = told_apart(&arguments.from)?;
    let nodes = arguments.access.nodes(given, ("--from", &urls))?;
    Source::check(&arguments.source).map_err(|error| CliError::Usage(error.to_string()))?;
    let mut path = format!("/v1/sources/{}/history?from={from_us}", percent_encoded(&arguments.source));
    if let Some(to_us) = arguments.to {
        path.push_str(&format!("&to={to_us}"));
    }
    let mut missing = arguments.limit;
    let mut after = None::<String>;
    let mut out = std::io::stdout().lock();
    while missing > 0 {
        let mut page = format!("{path}&limit={}", missing.min(PAGE));
        if let Some(cursor) = &after {
            page.push_str(&format!("&after={}", percent_encoded(cursor)));
        }
        let body = fetch(&nodes, &page)?.ok()?;
        let page: Page<'_> = serde_json::from_str(&body)
            .map_err(|error| CliError::Failed(format!("the node's answer cannot be read: {error}")))?;
        for record in &page.records {
            writeln!(out, "{record}")?;
        }
        missing = missing.saturating_sub(u64::try_from(page.records.len()).unwrap_or(u64::MAX));
        after = page.after;
        if after.is_none() {
            break;
        }
    }
    Ok(())
}

/// Splits the values of `--from` into a time and the URLs of nodes. A value that looks like a number is a time.
fn told_apart(from: &[String]) -> Result<(u64, Vec<String>), CliError> {
    let is_number = |value: &&String| {
        let digits = value.strip_prefix('-').unwrap_or(value);
        !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
    };
    let (times, others): (Vec<&String>, Vec<&String>) = from.iter().partition(is_number);
    if let Some(second) = times.get(1) {
        return Err(CliError::Usage(format!("--from: {second:?} is the second; allowed: one time")));
    }
    let from_us = times.first().map_or(Ok(0), |value| {
        value.parse().ok().filter(|&us| us <= TS_MAX).ok_or_else(|| {
            CliError::Usage(format!(
                "--from: {value:?} cannot be used; allowed: whole numbers from 0 to {TS_MAX}"
            ))
        })
    })?;
    let urls = others.iter().flat_map(|value| value.split(',')).map(str::to_owned).collect::<Vec<String>>();
    match urls.iter().find(|url| !looks_like_url(url)) {
        Some(value) => Err(CliError::Usage(format!(
            "--from: {value:?} cannot be used; allowed: microseconds since 1970 (the URL of a node is given by --url)"
        ))),
        None => Ok((from_us, urls)),
    }
}

/// Returns whether somebody may have meant this text as the URL of a node: it has a scheme or a port.
fn looks_like_url(text: &str) -> bool {
    let has_port = |text: &str| {
        let port = text.rsplit_once(':').map(|(_, port)| port);
        port.is_some_and(|port| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()))
    };
    text.contains("://") || text == "localhost" || has_port(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn from_is_a_time_and_may_be_a_node() {
        let of = |values: &[&str]| {
            let values: Vec<String> = values.iter().map(|value| (*value).into()).collect();
            told_apart(&values).map(|(us, urls)| (us, urls.join(" "))).ok()
        };
        assert_eq!(of(&[]), Some((0, String::new())));
        assert_eq!(of(&["5"]), Some((5, String::new())));
        assert_eq!(of(&["ws://a:1", "5"]), Some((5, "ws://a:1".into())));
        assert_eq!(of(&["a:1,b:1", "c:1"]), Some((0, "a:1 b:1 c:1".into())));
        for bad in [&["5", "6"][..], &["9007199254740992"], &["-5"], &["yesterday"], &["2026-11-29"]] {
            assert_eq!(of(bad), None, "{bad:?}");
        }
    }
}
