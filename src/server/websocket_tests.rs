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

fn read_all(websocket: &mut WebSocket, mut input: &[u8], out: &mut Outbound) -> (Vec<String>, Incoming) {
    let mut texts = Vec::new();
    loop {
        match websocket.read(&mut input, out) {
            Incoming::Text(text) => texts.push(text.to_string()),
            Incoming::Binary(data) => texts.push(format!("{data:?}")),
            end => return (texts, end),
        }
    }
}

fn broken_code(input: &[u8]) -> Option<u16> {
    let (mut websocket, mut out) = (WebSocket::new(1000), Outbound::default());
    match read_all(&mut websocket, input, &mut out).1 {
        Incoming::Broken(close) => Some(close.code),
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
    assert!(matches!(end, Incoming::Starved));
    assert_eq!(out.tail().as_slice(), b"\x8a\x02hi");
}

#[test]
fn a_close_is_echoed_and_ends_the_connection() {
    let (mut websocket, mut out) = (WebSocket::new(1000), Outbound::default());
    let (_, end) = read_all(&mut websocket, &masked(0x88, b"\x03\xe8bye"), &mut out);
    assert!(matches!(end, Incoming::Closed));
    assert_eq!(out.tail().as_slice(), b"\x88\x05\x03\xe8bye");
}

#[test]
fn our_close_waits_for_the_peers() {
    let (mut websocket, mut out) = (WebSocket::new(1000), Outbound::default());
    websocket.close(&CloseReason::new(4200, "draining"), &mut out);
    assert_eq!(out.tail().as_slice(), b"\x88\x0a\x10\x68draining");
    let (texts, end) = read_all(&mut websocket, &text("late"), &mut out);
    assert_eq!((texts.len(), matches!(end, Incoming::Starved)), (1, true));
    let (_, end) = read_all(&mut websocket, &masked(0x88, b"\x10\x68"), &mut out);
    assert!(matches!(end, Incoming::Closed));
}

#[test]
fn memory_of_a_large_frame_is_given_back() {
    let (mut websocket, mut out) = (WebSocket::new(1 << 20), Outbound::default());
    let large = [text(&"x".repeat(500_000)), text("a")].concat();
    for piece in large.chunks(60_000) {
        read_all(&mut websocket, piece, &mut out);
    }
    assert_eq!((websocket.largest, websocket.unaccounted), (0, 0));
    let (texts, _) = read_all(&mut websocket, &text("b"), &mut out);
    assert_eq!(texts, ["b"]);
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
        prop_assert_eq!(websocket.unaccounted, 0);
    }

    #[test]
    fn no_input_panics(input in prop::collection::vec(any::<u8>(), 0..200)) {
        read_all(&mut WebSocket::new(1000), &input, &mut Outbound::default());
    }
}
