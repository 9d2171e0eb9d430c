//! The frames that a subscription gets.

use std::borrow::Cow;

use serde::Deserialize;

use crate::error::{AnodeError, Refusal};
use crate::record::{Record, RecordBody};

/// A frame, by what it says.
#[derive(Debug)]
pub(crate) enum FeedFrame {
    Record(Record),
    Resume(String),
    Eos(String),
    Accepted { recovered: bool },
    Refused(AnodeError),
    Other,
}

#[derive(Deserialize)]
struct Notice<'a> {
    #[serde(borrow)]
    resume: Option<Cow<'a, str>>,
    eos: Option<EosBody>,
    result: Option<AcceptedBody>,
    error: Option<Refusal>,
}

#[derive(Deserialize)]
struct EosBody {
    resume: String,
}

#[derive(Deserialize)]
struct AcceptedBody {
    #[serde(default)]
    recovered: bool,
}

/// Reads a frame. `snapshot` tells whether a record belongs to the state at the beginning.
pub(crate) fn read_frame(text: &str, snapshot: bool) -> Result<FeedFrame, AnodeError> {
    let unreadable = |error: serde_json::Error| {
        AnodeError::new("protocol", format!("the node sent a frame that cannot be read: {error}"))
    };
    if text.starts_with("{\"source\"") {
        let body: RecordBody<'_> = serde_json::from_str(text).map_err(unreadable)?;
        return body.record(snapshot).map(FeedFrame::Record);
    }
    let notice: Notice<'_> = serde_json::from_str(text).map_err(unreadable)?;
    Ok(match notice {
        Notice { resume: Some(token), .. } => FeedFrame::Resume(token.into_owned()),
        Notice { eos: Some(eos), .. } => FeedFrame::Eos(eos.resume),
        Notice { error: Some(error), .. } => FeedFrame::Refused(error.into()),
        Notice { result: Some(result), .. } => FeedFrame::Accepted { recovered: result.recovered },
        _ => FeedFrame::Other,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames() {
        let read = |text: &str| format!("{:?}", read_frame(text, false).expect(text));
        assert_eq!(read(r#"{"resume":"T"}"#), r#"Resume("T")"#);
        assert_eq!(read(r#"{"eos":{"subscription":1,"resume":"T"}}"#), r#"Eos("T")"#);
        assert_eq!(read(r#"{"id":1,"result":{"subscription":1}}"#), "Accepted { recovered: false }");
        assert_eq!(
            read(r#"{"id":1,"result":{"subscription":1,"recovered":true}}"#),
            "Accepted { recovered: true }"
        );
        assert!(read(r#"{"id":1,"error":{"code":"bad_pattern","message":"m"}}"#).contains("bad_pattern"));
        assert!(read(r#"{"source":"a","ts":1,"origin":"n","data":1}"#).starts_with("Record"));
        let gone = read(r#"{"source":"a","ts":1,"gone":true}"#);
        assert!(gone.contains("gone: true") && gone.contains("data: Deleted"), "{gone}");
        assert_eq!(read_frame("[", false).expect_err("no JSON").code, "protocol");
    }
}
