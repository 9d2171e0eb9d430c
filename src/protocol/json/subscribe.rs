//! Reads subscribe and unsubscribe frames, and writes the messages to a connection that are not records.

use super::publish::{bad_request, request_id};
use super::scan::{JsonValue, ObjectKey, Scanner, SyntaxError, as_integer, as_string, object};
use super::write::{number, open_answer, write_refusal, write_string};
use crate::expression::SharedExpression;
use crate::limits::PATTERNS_PER_SUBSCRIPTION_MAX;
use crate::protocol::refusal::{Code, Refusal, shortened};
use crate::protocol::request::{Connected, Mode, Notice, Request, Subscribe, SubscribeFrame, filter};
use crate::protocol::token::Token;
use crate::record::Pattern;

/// Reads a frame of `/subscribe`. An error means that the text is not JSON.
pub fn subscribe_frame(text: &str) -> Result<SubscribeFrame<'_>, SyntaxError> {
    let mut scanner = Scanner::new(text);
    if scanner.peek() != Some(b'{') {
        let value = scanner.value()?;
        scanner.end()?;
        let refusal = bad_request(format!("a request is an object, not {}", shortened(value.text)));
        return Ok(SubscribeFrame { id: None, request: refusal });
    }
    let known = ["id", "subscribe", "unsubscribe", "auth"];
    let ([id, subscribe, unsubscribe, auth], wrong) = known_fields(&mut scanner, "known", known)?;
    scanner.end()?;
    let id = match request_id(id.as_ref()) {
        Ok(id) => id,
        Err(refusal) => return Ok(SubscribeFrame { id: None, request: Err(refusal) }),
    };
    let request = match (wrong, subscribe, unsubscribe, auth) {
        (Some(message), ..) => bad_request(message),
        (None, Some(value), None, None) => subscribe_value(&value).map(Request::Subscribe),
        (None, None, Some(value), None) => unsubscribe_value(&value).map(Request::Unsubscribe),
        _ => bad_request("exactly one of \"subscribe\", \"unsubscribe\" and \"auth\" is allowed"),
    };
    Ok(SubscribeFrame { id, request })
}

/// Reads an object whose fields may be those named in `known`. Returns the values in the order of `known`, and
/// the message about the first field that is unknown (it says what is `allowed`) or repeated.
pub(super) fn known_fields<'a, const N: usize>(
    scanner: &mut Scanner<'a>,
    allowed: &str,
    known: [&str; N],
) -> Result<([Option<JsonValue<'a>>; N], Option<String>), SyntaxError> {
    let (mut found, mut wrong) = ([const { None }; N], None);
    object(scanner, &[], |key, value| {
        // No key is known to the scanner, so each is a text.
        let ObjectKey::Text(key) = key else { return };
        let place = known.iter().position(|name| *name == key);
        let Some(slot) = place.and_then(|place| found.get_mut(place)) else {
            let message =
                || format!("unknown field {:?}; {allowed} are {}", shortened(&key), known.join(", "));
            wrong.get_or_insert_with(message);
            return;
        };
        if slot.replace(value).is_some() {
            wrong.get_or_insert_with(|| format!("field {key:?} is there twice"));
        }
    })?;
    Ok((found, wrong))
}

fn unsubscribe_value(value: &JsonValue<'_>) -> Result<u32, Refusal> {
    let number = as_integer(value).and_then(|number| u32::try_from(number).ok());
    number.map_or_else(
        || {
            let text = shortened(value.text);
            bad_request(format!("unsubscribe is {text}; allowed is the number of a subscription"))
        },
        Ok,
    )
}

fn subscribe_value(value: &JsonValue<'_>) -> Result<Subscribe, Refusal> {
    if let Some(flaw) = value.flaw {
        return Err(Refusal::new(Code::BadJson, flaw.to_string()));
    }
    if !value.text.starts_with('{') {
        return bad_request(format!("subscribe is {}; it must be an object", shortened(value.text)));
    }
    let known = ["sources", "snapshot", "mode", "resume", "filter"];
    let ([sources, snapshot, mode, resume, wanted], wrong) =
        known_fields(&mut Scanner::new(value.text), "known in subscribe", known)
            .map_err(|error| Refusal::new(Code::BadJson, error.to_string()))?;
    if let Some(message) = wrong {
        return bad_request(message);
    }
    let Some(sources) = sources else { return bad_request("field \"sources\" is missing") };
    Ok(Subscribe {
        patterns: patterns(&sources)?,
        snapshot: snapshot.map_or(Ok(true), |value| flag("snapshot", &value))?,
        mode: mode.map(|value| self::mode(&value)).transpose()?,
        resume: resume.map(|value| token(&value)).transpose()?,
        filter: wanted.map(|value| self::wanted(&value)).transpose()?,
    })
}

fn patterns(value: &JsonValue<'_>) -> Result<Vec<Pattern>, Refusal> {
    let allowed = "an array of 1 to";
    let wrong = || {
        let text = shortened(value.text);
        bad_request(format!(
            "sources is {text}; allowed is {allowed} {PATTERNS_PER_SUBSCRIPTION_MAX} patterns"
        ))
    };
    let mut scanner = Scanner::new(value.text);
    if !scanner.take_if(b'[') || scanner.peek() == Some(b']') {
        return wrong();
    }
    let mut patterns = Vec::new();
    loop {
        let item = scanner.value().map_err(|error| Refusal::new(Code::BadJson, error.to_string()))?;
        patterns.push(pattern(&item)?);
        if !scanner.take_if(b',') {
            break;
        }
        if patterns.len() >= PATTERNS_PER_SUBSCRIPTION_MAX {
            return wrong();
        }
    }
    Ok(patterns)
}

fn pattern(value: &JsonValue<'_>) -> Result<Pattern, Refusal> {
    let Some(text) = as_string(value) else {
        let message = format!("pattern is {}; it must be a string", shortened(value.text));
        return Err(Refusal::new(Code::BadPattern, message));
    };
    Pattern::parse(&text).map_err(|error| Refusal::new(Code::BadPattern, error.to_string()))
}

fn flag(name: &str, value: &JsonValue<'_>) -> Result<bool, Refusal> {
    match value.text {
        "true" => Ok(true),
        "false" => Ok(false),
        other => bad_request(format!("{name} is {}; allowed are true and false", shortened(other))),
    }
}

fn mode(value: &JsonValue<'_>) -> Result<Mode, Refusal> {
    match as_string(value).and_then(|name| Mode::parse(&name)) {
        Some(mode) => Ok(mode),
        None => bad_request(format!("mode is {}; allowed are \"latest\", \"all\"", shortened(value.text))),
    }
}

fn wanted(value: &JsonValue<'_>) -> Result<SharedExpression, Refusal> {
    match as_string(value) {
        Some(text) => filter(&text),
        None => Err(Refusal::new(
            Code::BadFilter,
            format!("filter is {}; it must be a string", shortened(value.text)),
        )),
    }
}

fn token(value: &JsonValue<'_>) -> Result<Token, Refusal> {
    let token = as_string(value).and_then(|text| Token::decode(&text).ok());
    token.map_or_else(|| bad_request("resume is no token of this server"), Ok)
}

/// Appends a message that is neither a record nor the answer to a publish.
pub fn write_notice(out: &mut Vec<u8>, notice: &Notice<'_>) {
    match notice {
        Notice::Connected(connected) => write_connected(out, connected),
        Notice::Subscribed { id, subscription, recovered } => {
            open_answer(out, id.as_ref());
            number(out, format_args!("\"result\":{{\"subscription\":{subscription}"));
            if let Some(recovered) = recovered {
                number(out, format_args!(",\"recovered\":{recovered}"));
            }
            out.extend_from_slice(b"}}");
        }
        Notice::Authenticated { id, name, expires_s } => {
            open_answer(out, id.as_ref());
            out.extend_from_slice(b"\"result\":{\"name\":");
            write_string(out, name);
            match expires_s {
                Some(expires_s) => number(out, format_args!(",\"expires\":{expires_s}}}}}")),
                None => out.extend_from_slice(b",\"expires\":null}}"),
            }
        }
        Notice::Refused { id, refusal } => {
            open_answer(out, id.as_ref());
            out.extend_from_slice(b"\"error\":");
            write_refusal(out, refusal);
            out.push(b'}');
        }
        Notice::Eos { subscription, resume } => {
            number(
                out,
                format_args!("{{\"eos\":{{\"subscription\":{subscription},\"resume\":\"{resume}\"}}}}"),
            );
        }
        Notice::Resume(resume) => number(out, format_args!("{{\"resume\":\"{resume}\"}}")),
    }
}

fn write_connected(out: &mut Vec<u8>, connected: &Connected<'_>) {
    out.extend_from_slice(b"{\"connected\":{\"node\":");
    write_string(out, connected.node.as_str());
    out.extend_from_slice(b",\"session\":");
    write_string(out, connected.session);
    let Connected { ping_ms, max_record_bytes: record, max_frame_bytes: frame, .. } = connected;
    number(
        out,
        format_args!(",\"ping_ms\":{ping_ms},\"max_record_bytes\":{record},\"max_frame_bytes\":{frame}"),
    );
    out.extend_from_slice(b",\"members\":[");
    for (at, (id, http)) in connected.members.iter().enumerate() {
        out.extend_from_slice(if at == 0 { b"{\"id\":" } else { b",{\"id\":" });
        write_string(out, id);
        out.extend_from_slice(b",\"http\":");
        write_string(out, http);
        out.push(b'}');
    }
    out.extend_from_slice(b"]}}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::draft::RequestId;
    use crate::record::NodeName;

    fn request(text: &str) -> Result<Request, Refusal> {
        subscribe_frame(text).expect(text).request
    }

    fn subscribe(text: &str) -> Subscribe {
        match request(text) {
            Ok(Request::Subscribe(subscribe)) => subscribe,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn subscriptions() {
        let plain = subscribe(r#"{"id":1,"subscribe":{"sources":["a/*","b"]}}"#);
        assert_eq!(plain.patterns.len(), 2);
        assert!(plain.snapshot && plain.mode.is_none() && plain.resume.is_none());
        let token = Token { cluster: 1, issued_us: 2, patterns: vec![3], heads: [(4, 5)].into() };
        let text = format!(
            r#"{{"subscribe":{{"sources":["a"],"snapshot":false,"mode":"all","resume":"{}"}}}}"#,
            token.encode()
        );
        let full = subscribe(&text);
        assert_eq!((full.snapshot, full.mode, full.resume), (false, Some(Mode::All), Some(token)));
        assert_eq!(request(r#"{"id":"x","unsubscribe":3}"#), Ok(Request::Unsubscribe(3)));
    }

    #[test]
    fn refusals_name_the_code() {
        let many = format!(r#"{{"subscribe":{{"sources":[{}"a"]}}}}"#, r#""a","#.repeat(256));
        for (text, want) in [
            (r#"{"subscribe":{"sources":[]}}"#, Code::BadRequest),
            (r#"{"subscribe":{}}"#, Code::BadRequest),
            (r#"{"subscribe":{"sources":"a"}}"#, Code::BadRequest),
            (r#"{"subscribe":{"sources":["a"],"x":1}}"#, Code::BadRequest),
            (r#"{"subscribe":{"sources":["a"],"mode":"some"}}"#, Code::BadRequest),
            (r#"{"subscribe":{"sources":["a"],"snapshot":1}}"#, Code::BadRequest),
            (r#"{"subscribe":{"sources":["a"],"resume":"zzz"}}"#, Code::BadRequest),
            (r#"{"subscribe":{"sources":["a"],"sources":["b"]}}"#, Code::BadRequest),
            (r#"{"subscribe":["a"]}"#, Code::BadRequest),
            (r#"{"subscribe":{"sources":["a"]},"unsubscribe":1}"#, Code::BadRequest),
            (r#"{"unsubscribe":-1}"#, Code::BadRequest),
            (r#"{"unsubscribe":"1"}"#, Code::BadRequest),
            (r#"{"source":"a","data":1}"#, Code::BadRequest),
            (r#"{}"#, Code::BadRequest),
            (r#"[]"#, Code::BadRequest),
            (r#"{"id":[],"unsubscribe":1}"#, Code::BadRequest),
            (r#"{"subscribe":{"sources":["a//b"]}}"#, Code::BadPattern),
            (r#"{"subscribe":{"sources":["**/b"]}}"#, Code::BadPattern),
            (r#"{"subscribe":{"sources":[1]}}"#, Code::BadPattern),
            (&many, Code::BadRequest),
        ] {
            assert_eq!(request(text).expect_err(text).code, want, "{text}");
        }
        assert!(subscribe_frame("{\"subscribe\":").is_err());
        let frame = subscribe_frame(r#"{"id":"q","subscribe":{"sources":[1]}}"#).expect("json");
        assert_eq!(frame.id, Some(RequestId::Json("\"q\"")));
    }

    fn written(notice: &Notice<'_>) -> String {
        let mut out = Vec::new();
        write_notice(&mut out, notice);
        String::from_utf8(out).expect("utf-8")
    }

    #[test]
    fn notices() {
        let node = NodeName::parse("n1").expect("name");
        let connected = Connected {
            node: &node,
            session: "s-1",
            ping_ms: 25_000,
            max_record_bytes: 65_536,
            max_frame_bytes: 1_048_576,
            members: vec![("n1", "10.0.0.1:7070"), ("n2", "[::1]:7070")],
        };
        assert_eq!(
            written(&Notice::Connected(connected)),
            r#"{"connected":{"node":"n1","session":"s-1","ping_ms":25000,"max_record_bytes":65536,"max_frame_bytes":1048576,"members":[{"id":"n1","http":"10.0.0.1:7070"},{"id":"n2","http":"[::1]:7070"}]}}"#
        );
        let id = Some(RequestId::Json("1"));
        assert_eq!(
            written(&Notice::Subscribed { id: id.clone(), subscription: 1, recovered: Some(true) }),
            r#"{"id":1,"result":{"subscription":1,"recovered":true}}"#
        );
        assert_eq!(
            written(&Notice::Subscribed { id: None, subscription: 2, recovered: None }),
            r#"{"result":{"subscription":2}}"#
        );
        let refusal = Refusal::new(Code::BadPattern, "no");
        assert_eq!(
            written(&Notice::Refused { id, refusal: &refusal }),
            r#"{"id":1,"error":{"code":"bad_pattern","message":"no","temporary":false}}"#
        );
        assert_eq!(
            written(&Notice::Eos { subscription: 1, resume: "T" }),
            r#"{"eos":{"subscription":1,"resume":"T"}}"#
        );
        assert_eq!(written(&Notice::Resume("T")), r#"{"resume":"T"}"#);
    }
}
