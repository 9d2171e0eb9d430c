//! TCP between nodes, on worker 0: connections that the cluster machine asks for or that peers open.
//!
//! The machine decides what is to be sent and handles what arrives; here are only the sockets, and the bytes
//! that they have not taken yet. What a peer sends is read in bounded pieces, one piece of each stream at a
//! time, so that a reconciliation never keeps worker 0 from its datagrams.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Read, Write};
use std::net::SocketAddr;

use bytes::Bytes;
use mio::net::{TcpListener, TcpStream};
use mio::{Interest, Registry};

use super::acceptor::Acceptor;
use super::closing_streams::ClosingStreams;
use super::tokens;
use crate::cluster::members::{MemberInfo, State};
use crate::cluster::{StreamEvent, StreamId, StreamOutput};

/// Bytes read from a stream at a time.
const PEER_READ_BYTES: usize = 64 * 1024;
/// Bytes that may wait on one stream. The machine keeps less in flight; a stream on which more waits is
/// closed.
const WAITING_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Number of streams that peers may have open to this node at a time.
const ACCEPTED_MAX: usize = 512;
/// Most addresses of which it is remembered whether a connection succeeded, for as long as it is not known which of them
/// are members.
const REACHED_MAX: usize = 4_096;

/// A connection to a peer.
struct PeerStream {
    socket: TcpStream,
    /// Whether the connection is established.
    is_connected: bool,
    /// Whether the stream is in the list of those that may have more to read.
    is_queued: bool,
    /// Whether the machine asked for the end: the stream lives until what waits is sent.
    is_closing: bool,
    /// Bytes that the socket has not taken yet.
    waiting: VecDeque<Bytes>,
    /// Bytes of what waits.
    waiting_bytes: usize,
    /// Whether something was written since the machine last got [`StreamEvent::Drained`].
    owes_drained: bool,
    /// The address that this node connects to; `None` if the peer opened the stream.
    to: Option<SocketAddr>,
}

/// Whether the last connection over TCP to a gossip address succeeded.
pub(super) type TcpReach = BTreeMap<SocketAddr, bool>;

/// All streams of this node.
pub struct PeerStreams {
    registry: Registry,
    acceptor: Acceptor,
    streams: BTreeMap<StreamId, PeerStream>,
    /// Streams that may have more to read.
    readable: VecDeque<StreamId>,
    /// Streams that may have more to read, and are not to be read for now.
    held: Vec<StreamId>,
    /// Events that the machine has not been given yet.
    events: VecDeque<(StreamId, StreamEvent)>,
    /// The number of the next stream that is accepted. Such numbers are even.
    next_accepted: u64,
    /// Number of open streams that peers opened.
    accepted: usize,
    /// Streams that the machine has closed, and whose last bytes are not sent.
    closing: ClosingStreams,
    /// Buffer that pieces of streams are read into.
    buffer: Vec<u8>,
    /// What came of connections to peers.
    reached: TcpReach,
    /// The boot number of the member at each address when it was looked at last.
    lives: BTreeMap<SocketAddr, u64>,
}

impl PeerStreams {
    /// No streams yet. The caller registers the listener with the poll.
    pub fn new(registry: Registry, listener: TcpListener) -> PeerStreams {
        PeerStreams {
            registry,
            acceptor: Acceptor::new(listener),
            streams: BTreeMap::new(),
            readable: VecDeque::new(),
            held: Vec::new(),
            events: VecDeque::new(),
            next_accepted: 2,
            accepted: 0,
            closing: ClosingStreams::default(),
            buffer: vec![0; PEER_READ_BYTES],
            reached: TcpReach::new(),
            lives: BTreeMap::new(),
        }
    }

    /// Returns what came of the last connection to each of these members, and forgets all other addresses. That a member
    /// was not reached while it was down says nothing of it once it is back, so that is forgotten, too.
    pub fn reached(&mut self, members: &[MemberInfo]) -> TcpReach {
        let before = std::mem::take(&mut self.lives);
        for member in members {
            let (address, boot) = (member.identity.gossip(), member.identity.boot);
            let is_other_life = before.get(&address).is_some_and(|known| *known != boot);
            if (is_other_life || member.state != State::Alive) && self.reached.get(&address) == Some(&false) {
                self.reached.remove(&address);
            }
            self.lives.insert(address, boot);
        }
        let known = |address: &SocketAddr| members.iter().any(|member| member.identity.gossip() == *address);
        // Only addresses of members are connected to, so there are at most a few more than members.
        if self.reached.len() > members.len() {
            self.reached.retain(|address, _| known(address));
        }
        self.reached.clone()
    }

    /// Bytes that wait on all streams.
    pub fn waiting_bytes(&self) -> usize {
        self.streams.values().map(|stream| stream.waiting_bytes).sum()
    }

    /// Notes what came of a connection to a peer.
    fn note_reached(&mut self, to: Option<SocketAddr>, is_reached: bool) {
        if let Some(to) = to
            && (self.reached.len() < REACHED_MAX || self.reached.contains_key(&to))
        {
            self.reached.insert(to, is_reached);
        }
    }

    /// Returns whether [`PeerStreams::accept`] or [`PeerStreams::poll_event`] may have something at once.
    pub fn has_work(&self, now_us: u64) -> bool {
        self.acceptor.is_ready(now_us) || !self.readable.is_empty() || !self.events.is_empty()
    }

    /// The next event for the machine; reads one piece if none waits. A stream that `may_read` denies
    /// is left alone until [`PeerStreams::release`]: then its peer is slowed by its own full socket.
    pub fn poll_event(&mut self, may_read: impl Fn(StreamId) -> bool) -> Option<(StreamId, StreamEvent)> {
        while self.events.is_empty()
            && let Some(id) = self.readable.pop_front()
        {
            if may_read(id) {
                self.read_piece(id);
                break;
            }
            self.held.push(id);
        }
        self.events.pop_front()
    }

    /// Lets all streams be read again.
    pub fn release(&mut self) {
        self.readable.extend(self.held.drain(..));
    }

    /// Notes that the poll has reported connections that wait.
    pub fn set_acceptable(&mut self) {
        self.acceptor.set_ready();
    }

    /// Monotonic time at which the pause in accepting after an error ends; `None` if there is no pause.
    pub fn resumes_us(&self, now_us: u64) -> Option<u64> {
        self.acceptor.resumes_us(now_us)
    }

    /// Accepts connections that wait, up to the number of one turn. After an error accepting pauses.
    pub fn accept(&mut self, now_us: u64) -> io::Result<()> {
        let mut accepted = Vec::new();
        let result = self.acceptor.accept(now_us, &mut accepted);
        for (socket, from) in accepted {
            if self.accepted >= ACCEPTED_MAX && !self.give_up_one() {
                // The peer finds the connection closed, and tries again later.
                continue;
            }
            let id = StreamId(self.next_accepted);
            self.next_accepted += 2;
            if self.add(id, socket, None).is_ok() {
                self.accepted += 1;
                let from = SocketAddr::new(from.ip().to_canonical(), from.port());
                self.events.push_back((id, StreamEvent::Accepted { from }));
            }
        }
        result
    }

    /// Handles an event of the poll for one stream.
    pub fn handle_ready(&mut self, id: StreamId, is_readable: bool, is_writable: bool) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        if is_writable && !stream.is_connected {
            match (stream.socket.take_error(), stream.socket.peer_addr()) {
                (Ok(None), Ok(_)) => {
                    stream.is_connected = true;
                    let to = stream.to;
                    self.events.push_back((id, StreamEvent::Opened));
                    self.note_reached(to, true);
                }
                (Ok(None), Err(error)) if error.kind() == io::ErrorKind::NotConnected => return,
                _ => return self.end(id),
            }
        }
        let Some(stream) = self.streams.get_mut(&id) else { return };
        if is_readable && !stream.is_queued {
            stream.is_queued = true;
            self.readable.push_back(id);
        }
        if is_writable {
            self.flush(id);
        }
    }

    /// Carries out what the machine asks for on one stream.
    pub fn perform(&mut self, now_us: u64, output: StreamOutput) {
        match output {
            StreamOutput::Connect { stream, to } => self.connect(stream, to),
            StreamOutput::Write { stream, bytes } => self.write(stream, bytes),
            StreamOutput::Close { stream } => self.close(now_us, stream),
        }
    }

    /// Gives up streams that the machine has closed, and whose peers do not read the last bytes. To be called
    /// at least once a second.
    pub fn sweep(&mut self, now_us: u64) {
        loop {
            let waiting_bytes = |id| self.streams.get(&id).map_or(0, |stream| stream.waiting_bytes);
            let Some(id) = self.closing.next_overdue(now_us, waiting_bytes) else { break };
            self.remove(id);
        }
    }

    /// Opens a connection to `to`. The machine gets [`StreamEvent::Opened`] or [`StreamEvent::Closed`].
    fn connect(&mut self, id: StreamId, to: SocketAddr) {
        let added = TcpStream::connect(to).and_then(|socket| self.add(id, socket, Some(to)));
        if let Err(error) = added {
            tracing::debug!(%error, %to, "no stream to a peer");
            self.note_reached(Some(to), false);
            self.events.push_back((id, StreamEvent::Closed));
        }
    }

    /// Sends bytes, after those that wait.
    fn write(&mut self, id: StreamId, bytes: Bytes) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        stream.waiting_bytes += bytes.len();
        stream.waiting.push_back(bytes);
        stream.owes_drained = true;
        if stream.waiting_bytes > WAITING_BYTES_MAX {
            tracing::warn!("a stream to a peer is closed: too much waits on it");
            return self.end(id);
        }
        if stream.is_connected {
            self.flush(id);
        }
    }

    /// Closes a stream once everything that was written is sent. The machine gets no further event of it.
    fn close(&mut self, now_us: u64, id: StreamId) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        stream.is_closing = true;
        if stream.waiting.is_empty() || !stream.is_connected {
            self.remove(id);
        } else {
            self.closing.add(now_us, id, stream.waiting_bytes);
        }
    }

    /// Adds the stream of a socket that this node connects to `to`, or that a peer has opened.
    fn add(&mut self, id: StreamId, mut socket: TcpStream, to: Option<SocketAddr>) -> io::Result<()> {
        self.registry.register(
            &mut socket,
            tokens::of_stream(id),
            Interest::READABLE | Interest::WRITABLE,
        )?;
        if let Err(error) = socket.set_nodelay(true) {
            tracing::trace!(%error, "no TCP_NODELAY");
        }
        let stream = PeerStream {
            socket,
            is_connected: to.is_none(),
            is_queued: false,
            is_closing: false,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            owes_drained: false,
            to,
        };
        self.streams.insert(id, stream);
        Ok(())
    }

    fn read_piece(&mut self, id: StreamId) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        stream.is_queued = false;
        match stream.socket.read(&mut self.buffer) {
            Ok(0) => self.end(id),
            Ok(read) => {
                stream.is_queued = true;
                self.readable.push_back(id);
                // While it is closing, the stream is read only to see its end.
                if !stream.is_closing {
                    let bytes = Bytes::copy_from_slice(self.buffer.get(..read).unwrap_or_default());
                    self.events.push_back((id, StreamEvent::Received(bytes)));
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                stream.is_queued = true;
                self.readable.push_back(id);
            }
            Err(_) => self.end(id),
        }
    }

    fn flush(&mut self, id: StreamId) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        while let Some(front) = stream.waiting.front_mut() {
            match stream.socket.write(front) {
                Ok(written) if written > 0 => {
                    debug_assert!(written <= stream.waiting_bytes, "more was sent than waited");
                    stream.waiting_bytes -= written;
                    let _ = front.split_to(written);
                    if front.is_empty() {
                        stream.waiting.pop_front();
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(_) | Err(_) => return self.end(id),
            }
        }
        debug_assert_eq!(stream.waiting_bytes, 0, "nothing waits, and yet bytes are counted");
        if stream.is_closing {
            self.remove(id);
        } else if std::mem::take(&mut stream.owes_drained) {
            self.events.push_back((id, StreamEvent::Drained));
        }
    }

    /// Removes a stream that has ended by itself. The machine is told, unless it has asked for the end.
    fn end(&mut self, id: StreamId) {
        let Some(stream) = self.remove(id) else { return };
        if !stream.is_connected {
            self.note_reached(stream.to, false);
        }
        if !stream.is_closing {
            self.events.push_back((id, StreamEvent::Closed));
        }
    }

    /// Gives up a stream that a peer opened and that only waits until the peer has read the rest. Returns
    /// `false` if there is none.
    fn give_up_one(&mut self) -> bool {
        let found = self.closing.oldest(|id| id.0.is_multiple_of(2));
        found.is_some_and(|id| self.remove(id).is_some())
    }

    fn remove(&mut self, id: StreamId) -> Option<PeerStream> {
        let mut stream = self.streams.remove(&id)?;
        self.closing.remove(id);
        self.accepted -= usize::from(id.0.is_multiple_of(2));
        if let Err(error) = self.registry.deregister(&mut stream.socket) {
            tracing::trace!(%error, "a closed stream was not registered");
        }
        Some(stream)
    }
}

#[cfg(test)]
mod tests;
