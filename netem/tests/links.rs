//! Measures links with plain UDP and TCP probes, and compares what they do with the arithmetic of their shapes.
#![allow(clippy::disallowed_methods, reason = "the test measures time")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anode_netem::link::shape::{Bursts, Shape};
use anode_netem::suite;
use anode_netem::world::{Links, Wanted, World};

const PORT: u16 = 7;
const PROBE_BYTES: usize = 200;

/// A world with one far end, which sends everything back over a perfect link.
struct Bench {
    world: World,
    far: Child,
}

/// What came back of the probes.
#[derive(Debug, Default)]
struct Seen {
    sent: usize,
    came: usize,
    twice: usize,
    changed: usize,
    /// A quarter of the probes took at most this long, in milliseconds. Other programs that hold this machine up
    /// hardly change it.
    quartile_ms: f64,
}

impl Bench {
    /// Makes the world, or says why it cannot be made here.
    fn new() -> Option<Bench> {
        if let Some(reason) = suite::refusal() {
            println!("skipped: {reason}");
            return None;
        }
        let world = World::new(Wanted {
            nodes: 2,
            seed: 5,
            mtu: 1_500,
            nat: false,
            clients_over_links: true,
            links: Links::UserSpace,
            needs_own_links: None,
        });
        let world = world.expect("a world");
        let mut far = Command::new("ip")
            .args(["netns", "exec", &world.namespace(0), env!("CARGO_BIN_EXE_anode-netem-probe")])
            .arg(format!("{}:{PORT}", world.link_address(0)))
            .stdout(Stdio::piped())
            .spawn()
            .expect("a probe");
        let mut line = String::new();
        BufReader::new(far.stdout.take().expect("its output")).read_line(&mut line).expect("a line");
        assert_eq!(line, "ready\n");
        Some(Bench { world, far })
    }

    fn address(&self) -> SocketAddr {
        (self.world.link_address(0), PORT).into()
    }

    /// Gives the links from the clients to the nodes a shape. The way back stays perfect.
    fn set(&mut self, shape: Shape) {
        let perfect = Shape::default();
        self.world.set_shapes(vec![vec![perfect; 3], vec![perfect; 3], vec![shape; 3]]).expect("shapes");
        // The threads of the links look for new shapes at least this often.
        std::thread::sleep(Duration::from_millis(60));
    }

    /// Sends datagrams, a few at a time, and takes what comes back.
    fn datagrams(&self, count: usize) -> Seen {
        let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
        socket.connect(self.address()).expect("an address");
        socket.set_read_timeout(Some(Duration::from_millis(1))).expect("a timeout");
        let (mut seen, mut times) = (Seen { sent: count, ..Seen::default() }, vec![None; count]);
        let (mut took_ms, mut sent_at) = (Vec::new(), Vec::with_capacity(count));
        let mut last = Instant::now();
        while last.elapsed() < Duration::from_millis(700) {
            if sent_at.len() < count {
                let mut probe = [0x5a; PROBE_BYTES];
                probe[..8].copy_from_slice(&(sent_at.len() as u64).to_be_bytes());
                sent_at.push(Instant::now());
                socket.send(&probe).expect("sent");
                last = Instant::now();
            }
            let mut buffer = [0; 2_048];
            let Ok(bytes) = socket.recv(&mut buffer) else { continue };
            let number = u64::from_be_bytes(buffer[..8].try_into().expect("8 bytes")) as usize;
            if number >= sent_at.len() || buffer[8..bytes].iter().any(|byte| *byte != 0x5a) {
                seen.changed += 1;
            } else if times[number].replace(()).is_some() {
                seen.twice += 1;
            } else {
                seen.came += 1;
                took_ms.push(sent_at[number].elapsed().as_secs_f64() * 1e3);
            }
        }
        seen.quartile_ms = quartile(took_ms);
        seen
    }

    /// Returns the time in milliseconds within which a quarter of short messages over TCP came back.
    fn stream(&self, count: u32) -> f64 {
        let mut stream = TcpStream::connect(self.address()).expect("a connection");
        stream.set_nodelay(true).expect("no delay");
        let times = (0..count).map(|number| {
            let begin = Instant::now();
            stream.write_all(&number.to_be_bytes()).expect("sent");
            let mut back = [0; 4];
            stream.read_exact(&mut back).expect("it comes back");
            assert_eq!(u32::from_be_bytes(back), number);
            begin.elapsed().as_secs_f64() * 1e3
        });
        quartile(times.collect())
    }
}

/// Returns the time within which a quarter of the probes came back.
fn quartile(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times.get(times.len() / 4).copied().unwrap_or(f64::NAN)
}

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = self.far.kill();
        let _ = self.far.wait();
    }
}

/// One test for all, because the runs would disturb each other's times.
#[test]
fn links_do_what_their_shapes_say() {
    let Some(mut bench) = Bench::new() else { return };
    let perfect = bench.datagrams(200);
    assert_eq!((perfect.came, perfect.twice, perfect.changed), (200, 0, 0), "{perfect:?}");
    let own_ms = perfect.quartile_ms;
    println!("a perfect link: {own_ms:.2} ms there and back, TCP {:.2} ms", bench.stream(50));

    let ms = Duration::from_millis;
    bench.set(Shape { delay: ms(40), jitter: ms(5), ..Shape::default() });
    let (delayed, over_tcp) = (bench.datagrams(400), bench.stream(60));
    println!("40 ms ± 5 ms: a quarter within UDP {:.2} ms, TCP {over_tcp:.2} ms", delayed.quartile_ms);
    for measured in [delayed.quartile_ms, over_tcp] {
        // A quarter of the delays is at most 37.5 ms. Other programs may hold the threads up.
        assert!((36.0..47.0 + own_ms).contains(&measured), "{measured} ms, and {own_ms} ms of their own");
    }
    assert_eq!(delayed.came, delayed.sent);

    let bursts = Bursts { begin: 2.0, end: 10.0, loss_bad: 100.0, loss_good: 0.0 };
    for shape in
        [Shape { loss: 20.0, ..Shape::default() }, Shape { bursts: Some(bursts), ..Shape::default() }]
    {
        bench.set(shape);
        let seen = bench.datagrams(3_000);
        let lost = 1.0 - seen.came as f64 / seen.sent as f64;
        println!("expected loss {:.3}, measured {lost:.3}", shape.expected_loss());
        assert!((lost - shape.expected_loss()).abs() < 0.05, "{lost} of {}", shape.expected_loss());
    }

    bench.set(Shape { corrupt: 10.0, duplicate: 10.0, ..Shape::default() });
    let seen = bench.datagrams(2_000);
    println!("10 % damaged and 10 % twice: {seen:?}");
    assert!((120..320).contains(&seen.changed), "the kernel takes damaged packets: {seen:?}");
    assert!((100..300).contains(&seen.twice), "{seen:?}");

    bench.set(Shape { is_cut: true, ..Shape::default() });
    assert_eq!(bench.datagrams(50).came, 0);

    bench.set(Shape::default());
    println!("{} packets a second there, and as many back", throughput(&bench));
}

/// Returns how many packets a second the link carried from a sender that does not wait.
fn throughput(bench: &Bench) -> u64 {
    let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
    socket.connect(bench.address()).expect("an address");
    let packets = || bench.world.fabric().map_or(0, |fabric| fabric.totals().delivered);
    let (before, begin) = (packets(), Instant::now());
    while begin.elapsed() < Duration::from_secs(1) {
        for _ in 0..32 {
            // A full queue of the device is the point of it.
            let _ = socket.send(&[0x5a; PROBE_BYTES]);
        }
    }
    (packets() - before) / 2
}
