//! Tests of every wire: what it sends, and that it understands a server however the bytes are cut.

use super::anode_json::AnodeJson;
use super::anode_proto::AnodeProto;
use super::mqtt::Mqtt;
use super::nats::Nats;
use super::redis::Redis;
use super::tunnel::Tunnel;
use super::*;
use crate::names::Separator;
use crate::random::Random;
use proptest::prelude::*;

#[derive(Debug, PartialEq, Eq)]
enum Event {
    Ready,
    Delivered(Vec<u8>),
    Acked(u64),
    Refused(Option<u64>, String),
}

#[derive(Default)]
struct Events(Vec<Event>);

impl Sink for Events {
    fn ready(&mut self) {
        self.0.push(Event::Ready);
    }
    fn delivered(&mut self, bytes: &[u8]) {
        self.0.push(Event::Delivered(bytes.to_vec()));
    }
    fn acked(&mut self, id: u64) {
        self.0.push(Event::Acked(id));
    }
    fn refused(&mut self, id: Option<u64>, code: &str) {
        self.0.push(Event::Refused(id, code.to_owned()));
    }
}

fn common(separator: Separator, ack: Ack) -> Common {
    Common {
        names: Names::numbered(separator, "lg", 16, 1),
        ack,
        is_latest: false,
        snapshot: false,
        publish_batch: 1,
        subscribe_batch: false,
        token: None,
    }
}

fn subscriber() -> Role {
    Role::Subscriber(vec![Pattern::All, Pattern::One(3)])
}

fn random() -> Random {
    Random::new(1, 1)
}

/// Passes `bytes` in pieces that end at `cuts`, each with what was left of the pieces before.
fn feed(wire: &mut dyn Wire, bytes: &[u8], cuts: &[usize]) -> Result<(Vec<Event>, Vec<u8>), Broken> {
    let (mut events, mut out) = (Events::default(), Vec::new());
    let mut done = 0;
    for cut in cuts.iter().map(|cut| cut % bytes.len()).chain([bytes.len()]) {
        if cut > done {
            done += wire.read(&bytes[done..cut], &mut out, &mut events)?;
        }
    }
    assert_eq!(done, bytes.len(), "nothing may be left of whole messages");
    Ok((events.0, out))
}

fn said(wire: &mut dyn Wire, messages: &[Message<'_>]) -> Vec<u8> {
    let mut out = Vec::new();
    for message in messages {
        wire.publish(message, &mut out);
    }
    wire.seal(&mut out);
    out
}

const UPGRADE: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n";

fn server_frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x80 | opcode];
    if payload.len() < 126 {
        frame.push(payload.len() as u8);
    } else {
        frame.push(126);
        frame.extend_from_slice(&(payload.len() as u16).to_be_bytes());
    }
    frame.extend_from_slice(payload);
    frame
}

fn session(opcode: u8, frames: &[&[u8]]) -> Vec<u8> {
    let frames = frames.iter().flat_map(|payload| server_frame(opcode, payload));
    UPGRADE.iter().copied().chain(frames).collect()
}

/// Returns the payloads of a client's frames, unmasked.
fn unmasked(mut bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut payloads = Vec::new();
    while !bytes.is_empty() {
        let (head, length) = match bytes[1] & 0x7f {
            126 => (4, usize::from(u16::from_be_bytes([bytes[2], bytes[3]]))),
            short => (2, usize::from(short)),
        };
        let (key, rest) = bytes[head..].split_at(4);
        payloads.push(rest[..length].iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key).collect());
        bytes = &rest[length..];
    }
    payloads
}

#[test]
fn anode_publishes_objects_and_batches() {
    let mut wire = AnodeJson::new(common(Separator::Slash, Ack::Stored), Role::Publisher, "h", random());
    let out = said(
        &mut wire,
        &[
            Message { source: 1, payload: b"\"a\"", id: Some(7) },
            Message { source: 2, payload: b"[1,2]", id: None },
        ],
    );
    assert_eq!(
        unmasked(&out),
        [
            br#"{"id":7,"source":"lg/0/1","data":"a"}"#.to_vec(),
            br#"{"source":"lg/0/2","data":[1,2]}"#.to_vec()
        ]
    );
    let batches = Common { publish_batch: 2, ..common(Separator::Slash, Ack::None) };
    let mut wire = AnodeJson::new(batches, Role::Publisher, "h", random());
    let message = || Message { source: 1, payload: b"1", id: None };
    let out = said(&mut wire, &[message(), message(), message()]);
    let one = r#"{"source":"lg/0/1","data":1}"#;
    let wanted = [format!("[{one},{one}]").into_bytes(), format!("[{one}]").into_bytes()];
    assert_eq!(unmasked(&out), wanted);
}

#[test]
fn protobuf_has_the_schemas_fields() {
    let mut wire = AnodeProto::new(common(Separator::Slash, Ack::Accepted), Role::Publisher, "h", random());
    let out = said(&mut wire, &[Message { source: 1, payload: b"\"a\"", id: Some(300) }]);
    // ClientMessage.publish { id { number: sint64 300 }, source, data }
    let wanted = [&b"\x0a\x12\x0a\x03\x10\xd8\x04\x12\x06lg/0/1\x22\x03\"a\""[..]];
    assert_eq!(unmasked(&out), wanted);
    let batches = Common { publish_batch: 2, ..common(Separator::Slash, Ack::None) };
    let mut wire = AnodeProto::new(batches, Role::Publisher, "h", random());
    let message = || Message { source: 1, payload: b"1", id: None };
    let out = said(&mut wire, &[message(), message()]);
    let wanted = [&b"\x12\x1a\x0a\x0b\x12\x06lg/0/1\x22\x011\x0a\x0b\x12\x06lg/0/1\x22\x011"[..]];
    assert_eq!(unmasked(&out), wanted);
}

#[test]
fn peers_publish_as_their_protocols_say() {
    let message = || Message { source: 1, payload: b"abc", id: Some(0) };
    let mut nats = Nats::new(common(Separator::Dot, Ack::Accepted), Role::Publisher);
    let out = said(&mut nats, &[message(), Message { id: Some(1), ..message() }]);
    assert_eq!(out, b"PUB lg.0.1 3\r\nabc\r\nPUB lg.0.1 3\r\nabc\r\nPING\r\n");
    let mut redis = Redis::new(common(Separator::Slash, Ack::None), Role::Publisher);
    let out = said(&mut redis, &[message()]);
    assert_eq!(out, b"*3\r\n$7\r\nPUBLISH\r\n$6\r\nlg/0/1\r\n$3\r\nabc\r\n");
    let mut mqtt = Mqtt::new(common(Separator::Slash, Ack::Accepted), Role::Publisher, "me".to_owned());
    assert_eq!(said(&mut mqtt, &[message()]), b"\x32\x0d\x00\x06lg/0/1\x00\x01abc");
    let mut mqtt = Mqtt::new(common(Separator::Slash, Ack::None), Role::Publisher, "me".to_owned());
    assert_eq!(said(&mut mqtt, &[Message { id: None, ..message() }]), b"\x30\x0b\x00\x06lg/0/1abc");
}

#[test]
fn subscribers_ask_for_their_patterns() {
    let hello = |wire: &mut dyn Wire| {
        let mut out = Vec::new();
        wire.hello(&mut out);
        String::from_utf8_lossy(&out).into_owned()
    };
    let nats = hello(&mut Nats::new(common(Separator::Dot, Ack::None), subscriber()));
    assert!(nats.ends_with("SUB lg.> 1\r\nSUB lg.0.3 2\r\nPING\r\n"), "{nats}");
    let redis = hello(&mut Redis::new(common(Separator::Slash, Ack::None), subscriber()));
    assert_eq!(redis, "*2\r\n$10\r\nPSUBSCRIBE\r\n$4\r\nlg/*\r\n*2\r\n$9\r\nSUBSCRIBE\r\n$6\r\nlg/0/3\r\n");
    let mut mqtt = Mqtt::new(common(Separator::Slash, Ack::None), subscriber(), "me".to_owned());
    assert_eq!(hello(&mut mqtt), "\u{10}\u{e}\0\u{4}MQTT\u{4}\u{2}\0\0\0\u{2}me");
    let (events, out) = feed(&mut mqtt, b"\x20\x02\x00\x00\x90\x04\x00\x01\x00\x00", &[]).expect("fine");
    assert_eq!(events, [Event::Ready]);
    assert_eq!(out, b"\x82\x12\x00\x01\x00\x04lg/#\x00\x00\x06lg/0/3\x00");
}

#[test]
fn what_a_server_refuses_breaks_the_connection_and_says_why() {
    let broken = |wire: &mut dyn Wire, bytes: &[u8]| feed(wire, bytes, &[]).expect_err("broken").0;
    let slash = || common(Separator::Slash, Ack::None);
    let mut wire = AnodeJson::new(slash(), subscriber(), "h", random());
    assert_eq!(broken(&mut wire, &session(8, &[b"\x10\x6aslow"])), "closed 4202");
    let mut wire = Nats::new(common(Separator::Dot, Ack::None), subscriber());
    assert_eq!(broken(&mut wire, b"-ERR 'Slow Consumer'\r\n"), "-ERR 'Slow Consumer'");
    let mut wire = Redis::new(slash(), Role::Publisher);
    assert_eq!(broken(&mut wire, b"-ERR unknown command\r\n"), "-ERR unknown command");
    let mut wire = Mqtt::new(slash(), Role::Publisher, "me".to_owned());
    assert_eq!(broken(&mut wire, b"\x20\x02\x00\x05"), "connection refused, [0, 5]");
}

#[test]
fn a_ping_is_answered() {
    let mut wire = AnodeJson::new(common(Separator::Slash, Ack::None), Role::Publisher, "h", random());
    let (_, out) = feed(&mut wire, &session(9, &[b"well?"]), &[]).expect("fine");
    assert_eq!(out[0], 0x80 | websocket::PONG);
    assert_eq!(unmasked(&out), [b"well?"]);
}

fn delivered(bytes: &[u8]) -> Event {
    Event::Delivered(bytes.to_vec())
}

type Case = (Box<dyn Wire>, Vec<u8>, Vec<Event>);

fn anode_cases() -> Vec<Case> {
    let slash = || common(Separator::Slash, Ack::Accepted);
    let json = |role| AnodeJson::new(slash(), role, "h", random());
    let proto = |role| AnodeProto::new(slash(), role, "h", random());
    let long = format!(r#"{{"source":"lg/0/1","ts":1,"origin":"n","data":"{}"}}"#, "x".repeat(200));
    let subscribed = session(
        1,
        &[
            br#"{"connected":{"node":"n"}}"#,
            br#"{"id":0,"result":{"subscription":1}}"#,
            br#"{"eos":{"subscription":1,"resume":"t"}}"#,
            long.as_bytes(),
            br#"{"resume":"t"}"#,
            br#"[{"source":"a"},{"source":"b"}]"#,
        ],
    );
    let seen = vec![
        Event::Acked(0),
        Event::Ready,
        delivered(long.as_bytes()),
        delivered(br#"[{"source":"a"},{"source":"b"}]"#),
    ];
    let published = session(1, &[
        br#"{"connected":{"node":"n"}}"#,
        br#"{"id":7,"result":{"ts":1,"outcome":"applied","level":"accepted"}}"#,
        br#"[{"id":8,"index":0,"result":{"ts":1}},{"index":1,"error":{"code":"bad_source","message":"{\"x"}},{"id":10,"index":2,"error":{"code":"too_large"}}]"#,
        br#"{"error":{"code":"overloaded","temporary":true}}"#,
    ]);
    let answered = vec![
        Event::Ready,
        Event::Acked(7),
        Event::Acked(8),
        Event::Refused(None, "bad_source".to_owned()),
        Event::Refused(Some(10), "too_large".to_owned()),
        Event::Refused(None, "overloaded".to_owned()),
    ];
    let proto_subscribed = session(2, &[b"\x0a\x03\x0a\x01n", b"\x32\x02\x08\x01", b"\x22\x04\x0a\x02ab"]);
    let proto_seen = vec![Event::Ready, delivered(b"\x0a\x02ab")];
    let proto_published = session(
        2,
        &[
            b"\x0a\x03\x0a\x01n",
            b"\x12\x08\x0a\x02\x10\x0e\x1a\x02\x08\x05",
            b"\x1a\x10\x0a\x06\x0a\x02\x10\x10\x1a\x00\x0a\x06\x10\x01\x22\x02\x0a\x00",
        ],
    );
    let proto_answered =
        vec![Event::Ready, Event::Acked(7), Event::Acked(8), Event::Refused(None, String::new())];
    vec![
        (Box::new(json(subscriber())), subscribed, seen),
        (Box::new(json(Role::Publisher)), published, answered),
        (Box::new(proto(subscriber())), proto_subscribed, proto_seen),
        (Box::new(proto(Role::Publisher)), proto_published, proto_answered),
    ]
}

fn peer_cases() -> Vec<Case> {
    let slash = || common(Separator::Slash, Ack::Accepted);
    let nats = |role| Nats::new(common(Separator::Dot, Ack::Accepted), role);
    let info =
        b"INFO {\"server_id\":\"x\"}\r\nPONG\r\nMSG lg.0.1 1 3\r\n\r\na\r\nPING\r\nMSG lg.0.1 1 0\r\n\r\n";
    let seen = || vec![Event::Ready, delivered(b"\r\na"), delivered(b"")];
    // The stream is cut within its messages.
    let (one, other) = info.split_at(40);
    let tunneled = session(2, &[one, other]);
    let mut nats_publisher = nats(Role::Publisher);
    for id in 0..3 {
        said(&mut nats_publisher, &[Message { source: 1, payload: b"1", id: Some(id) }]);
    }
    let mut mqtt_publisher = Mqtt::new(slash(), Role::Publisher, "me".to_owned());
    for id in 0..2 {
        said(&mut mqtt_publisher, &[Message { source: 1, payload: b"1", id: Some(id) }]);
    }
    let acked = || vec![Event::Ready, Event::Acked(0), Event::Acked(1)];
    let redis_subscribed = b"*3\r\n$10\r\npsubscribe\r\n$4\r\nlg/*\r\n:1\r\n*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:2\r\n\
        *4\r\n$8\r\npmessage\r\n$4\r\nlg/*\r\n$1\r\na\r\n$3\r\n\r\nx\r\n*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$0\r\n\r\n";
    let mqtt_subscribed = b"\x20\x02\x00\x00\x90\x04\x00\x01\x00\x00\x30\x05\x00\x01a12\xd0\x00";
    vec![
        (Box::new(nats(subscriber())), info.to_vec(), seen()),
        (Box::new(Tunnel::new(nats(subscriber()), "h", "/", None, random())), tunneled, seen()),
        (Box::new(nats_publisher), b"PONG\r\nPONG\r\nPONG\r\n".to_vec(), acked()),
        (Box::new(mqtt_publisher), b"\x20\x02\x00\x00\x40\x02\x00\x01\x40\x02\x00\x02".to_vec(), acked()),
        (
            Box::new(Redis::new(slash(), subscriber())),
            redis_subscribed.to_vec(),
            vec![Event::Ready, delivered(b"\r\nx"), delivered(b"")],
        ),
        (Box::new(Redis::new(slash(), Role::Publisher)), b"+PONG\r\n:1\r\n:0\r\n".to_vec(), acked()),
        (
            Box::new(Mqtt::new(slash(), subscriber(), "me".to_owned())),
            mqtt_subscribed.to_vec(),
            vec![Event::Ready, delivered(b"\x00\x01a12")],
        ),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_server_is_understood_however_its_bytes_are_cut(mut cuts in prop::collection::vec(1usize..2_000, 0..30)) {
        for (mut wire, bytes, wanted) in anode_cases().into_iter().chain(peer_cases()) {
            let cuts = { cuts.iter_mut().for_each(|cut| *cut %= bytes.len()); cuts.sort_unstable(); &cuts };
            let (events, _) = feed(&mut *wire, &bytes, cuts).expect("fine");
            prop_assert_eq!(events, wanted);
        }
    }

    #[test]
    fn nothing_that_comes_makes_a_wire_panic(bytes in prop::collection::vec(any::<u8>(), 1..200), start: u8) {
        for (mut wire, good, _) in anode_cases().into_iter().chain(peer_cases()) {
            let mut all = good[..usize::from(start) % good.len()].to_vec();
            all.extend_from_slice(&bytes);
            let (mut events, mut out) = (Events::default(), Vec::new());
            let _ = wire.read(&all, &mut out, &mut events);
        }
    }
}
