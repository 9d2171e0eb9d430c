//! Reads frames with publishes: one object, or an array of objects.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::scan::{JsonValue, KnownKey, ObjectKey, Scanner, SyntaxError, as_integer, as_string, object};
use crate::limits::{BATCH_ITEMS_MAX, REQUEST_ID_BYTES_MAX, TS_MAX, TTL_MS_MAX};
use crate::protocol::AckLevel;
use crate::protocol::draft::{Draft, DraftPayload, Item, Items, PublishFrame, RequestId};
use crate::protocol::refusal::{Code, Refusal, shortened};
use crate::record::Source;

/// Reads a frame with publishes. Returns an error if the text is not JSON, and then no publish of it is
/// valid. Every other mistake becomes the refusal of the item that it is in.
pub fn publish_frame(text: &str) -> Result<PublishFrame<'_>, SyntaxError> {
    let mut scanner = Scanner::new(text);
    if !scanner.take_if(b'[') {
        let item = item(&mut scanner)?;
        scanner.end()?;
        return Ok(PublishFrame { items: Items::One(item), is_batch: false });
    }
    let (mut items, mut beyond) = (Vec::new(), 0);
    if !scanner.take_if(b']') {
        loop {
            if items.len() < BATCH_ITEMS_MAX {
                items.push(item(&mut scanner)?);
            } else {
                scanner.value()?;
                beyond += 1;
            }
            if !scanner.take_if(b',') {
                break;
            }
        }
        scanner.take(b']', "',' or ']'")?;
    }
    scanner.end()?;
    if beyond > 0 {
        return Ok(PublishFrame::too_long(items.len() + beyond));
    }
    Ok(PublishFrame { items: Items::Many(items), is_batch: true })
}

fn item<'a>(scanner: &mut Scanner<'a>) -> Result<Item<'a>, SyntaxError> {
    if scanner.peek() != Some(b'{') {
        let value = scanner.value()?;
        let message = format!("a publish is an object, not {}", shortened(value.text));
        return Ok(Item { id: None, draft: Err(Refusal::new(Code::BadRequest, message)) });
    }
    let mut fields = PublishFields::default();
    object(scanner, &KNOWN_KEYS, |key, value| fields.take(key, value))?;
    Ok(match request_id(fields.values[ID].as_ref()) {
        Ok(id) => Item { id, draft: fields.draft() },
        Err(refusal) => Item { id: None, draft: Err(refusal) },
    })
}

/// Names of the fields of a publish. Those that most publishes have stand first.
const NAMES: [&str; 8] = ["source", "data", "id", "ts", "ack", "ttl_ms", "data_b64", "deleted"];
/// Place of the id among [`NAMES`].
const ID: usize = 2;
/// The first of [`NAMES`], all that are short enough to be recognized fast.
const KNOWN_KEYS: [KnownKey; 6] = {
    let mut keys = [KnownKey::new(NAMES[0]); 6];
    let mut place = 1;
    while place < keys.len() {
        keys[place] = KnownKey::new(NAMES[place]);
        place += 1;
    }
    keys
};

/// The fields of one publish as they are found, not yet checked.
#[derive(Default)]
struct PublishFields<'a> {
    /// The values in the order of [`NAMES`].
    values: [Option<JsonValue<'a>>; NAMES.len()],
    /// Whether any value has a flaw.
    is_flawed: bool,
    /// The refusal of the first unknown or repeated field.
    wrong: Option<Refusal>,
}

/// Refuses a request as `bad_request`, with this message.
pub(super) fn bad_request<T>(message: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal::new(Code::BadRequest, message))
}

impl<'a> PublishFields<'a> {
    /// Takes in one field of the object.
    #[inline]
    fn take(&mut self, key: ObjectKey<'a>, value: JsonValue<'a>) {
        let place = match key {
            ObjectKey::Known(place) => place,
            ObjectKey::Text(text) => match NAMES.iter().position(|name| *name == text) {
                Some(place) => place,
                None => return self.note_unknown(&text),
            },
        };
        let Some(slot) = self.values.get_mut(place) else { return };
        self.is_flawed |= value.flaw.is_some();
        if slot.replace(value).is_some() {
            self.note_repeated(place);
        }
    }

    #[cold]
    fn note_unknown(&mut self, key: &str) {
        let message = format!(
            "unknown field {:?}; known are id, source, ts, data, data_b64, deleted, ttl_ms, ack",
            shortened(key)
        );
        self.wrong.get_or_insert(Refusal::new(Code::BadRequest, message));
    }

    #[cold]
    fn note_repeated(&mut self, place: usize) {
        let message = format!("field {:?} is there twice", NAMES[place]);
        self.wrong.get_or_insert(Refusal::new(Code::BadRequest, message));
    }

    /// Checks the fields and makes the publish.
    #[inline]
    fn draft(&mut self) -> Result<Draft<'a>, Refusal> {
        let [given_source, data, _, given_ts, given_ack, given_ttl, data_b64, deleted] = &self.values;
        if self.is_flawed {
            let all = [given_source, given_ts, data, data_b64, deleted, given_ttl, given_ack];
            if let Some(flaw) = all.into_iter().flatten().find_map(|value| value.flaw) {
                return Err(Refusal::new(Code::BadJson, flaw.to_string()));
            }
        }
        if let Some(refusal) = self.wrong.take() {
            return Err(refusal);
        }
        let source = source(given_source.as_ref())?;
        let ts = given_ts.as_ref().map(ts).transpose()?;
        let payload = payload(data.as_ref(), data_b64.as_ref(), deleted.as_ref())?;
        let ttl_ms = ttl_ms(given_ttl.as_ref(), &payload)?;
        let ack = given_ack.as_ref().map(ack).transpose()?;
        Ok(Draft { source, ts, payload, ttl_ms, ack })
    }
}

/// Checks the `id` of a request. Returns `None` if the request has none.
pub(super) fn request_id<'a>(value: Option<&JsonValue<'a>>) -> Result<Option<RequestId<'a>>, Refusal> {
    let Some(value) = value else { return Ok(None) };
    let digits = value.text.strip_prefix('-').unwrap_or(value.text);
    let is_integer = digits.len() <= REQUEST_ID_BYTES_MAX && digits.bytes().all(|b| b.is_ascii_digit());
    let is_text = || as_string(value).is_some_and(|text| text.len() <= REQUEST_ID_BYTES_MAX);
    if value.flaw.is_some() || !(is_integer || is_text()) {
        return bad_request(format!(
            "id is {}; allowed is a string of up to {REQUEST_ID_BYTES_MAX} bytes or an integer",
            shortened(value.text)
        ));
    }
    Ok(Some(RequestId::Json(value.text)))
}

fn source<'a>(value: Option<&JsonValue<'a>>) -> Result<Cow<'a, str>, Refusal> {
    let Some(value) = value else { return bad_request("field \"source\" is missing") };
    let Some(name) = as_string(value) else {
        let message = format!("source is {}; it must be a string", shortened(value.text));
        return Err(Refusal::new(Code::BadSource, message));
    };
    match Source::check(&name) {
        Ok(()) => Ok(name),
        Err(error) => Err(Refusal::new(Code::BadSource, error.to_string())),
    }
}

fn ts(value: &JsonValue<'_>) -> Result<u64, Refusal> {
    let in_range = as_integer(value).and_then(|ts| u64::try_from(ts).ok()).filter(|&ts| ts <= TS_MAX);
    in_range.ok_or_else(|| {
        let message =
            format!("ts is {}; allowed are integers in 0 to {TS_MAX}, microseconds", shortened(value.text));
        Refusal::new(Code::BadTimestamp, message)
    })
}

fn payload<'a>(
    data: Option<&JsonValue<'a>>,
    data_b64: Option<&JsonValue<'a>>,
    deleted: Option<&JsonValue<'a>>,
) -> Result<DraftPayload<'a>, Refusal> {
    match (data, data_b64, deleted) {
        (Some(value), None, None) => Ok(DraftPayload::Json(value.text.as_bytes())),
        (None, Some(value), None) => match as_string(value).map(|text| STANDARD.decode(text.as_bytes())) {
            Some(Ok(bytes)) => Ok(DraftPayload::Binary(Cow::Owned(bytes))),
            _ => bad_request("data_b64 must be a string of standard base64 with padding"),
        },
        (None, None, Some(value)) if value.text == "true" => Ok(DraftPayload::Deleted),
        (None, None, Some(value)) => {
            bad_request(format!("deleted is {}; allowed is true", shortened(value.text)))
        }
        (None, None, None) => bad_request("one of \"data\", \"data_b64\" and \"deleted\" is missing"),
        _ => bad_request("only one of \"data\", \"data_b64\" and \"deleted\" is allowed"),
    }
}

fn ttl_ms(value: Option<&JsonValue<'_>>, payload: &DraftPayload<'_>) -> Result<u64, Refusal> {
    let Some(value) = value else { return Ok(0) };
    if *payload == DraftPayload::Deleted {
        return bad_request("ttl_ms is not allowed with \"deleted\"");
    }
    match as_integer(value).and_then(|ttl| u64::try_from(ttl).ok()) {
        Some(ttl @ 1..=TTL_MS_MAX) => Ok(ttl),
        _ => bad_request(format!(
            "ttl_ms is {}; allowed are integers in 1 to {TTL_MS_MAX}",
            shortened(value.text)
        )),
    }
}

fn ack(value: &JsonValue<'_>) -> Result<AckLevel, Refusal> {
    match as_string(value) {
        Some(name) => AckLevel::parse(&name),
        None => Err(AckLevel::unknown(shortened(value.text))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str) -> Item<'_> {
        let frame = publish_frame(text).expect(text);
        assert!(!frame.is_batch);
        Vec::from(frame.items).remove(0)
    }

    fn code(text: &str) -> Code {
        one(text).draft.expect_err(text).code
    }

    #[test]
    fn data_is_verbatim() {
        let item = one(r#" { "id" : 7, "source":"a/b", "data" : {"b": 1.0e0 , "a":"\u0041"} , "ts":9 } "#);
        assert_eq!(item.id, Some(RequestId::Json("7")));
        let draft = item.draft.expect("draft");
        assert_eq!(draft.payload.bytes(), br#"{"b": 1.0e0 , "a":"\u0041"}"#);
        assert_eq!((draft.source.as_ref(), draft.ts, draft.ttl_ms), ("a/b", Some(9), 0));
    }

    #[test]
    fn payload_kinds() {
        let binary =
            one(r#"{"source":"a","data_b64":"AAH/","ack":"stored","ttl_ms":5}"#).draft.expect("draft");
        assert_eq!(binary.payload.bytes(), [0, 1, 255]);
        assert_eq!((binary.ack, binary.ttl_ms), (Some(AckLevel::Stored), 5));
        assert_eq!(
            one(r#"{"source":"a","deleted":true}"#).draft.expect("draft").payload,
            DraftPayload::Deleted
        );
        assert_eq!(one(r#"{"source":"a","data":null}"#).draft.expect("draft").payload.bytes(), b"null");
    }

    #[test]
    fn refusals_name_the_code() {
        for (text, want) in [
            (r#"{"source":"a","data":1,"x":2}"#, Code::BadRequest),
            (r#"{"source":"a"}"#, Code::BadRequest),
            (r#"{"data":1}"#, Code::BadRequest),
            (r#"{"source":"a","data":1,"data":2}"#, Code::BadRequest),
            (r#"{"source":"a","data":1,"deleted":true}"#, Code::BadRequest),
            (r#"{"source":"a","deleted":false}"#, Code::BadRequest),
            (r#"{"source":"a","deleted":true,"ttl_ms":1}"#, Code::BadRequest),
            (r#"{"source":"a","data":1,"ttl_ms":0}"#, Code::BadRequest),
            (r#"{"source":"a","data":1,"ack":"best"}"#, Code::BadRequest),
            (r#"{"source":"a","data_b64":"A"}"#, Code::BadRequest),
            (r#"{"source":"a","data":1,"id":{}}"#, Code::BadRequest),
            (r#"{"source":"a//b","data":1}"#, Code::BadSource),
            (r#"{"source":7,"data":1}"#, Code::BadSource),
            (r#"{"source":"a","data":1,"ts":-1}"#, Code::BadTimestamp),
            (r#"{"source":"a","data":1,"ts":1.5}"#, Code::BadTimestamp),
            (r#"{"source":"a","data":1,"ts":9007199254740992}"#, Code::BadTimestamp),
            (r#"{"source":"a","data":"\ud800"}"#, Code::BadJson),
            ("7", Code::BadRequest),
        ] {
            assert_eq!(code(text), want, "{text}");
        }
    }

    #[test]
    fn one_bad_item_leaves_its_batch() {
        let text = r#"[{"source":"a","data":1},{"id":"x","source":"a","data":"\udc00"},3]"#;
        let frame = publish_frame(text).expect("frame");
        assert!(frame.is_batch && frame.items[0].draft.is_ok());
        assert_eq!(frame.items[1].id, Some(RequestId::Json("\"x\"")));
        assert!(frame.items[1].draft.is_err() && frame.items[2].draft.is_err());
        assert!(publish_frame("[{\"source\":\"a\",\"data\":1},").is_err());
        assert!(publish_frame("[]").is_ok_and(|frame| frame.items.is_empty()));
    }

    #[test]
    fn a_batch_of_too_many_items_is_refused_once() {
        let text = |count: usize| format!("[{}1]", "1,".repeat(count - 1));
        let (longest, longer) = (text(BATCH_ITEMS_MAX), text(BATCH_ITEMS_MAX + 1));
        let longest = publish_frame(&longest).expect("json");
        assert_eq!(longest.items.len(), BATCH_ITEMS_MAX);
        let longer = publish_frame(&longer).expect("json");
        assert_eq!((longer.items.len(), longer.is_batch), (1, false));
        let refusal = Vec::from(longer.items).remove(0).draft.expect_err("refused");
        assert_eq!(
            (refusal.code, refusal.message.as_str()),
            (Code::BadRequest, "a batch of 10001 items; at most 10000")
        );
    }
}
