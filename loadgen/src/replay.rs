//! Reads recorded records, to publish them again at the times at which they were, or faster or slower.
//!
//! A line is what `anode sub` prints or `anode pub --stdin` takes: an object with `source`, `data` (or
//! `data_b64`, which is sent as a string) and `ts` in microseconds. Lines without `ts` follow at once.
//! Deletions are left out, and counted.

use std::collections::HashMap;
use std::io::BufRead;

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::Outcome;
use crate::payload::PAYLOAD_BYTES_MAX;

/// The fields of a line that are read.
#[derive(Deserialize)]
struct Line {
    source: String,
    ts: Option<u64>,
    #[serde(default, deserialize_with = "whatever_is_there")]
    data: Option<Box<RawValue>>,
    data_b64: Option<String>,
    #[serde(default)]
    deleted: bool,
}

/// Reads any value that is there: `"data":null` is a value, not the absence of one.
fn whatever_is_there<'de, D: Deserializer<'de>>(input: D) -> Result<Option<Box<RawValue>>, D::Error> {
    Box::deserialize(input).map(Some)
}

/// The records of a file.
#[derive(Debug, Default)]
pub struct Recording {
    /// For each record, when it is due (nanoseconds from the start, never decreasing) and its source.
    pub entries: Vec<(u64, u32)>,
    /// Names of the sources, by index.
    pub names: Vec<String>,
    /// The data of all records, one after the other.
    pub text: Vec<u8>,
    /// Begin and end of each record's data in `text`, by source and sequence.
    pub spans: Vec<Vec<(usize, usize)>>,
    /// Number of deletions that were left out.
    pub deletions: u64,
}

impl Recording {
    /// Reads the lines of a file. With a `speed` of 2, records are due twice as fast.
    pub fn read(lines: impl BufRead, speed: f64) -> Outcome<Recording> {
        let mut recording = Recording::default();
        let mut sources = HashMap::new();
        let mut timed: Vec<(u64, u32, usize, usize)> = Vec::new();
        let mut last_ts = None;
        for (number, line) in lines.lines().enumerate() {
            let line = line?;
            if line.trim().is_empty() {
                continue;
            }
            let said = |what: &dyn std::fmt::Display| format!("line {}: {what}", number + 1);
            let line: Line = serde_json::from_str(&line).map_err(|error| said(&error))?;
            if line.deleted {
                recording.deletions += 1;
                continue;
            }
            let start = recording.text.len();
            match (&line.data, &line.data_b64) {
                (Some(data), None) => recording.text.extend_from_slice(data.get().as_bytes()),
                (None, Some(data)) => serde_json::to_writer(&mut recording.text, data)?,
                _ => return Err(said(&"neither data nor data_b64, or both").into()),
            }
            let end = recording.text.len();
            if end - start > PAYLOAD_BYTES_MAX {
                return Err(said(&"the data is longer than any record").into());
            }
            let source = *sources.entry(line.source).or_insert_with_key(|name| {
                recording.names.push(name.clone());
                recording.names.len() as u32 - 1
            });
            let ts = line.ts.or(last_ts).unwrap_or_default();
            last_ts = Some(ts);
            timed.push((ts, source, start, end));
        }
        if timed.is_empty() {
            return Err("there is no record to replay".into());
        }
        // Records are sorted by time. The sort is stable, so records of a source stay in their order.
        timed.sort_by_key(|(ts, ..)| *ts);
        let first = timed[0].0;
        recording.spans = vec![Vec::new(); recording.names.len()];
        for (ts, source, start, end) in timed {
            let due_ns = (ts - first) as f64 * 1_000.0 / speed;
            recording.entries.push((due_ns as u64, source));
            recording.spans[source as usize].push((start, end));
        }
        Ok(recording)
    }

    /// Returns when the last record is due, in nanoseconds from the start.
    pub fn whole_ns(&self) -> u64 {
        self.entries.last().map_or(0, |(due_ns, _)| *due_ns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_keep_their_times_and_bytes() {
        let file = br#"{"source":"b","ts":2000,"origin":"n","data":{"c": 2.50}}

{"source":"a","ts":1000,"data":"x"}
{"source":"a","data":null}
{"source":"b","ts":3000,"deleted":true}
{"source":"b","ts":5000,"data_b64":"AAE="}"#;
        let recording = Recording::read(&file[..], 2.0).expect("a recording");
        assert_eq!(recording.names, ["b", "a"]);
        assert_eq!(recording.entries, [(0, 1), (0, 1), (500_000, 0), (2_000_000, 0)]);
        assert_eq!(recording.deletions, 1);
        let data = |source: usize, seq: usize| {
            let (start, end) = recording.spans[source][seq];
            std::str::from_utf8(&recording.text[start..end]).expect("text")
        };
        assert_eq!(
            [data(0, 0), data(0, 1), data(1, 0), data(1, 1)],
            [r#"{"c": 2.50}"#, "\"AAE=\"", "\"x\"", "null"]
        );
    }

    #[test]
    fn what_is_no_record_is_named_by_its_line() {
        let error = Recording::read(&b"{\"source\":\"a\",\"data\":1}\n{\"source\":\"a\"}"[..], 1.0);
        assert!(error.expect_err("no data").to_string().starts_with("line 2: neither data"));
        assert!(Recording::read(&b"\n"[..], 1.0).is_err());
    }
}
