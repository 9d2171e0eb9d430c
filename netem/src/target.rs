//! Where clients find a node, and what it wants of them. The address may change during a run, as that of a container does
//! when the container is started again.

use std::fmt;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use anode_loadgen::Outcome;
use anode_loadgen::client::ServerStream;
use anode_loadgen::tls::TlsSettings;
use anode_loadgen::token::Bearer;
use parking_lot::Mutex;

/// What a node wants of those who connect to it.
#[derive(Clone, Default)]
pub struct Access {
    /// Settings of TLS; `None` where the node speaks without it.
    pub tls: Option<TlsSettings>,
    /// Name that the certificate of the node has.
    pub name: String,
    /// Token that clients bring, if they bring one.
    pub token: Option<Bearer>,
}

/// An address, and how often it was changed.
#[derive(Clone, Copy, Debug, Default)]
struct Whereabouts {
    address: Option<SocketAddr>,
    moves: u64,
}

/// A node as clients reach it. All copies of a target follow the node when it moves.
#[derive(Clone)]
pub struct Target {
    at: Arc<Mutex<Whereabouts>>,
    access: Option<Arc<Access>>,
}

/// A connection to a node, over which nothing was said so far.
pub struct Connected {
    /// The bytes to and from the node.
    pub stream: ServerStream,
    /// Name and port for the header `Host`.
    pub host: String,
    /// The place at which the node was; to be given to [`Target::confirm`].
    pub visit: Visit,
}

/// Number of the move by which a node came to where it was visited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Visit(u64);

impl Target {
    /// Makes a target that cannot be reached until it is told where the node is.
    pub fn nowhere(access: Option<Arc<Access>>) -> Target {
        Target { at: Arc::default(), access }
    }

    /// Tells all copies where the node is now; `None` while it cannot be reached.
    pub fn move_to(&self, address: Option<SocketAddr>) {
        let mut at = self.at.lock();
        *at = Whereabouts { address, moves: at.moves + 1 };
    }

    /// Returns where the node is, if it can be reached.
    pub fn address(&self) -> Option<SocketAddr> {
        self.at.lock().address
    }

    /// Connects to the node. Connecting, reading and writing may each take as long as `timeout`.
    pub fn connect(&self, timeout: Duration) -> Outcome<Connected> {
        let Whereabouts { address, moves } = *self.at.lock();
        let address = address.ok_or("the node is not there")?;
        let socket = TcpStream::connect_timeout(&address, timeout)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(timeout))?;
        socket.set_write_timeout(Some(timeout))?;
        let (tls, host) = match &self.access {
            None => (None, address.to_string()),
            Some(access) => (access.tls.as_ref(), format!("{}:{}", access.name, address.port())),
        };
        let stream = ServerStream::new(socket, tls, &host)?;
        Ok(Connected { stream, host, visit: Visit(moves) })
    }

    /// Fails if the node has moved since it was visited: then somebody else may have answered at its old address.
    pub fn confirm(&self, visit: Visit) -> Outcome<()> {
        if self.at.lock().moves == visit.0 { Ok(()) } else { Err("the node has moved".into()) }
    }

    /// Returns the value of the header `Authorization`, if clients bring a token.
    pub fn authorization(&self) -> Option<String> {
        let Bearer(token) = self.access.as_ref()?.token.as_ref()?;
        Some(format!("Bearer {token}"))
    }
}

impl From<SocketAddr> for Target {
    /// Makes the target of a node that stays where it is and wants nothing of its clients.
    fn from(address: SocketAddr) -> Target {
        let target = Target::nowhere(None);
        target.move_to(Some(address));
        target
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Target").field("address", &self.address()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(10);

    #[test]
    fn a_visit_counts_until_the_node_moves() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let target = Target::from(listener.local_addr().expect("an address"));
        let visit = target.connect(TIMEOUT).expect("a connection").visit;
        assert!(target.confirm(visit).is_ok());
        let copy = target.clone();
        copy.move_to(None);
        assert!(target.confirm(visit).is_err());
        assert!(target.connect(TIMEOUT).is_err(), "the node is nowhere");
        copy.move_to(listener.local_addr().ok());
        assert!(target.confirm(visit).is_err(), "it may be another node");
        assert!(target.connect(TIMEOUT).is_ok());
    }

    #[test]
    fn tokens_are_brought_and_not_shown() {
        let access = Access { token: Some(Bearer("secret".into())), ..Access::default() };
        let target = Target::nowhere(Some(Arc::new(access)));
        assert_eq!(target.authorization().as_deref(), Some("Bearer secret"));
        assert!(!format!("{target:?}").contains("secret"));
        assert_eq!(Target::from(SocketAddr::from(([127, 0, 0, 1], 1))).authorization(), None);
    }
}
