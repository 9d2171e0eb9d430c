//! What the attackers do: each a function that one connection repeats.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anode_loadgen::mask;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use super::wire::{TlsSide, Wire};

/// A known bad thing.
pub struct Act {
    /// The name by which `--only` chooses the attack.
    pub name: &'static str,
    /// What one connection does, from its beginning until it is closed.
    pub step: Step,
    /// Whether the attack is one on TLS itself. Then it is given the bare connection, and only with `--tls`.
    pub is_on_tls: bool,
}

const fn act(name: &'static str, step: Step) -> Act {
    Act { name, step, is_on_tls: false }
}

/// What one connection does. It calls [`Attacker::does`] for each thing that it did.
pub type Step =
    for<'a> fn(&'a Attacker, Wire) -> Pin<Box<dyn Future<Output = std::io::Result<()>> + Send + 'a>>;

/// Everything that the attackers may do.
pub const ACTS: &[Act] = &[
    act("idle", |attacker, stream| Box::pin(idle(attacker, stream))),
    act("slow-heads", |attacker, stream| Box::pin(slow_heads(attacker, stream))),
    act("slow-bodies", |attacker, stream| Box::pin(slow_bodies(attacker, stream))),
    act("half-frames", |attacker, stream| Box::pin(half_frames(attacker, stream))),
    act("ping-floods", |attacker, stream| Box::pin(ping_floods(attacker, stream))),
    act("big-pages", |attacker, stream| Box::pin(big_pages(attacker, stream))),
    act("slow-reads", |attacker, stream| Box::pin(slow_reads(attacker, stream))),
    act("everything", |attacker, stream| Box::pin(everything(attacker, stream))),
    act("churn", |attacker, stream| Box::pin(churn(attacker, stream))),
    act("patterns", |attacker, stream| Box::pin(patterns(attacker, stream))),
    act("guesses", |attacker, stream| Box::pin(guesses(attacker, stream))),
    act("noise", |attacker, stream| Box::pin(noise(attacker, stream))),
    Act {
        name: "half-handshakes",
        step: |attacker, stream| Box::pin(half_handshakes(attacker, stream)),
        is_on_tls: true,
    },
    Act {
        name: "handshakes",
        step: |attacker, stream| Box::pin(handshakes(attacker, stream)),
        is_on_tls: true,
    },
    Act {
        name: "second-hellos",
        step: |attacker, stream| Box::pin(second_hellos(attacker, stream)),
        is_on_tls: true,
    },
];

/// Time between two things that one connection does, if nothing else bounds it. Ten thousand connections then do ten
/// thousand a second together.
const PACE: Duration = Duration::from_secs(1);
/// Time before a connection that was closed or refused comes again.
const AGAIN: Duration = Duration::from_secs(1);

/// One connection of the attackers.
pub struct Attacker {
    /// Number of the connection, from 0.
    pub number: usize,
    /// The node, `host:port`.
    pub address: String,
    /// Number of things that all attackers have done.
    pub done: Arc<AtomicU64>,
    /// Bounds the connections that are opened at a time.
    pub opening: Arc<Semaphore>,
    /// How TLS is spoken with the node; `None`: it is not.
    pub tls: Option<TlsSide>,
}

impl Attacker {
    /// Repeats the act on one connection after the other. `begun` is called once: when the first was opened, or was
    /// refused.
    pub async fn run(&self, act: &Act, begun: impl FnOnce()) {
        let mut begun = Some(begun);
        loop {
            let stream = {
                let _permit = self.opening.acquire().await;
                self.connect(act.is_on_tls).await
            };
            if let Some(begun) = begun.take() {
                begun();
            }
            if let Ok(stream) = stream {
                // That the node closes the connection is no fault.
                let _ = (act.step)(self, stream).await;
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    async fn connect(&self, is_bare: bool) -> std::io::Result<Wire> {
        let socket = TcpStream::connect(&self.address).await?;
        socket.set_nodelay(true)?;
        match &self.tls {
            Some(tls) if !is_bare => tls.begin(socket).await,
            _ => Ok(Wire::Plain(socket)),
        }
    }

    fn tls(&self) -> std::io::Result<&TlsSide> {
        self.tls.as_ref().ok_or_else(|| std::io::ErrorKind::Unsupported.into())
    }

    /// Counts a thing that was done.
    fn does(&self) {
        self.done.fetch_add(1, Ordering::Relaxed);
    }
}

/// Does the handshake of a WebSocket, and reads its answer.
async fn upgrade(attacker: &Attacker, stream: &mut Wire, path: &str) -> std::io::Result<()> {
    let head = format!(
        "GET {path} HTTP/1.1\r\nHost: {}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        attacker.address
    );
    stream.say(head.as_bytes()).await?;
    let mut answer = [0; 1024];
    match stream.read(&mut answer).await? {
        count if answer[..count].starts_with(b"HTTP/1.1 101") => Ok(()),
        _ => Err(std::io::ErrorKind::ConnectionRefused.into()),
    }
}

/// A masked frame of up to 125 bytes.
fn short_frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let key = [1, 2, 3, 4];
    let mut frame = vec![first, 0x80 | payload.len() as u8];
    frame.extend(key);
    let from = frame.len();
    frame.extend_from_slice(payload);
    mask(&mut frame[from..], key);
    frame
}

/// Reads whatever comes, until the connection ends.
async fn drain(stream: &mut (impl AsyncReadExt + Unpin)) -> std::io::Result<()> {
    let mut piece = [0; 4096];
    while stream.read(&mut piece).await? > 0 {}
    Ok(())
}

/// Connects and says nothing.
async fn idle(attacker: &Attacker, mut stream: Wire) -> std::io::Result<()> {
    attacker.does();
    drain(&mut stream).await
}

/// Sends the head of a request a byte at a time.
async fn slow_heads(attacker: &Attacker, mut stream: Wire) -> std::io::Result<()> {
    stream.say(b"GET /v1/members HTTP/1.1\r\nHost: x\r\nX-").await?;
    loop {
        stream.say(b"a").await?;
        attacker.does();
        tokio::time::sleep(PACE).await;
    }
}

/// Sends the body of a publish a byte at a time.
async fn slow_bodies(attacker: &Attacker, mut stream: Wire) -> std::io::Result<()> {
    let head =
        format!("POST /v1/publish HTTP/1.1\r\nHost: {}\r\nContent-Length: 900000\r\n\r\n[", attacker.address);
    stream.say(head.as_bytes()).await?;
    loop {
        stream.say(b" ").await?;
        attacker.does();
        tokio::time::sleep(PACE).await;
    }
}

/// Announces a frame of a MiB, and sends a kilobyte of it and then a byte at a time.
async fn half_frames(attacker: &Attacker, mut stream: Wire) -> std::io::Result<()> {
    upgrade(attacker, &mut stream, "/publish").await?;
    let head = [0x81, 0xff, 0, 0, 0, 0, 0, 0x10, 0, 0, 1, 2, 3, 4];
    stream.say(&head).await?;
    // Under this mask it is text.
    stream.write_all(&[b'x'; 1024]).await?;
    loop {
        stream.say(b"x").await?;
        attacker.does();
        tokio::time::sleep(PACE).await;
    }
}

/// Sends ten of the longest pings at once, and reads the answers.
async fn ping_floods(attacker: &Attacker, mut stream: Wire) -> std::io::Result<()> {
    upgrade(attacker, &mut stream, "/subscribe?source=nothing").await?;
    let pings = short_frame(0x89, &[b'p'; 125]).repeat(10);
    let (mut reader, mut writer) = tokio::io::split(stream);
    let flood = async {
        loop {
            writer.write_all(&pings).await?;
            writer.flush().await?;
            for _ in 0..10 {
                attacker.does();
            }
            tokio::time::sleep(PACE).await;
        }
    };
    tokio::select! { end = flood => end, end = drain(&mut reader) => end }
}

/// Asks for six megabytes, and does not read the answer.
async fn big_pages(attacker: &Attacker, mut stream: Wire) -> std::io::Result<()> {
    let request =
        format!("GET /v1/sources?pattern=large/**&limit=1000 HTTP/1.1\r\nHost: {}\r\n\r\n", attacker.address);
    stream.say(request.as_bytes()).await?;
    attacker.does();
    tokio::time::sleep(Duration::from_secs(20)).await;
    Ok(())
}

/// Subscribes to everything with a snapshot of it, and reads a byte a second.
async fn slow_reads(attacker: &Attacker, mut stream: Wire) -> std::io::Result<()> {
    upgrade(attacker, &mut stream, "/subscribe?source=fill/**").await?;
    attacker.does();
    loop {
        if stream.read(&mut [0; 1]).await? == 0 {
            return Ok(());
        }
        tokio::time::sleep(PACE).await;
    }
}

/// Subscribes to everything from now on, and reads it: one in ten connections also what the healthy publish.
async fn everything(attacker: &Attacker, mut stream: Wire) -> std::io::Result<()> {
    let pattern = if attacker.number.is_multiple_of(10) { "**" } else { "*/*" };
    upgrade(attacker, &mut stream, &format!("/subscribe?source={pattern}&snapshot=false")).await?;
    attacker.does();
    drain(&mut stream).await
}

/// Becomes a subscriber, and goes at once.
async fn churn(attacker: &Attacker, mut stream: Wire) -> std::io::Result<()> {
    upgrade(attacker, &mut stream, &format!("/subscribe?source=churn/{}", attacker.number)).await?;
    attacker.does();
    Ok(())
}

/// Takes patterns that are searched slowly, a new one every second.
async fn patterns(attacker: &Attacker, mut stream: Wire) -> std::io::Result<()> {
    upgrade(attacker, &mut stream, "/subscribe").await?;
    let (mut reader, mut writer) = tokio::io::split(stream);
    let ask = async {
        for round in 0usize.. {
            let number = attacker.number * 31 + round;
            let segments = (0..8).map(|at| if number >> at & 1 == 0 { "a" } else { "*" });
            let pattern = segments.collect::<Vec<_>>().join("/");
            let request = format!(r#"{{"subscribe":{{"sources":["{pattern}"],"snapshot":false}}}}"#);
            writer.write_all(&short_frame(0x81, request.as_bytes())).await?;
            writer.flush().await?;
            attacker.does();
            tokio::time::sleep(PACE).await;
        }
        Ok(())
    };
    tokio::select! { end = ask => end, end = drain(&mut reader) => end }
}

/// Guesses tokens: one a second on each connection. A node without rights takes no notice of them, and answers.
async fn guesses(attacker: &Attacker, mut stream: Wire) -> std::io::Result<()> {
    for round in 0.. {
        let request = format!(
            "GET /v1/sources/fill/1/1 HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer guess-{}-{round}\r\n\r\n",
            attacker.address, attacker.number
        );
        stream.say(request.as_bytes()).await?;
        if stream.read(&mut [0; 2048]).await? == 0 {
            return Ok(());
        }
        attacker.does();
        tokio::time::sleep(PACE).await;
    }
    Ok(())
}

/// Sends bytes that are no request.
async fn noise(attacker: &Attacker, mut stream: Wire) -> std::io::Result<()> {
    let noise: Vec<u8> = (0..2_000u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    stream.say(&noise).await?;
    attacker.does();
    drain(&mut stream).await
}

/// Says hello, and does not go on with the handshake.
async fn half_handshakes(attacker: &Attacker, mut stream: Wire) -> std::io::Result<()> {
    stream.say(&attacker.tls()?.hello()?).await?;
    attacker.does();
    tokio::time::sleep(PACE).await;
    Ok(())
}

/// Does the whole handshake, and goes.
async fn handshakes(attacker: &Attacker, stream: Wire) -> std::io::Result<()> {
    let Wire::Plain(socket) = stream else { return Ok(()) };
    let _stream = attacker.tls()?.begin(socket).await?;
    attacker.does();
    tokio::time::sleep(PACE).await;
    Ok(())
}

/// Does the whole handshake, and then says hello again.
async fn second_hellos(attacker: &Attacker, stream: Wire) -> std::io::Result<()> {
    let Wire::Plain(socket) = stream else { return Ok(()) };
    let tls = attacker.tls()?;
    let Wire::Tls(stream) = tls.begin(socket).await? else { return Ok(()) };
    let (mut socket, _) = stream.into_inner();
    socket.write_all(&tls.hello()?).await?;
    attacker.does();
    drain(&mut socket).await
}
