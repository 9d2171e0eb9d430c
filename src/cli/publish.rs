//! `anode pub`: publishes one record from the arguments, or many from stdin.

use std::io::{self, BufRead, Write};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use super::client::AccessArguments;
use super::format::{FormatArguments, note};
use super::pipeline::{Outcomes, Pipeline};
use super::progress::Progress;
use super::{CliError, Given, whole_number};
use crate::limits::{TS_MAX, TTL_MS_MAX};
use crate::protocol::AckLevel;
use crate::protocol::draft::{Draft, DraftPayload, RequestId};
use crate::protocol::json::scan::Scanner;
use crate::protocol::json::{publish_frame, write_string};

/// The arguments of `anode pub`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n\
    \x20 anode pub sensors/7/temp 21.5\n\
    \x20 anode pub sensors/7/name 'kitchen window' --ack stored --ttl 10m\n\
    \x20 anode pub sensors/7/config --file config.json\n\
    \x20 anode pub sensors/7/temp --delete\n\
    \x20 anode pub sensors/7/note -- --text-that-begins-with-dashes\n\
    \x20 anode export | anode pub --stdin --url ws://10.0.0.1:7070\n\n\
    Exit codes: 0 all records were taken, 1 any was refused or the node went away, 2 unusable arguments.")]
pub struct Arguments {
    /// Name of the source, for example sensors/7/temp
    #[arg(required_unless_present = "stdin", conflicts_with = "stdin")]
    source: Option<String>,
    /// The data: used as it is if it is valid JSON, else as a string; behind -- it may begin with a dash
    #[arg(
        required_unless_present_any = ["stdin", "file", "delete"],
        conflicts_with_all = ["stdin", "file", "delete"],
        allow_negative_numbers = true
    )]
    data: Option<String>,
    /// Publish objects from stdin, one per line: {"source":…,"data":…}; exit code 1 if any is refused
    #[arg(long)]
    stdin: bool,
    /// Take the data from a file (- for stdin): used as it is if it is valid JSON, else as a string, and as data_b64
    /// if it is no text
    #[arg(long, value_name = "FILE", conflicts_with_all = ["stdin", "delete"])]
    file: Option<PathBuf>,
    /// Publish a deletion: the source has no value any longer
    #[arg(long, conflicts_with = "stdin")]
    delete: bool,
    #[arg(long, value_name = "URL", value_delimiter = ',', hide = true)]
    to: Vec<String>,
    #[command(flatten)]
    access: AccessArguments,
    /// When a publish is answered: accepted (the node has it), stored (it survives a power cut), replicated
    /// (every live node has it)
    #[arg(long, value_name = "LEVEL", default_value = "accepted", value_parser = AckLevel::ALL.map(AckLevel::as_str))]
    ack: String,
    /// The record's ts, in microseconds since 1970 [default: the node's clock]
    #[arg(long, value_name = "MICROS", conflicts_with = "stdin", allow_negative_numbers = true, value_parser = whole_number(0..=TS_MAX))]
    ts: Option<u64>,
    /// Time after which the value expires, with a unit of ms, s, m, h or d (a plain number is milliseconds)
    #[arg(long, value_name = "TIME", conflicts_with_all = ["stdin", "delete"], allow_hyphen_values = true, value_parser = ttl_ms)]
    ttl: Option<u64>,
    #[command(flatten)]
    format: FormatArguments,
}

/// Publishes the records, waits for all answers, and returns an error if any of them is a refusal.
pub fn run(arguments: &Arguments, given: &Given) -> Result<(), CliError> {
    let nodes = arguments.access.nodes(given, ("--to", &arguments.to))?;
    // The node checks the name of the source, because its refusal tells more than one made here could.
    let single = arguments.source.as_ref().map(|source| record(source, arguments)).transpose()?;
    let mut pipeline = Pipeline::open(&nodes, &arguments.ack)?;
    match single {
        Some(fields) => {
            pipeline.send(None, &fields)?;
            end_single(pipeline)
        }
        None => {
            let mut progress = Progress::new("published");
            send_lines(&mut pipeline, io::stdin().lock(), &mut progress)?;
            let (outcomes, _) = pipeline.finish()?;
            end_many(outcomes, &progress, arguments.format.is_json(given))
        }
    }
}

/// Waits for the answer to a single record, and prints its result.
pub fn end_single(pipeline: Pipeline) -> Result<(), CliError> {
    let (outcomes, result) = pipeline.finish()?;
    if let Some(result) = result {
        writeln!(io::stdout(), "{result}")?;
    }
    if outcomes.refused > 0 { Err(CliError::Told) } else { Ok(()) }
}

fn end_many(outcomes: Outcomes, progress: &Progress, is_json: bool) -> Result<(), CliError> {
    let done = progress.finish();
    match is_json {
        true => writeln!(io::stdout(), "{}", json!({ "records": outcomes.sum(), "outcomes": outcomes }))?,
        false => note(&format!("published {done}: {outcomes}")),
    }
    if outcomes.refused > 0 { Err(CliError::Told) } else { Ok(()) }
}

/// Formats the fields of the record that the arguments ask for as JSON, without braces.
fn record(source: &str, arguments: &Arguments) -> Result<String, CliError> {
    let Arguments { data, file, delete, ts, ttl, .. } = arguments;
    let payload = match (data, file) {
        (Some(data), _) => text_field(data),
        (None, Some(path)) => bytes_field(&read_file(path)?),
        (None, None) => {
            debug_assert!(delete, "clap asks for data otherwise");
            "\"deleted\":true".into()
        }
    };
    Ok(fields_of(source, &payload, *ts, *ttl))
}

/// Formats the fields of a deletion as JSON, without braces.
pub fn deletion(source: &str, ts: Option<u64>) -> String {
    fields_of(source, "\"deleted\":true", ts, None)
}

fn fields_of(source: &str, payload: &str, ts: Option<u64>, ttl_ms: Option<u64>) -> String {
    let mut out = b"\"source\":".to_vec();
    write_string(&mut out, source);
    let mut fields = String::from_utf8_lossy(&out).into_owned();
    for (name, value) in [("ts", ts), ("ttl_ms", ttl_ms)] {
        if let Some(value) = value {
            fields.push_str(&format!(",\"{name}\":{value}"));
        }
    }
    fields.push(',');
    fields.push_str(payload);
    fields
}

fn read_file(path: &Path) -> Result<Vec<u8>, CliError> {
    let mut bytes = Vec::new();
    let read = match path.as_os_str() == "-" {
        true => io::Read::read_to_end(&mut io::stdin().lock(), &mut bytes).map(|_| bytes),
        false => std::fs::read(path),
    };
    read.map_err(|error| {
        let path = path.display();
        CliError::Usage(format!("--file: \"{path}\" cannot be used; allowed: a readable file ({error})"))
    })
}

/// Formats the field of data that is a text: as it is if it is JSON, else as a string.
fn text_field(data: &str) -> String {
    let mut out = b"\"data\":".to_vec();
    let mut scanner = Scanner::new(data);
    match scanner.value().is_ok() && scanner.end().is_ok() {
        true => out.extend_from_slice(data.trim().as_bytes()),
        false => write_string(&mut out, data),
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Formats the field of data that may be no text.
fn bytes_field(data: &[u8]) -> String {
    match std::str::from_utf8(data) {
        Ok(text) => text_field(text),
        Err(_) => format!("\"data_b64\":\"{}\"", STANDARD.encode(data)),
    }
}

/// Parses a time to live. clap names the flag and the value in front of the error.
fn ttl_ms(text: &str) -> Result<u64, String> {
    const UNITS: [(&str, u64); 6] =
        [("", 1), ("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 24 * 3_600_000)];
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let scale = UNITS.iter().find(|(name, _)| *name == unit.trim_start()).map(|(_, scale)| *scale);
    let ms = scale.and_then(|scale| number.parse::<u64>().ok()?.checked_mul(scale));
    ms.filter(|ms| (1..=TTL_MS_MAX).contains(ms)).ok_or_else(|| {
        format!("allowed: 1ms to {}d, with a unit of ms, s, m, h or d", TTL_MS_MAX / 86_400_000)
    })
}

/// Formats the fields of a record from a line of stdin as JSON, without braces. The data is kept verbatim.
fn fields(draft: &Draft<'_>) -> String {
    let mut out = b"\"source\":".to_vec();
    write_string(&mut out, &draft.source);
    match &draft.payload {
        DraftPayload::Json(text) => {
            out.extend_from_slice(b",\"data\":");
            out.extend_from_slice(text);
        }
        DraftPayload::Binary(bytes) => {
            let text = STANDARD.encode(bytes);
            out.extend_from_slice(format!(",\"data_b64\":\"{text}\"").as_bytes());
        }
        DraftPayload::Deleted => out.extend_from_slice(b",\"deleted\":true"),
    }
    if let Some(ts) = draft.ts {
        out.extend_from_slice(format!(",\"ts\":{ts}").as_bytes());
    }
    if draft.ttl_ms > 0 {
        out.extend_from_slice(format!(",\"ttl_ms\":{}", draft.ttl_ms).as_bytes());
    }
    if let Some(level) = draft.ack.map(AckLevel::as_str) {
        out.extend_from_slice(format!(",\"ack\":\"{level}\"").as_bytes());
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Publishes the objects of `input`, one a line. Lines that are none are refused, and the rest goes on.
fn send_lines(pipeline: &mut Pipeline, input: impl BufRead, progress: &mut Progress) -> Result<(), CliError> {
    for (at, line) in input.lines().enumerate() {
        let line = line.map_err(|error| CliError::Failed(format!("stdin: {error}")))?;
        if line.trim().is_empty() {
            continue;
        }
        let mut name = format!("line {}", at + 1);
        let refusal = match publish_frame(&line) {
            Err(error) => format!("bad_json: {error}"),
            Ok(frame) if frame.is_batch => "bad_request: a line is one object".into(),
            Ok(frame) => match Vec::from(frame.items).into_iter().next().map(|item| (item.id, item.draft)) {
                Some((id, Ok(draft))) => {
                    if let Some(RequestId::Json(id)) = id {
                        name.push_str(&format!(" (id {id})"));
                    }
                    progress.add(1, line.len() as u64);
                    pipeline.send(Some(name), &fields(&draft))?;
                    continue;
                }
                Some((_, Err(refusal))) => refusal.to_string(),
                None => continue,
            },
        };
        pipeline.refuse(&name, &refusal);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_is_json_if_it_parses_else_a_string() {
        assert_eq!(text_field(" {\"x\": 1.0} "), r#""data":{"x": 1.0}"#);
        assert_eq!(text_field("hello"), r#""data":"hello""#);
        assert_eq!(text_field("1 2"), r#""data":"1 2""#);
        assert_eq!(text_field(""), r#""data":"""#);
        assert_eq!(bytes_field(b"5"), r#""data":5"#);
        assert_eq!(bytes_field(&[0, 1, 255]), r#""data_b64":"AAH/""#);
        assert_eq!(deletion("a\"b", None), r#""source":"a\"b","deleted":true"#);
        assert_eq!(
            fields_of("a", "\"data\":1", Some(5), Some(9)),
            r#""source":"a","ts":5,"ttl_ms":9,"data":1"#
        );
    }

    #[test]
    fn times_to_live() {
        assert_eq!(
            ["5", "5ms", "2s", "1m", "1 h", "1d"].map(ttl_ms),
            [5, 5, 2_000, 60_000, 3_600_000, 86_400_000].map(Ok)
        );
        for bad in ["0", "", "-1", "1w", "s", "4000d", "99999999999999999999s"] {
            assert!(ttl_ms(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn lines_go_on_as_they_came() {
        let of = |line: &str| {
            let item = Vec::from(publish_frame(line).expect(line).items).remove(0);
            fields(&item.draft.expect(line))
        };
        assert_eq!(
            of(r#"{"id":"x","source":"a","data":{"b": 1e0},"ts":5,"ttl_ms":9,"ack":"stored"}"#),
            r#""source":"a","data":{"b": 1e0},"ts":5,"ttl_ms":9,"ack":"stored""#
        );
        assert_eq!(of(r#"{"source":"a","data_b64":"AAH/"}"#), r#""source":"a","data_b64":"AAH/""#);
        assert_eq!(of(r#"{"source":"a","deleted":true}"#), r#""source":"a","deleted":true"#);
    }
}
