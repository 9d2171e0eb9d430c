use proptest::prelude::*;

use super::*;

fn masked(first_byte: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first_byte];
    match payload.len() {
        short @ 0..126 => frame.push(0x80 | short as u8),
        long @ 126..65536 => frame.extend([0x80 | 126, (long >> 8) as u8, long as u8]),
        huge => {
            frame.push(0x80 | 127);
            frame.extend((huge as u64).to_be_bytes());
        }
    }
    let mask = [1, 2, 3, 4];
    frame.extend(mask);
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

fn text(payload: &str) -> Vec<u8> {
    masked(0x81, payload.as_bytes())
}

/// The reason for which reading ended.
#[derive(Debug, PartialEq)]
enum End {
    Starved,
    Ended,
    Broken(u16, String),
}

fn read_all(websocket: &mut WebSocket, input: &[u8], out: &mut Outbound) -> (Vec<String>, End) {
    let (mut texts, mut input) = (Vec::new(), input.to_vec());
    let mut input = input.as_mut_slice();
    loop {
        match websocket.read(&mut input, out) {
            Unwrapped::Message(IncomingMessage::Text(text)) => texts.push(text.to_string()),
            Unwrapped::Message(IncomingMessage::Binary(data)) => texts.push(format!("{data:?}")),
            Unwrapped::Starved => return (texts, End::Starved),
            Unwrapped::Ended => return (texts, End::Ended),
            Unwrapped::Broken(close) => return (texts, End::Broken(close.code.number(), close.reason)),
        }
    }
}

/// Reads the input with tungstenite alone, for comparison.
fn read_by_tungstenite(
    context: &mut WebSocketContext,
    input: &[u8],
    out: &mut Outbound,
) -> (Vec<String>, End) {
    let (mut texts, mut pipe) = (Vec::new(), Pipe { input, out });
    loop {
        match context.read(&mut pipe) {
            Ok(Lent::Text(text)) => texts.push(text.to_string()),
            Ok(Lent::Binary(data)) => texts.push(format!("{:?}", &data[..])),
            Ok(_) => {}
            Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                return (texts, End::Starved);
            }
            Err(error) => match end(error) {
                Unwrapped::Broken(close) => return (texts, End::Broken(close.code.number(), close.reason)),
                _ => return (texts, End::Ended),
            },
        }
    }
}

fn broken_code(input: &[u8]) -> Option<u16> {
    let (mut websocket, mut out) = (WebSocket::new(1000), Outbound::default());
    match read_all(&mut websocket, input, &mut out).1 {
        End::Broken(code, _) => Some(code),
        _ => None,
    }
}

#[test]
fn each_breach_has_its_code() {
    assert_eq!(broken_code(&text(&"x".repeat(1000))), None);
    assert_eq!(broken_code(&text(&"x".repeat(1001))), Some(1009));
    assert_eq!(broken_code(&masked(0x81, &[0xff, 0xfe])), Some(1007));
    assert_eq!(broken_code(b"\x81\x01x"), Some(1002), "not masked");
    assert_eq!(broken_code(&masked(0xf1, b"x")), Some(1002), "reserved bits");
    let halves = [masked(0x01, &[b'x'; 600]), masked(0x80, &[b'x'; 600])].concat();
    assert_eq!(broken_code(&halves), Some(1009), "fragments count together");
}

/// A 64-bit length with its top bit set panics the frame parser: nats-server 2.2 to 2.11.
#[test]
fn a_length_with_its_top_bit_set_is_over_the_limit() {
    for top in [0x80, 0xff, 0x7f] {
        assert_eq!(
            broken_code(&[0x81, 0xff, top, 255, 255, 255, 255, 255, 255, 255, 1, 2, 3, 4]),
            Some(1009)
        );
    }
}

#[test]
fn pings_are_answered_between_frames() {
    let (mut websocket, mut out) = (WebSocket::new(1000), Outbound::default());
    let input = [masked(0x89, b"hi"), text("a")].concat();
    let (texts, end) = read_all(&mut websocket, &input, &mut out);
    assert_eq!(texts, ["a"]);
    assert_eq!(end, End::Starved);
    assert_eq!(out.tail().as_slice(), b"\x8a\x02hi");
}

#[test]
fn a_close_is_echoed_and_ends_the_connection() {
    let (mut websocket, mut out) = (WebSocket::new(1000), Outbound::default());
    let (_, end) = read_all(&mut websocket, &masked(0x88, b"\x03\xe8bye"), &mut out);
    assert_eq!(end, End::Ended);
    assert_eq!(out.tail().as_slice(), b"\x88\x05\x03\xe8bye");
}

#[test]
fn our_close_waits_for_the_peers() {
    let (mut websocket, mut out) = (WebSocket::new(1000), Outbound::default());
    websocket.close(&CloseReason::new(CloseCode::Draining, "draining"), &mut out);
    assert_eq!(out.tail().as_slice(), b"\x88\x0a\x10\x68draining");
    let (texts, end) = read_all(&mut websocket, &text("late"), &mut out);
    assert_eq!((texts.len(), end), (1, End::Starved));
    let (_, end) = read_all(&mut websocket, &masked(0x88, b"\x10\x68"), &mut out);
    assert_eq!(end, End::Ended);
}

/// RFC 6455 (8.1) and the cases 6.4 of Autobahn: what cannot become text any more is refused when that is
/// seen, in a later fragment, in a fragment that has not come whole, and in a frame that has not.
#[test]
fn text_that_is_no_utf8_is_refused_when_it_is_seen() {
    let good = "κόσμε".as_bytes();
    let bad = [good, b"\xf4\x90"].concat();
    let whole = masked(0x81, &[&bad[..], b"\x80\x80edited"].concat());
    let first = masked(0x01, good);
    for (name, pieces) in [
        ("in the second fragment", vec![first.clone(), masked(0x00, b"\xf4\x90")]),
        ("in a character that two fragments share", vec![masked(0x01, b"\xf4"), masked(0x00, b"\x90")]),
        ("behind a ping", vec![first.clone(), masked(0x89, b"\xff"), masked(0x80, b"\xff")]),
        ("in a fragment that goes on", vec![first, masked(0x00, b"\x90..")[..7].to_vec()]),
        ("in the first fragment that goes on", vec![masked(0x01, b"a\xff..")[..8].to_vec()]),
        (
            "in a frame that goes on",
            vec![whole[..6 + good.len()].to_vec(), whole[6 + good.len()..][..2].to_vec()],
        ),
    ] {
        let (mut websocket, mut out) = (WebSocket::new(1000), Outbound::default());
        let (last, before) = pieces.split_last().expect("pieces");
        for piece in before {
            assert_eq!(read_all(&mut websocket, piece, &mut out).1, End::Starved, "{name}");
        }
        let (texts, end) = read_all(&mut websocket, last, &mut out);
        assert_eq!((texts.len(), end), (0, End::Broken(1007, NOT_UTF8.into())), "{name}");
    }
    // Bytes are not text, and are not checked.
    let bytes = [masked(0x02, &bad), masked(0x00, b"\xff"), masked(0x80, b"")].concat();
    let (mut websocket, mut out) = (WebSocket::new(1000), Outbound::default());
    let texts: usize = bytes.chunks(3).map(|piece| read_all(&mut websocket, piece, &mut out).0.len()).sum();
    assert_eq!(texts, 1);
}

#[test]
fn memory_of_a_large_frame_is_given_back() {
    let (mut websocket, mut out) = (WebSocket::new(1 << 20), Outbound::default());
    let whole = text(&"x".repeat(500_000));
    let halves = [masked(0x01, &[b'x'; 250_000]), masked(0x80, &[b'x'; 250_000])].concat();
    for large in [whole, halves] {
        for piece in [large, text("a")].concat().chunks(60_000) {
            read_all(&mut websocket, piece, &mut out);
        }
        assert_eq!((websocket.largest, websocket.held_bytes()), (0, 0));
    }
    let (texts, _) = read_all(&mut websocket, &text("b"), &mut out);
    assert_eq!(texts, ["b"]);
}

/// Each of 200 clients that sent a frame of 1 MiB but for its last byte made the node hold up to twice that.
#[test]
fn half_a_frame_holds_no_more_than_the_frame() {
    let (mut websocket, mut out) = (WebSocket::new(1 << 20), Outbound::default());
    let frame = text(&"x".repeat(1 << 20));
    for piece in frame[..frame.len() - 1].chunks(60_000) {
        let before = websocket.partial.len();
        read_all(&mut websocket, piece, &mut out);
        let (held, kept) = (websocket.held_bytes(), websocket.partial.len());
        assert_eq!(kept, before + piece.len());
        assert!(held >= kept && held <= frame.len().min(2 * kept), "{held} for {kept}");
    }
    let (texts, _) = read_all(&mut websocket, &frame[frame.len() - 1..], &mut out);
    assert_eq!((texts[0].len(), websocket.held_bytes()), (1 << 20, 0));
}

#[test]
fn fragments_are_counted_until_their_message_is_whole() {
    let (mut websocket, mut out) = (WebSocket::new(1 << 20), Outbound::default());
    let mut sent = masked(0x01, &[b'x'; 10_000]);
    read_all(&mut websocket, &sent, &mut out);
    for _ in 0..9 {
        let piece = masked(0x00, &[b'x'; 10_000]);
        sent.extend_from_slice(&piece);
        read_all(&mut websocket, &piece, &mut out);
        assert!(websocket.held_bytes() >= 2 * sent.len(), "{} for {}", websocket.held_bytes(), sent.len());
        let before = websocket.held_bytes();
        read_all(&mut websocket, &masked(0x89, b"ping"), &mut out);
        assert_eq!(websocket.held_bytes(), before, "pings are no part of the message");
    }
    let part = masked(0x80, &[b'x'; 10_000]);
    read_all(&mut websocket, &part[..5_000], &mut out);
    assert!(websocket.held_bytes() >= 2 * (sent.len() + 5_000));
    let (texts, _) = read_all(&mut websocket, &part[5_000..], &mut out);
    assert_eq!((texts[0].len(), websocket.held_bytes()), (110_000, 0));
    for _ in 0..1_000 {
        read_all(&mut websocket, &masked(0x89, b"ping"), &mut out);
    }
    assert!(websocket.held_bytes() < 200, "{}", websocket.held_bytes());
}

/// A frame as a client might send it: mostly proper ones, of every kind.
fn any_frame() -> impl Strategy<Value = Vec<u8>> {
    let payload = prop_oneof![
        4 => "[a-zé]{0,20}".prop_map(String::into_bytes),
        1 => "[a-zé]{60,130}".prop_map(String::into_bytes),
        1 => prop::collection::vec(any::<u8>(), 0..8),
        1 => prop::collection::vec(Just(b'x'), 100..260),
    ];
    let first = prop_oneof![
        8 => Just(0x81u8),
        3 => Just(0x82),
        2 => prop::sample::select(vec![0x01u8, 0x02, 0x00, 0x80, 0x89, 0x8a]),
        1 => prop::sample::select(vec![0x88u8, 0x09, 0x83, 0x8b, 0xc1, 0x91]),
    ];
    let spoil = prop::option::weighted(0.05, (0usize..10, any::<u8>()));
    (first, payload, spoil).prop_map(|(first, payload, spoil)| {
        let mut frame = masked(first, &payload);
        if let Some((at, byte)) = spoil
            && let Some(spoilt) = frame.get_mut(at)
        {
            *spoilt = byte;
        }
        frame
    })
}

proptest! {
    #[test]
    fn messages_arrive_whole_however_the_input_is_cut(
        payloads in prop::collection::vec("[a-zé]{0,3000}", 1..6),
        cut in 1usize..5000,
    ) {
        let input: Vec<u8> = payloads.iter().flat_map(|payload| text(payload)).collect();
        let (mut websocket, mut out) = (WebSocket::new(1 << 20), Outbound::default());
        let mut texts = Vec::new();
        for piece in input.chunks(cut) {
            texts.extend(read_all(&mut websocket, piece, &mut out).0);
        }
        prop_assert_eq!(texts, payloads);
        prop_assert_eq!(websocket.partial.capacity(), 0);
    }

    /// Whatever comes, and however it is cut, gives the same messages, answers and end as tungstenite alone.
    /// Only text that is no UTF-8 is refused earlier: tungstenite gives no message for it either.
    #[test]
    fn agrees_with_tungstenite(
        frames in prop::collection::vec(any_frame(), 1..12),
        cut in prop::collection::vec(1usize..60, 1..8),
        closes_after in prop::option::of(0usize..12),
    ) {
        let (mut ours, mut theirs) = (WebSocket::new(200), context(200));
        let (mut our_out, mut their_out) = (Outbound::default(), Outbound::default());
        let input = frames.concat();
        let (mut rest, mut cuts) = (input.as_slice(), cut.iter().cycle().enumerate());
        while let (false, Some((step, cut))) = (rest.is_empty(), cuts.next()) {
            if closes_after == Some(step) {
                ours.close(&CloseReason::new(CloseCode::Draining, "draining"), &mut our_out);
                let frame = CloseFrame { code: WireCode::from(4200), reason: "draining".into() };
                let _ = theirs.close(&mut Pipe { input: &[], out: &mut their_out }, Some(frame));
            }
            let (piece, left) = rest.split_at((*cut).min(rest.len()));
            rest = left;
            let (our_texts, our_end) = read_all(&mut ours, piece, &mut our_out);
            let (their_texts, their_end) = read_by_tungstenite(&mut theirs, piece, &mut their_out);
            prop_assert_eq!(our_texts, their_texts);
            if their_end == End::Starved && our_end == End::Broken(1007, NOT_UTF8.into()) {
                let (later_texts, later_end) = read_by_tungstenite(&mut theirs, rest, &mut their_out);
                prop_assert!(later_texts.is_empty(), "{later_texts:?} {later_end:?}");
                break;
            }
            prop_assert_eq!(our_out.tail(), their_out.tail());
            prop_assert_eq!(&our_end, &their_end);
            if our_end != End::Starved {
                break;
            }
        }
    }

    #[test]
    fn no_input_panics(input in prop::collection::vec(any::<u8>(), 0..200)) {
        read_all(&mut WebSocket::new(1000), &input, &mut Outbound::default());
    }
}
