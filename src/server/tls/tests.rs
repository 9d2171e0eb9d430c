//! A layer against a client of rustls, over a wire in memory that takes and gives a few bytes at a time.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::sync::Arc;

use proptest::prelude::*;
use rustls::pki_types::PrivateKeyDer;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig};

use super::layer::{TlsFault, TlsLayer};
use crate::metrics::Metrics;

/// The server's end of a wire: bytes that come from the client, and those that go to it.
#[derive(Default)]
struct Wire {
    incoming: VecDeque<u8>,
    outgoing: Vec<u8>,
    /// Number of bytes that the wire takes until it would block.
    room: usize,
    is_closed: bool,
}

impl Read for Wire {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.incoming.read(buffer)? {
            0 if !self.is_closed => Err(io::ErrorKind::WouldBlock.into()),
            count => Ok(count),
        }
    }
}

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = bytes.len().min(self.room);
        if count == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.room -= count;
        self.outgoing.extend_from_slice(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A client and the layer that it speaks with.
struct Ends {
    client: ClientConnection,
    layer: TlsLayer,
    wire: Wire,
    /// The plain bytes that have come to the client.
    got: Vec<u8>,
    metrics: Arc<Metrics>,
}

impl Ends {
    fn new(is_old: bool) -> Ends {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".into()]).expect("certificate");
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).expect("key");
        let versions = if is_old { [&TLS12] } else { [&TLS13] };
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let server = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&versions)
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .expect("pair");
        let mut roots = RootCertStore::empty();
        roots.add(made.cert.der().clone()).expect("root");
        let client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&versions)
            .expect("versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = "localhost".try_into().expect("name");
        let client = ClientConnection::new(Arc::new(client), name).expect("client");
        let metrics = Arc::new(Metrics::default());
        let layer = TlsLayer::new(Arc::new(server), metrics.clone());
        Ends { client, layer, wire: Wire::default(), got: Vec::new(), metrics }
    }

    /// Moves what each side has to say to the other. The wire takes `room` bytes of the layer.
    fn turn(&mut self, room: usize) {
        self.wire.room = room;
        while self.client.wants_write() {
            self.client.write_tls(&mut self.wire.incoming).expect("written");
        }
        let flushed = self.layer.flush(&mut self.wire);
        assert!(flushed.is_ok() || flushed.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock));
        let sent = std::mem::take(&mut self.wire.outgoing);
        let mut rest = sent.as_slice();
        while !rest.is_empty() {
            self.client.read_tls(&mut rest).expect("read");
            self.client.process_new_packets().expect("TLS");
            let mut part = vec![0; 40_000];
            if let Ok(read) = self.client.reader().read(&mut part) {
                self.got.extend_from_slice(&part[..read]);
            }
        }
    }

    fn shake(&mut self, room: usize) {
        for _ in 0..10_000 {
            self.turn(room);
            let read = self.layer.read(&mut self.wire, &mut [0; 100]);
            assert_eq!(read.expect_err("nothing was sent").kind(), io::ErrorKind::WouldBlock);
            if !self.client.is_handshaking() && !self.layer.is_handshaking() {
                return;
            }
        }
        panic!("no end of the handshake");
    }
}

fn bytes(count: usize) -> Vec<u8> {
    (0..count).map(|at| (at % 251) as u8).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever the wire takes at a time, everything arrives once, and no more than a chunk is encrypted ahead.
    #[test]
    fn what_is_written_arrives(
        is_old: bool,
        count in 0_usize..300_000,
        rooms in prop::collection::vec(1_usize..40_000, 1..20),
    ) {
        let mut ends = Ends::new(is_old);
        ends.shake(rooms[0]);
        let whole = bytes(count);
        let mut at = 0;
        for room in rooms.iter().cycle() {
            ends.wire.room = *room;
            while at < whole.len() {
                match ends.layer.write(&mut ends.wire, &whole[at..]) {
                    Ok(taken) => at += taken,
                    Err(error) => {
                        prop_assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
                        break;
                    }
                }
                prop_assert!(ends.layer.unsent_bytes() <= 64 * 1024 + 1024);
            }
            ends.turn(*room);
            if ends.got.len() == whole.len() {
                break;
            }
        }
        prop_assert!(ends.got == whole);
        ends.turn(usize::MAX);
        prop_assert_eq!(ends.layer.unsent_bytes(), 0);
    }

    /// However the bytes of the client are cut, and however small the buffers are, all of them are read, and the
    /// end behind them.
    #[test]
    fn what_is_sent_is_read(
        is_old: bool,
        count in 1_usize..120_000,
        cuts in prop::collection::vec(1_usize..30_000, 1..20),
        buffers in prop::collection::vec(1_usize..20_000, 1..20),
    ) {
        let mut ends = Ends::new(is_old);
        ends.shake(usize::MAX);
        let whole = bytes(count);
        let (mut written, mut stream) = (0, Vec::new());
        while written < whole.len() {
            written += ends.client.writer().write(&whole[written..]).expect("written");
            while ends.client.wants_write() {
                ends.client.write_tls(&mut stream).expect("encrypted");
            }
        }
        ends.client.send_close_notify();
        ends.client.write_tls(&mut stream).expect("end");
        let (mut at, mut got, mut has_ended) = (0, Vec::new(), false);
        let mut buffers = buffers.iter().cycle();
        for cut in cuts.iter().cycle() {
            let end = (at + cut).min(stream.len());
            ends.wire.incoming.extend(&stream[at..end]);
            at = end;
            while !has_ended {
                let mut buffer = vec![0; buffers.next().copied().unwrap_or(1)];
                match ends.layer.read(&mut ends.wire, &mut buffer) {
                    Ok(0) => has_ended = true,
                    Ok(read) => got.extend_from_slice(&buffer[..read]),
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => {
                        prop_assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
                        break;
                    }
                }
                prop_assert!(ends.layer.received_bytes() <= 40 * 1024);
            }
            if at == stream.len() {
                break;
            }
        }
        prop_assert!(got == whole && has_ended);
        prop_assert!(ends.layer.may_hold_more(), "the end is reported as often as it is asked for");
    }
}

#[test]
fn an_end_without_notice_is_an_error() {
    let mut ends = Ends::new(false);
    ends.shake(usize::MAX);
    ends.wire.is_closed = true;
    let read = ends.layer.read(&mut ends.wire, &mut [0; 10]);
    assert_eq!(read.expect_err("cut").kind(), io::ErrorKind::UnexpectedEof);
    let mut fresh = Ends::new(false);
    fresh.wire.is_closed = true;
    assert_eq!(fresh.layer.read(&mut fresh.wire, &mut [0; 10]).expect("end"), 0);
}

/// After a failure nothing that was to be encrypted leaves in plain text.
#[test]
fn a_layer_that_has_failed_sends_its_alert_and_nothing_else() {
    let mut ends = Ends::new(false);
    ends.shake(usize::MAX);
    ends.wire.room = 0;
    ends.wire.incoming.extend([23, 3, 3, 0, 20]);
    ends.wire.incoming.extend([7; 20]);
    let failed = ends.layer.read(&mut ends.wire, &mut [0; 10]);
    assert_eq!(failed.expect_err("damaged").kind(), io::ErrorKind::InvalidData);
    assert_eq!(ends.layer.fault(), Some(TlsFault::Broken));
    ends.wire.room = usize::MAX;
    assert_eq!(ends.layer.write(&mut ends.wire, b"a secret").expect("dropped"), 8);
    ends.layer.end(&mut ends.wire).expect("ended");
    assert!(!ends.wire.outgoing.windows(6).any(|six| six == b"secret"));
    assert!(!ends.wire.outgoing.is_empty(), "the alert");
    // What still comes is dropped, up to the end.
    ends.wire.incoming.extend([9; 100]);
    ends.wire.is_closed = true;
    assert_eq!(ends.layer.read(&mut ends.wire, &mut [0; 200]).expect("end"), 0);
}

#[test]
fn nothing_is_written_before_the_handshake_is_done() {
    let mut ends = Ends::new(false);
    ends.wire.room = usize::MAX;
    assert_eq!(
        ends.layer.write(&mut ends.wire, b"x").expect_err("too early").kind(),
        io::ErrorKind::NotConnected
    );
    assert!(ends.wire.outgoing.is_empty());
    let mut plain = Ends::new(false);
    plain.wire.incoming.extend(b"GET / HTTP/1.1\r\n");
    assert!(plain.layer.read(&mut plain.wire, &mut [0; 10]).is_err());
    assert_eq!(plain.layer.fault(), Some(TlsFault::PlainText));
    assert_eq!(plain.metrics.tls.failed.get(), 1);
}

/// A read takes a bounded number of bytes off the socket, so that a client that sends without end does not keep a
/// thread to itself.
#[test]
fn a_read_takes_a_bounded_part() {
    let mut ends = Ends::new(true);
    ends.shake(usize::MAX);
    let mut stream = Vec::new();
    while stream.len() < 300_000 {
        ends.client.writer().write_all(&[1; 16_000]).expect("written");
        while ends.client.wants_write() {
            ends.client.write_tls(&mut stream).expect("encrypted");
        }
    }
    for (buffer, most) in [(vec![0; 1], 4), (vec![0; 1_000], 4_000), (vec![0; 100_000], 16 * 1024)] {
        let mut buffer = buffer;
        ends.wire.incoming = stream.iter().copied().collect();
        let before = ends.wire.incoming.len();
        let _ = ends.layer.read(&mut ends.wire, &mut buffer);
        let read = before - ends.wire.incoming.len();
        assert!(read <= most, "{read} bytes for {}", buffer.len());
        // The layer has a part of the stream; the rest of it follows, as it would on a wire.
        let rest: Vec<u8> = ends.wire.incoming.drain(..).collect();
        stream = rest;
    }
}
