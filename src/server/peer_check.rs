//! Asks a gossip address whether a node of this cluster is there, over TCP and by a datagram. Whoever asks takes no part in
//! the cluster, and is not remembered by the node that answers.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use bytes::Bytes;

use super::clock;
use super::key_file::KeyFile;
use crate::cluster::seal::SealKeys;
use crate::cluster::{membership_ping, membership_preamble};
use crate::config::Config;
use crate::record::NodeName;

/// Time for which a connection, and then an answer on it, is waited for.
const ANSWER_MAX: Duration = Duration::from_millis(400);
/// Number of datagrams that are sent before there is said to be no answer: some are lost on any network.
const PINGS_MAX: usize = 4;
/// Largest datagram that is read, in bytes.
const DATAGRAM_BYTES: usize = 2_048;

/// What a peer is told to find out whether it is a node of this cluster.
#[derive(Clone, Debug)]
pub struct Greeting {
    /// The first bytes of a stream between nodes.
    pub preamble: Bytes,
    /// Whether they are sealed: then a node with the same keys answers at once. A node that takes a plain one waits.
    pub is_sealed: bool,
}

/// What comes back from a gossip address over TCP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TcpAnswer {
    /// A node of this cluster is there.
    Node,
    /// Nothing listens there.
    Refused,
    /// Nothing comes back.
    Silent,
    /// The connection was closed after this side said which cluster it belongs to.
    Foreign,
    /// Another program is there.
    Other,
    /// The connection failed for another reason.
    Failed(String),
}

impl TcpAnswer {
    /// The answer in words. `is_sealed` tells whether the question was sealed with a key of the cluster.
    pub fn describe(&self, is_sealed: bool) -> String {
        let keys = match is_sealed {
            true => "one with no key in common (--cluster-key)",
            false => "one that requires a --cluster-key",
        };
        match self {
            TcpAnswer::Node => "a node of this cluster".into(),
            TcpAnswer::Refused => "refused".into(),
            TcpAnswer::Silent => "no answer".into(),
            TcpAnswer::Foreign => {
                format!("a node of another cluster (--cluster-name), {keys}, or another program")
            }
            TcpAnswer::Other => "another program".into(),
            TcpAnswer::Failed(reason) => reason.clone(),
        }
    }
}

/// Connects to an address and tells what comes back.
pub fn ask_tcp(address: SocketAddr, greeting: &Greeting) -> TcpAnswer {
    let answer = TcpStream::connect_timeout(&address, ANSWER_MAX).and_then(|mut stream| {
        stream.set_read_timeout(Some(ANSWER_MAX))?;
        stream.set_write_timeout(Some(ANSWER_MAX))?;
        stream.write_all(&greeting.preamble)?;
        Ok(stream.read(&mut [0]))
    });
    match answer {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => TcpAnswer::Refused,
        Err(error) if is_timeout(&error) => TcpAnswer::Silent,
        Err(error) => TcpAnswer::Failed(error.to_string()),
        Ok(Ok(1..)) if greeting.is_sealed => TcpAnswer::Node,
        Ok(Ok(1..)) => TcpAnswer::Other,
        Ok(Err(error)) if is_timeout(&error) => TcpAnswer::Node,
        // A side that closes while bytes wait for it resets the connection.
        Ok(Ok(0) | Err(_)) => TcpAnswer::Foreign,
    }
}

/// Sends datagrams to an address until one comes back, a few times. Returns whether one did.
pub fn ask_udp(address: SocketAddr, ping: impl Fn() -> Bytes) -> std::io::Result<bool> {
    let any: SocketAddr = if address.is_ipv4() { ([0; 4], 0).into() } else { ([0u16; 8], 0).into() };
    let socket = UdpSocket::bind(any)?;
    socket.connect(address)?;
    socket.set_read_timeout(Some(ANSWER_MAX))?;
    for _ in 0..PINGS_MAX {
        // A refusal of an earlier datagram may be reported here, or when the answer is read.
        if socket.send(&ping()).is_ok() && socket.recv(&mut [0; DATAGRAM_BYTES]).is_ok() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Asks addresses in the name of somebody who belongs to the cluster of a configuration.
pub struct PeerQuestions<'a> {
    config: &'a Config,
    name: NodeName,
    boot: u64,
}

impl<'a> PeerQuestions<'a> {
    /// Somebody whose name nobody else has.
    pub fn new(config: &'a Config) -> PeerQuestions<'a> {
        let name = format!("doctor-{:016x}", clock::chance());
        // The name has the form that names must have.
        let name = NodeName::parse(&name).unwrap_or_else(|_| unreachable!("{name} has the form of a name"));
        PeerQuestions { config, name, boot: clock::now().wall_us / 1_000 }
    }

    fn keys(&self) -> Option<SealKeys> {
        self.config.cluster_key.clone().map(|keys| KeyFile::new(keys).of_new_life())
    }

    /// Returns what comes back over TCP.
    pub fn tcp(&self, address: SocketAddr) -> TcpAnswer {
        let keys = self.keys();
        let is_sealed = keys.is_some();
        let preamble = membership_preamble(&self.config.cluster_name, (&self.name, self.boot), keys);
        ask_tcp(address, &Greeting { preamble, is_sealed })
    }

    /// Returns whether a datagram comes back.
    pub fn udp(&self, address: SocketAddr) -> std::io::Result<bool> {
        let cluster = &self.config.cluster_name;
        ask_udp(address, || membership_ping(cluster, (&self.name, self.boot), self.keys(), address))
    }
}

fn is_timeout(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_datagram_that_comes_back_is_noticed() {
        let echo = UdpSocket::bind("127.0.0.1:0").expect("bound");
        let address = echo.local_addr().expect("address");
        let thread = std::thread::spawn(move || {
            let mut buffer = [0; 64];
            let (length, from) = echo.recv_from(&mut buffer).expect("a datagram");
            echo.send_to(&buffer[..length], from).expect("sent");
        });
        assert!(ask_udp(address, || Bytes::from_static(b"ping")).expect("asked"));
        thread.join().expect("echo");
        assert!(!ask_udp(address, || Bytes::from_static(b"ping")).expect("asked"), "nobody is there");
    }
}
