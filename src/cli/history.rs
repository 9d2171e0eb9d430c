//! `anode history`: prints the past records of a source.

use std::io::Write;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::client::{AccessArguments, DEFAULT_URL, fetch, percent_encoded};
use super::{CliError, whole_number};
use crate::limits::TS_MAX;
use crate::record::Source;

/// Most records that are requested from the node at once.
const PAGE: u64 = 1_000;

/// The arguments of `anode history`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Name of the source, for example sensors/7/temp
    source: String,
    /// A number is the least ts, in microseconds since 1970; anything else is the URL of a node,
    /// ws://HOST:PORT or http://HOST:PORT, with TLS wss:// or https:// [default: ws://127.0.0.1:7070]; may be given once for each
    #[arg(long, value_name = "MICROS|URL")]
    from: Vec<String>,
    #[command(flatten)]
    access: AccessArguments,
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
pub fn run(arguments: &Arguments) -> Result<(), CliError> {
    let (from_us, url) = told_apart(&arguments.from)?;
    let endpoint = arguments.access.node(url, "from")?;
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
        let body = fetch(&endpoint, &page)?.ok()?;
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

/// Splits the values of `--from` into a time and the URL of a node. A value of digits is a time.
fn told_apart(from: &[String]) -> Result<(u64, &str), CliError> {
    let (mut from_us, mut url) = (None, None);
    for value in from {
        let is_number = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
        let is_second = match is_number {
            true => {
                let us = value.parse().ok().filter(|&us| us <= TS_MAX).ok_or_else(|| {
                    CliError::Usage(format!("--from: {value:?} cannot be used; allowed: 0 to {TS_MAX}"))
                })?;
                from_us.replace(us).is_some()
            }
            false => url.replace(value.as_str()).is_some(),
        };
        if is_second {
            return Err(CliError::Usage(format!(
                "--from: {value:?} is the second; allowed: one time and one URL"
            )));
        }
    }
    Ok((from_us.unwrap_or(0), url.unwrap_or(DEFAULT_URL)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn from_is_a_time_or_a_node() {
        let of = |values: &[&str]| {
            let values: Vec<String> = values.iter().map(|value| (*value).into()).collect();
            told_apart(&values).map(|(us, url)| (us, url.to_owned())).ok()
        };
        assert_eq!(of(&[]), Some((0, DEFAULT_URL.into())));
        assert_eq!(of(&["ws://a:1", "5"]), Some((5, "ws://a:1".into())));
        assert_eq!(of(&["5", "6"]), None);
        assert_eq!(of(&["a:1", "b:1"]), None);
        assert_eq!(of(&["9007199254740992"]), None);
    }
}
