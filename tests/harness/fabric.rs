//! A network between nodes that a test can cut without root privileges.
//!
//! Every node advertises an address of this fabric. A datagram that a node sends to another node's address is
//! forwarded *from the sender's own fabric address*, so that nodes see only addresses they know. A stream is
//! joined to a second connection, made by the fabric. Which node opened a stream is looked up in `/proc`,
//! because its port does not tell. Rejected: network namespaces, which need root.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use super::node::{Node, NodeConfig};
use super::ports;

/// Most datagrams that are kept, so that a test can send them again in damaged form.
const SEEN_MAX: usize = 200;

/// The network. Its threads end when this value is dropped.
pub struct Fabric {
    shared: Arc<Shared>,
}

struct Shared {
    /// The addresses that the nodes are bound to.
    inner: Vec<SocketAddr>,
    /// The addresses that the nodes advertise, which are this fabric's.
    outer: Vec<SocketAddr>,
    sockets: Vec<UdpSocket>,
    state: Mutex<State>,
    is_over: AtomicBool,
}

#[derive(Default)]
struct State {
    /// Process ids of the nodes.
    pids: Vec<u32>,
    /// Pairs of nodes (smaller index, greater index) that cannot reach each other.
    cut: BTreeSet<(usize, usize)>,
    /// Open streams, each with the pair of nodes that it connects.
    streams: Vec<((usize, usize), TcpStream)>,
    /// The first datagrams that were forwarded.
    seen: Vec<Vec<u8>>,
}

impl Fabric {
    /// Makes a network for `count` nodes.
    pub fn new(count: usize) -> Fabric {
        let local = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let inner: Vec<SocketAddr> = (0..count).map(|_| local(ports::free())).collect();
        let outer: Vec<SocketAddr> = (0..count).map(|_| local(ports::free())).collect();
        let sockets = outer.iter().map(|&at| must(UdpSocket::bind(at))).collect();
        let state = Mutex::new(State { pids: vec![0; count], ..State::default() });
        let shared = Arc::new(Shared { inner, outer, sockets, state, is_over: AtomicBool::new(false) });
        for to in 0..count {
            let listener = must(TcpListener::bind(shared.outer[to]));
            let (datagrams, streams) = (shared.clone(), shared.clone());
            std::thread::spawn(move || datagrams.pass_datagrams(to));
            std::thread::spawn(move || streams.pass_streams(to, &listener));
        }
        Fabric { shared }
    }

    /// Changes a configuration so that node `index` is part of this network and joins through the first node.
    pub fn place(&self, index: usize, mut config: NodeConfig) -> NodeConfig {
        config.gossip = self.shared.inner[index].to_string();
        config.advertise = Some(self.shared.outer[index].to_string());
        if index > 0 {
            config.join = vec![self.shared.outer[0].to_string()];
        }
        config
    }

    /// Starts nodes `a`, `b`, … in this network, and waits until each sees all of them alive.
    pub fn start(count: usize, flags: &[&str]) -> (Fabric, super::Cluster) {
        let fabric = Fabric::new(count);
        let mut nodes: Vec<Node> = Vec::new();
        for index in 0..count {
            let mut config = NodeConfig::named(&char::from(b'a' + index as u8).to_string()).with(flags);
            if let Some(first) = nodes.first() {
                config.cluster_name.clone_from(&first.config.cluster_name);
            }
            let node = Node::spawn(fabric.place(index, config));
            fabric.shared.state().pids[index] = node.pid();
            nodes.push(node);
        }
        let cluster = super::Cluster { nodes };
        cluster.wait_whole();
        (fabric, cluster)
    }

    /// Cuts the nodes in `side` off from all others. Streams between them are closed.
    pub fn cut(&self, side: &[usize]) {
        let mut state = self.shared.state();
        for one in 0..self.shared.inner.len() {
            for &other in side {
                if !side.contains(&one) {
                    state.cut.insert(pair(one, other));
                }
            }
        }
        let State { cut, streams, .. } = &mut *state;
        streams.retain(|(ends, stream)| {
            let stays = !cut.contains(ends);
            if !stays {
                let _ = stream.shutdown(Shutdown::Both);
            }
            stays
        });
    }

    /// Tells the fabric that node `index` now runs in another process.
    pub fn restarted(&self, index: usize, node: &Node) {
        self.shared.state().pids[index] = node.pid();
    }

    /// Returns the first datagrams that were forwarded.
    pub fn seen(&self) -> Vec<Vec<u8>> {
        self.shared.state().seen.clone()
    }

    /// Sends node `to` a datagram that seems to come from node `from`.
    pub fn inject(&self, from: usize, to: usize, datagram: &[u8]) {
        let _ = self.shared.sockets[from].send_to(datagram, self.shared.inner[to]);
    }

    /// Lets all nodes reach each other again.
    pub fn heal(&self) {
        self.shared.state().cut.clear();
    }
}

impl Drop for Fabric {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::Relaxed);
        for &at in &self.shared.outer {
            // Wakes the thread that accepts connections, which then ends.
            let _ = TcpStream::connect_timeout(&at, Duration::from_secs(1));
        }
        for (_, stream) in self.shared.state().streams.drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn passes(&self, from: usize, to: usize) -> bool {
        from != to && !self.state().cut.contains(&pair(from, to))
    }

    fn pass_datagrams(&self, to: usize) {
        let socket = &self.sockets[to];
        let _ = socket.set_read_timeout(Some(Duration::from_millis(200)));
        let mut buffer = vec![0; 65_536];
        while !self.is_over.load(Ordering::Relaxed) {
            let Ok((length, source)) = socket.recv_from(&mut buffer) else { continue };
            let Some(from) = self.inner.iter().position(|&inner| inner == source) else { continue };
            if self.passes(from, to) {
                self.remember(&buffer[..length]);
                let _ = self.sockets[from].send_to(&buffer[..length], self.inner[to]);
            }
        }
    }

    fn remember(&self, datagram: &[u8]) {
        let mut state = self.state();
        if state.seen.len() < SEEN_MAX {
            state.seen.push(datagram.to_vec());
        }
    }

    fn pass_streams(self: &Arc<Shared>, to: usize, listener: &TcpListener) {
        for stream in listener.incoming() {
            if self.is_over.load(Ordering::Relaxed) {
                return;
            }
            let Ok(near) = stream else { continue };
            let Some(from) = near.peer_addr().ok().and_then(|peer| self.opener(peer)) else { continue };
            if !self.passes(from, to) {
                continue;
            }
            let Ok(far) = TcpStream::connect(self.inner[to]) else { continue };
            self.join(pair(from, to), &near, &far);
        }
    }

    fn join(self: &Arc<Shared>, ends: (usize, usize), near: &TcpStream, far: &TcpStream) {
        for (from, to) in [(near, far), (far, near)] {
            let (Ok(from), Ok(to), Ok(kept)) = (from.try_clone(), to.try_clone(), from.try_clone()) else {
                return;
            };
            self.state().streams.push((ends, kept));
            std::thread::spawn(move || copy(from, to));
        }
    }

    /// Returns which node has a socket with the local address `peer`.
    fn opener(&self, peer: SocketAddr) -> Option<usize> {
        let table = std::fs::read_to_string("/proc/net/tcp").ok()?;
        let want = format!(":{:04X}", peer.port());
        let mut inodes = table.lines().skip(1).filter_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let is_it = fields.get(1)?.ends_with(&want) && fields.get(3) == Some(&"01");
            is_it.then(|| format!("socket:[{}]", fields.get(9).copied().unwrap_or_default()))
        });
        let inode = inodes.next()?;
        let pids = self.state().pids.clone();
        pids.iter().position(|pid| {
            let Ok(entries) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
            let mut links = entries.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
            links.any(|link| link.as_os_str() == inode.as_str())
        })
    }
}

fn copy(mut from: TcpStream, mut to: TcpStream) {
    let mut buffer = vec![0; 65_536];
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        if to.write_all(&buffer[..read]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}

fn pair(one: usize, other: usize) -> (usize, usize) {
    (one.min(other), one.max(other))
}

fn must<T>(result: std::io::Result<T>) -> T {
    match result {
        Ok(value) => value,
        Err(error) => panic!("the network between nodes: {error}"),
    }
}
