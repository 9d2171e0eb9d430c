//! Reads the answers of a server, and has what is in them published.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use reqwest::Response;
use reqwest::header::CONTENT_TYPE;
use tokio::time::timeout;

use super::HttpFormat;
use super::client::told;
use super::event_stream::{EventStreamReader, StreamEvent};
use crate::extend::pull::document::{DocumentFormat, take_document};
use crate::extend::pull::feed::Feed;
use crate::extend::pull::lines::{CutLine, LineCutter};
use crate::extend::pull::mapped::Mapped;
use crate::extend::pull::mapping::Mapping;
use crate::extend::pull::template::Facts;

/// Longest silence of a stream before its connection is taken for broken. What was missed meanwhile is sent again by
/// servers of events, which are told the id of the last one.
const STREAM_SILENCE: Duration = Duration::from_secs(300);
/// Answers from this size on are mapped on another thread, in bytes, since it takes more than a millisecond.
const APART_BYTES: usize = 64 * 1024;

/// How an answer is read, once its head has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AnswerForm {
    /// As a whole: one document.
    Whole(DocumentFormat),
    /// As documents, one a line.
    Lines,
    /// As Server-Sent Events.
    Events,
}

/// Decides how an answer is read.
pub(super) fn form_of(format: HttpFormat, response: &Response) -> AnswerForm {
    let content_type = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    form(format, content_type)
}

fn form(format: HttpFormat, content_type: Option<&str>) -> AnswerForm {
    match format {
        HttpFormat::Json => AnswerForm::Whole(DocumentFormat::Json),
        HttpFormat::Text => AnswerForm::Whole(DocumentFormat::Text),
        HttpFormat::Ndjson => AnswerForm::Lines,
        HttpFormat::Sse => AnswerForm::Events,
        HttpFormat::Auto => {
            let media = content_type.unwrap_or_default().split(';').next().unwrap_or_default().trim();
            match media.to_ascii_lowercase().as_str() {
                "text/event-stream" => AnswerForm::Events,
                "application/x-ndjson"
                | "application/ndjson"
                | "application/jsonl"
                | "application/json-lines"
                | "application/x-jsonlines" => AnswerForm::Lines,
                json if json == "application/json" || json.ends_with("+json") => {
                    AnswerForm::Whole(DocumentFormat::Json)
                }
                _ => AnswerForm::Whole(DocumentFormat::Auto),
            }
        }
    }
}

/// Reads a whole body of at most this many bytes.
pub(super) async fn read_whole(mut response: Response, bytes_max: usize) -> Result<Vec<u8>, String> {
    let too_large = || format!("the answer has more than {bytes_max} bytes (max_bytes)");
    if response.content_length().is_some_and(|length| length > bytes_max as u64) {
        return Err(too_large());
    }
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| told(&error))? {
        if body.len() + chunk.len() > bytes_max {
            return Err(too_large());
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// Makes the records of a body. A large one is left to another thread.
pub(super) async fn map_whole(
    mapping: &Arc<Mapping>,
    format: DocumentFormat,
    body: Vec<u8>,
    now_us: u64,
) -> Mapped {
    let mapping = mapping.clone();
    let is_large = body.len() >= APART_BYTES;
    let map = move || {
        let mut mapped = Mapped::default();
        take_document(&mapping, format, &body, Facts::at(now_us), &mut mapped);
        mapped
    };
    if !is_large {
        return map();
    }
    tokio::task::spawn_blocking(map).await.unwrap_or_else(|_| {
        let mut mapped = Mapped::default();
        mapped.fail("the program failed while it read the answer".into());
        mapped
    })
}

/// Publishes the documents of an answer, one a line, as they come.
pub(super) async fn read_lines(
    mut response: Response,
    mapping: &Mapping,
    bytes_max: usize,
    feed: &Feed,
) -> Result<(), String> {
    let mut cutter = LineCutter::new(bytes_max);
    loop {
        let chunk = next_chunk(&mut response).await?;
        let mut mapped = Mapped::default();
        let facts = Facts::at(feed.target().now().wall_us);
        let mut take = |line: CutLine<'_>| match line {
            CutLine::TooLong => mapped.fail(format!("a line of more than {bytes_max} bytes (max_bytes)")),
            CutLine::Whole(line) if line.iter().all(u8::is_ascii_whitespace) => {}
            CutLine::Whole(line) => {
                take_document(mapping, DocumentFormat::Json, line, facts, &mut mapped);
            }
        };
        match &chunk {
            Some(chunk) => cutter.push(chunk, &mut take),
            None => cutter.finish(&mut take),
        }
        if chunk.is_none() || mapped != Mapped::default() {
            feed.publish(mapped).await;
        }
        if chunk.is_none() {
            return Ok(());
        }
    }
}

/// Publishes the events of a stream as they come, until it ends. The reader keeps what a later stream needs to know.
pub(super) async fn read_events(
    mut response: Response,
    mapping: &Mapping,
    reader: &mut EventStreamReader,
    feed: &Feed,
) -> Result<(), String> {
    feed.succeed();
    while let Some(chunk) = next_chunk(&mut response).await? {
        let mut mapped = Mapped::default();
        let now_us = feed.target().now().wall_us;
        reader.push(&chunk, |event| match event {
            StreamEvent::TooLong => mapped.fail("an event with more bytes than allowed (max_bytes)".into()),
            StreamEvent::Whole { kind, data } => {
                let facts = Facts { event: Some(kind), ..Facts::at(now_us) };
                take_document(mapping, DocumentFormat::Auto, data, facts, &mut mapped);
            }
        });
        if mapped != Mapped::default() {
            feed.publish(mapped).await;
        }
    }
    Ok(())
}

async fn next_chunk(response: &mut Response) -> Result<Option<Bytes>, String> {
    match timeout(STREAM_SILENCE, response.chunk()).await {
        Ok(chunk) => chunk.map_err(|error| told(&error)),
        Err(_) => Err(format!("nothing came for {} s", STREAM_SILENCE.as_secs())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_as_their_type_says() {
        let auto = |content_type: &str| form(HttpFormat::Auto, Some(content_type));
        assert_eq!(auto("text/event-stream; charset=utf-8"), AnswerForm::Events);
        assert_eq!(auto("application/x-ndjson"), AnswerForm::Lines);
        assert_eq!(auto("Application/JSON"), AnswerForm::Whole(DocumentFormat::Json));
        assert_eq!(auto("application/geo+json"), AnswerForm::Whole(DocumentFormat::Json));
        assert_eq!(auto("text/plain"), AnswerForm::Whole(DocumentFormat::Auto));
        assert_eq!(form(HttpFormat::Auto, None), AnswerForm::Whole(DocumentFormat::Auto));
        assert_eq!(form(HttpFormat::Sse, Some("text/html")), AnswerForm::Events);
    }
}
