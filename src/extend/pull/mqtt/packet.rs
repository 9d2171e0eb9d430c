//! The packets of MQTT 3.1.1 that a subscriber sends and receives.

/// Longest text or id that a packet can have, in bytes.
const TEXT_BYTES_MAX: usize = 65_535;

/// A packet from a broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum BrokerPacket<'a> {
    /// The answer to the connect; 0 is a success.
    ConnectAnswer(u8),
    /// The answer to a subscribe: a quality of service for each filter, or 128 for a refusal.
    SubscribeAnswer(&'a [u8]),
    /// A message of a topic.
    Message {
        /// The topic that it is published under.
        topic: &'a str,
        /// The message was kept by the broker, and is not new.
        is_retained: bool,
        /// The id that is to be acknowledged; `None` for quality of service 0.
        id: Option<u16>,
        /// The message itself.
        payload: &'a [u8],
    },
    /// The answer to a ping.
    PingAnswer,
    /// A packet that a subscriber has no use for.
    Other,
}

/// What stands at the beginning of bytes from a broker.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum PacketRead<'a> {
    /// A packet, and the number of bytes that it takes.
    Whole(BrokerPacket<'a>, usize),
    /// More bytes are needed.
    Partial,
    /// A packet that is too large, with the number of bytes that it takes, and its id if it is a message that is to be
    /// acknowledged. A broker stops sending while too many are not.
    TooLarge(u64, Option<u16>),
    /// The bytes are not MQTT.
    Broken(&'static str),
}

/// What is said when a client connects.
pub(super) struct Connect<'a> {
    pub client_id: &'a str,
    pub username: Option<&'a str>,
    pub password: Option<&'a str>,
    pub keep_alive_s: u16,
}

impl Connect<'_> {
    /// The bytes of the packet. The session is a clean one: what comes while nobody is connected is not kept.
    pub fn write(&self) -> Vec<u8> {
        let mut body = Vec::new();
        put_text(&mut body, b"MQTT");
        let flags = 0x02 | u8::from(self.username.is_some()) << 7 | u8::from(self.password.is_some()) << 6;
        body.extend_from_slice(&[4, flags]);
        body.extend_from_slice(&self.keep_alive_s.to_be_bytes());
        for text in [Some(self.client_id), self.username, self.password].into_iter().flatten() {
            put_text(&mut body, text.as_bytes());
        }
        packet(0x10, &body)
    }
}

/// A subscribe with these filters, which is answered under the id 1.
pub(super) fn subscribe(filters: &[String], qos: u8) -> Vec<u8> {
    let mut body = vec![0, 1];
    for filter in filters {
        put_text(&mut body, filter.as_bytes());
        body.push(qos);
    }
    packet(0x82, &body)
}

/// The acknowledgement of a message.
pub(super) fn acknowledge(id: u16) -> [u8; 4] {
    let [high, low] = id.to_be_bytes();
    [0x40, 2, high, low]
}

/// The question whether the broker is there.
pub(super) const PING: [u8; 2] = [0xc0, 0];
/// The end of a connection in good order.
pub(super) const DISCONNECT: [u8; 2] = [0xe0, 0];

fn packet(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![kind];
    let mut length = body.len();
    loop {
        let digit = (length % 128) as u8;
        length /= 128;
        bytes.push(if length > 0 { digit | 0x80 } else { digit });
        if length == 0 {
            break;
        }
    }
    bytes.extend_from_slice(body);
    bytes
}

fn put_text(body: &mut Vec<u8>, text: &[u8]) {
    let text = &text[..text.len().min(TEXT_BYTES_MAX)];
    body.extend_from_slice(&(text.len() as u16).to_be_bytes());
    body.extend_from_slice(text);
}

/// Reads the first packet of these bytes. One with more than `bytes_max` after its length is not read.
pub(super) fn read(bytes: &[u8], bytes_max: usize) -> PacketRead<'_> {
    let Some((&first, rest)) = bytes.split_first() else { return PacketRead::Partial };
    let mut length = 0u64;
    for (at, &digit) in rest.iter().take(4).enumerate() {
        length |= u64::from(digit & 0x7f) << (7 * at);
        if digit & 0x80 == 0 {
            let head = 2 + at;
            if length > bytes_max as u64 {
                return match first_bytes(first, &bytes[head..]) {
                    None => PacketRead::Partial,
                    Some(id) => PacketRead::TooLarge(head as u64 + length, id),
                };
            }
            let end = head + length as usize;
            return match bytes.get(head..end) {
                None => PacketRead::Partial,
                Some(body) => match body_of(first, body) {
                    Ok(packet) => PacketRead::Whole(packet, end),
                    Err(why) => PacketRead::Broken(why),
                },
            };
        }
    }
    match rest.len() < 4 {
        true => PacketRead::Partial,
        false => PacketRead::Broken("a length of more than four bytes"),
    }
}

/// Returns the id of a message of which only the beginning has come, if it has one; `None` if the id has not come.
fn first_bytes(first: u8, body: &[u8]) -> Option<Option<u16>> {
    if first >> 4 != 3 || first >> 1 & 3 == 0 {
        return Some(None);
    }
    let (length, rest) = body.split_first_chunk::<2>()?;
    let id = rest.get(usize::from(u16::from_be_bytes(*length))..)?.first_chunk::<2>()?;
    Some(Some(u16::from_be_bytes(*id)))
}

fn body_of(first: u8, body: &[u8]) -> Result<BrokerPacket<'_>, &'static str> {
    match (first >> 4, body) {
        (2, [_, code, ..]) => Ok(BrokerPacket::ConnectAnswer(*code)),
        (9, [_, _, codes @ ..]) => Ok(BrokerPacket::SubscribeAnswer(codes)),
        (2 | 9, _) => Err("an answer that is too short"),
        (13, _) => Ok(BrokerPacket::PingAnswer),
        (3, _) => {
            let short = "a message that is shorter than its topic";
            let (length, rest) = body.split_first_chunk::<2>().ok_or(short)?;
            let (topic, rest) =
                rest.split_at_checked(usize::from(u16::from_be_bytes(*length))).ok_or(short)?;
            let topic = std::str::from_utf8(topic).map_err(|_| "a topic that is no UTF-8")?;
            let (id, payload) = match first >> 1 & 3 {
                0 => (None, rest),
                1 => {
                    let (id, payload) = rest.split_first_chunk::<2>().ok_or(short)?;
                    (Some(u16::from_be_bytes(*id)), payload)
                }
                _ => return Err("a message of a quality of service that was not asked for"),
            };
            Ok(BrokerPacket::Message { topic, is_retained: first & 1 == 1, id, payload })
        }
        (1 | 8 | 10 | 12 | 14 | 0, _) => Err("a packet that only clients send"),
        _ => Ok(BrokerPacket::Other),
    }
}

/// Has any bytes read as packets of a broker, and asserts what must hold whatever they are.
#[cfg(any(test, fuzzing))]
pub(in crate::extend::pull) fn check(bytes: &[u8]) {
    let mut rest = bytes;
    loop {
        match read(rest, 1_024) {
            PacketRead::Whole(packet, length) => {
                assert!((2..=5 + 1_024).contains(&length) && length <= rest.len());
                if let BrokerPacket::Message { topic, payload, .. } = packet {
                    assert!(topic.len() + payload.len() < length);
                }
                rest = &rest[length..];
            }
            PacketRead::TooLarge(length, _) => return assert!(length > 1_024),
            PacketRead::Partial | PacketRead::Broken(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn packets_of_clients_are_written_as_the_standard_says() {
        let connect = Connect { client_id: "c", username: Some("u"), password: Some("p"), keep_alive_s: 30 };
        let expected = b"\x10\x13\0\x04MQTT\x04\xc2\0\x1e\0\x01c\0\x01u\0\x01p";
        assert_eq!(connect.write(), expected);
        assert_eq!(subscribe(&["a/#".into()], 1), b"\x82\x08\0\x01\0\x03a/#\x01");
        assert_eq!(acknowledge(0x1234), [0x40, 2, 0x12, 0x34]);
        assert_eq!(packet(0x82, &[0; 200])[..3], [0x82, 0xc8, 0x01]);
    }

    #[test]
    fn packets_of_brokers_are_read() {
        let whole = |bytes: &'static [u8]| match read(bytes, 100) {
            PacketRead::Whole(packet, length) => (packet, length),
            other => panic!("{other:?}"),
        };
        assert_eq!(whole(b"\x20\x02\0\x05"), (BrokerPacket::ConnectAnswer(5), 4));
        assert_eq!(whole(b"\x90\x04\0\x01\x01\x80"), (BrokerPacket::SubscribeAnswer(&[1, 128]), 6));
        assert_eq!(whole(b"\xd0\0more"), (BrokerPacket::PingAnswer, 2));
        let message =
            |is_retained, id, payload| BrokerPacket::Message { topic: "a/b", is_retained, id, payload };
        assert_eq!(whole(b"\x31\x07\0\x03a/b21"), (message(true, None, b"21".as_slice()), 9));
        assert_eq!(whole(b"\x32\x08\0\x03a/b\0\x07x"), (message(false, Some(7), b"x".as_slice()), 10));
        assert_eq!(whole(b"\x32\x07\0\x03a/b\0\x07").0, message(false, Some(7), b"".as_slice()));
        assert_eq!(whole(b"\x50\x02\0\x01").0, BrokerPacket::Other);
        for partial in [b"".as_slice(), b"\x30", b"\x30\x80", b"\x30\x05\0\x03a/b"[..6].as_ref()] {
            assert_eq!(read(partial, 100), PacketRead::Partial);
        }
        assert_eq!(read(b"\x30\xff\x7f", 100), PacketRead::TooLarge(16_386, None));
        assert_eq!(read(b"\x32\xff\x7f\0\x01a\0", 100), PacketRead::Partial);
        assert_eq!(read(b"\x32\xff\x7f\0\x01a\0\x09", 100), PacketRead::TooLarge(16_386, Some(9)));
        for broken in [
            b"\x30\xff\xff\xff\xff\x01".as_slice(),
            b"\x30\x01\0",
            b"\x30\x02\0\x09",
            b"\x34\x04\0\0\0\x01",
            b"\x32\x02\0\0",
            b"\x20\x01\0",
            b"\x30\x03\0\x01\xff",
            b"\x82\0",
        ] {
            assert!(matches!(read(broken, 100), PacketRead::Broken(_)), "{broken:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            check(&bytes);
        }
    }
}
