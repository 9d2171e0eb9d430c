//! The protobuf form of the messages between clients and nodes. It has the same messages and names as the
//! JSON form.
//!
//! A frame is decoded into a [`ClientMessage`], and the drafts made from it borrow from it. Records are
//! written without generated code, because they are most of what a node sends, and a generated message would
//! copy each of them once more. A test compares the result with that of the generated code.

mod read;

use std::borrow::Cow;

use prost::Message;
use prost::encoding::encoded_len_varint;

use super::AckLevel;
use super::answer::{Outcome, Published};
use super::draft::{Draft, DraftPayload, Item, Items, PublishFrame, RequestId};
use super::json::scan::single_value;
use super::refusal::{Code, Refusal};
use super::reply::PublishAnswer;
use super::request::{AuthFrame, Mode, Notice, Request, Subscribe, SubscribeFrame, filter};
use super::token::Token;
use crate::limits::{
    BATCH_ITEMS_MAX, PATTERNS_PER_SUBSCRIPTION_MAX, REQUEST_ID_BYTES_MAX, TS_MAX, TTL_MS_MAX,
};
use crate::proto::client as proto;
use crate::record::fields::write_varint;
use crate::record::{Pattern, Payload, Record, Source};
use proto::client_message::Message as Asked;
use proto::server_message::Message as Told;

/// The error of a frame that is not a protobuf message of the schema.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("undecodable message: {0}")]
pub struct DecodeError(#[from] prost::DecodeError);

/// A decoded frame from a client.
#[derive(Debug)]
pub struct ClientMessage<'a>(Form<'a>);

/// The two ways in which a frame is read.
#[derive(Debug)]
enum Form<'a> {
    /// A single publish, read without generated code. Its parts borrow from the frame.
    Publish(Publish<'a>),
    /// A batch with more items than one may have: their number. The items were not read, because each may
    /// take a hundred times the memory that it takes in the frame.
    LongBatch(usize),
    /// A subscription to more patterns than one may have: its id, and the number of patterns, which were not
    /// read either.
    LongSubscribe(Option<RequestId<'a>>, usize),
    /// Any other message, read by generated code. `None` if the frame holds no message that this version
    /// knows.
    Any(Option<Asked>),
}

fn refuse<T>(code: Code, message: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal::new(code, message))
}

impl ClientMessage<'_> {
    /// Decodes a frame. The result borrows from it.
    pub fn decode(bytes: &[u8]) -> Result<ClientMessage<'_>, DecodeError> {
        if let Some(publish) = read::publish_message(bytes) {
            return Ok(ClientMessage(Form::Publish(publish)));
        }
        let items = read::count_batch_items(bytes);
        if items > BATCH_ITEMS_MAX {
            return Ok(ClientMessage(Form::LongBatch(items)));
        }
        if let Some((id, patterns)) = read::subscribe_head(bytes)
            && patterns > PATTERNS_PER_SUBSCRIPTION_MAX
        {
            return Ok(ClientMessage(Form::LongSubscribe(id, patterns)));
        }
        Ok(ClientMessage(Form::Any(proto::ClientMessage::decode(bytes)?.message)))
    }

    /// Returns the publishes of a frame that came on `/publish`. Any other message becomes a refusal.
    pub fn publish_frame(&self) -> PublishFrame<'_> {
        let refused = |id| {
            let draft = refuse(Code::BadRequest, "allowed on /publish are \"publish\" and \"batch\"");
            PublishFrame { items: Items::One(Item { id, draft }), is_batch: false }
        };
        let one = |publish| PublishFrame { items: Items::One(item(publish)), is_batch: false };
        let asked = match &self.0 {
            Form::Publish(publish) => return one(publish.clone()),
            Form::LongBatch(count) => return PublishFrame::too_long(*count),
            Form::LongSubscribe(id, _) => return refused(checked_id(id.clone()).unwrap_or(None)),
            Form::Any(asked) => asked,
        };
        match asked {
            Some(Asked::Publish(publish)) => one(Publish::from(publish)),
            Some(Asked::Batch(batch)) => {
                let items = batch.items.iter().map(|publish| item(publish.into())).collect();
                PublishFrame { items: Items::Many(items), is_batch: true }
            }
            Some(Asked::Subscribe(subscribe)) => refused(request_id(&subscribe.id).unwrap_or(None)),
            Some(Asked::Unsubscribe(unsubscribe)) => refused(request_id(&unsubscribe.id).unwrap_or(None)),
            Some(Asked::Auth(auth)) => refused(request_id(&auth.id).unwrap_or(None)),
            None => refused(None),
        }
    }

    /// Returns the token that a frame brings; `None` for any other message.
    pub fn auth_frame(&self) -> Option<AuthFrame<'_>> {
        let Form::Any(Some(Asked::Auth(auth))) = &self.0 else { return None };
        Some(match request_id(&auth.id) {
            Ok(id) => AuthFrame { id, token: Ok(Cow::Borrowed(&auth.token)) },
            Err(refusal) => AuthFrame { id: None, token: Err(refusal) },
        })
    }

    /// Returns the request of a frame that came on `/subscribe`. Any other message becomes a refusal.
    pub fn subscribe_frame(&self) -> SubscribeFrame<'_> {
        let refused =
            || refuse(Code::BadRequest, "allowed on /subscribe are \"subscribe\" and \"unsubscribe\"");
        let (id, request) = match &self.0 {
            Form::Publish(publish) => (checked_id(publish.id.clone()), refused()),
            Form::LongSubscribe(id, count) => (checked_id(id.clone()), wrong_count(*count)),
            Form::Any(Some(Asked::Subscribe(message))) => {
                (request_id(&message.id), subscribe(message).map(Request::Subscribe))
            }
            Form::Any(Some(Asked::Unsubscribe(message))) => {
                (request_id(&message.id), Ok(Request::Unsubscribe(message.subscription)))
            }
            Form::Any(Some(Asked::Publish(publish))) => (request_id(&publish.id), refused()),
            Form::Any(Some(Asked::Auth(auth))) => (request_id(&auth.id), refused()),
            Form::Any(Some(Asked::Batch(_)) | None) | Form::LongBatch(_) => (Ok(None), refused()),
        };
        match id {
            Ok(id) => SubscribeFrame { id, request },
            Err(refusal) => SubscribeFrame { id: None, request: Err(refusal) },
        }
    }
}

/// The fields of one publish, borrowed from the frame or from the generated message. Nothing is checked yet.
#[derive(Clone, Debug, Default, PartialEq)]
struct Publish<'a> {
    id: Option<RequestId<'a>>,
    source: &'a str,
    ts: Option<u64>,
    value: Option<PublishValue<'a>>,
    ttl_ms: Option<u64>,
    ack: Option<&'a str>,
}

/// The value of a publish: data as JSON text, binary data, or the flag of a deletion.
#[derive(Clone, Copy, Debug, PartialEq)]
enum PublishValue<'a> {
    /// Bytes that are UTF-8.
    Data(&'a [u8]),
    Binary(&'a [u8]),
    Deleted(bool),
}

impl<'a> From<&'a proto::Publish> for Publish<'a> {
    fn from(publish: &'a proto::Publish) -> Publish<'a> {
        let value = publish.value.as_ref().map(|value| match value {
            proto::publish::Value::Data(text) => PublishValue::Data(text.as_bytes()),
            proto::publish::Value::DataB64(bytes) => PublishValue::Binary(bytes),
            proto::publish::Value::Deleted(deleted) => PublishValue::Deleted(*deleted),
        });
        let (id, ack) = (id_of(&publish.id), publish.ack.as_deref());
        Publish { id, source: &publish.source, ts: publish.ts, value, ttl_ms: publish.ttl_ms, ack }
    }
}

fn id_of(id: &Option<proto::Id>) -> Option<RequestId<'_>> {
    match id.as_ref()?.id.as_ref()? {
        proto::id::Id::Number(number) => Some(RequestId::Number(*number)),
        proto::id::Id::Text(text) => Some(RequestId::Text(text)),
    }
}

fn request_id(id: &Option<proto::Id>) -> Result<Option<RequestId<'_>>, Refusal> {
    checked_id(id_of(id))
}

fn checked_id(id: Option<RequestId<'_>>) -> Result<Option<RequestId<'_>>, Refusal> {
    match id {
        Some(RequestId::Text(text)) if text.len() > REQUEST_ID_BYTES_MAX => {
            let bytes = text.len();
            refuse(Code::BadRequest, format!("id has {bytes} bytes; at most {REQUEST_ID_BYTES_MAX}"))
        }
        id => Ok(id),
    }
}

fn item(mut publish: Publish<'_>) -> Item<'_> {
    match checked_id(publish.id.take()) {
        Ok(id) => Item { id, draft: draft(publish) },
        Err(refusal) => Item { id: None, draft: Err(refusal) },
    }
}

fn draft(publish: Publish<'_>) -> Result<Draft<'_>, Refusal> {
    if let Err(error) = Source::check(publish.source) {
        return refuse(Code::BadSource, error.to_string());
    }
    if let Some(ts) = publish.ts.filter(|&ts| ts > TS_MAX) {
        return refuse(Code::BadTimestamp, format!("ts is {ts}; allowed are 0 to {TS_MAX}, microseconds"));
    }
    let payload = match publish.value {
        Some(PublishValue::Data(text)) => DraftPayload::Json(json(text)?),
        Some(PublishValue::Binary(bytes)) => DraftPayload::Binary(Cow::Borrowed(bytes)),
        Some(PublishValue::Deleted(true)) => DraftPayload::Deleted,
        Some(PublishValue::Deleted(false)) => {
            return refuse(Code::BadRequest, "deleted is false; allowed is true");
        }
        None => {
            return refuse(Code::BadRequest, "one of \"data\", \"data_b64\" and \"deleted\" is missing");
        }
    };
    let ttl_ms = match publish.ttl_ms {
        None => 0,
        Some(_) if payload == DraftPayload::Deleted => {
            return refuse(Code::BadRequest, "ttl_ms is not allowed with \"deleted\"");
        }
        Some(ttl @ 1..=TTL_MS_MAX) => ttl,
        Some(ttl) => {
            return refuse(Code::BadRequest, format!("ttl_ms is {ttl}; allowed are 1 to {TTL_MS_MAX}"));
        }
    };
    let ack = publish.ack.map(AckLevel::parse).transpose()?;
    Ok(Draft { source: Cow::Borrowed(publish.source), ts: publish.ts, payload, ttl_ms, ack })
}

/// Returns the bytes of the single JSON value that `text` must be, without the white space around it.
fn json(text: &[u8]) -> Result<&[u8], Refusal> {
    match single_value(text) {
        Ok((value, None)) => Ok(value),
        Ok((_, Some(flaw))) => refuse(Code::BadJson, format!("data: {flaw}")),
        Err(error) => refuse(Code::BadJson, format!("data: {error}")),
    }
}

/// Refuses a subscription with this number of patterns.
fn wrong_count<T>(count: usize) -> Result<T, Refusal> {
    let allowed = format!("allowed are 1 to {PATTERNS_PER_SUBSCRIPTION_MAX}");
    refuse(Code::BadRequest, format!("sources has {count} patterns; {allowed}"))
}

fn subscribe(message: &proto::Subscribe) -> Result<Subscribe, Refusal> {
    let count = message.sources.len();
    if count == 0 || count > PATTERNS_PER_SUBSCRIPTION_MAX {
        return wrong_count(count);
    }
    let patterns = message
        .sources
        .iter()
        .map(|text| Pattern::parse(text).map_err(|error| Refusal::new(Code::BadPattern, error.to_string())));
    let patterns = patterns.collect::<Result<_, _>>()?;
    let mode = message.mode.as_deref().map(|name| {
        Mode::parse(name)
            .ok_or_else(|| Refusal::new(Code::BadRequest, "mode is unknown; allowed are \"latest\", \"all\""))
    });
    let resume = message
        .resume
        .as_deref()
        .map(|text| Token::decode(text).map_err(|error| Refusal::new(Code::BadRequest, error.to_string())));
    Ok(Subscribe {
        patterns,
        snapshot: message.snapshot.unwrap_or(true),
        mode: mode.transpose()?,
        resume: resume.transpose()?,
        filter: message.filter.as_deref().map(filter).transpose()?,
    })
}

fn told_id(id: Option<&RequestId<'_>>) -> Option<proto::Id> {
    use proto::id::Id;
    let id = match id? {
        RequestId::Number(number) => Id::Number(*number),
        RequestId::Text(text) => Id::Text((*text).into()),
        // Ids of JSON frames are answered in JSON. If one ever came here, its JSON text would still identify
        // the request.
        RequestId::Json(text) => Id::Text((*text).into()),
    };
    Some(proto::Id { id: Some(id) })
}

fn told_refusal(refusal: &Refusal) -> proto::answer::Answer {
    proto::answer::Answer::Error(proto::Error {
        code: refusal.code.as_str().into(),
        message: refusal.message.clone(),
        temporary: refusal.code.is_temporary(),
        applied: refusal.applied_ts.is_some(),
        ts: refusal.applied_ts,
        nodes: refusal.nodes,
        retry_after_ms: refusal.retry_after_ms,
    })
}

fn told_published(published: &Published) -> proto::answer::Answer {
    let (outcome, current_ts) = match published.outcome {
        Outcome::Applied => ("applied", None),
        Outcome::Duplicate => ("duplicate", None),
        Outcome::Stale { current_ts } => ("stale", Some(current_ts)),
        Outcome::Dropped => ("dropped", None),
    };
    proto::answer::Answer::Result(proto::PublishResult {
        ts: published.ts,
        outcome: outcome.into(),
        current_ts,
        level: published.level.as_str().into(),
        nodes: published.nodes,
    })
}

fn write(out: &mut Vec<u8>, message: Told) {
    let message = proto::ServerMessage { message: Some(message) };
    out.reserve(message.encoded_len());
    message.encode_raw(out);
}

fn told_publish(answer: &PublishAnswer<'_>) -> proto::Answer {
    let told = match answer.answer {
        Ok(published) => told_published(published),
        Err(refusal) => told_refusal(refusal),
    };
    let index = answer.index.map(|index| u32::try_from(index).unwrap_or(u32::MAX));
    proto::Answer { id: told_id(answer.id.as_ref()), index, answer: Some(told) }
}

/// Appends the answers to one publish frame: a batch of answers for a batch, else the one answer.
pub fn write_publish_answers<'a>(
    out: &mut Vec<u8>,
    answers: impl Iterator<Item = PublishAnswer<'a>>,
    is_batch: bool,
) {
    let mut items = answers.map(|answer| told_publish(&answer));
    if is_batch {
        write(out, Told::Answers(proto::AnswerBatch { items: items.collect() }));
    } else if let Some(answer) = items.next() {
        write(out, Told::Answer(answer));
    }
}

/// Appends a message that is neither a record nor the answer to a publish.
pub fn write_notice(out: &mut Vec<u8>, notice: &Notice<'_>) {
    let answer = |id: &Option<RequestId<'_>>, answer| {
        Told::Answer(proto::Answer { id: told_id(id.as_ref()), index: None, answer: Some(answer) })
    };
    let told = match notice {
        Notice::Connected(connected) => Told::Connected(proto::Connected {
            node: connected.node.as_str().into(),
            session: connected.session.into(),
            ping_ms: connected.ping_ms,
            max_record_bytes: connected.max_record_bytes as u64,
            max_frame_bytes: connected.max_frame_bytes as u64,
            members: connected
                .members
                .iter()
                .map(|(id, http)| proto::Member { id: (*id).into(), http: (*http).into() })
                .collect(),
        }),
        Notice::Subscribed { id, subscription, recovered } => {
            let result = proto::SubscribeResult { subscription: *subscription, recovered: *recovered };
            answer(id, proto::answer::Answer::Subscribed(result))
        }
        Notice::Authenticated { id, name, expires_s } => {
            let result = proto::AuthResult { name: (*name).into(), expires: *expires_s };
            answer(id, proto::answer::Answer::Authenticated(result))
        }
        Notice::Refused { id, refusal } => answer(id, told_refusal(refusal)),
        Notice::Eos { subscription, resume } => {
            Told::Eos(proto::Eos { subscription: *subscription, resume: (*resume).into() })
        }
        Notice::Resume(resume) => Told::Resume((*resume).into()),
    };
    write(out, told);
}

/// Key of the field `ServerMessage.record`: number 4, length-delimited.
const RECORD_KEY: u8 = 4 << 3 | 2;
/// Key of the field `ServerMessage.records`: number 5, length-delimited.
const RECORDS_KEY: u8 = 5 << 3 | 2;
/// Key of the field `RecordBatch.items`: number 1, length-delimited.
const ITEM_KEY: u8 = 1 << 3 | 2;

/// Appends a message with one record as subscribers see it. With `as_deleted` it is written as a deletion,
/// because its time to live has ended.
pub fn write_record(out: &mut Vec<u8>, record: &Record, as_deleted: bool) {
    /// Key of the field `Record.ts`: number 2, varint.
    const TS_KEY: u8 = 2 << 3;
    /// The field `Record.deleted` (number 6, varint) with the value `true`.
    const DELETED: [u8; 2] = [6 << 3, 1];
    let value = match &record.payload {
        Payload::Json(bytes) if !as_deleted => Some((4, bytes)),
        Payload::Binary(bytes) if !as_deleted => Some((5, bytes)),
        _ => None,
    };
    let field_len = |bytes: usize| 1 + encoded_len_varint(bytes as u64) + bytes;
    let ts = record.stamp.ts;
    // As proto3 prescribes, the number 0 is left out.
    let ts_len = if ts == 0 { 0 } else { 1 + encoded_len_varint(ts) };
    let value_len = value.map_or(DELETED.len(), |(_, bytes)| field_len(bytes.len()));
    let (source, origin) = (record.source.as_str().as_bytes(), record.birth.origin.as_bytes());
    let len = field_len(source.len()) + ts_len + field_len(origin.len()) + value_len;
    out.reserve(1 + encoded_len_varint(len as u64) + len);
    out.push(RECORD_KEY);
    write_varint(out, len as u64);
    write_field(out, 1, source);
    if ts > 0 {
        out.push(TS_KEY);
        write_varint(out, ts);
    }
    write_field(out, 3, origin);
    match value {
        Some((field, bytes)) => write_field(out, field, bytes),
        None => out.extend_from_slice(&DELETED),
    }
}

/// Appends the message that a record is not shown any longer, because a filter is not true of it.
pub fn write_gone(out: &mut Vec<u8>, record: &Record) {
    /// The field `Record.gone` (number 7, varint) with the value `true`.
    const GONE: [u8; 2] = [7 << 3, 1];
    let (source, ts) = (record.source.as_str().as_bytes(), record.stamp.ts);
    let ts_len = if ts == 0 { 0 } else { 1 + encoded_len_varint(ts) };
    let len = 1 + encoded_len_varint(source.len() as u64) + source.len() + ts_len + GONE.len();
    out.push(RECORD_KEY);
    write_varint(out, len as u64);
    write_field(out, 1, source);
    if ts > 0 {
        out.push(2 << 3);
        write_varint(out, ts);
    }
    out.extend_from_slice(&GONE);
}

fn write_field(out: &mut Vec<u8>, field: u8, bytes: &[u8]) {
    out.push(field << 3 | 2);
    write_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Appends a record to the items of a batch. `message` is what [`write_record`] wrote for it.
pub fn append_to_batch(items: &mut Vec<u8>, message: &[u8]) {
    // Both forms are a key of one byte followed by the same bytes, so only the key is replaced.
    if let Some((_, record)) = message.split_first() {
        items.push(ITEM_KEY);
        items.extend_from_slice(record);
    }
}

/// Appends the beginning of a message with a batch of records. The caller appends `items_len` bytes of items
/// next.
pub fn write_batch_head(out: &mut Vec<u8>, items_len: usize) {
    out.push(RECORDS_KEY);
    write_varint(out, items_len as u64);
}

#[cfg(test)]
mod tests;
