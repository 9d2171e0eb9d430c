//! What the frames of a subscription mean to a webhook.

use serde::Deserialize;
use serde_json::value::RawValue;

/// Something that a frame of a subscription says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HookEvent {
    /// A record, as the text of one JSON object.
    Record(Box<str>),
    /// Everything that came before is covered by this resume token.
    Token(String),
    /// The snapshot is complete; it comes with a token.
    Eos(String),
    /// The subscription has begun. If it does not go on from a token, it begins anew with all records.
    Begun {
        /// True if it goes on from the token that was given.
        recovered: bool,
    },
    /// The subscription was refused.
    Refused(String),
}

/// The fields of messages that are looked at. All others are left as they are.
#[derive(Deserialize)]
struct HookFrame<'a> {
    #[serde(borrow)]
    source: Option<&'a RawValue>,
    #[serde(default)]
    gone: bool,
    resume: Option<String>,
    eos: Option<EosToken>,
    result: Option<BegunFields>,
    error: Option<RefusedFields>,
}

/// The mark of a source that does not match the filter of a subscription any longer.
#[derive(Deserialize)]
struct GoneMark {
    #[serde(default)]
    gone: bool,
}

#[derive(Deserialize)]
struct EosToken {
    resume: String,
}

#[derive(Deserialize)]
struct BegunFields {
    #[serde(default)]
    subscription: u64,
    #[serde(default)]
    recovered: bool,
}

#[derive(Deserialize)]
struct RefusedFields {
    code: String,
    message: String,
}

/// Reads a frame, which holds one message or an array of records. Nothing that a webhook need not know is an event: it
/// sends what its filter is true of, and not that a source has left the filter, which a subscription is told while it
/// gets the newest record of each source.
pub fn read_hook_frame(text: &str) -> Result<Vec<HookEvent>, serde_json::Error> {
    if text.starts_with('[') {
        let records: Vec<&RawValue> = serde_json::from_str(text)?;
        let mut events = Vec::with_capacity(records.len());
        for record in records {
            if !serde_json::from_str::<GoneMark>(record.get())?.gone {
                events.push(HookEvent::Record(record.get().into()));
            }
        }
        return Ok(events);
    }
    let frame: HookFrame<'_> = serde_json::from_str(text)?;
    let event = match frame {
        HookFrame { error: Some(error), .. } => {
            HookEvent::Refused(format!("{}: {}", error.code, error.message))
        }
        HookFrame { source: Some(_), gone: true, .. } => return Ok(Vec::new()),
        HookFrame { source: Some(_), .. } => HookEvent::Record(text.into()),
        HookFrame { eos: Some(eos), .. } => HookEvent::Eos(eos.resume),
        HookFrame { resume: Some(token), .. } => HookEvent::Token(token),
        HookFrame { result: Some(begun), .. } if begun.subscription > 0 => {
            HookEvent::Begun { recovered: begun.recovered }
        }
        _ => return Ok(Vec::new()),
    };
    Ok(vec![event])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_message_to_a_subscriber_is_understood() {
        let of = |text: &str| read_hook_frame(text).expect(text);
        let record = r#"{"source":"a","ts":1,"origin":"n","data":{"x": 1.0}}"#;
        assert_eq!(of(record), [HookEvent::Record(record.into())]);
        let deleted = r#"{"source":"a","ts":2,"origin":"n","deleted":true}"#;
        let both = format!("[{record},{deleted}]");
        assert_eq!(of(&both), [HookEvent::Record(record.into()), HookEvent::Record(deleted.into())]);
        let gone = r#"{"source":"a","ts":3,"gone":true}"#;
        assert_eq!(of(gone), []);
        assert_eq!(of(&format!("[{gone},{deleted}]")), [HookEvent::Record(deleted.into())]);
        assert_eq!(of(r#"{"eos":{"subscription":1,"resume":"t"}}"#), [HookEvent::Eos("t".into())]);
        assert_eq!(of(r#"{"resume":"t"}"#), [HookEvent::Token("t".into())]);
        let begun = r#"{"result":{"subscription":1,"recovered":false}}"#;
        assert_eq!(of(begun), [HookEvent::Begun { recovered: false }]);
        assert_eq!(of(r#"{"connected":{"node":"a"}}"#), []);
        let refused = r#"{"error":{"code":"overloaded","message":"full","temporary":true}}"#;
        assert_eq!(of(refused), [HookEvent::Refused("overloaded: full".into())]);
        assert!(read_hook_frame("{").is_err() && read_hook_frame("[1").is_err());
    }
}
