//! A relay: passes on the connections that come to a listener in the namespace of a node to an address outside of it.

use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::JoinHandle;
use std::time::Duration;

use anode_loadgen::Outcome;

/// How long a connection to the address outside may take to be made.
const CONNECT: Duration = Duration::from_secs(5);

/// A relay. It takes no further connections once it is dropped; those that are there end with the node that made them.
pub struct Relay {
    listener: Arc<TcpListener>,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Relay {
    /// Lets a thread pass on every connection that comes to the listener.
    pub fn start(listener: TcpListener, to: SocketAddr) -> Outcome<Relay> {
        let (listener, is_over) = (Arc::new(listener), Arc::new(AtomicBool::new(false)));
        let (accepting, ended) = (listener.clone(), is_over.clone());
        let thread = std::thread::Builder::new().name("relay".to_owned()).spawn(move || {
            for inner in accepting.incoming() {
                if ended.load(Relaxed) {
                    return;
                }
                // A connection that cannot be passed on is closed, as one to a Cassandra that is gone.
                if let Ok(inner) = inner
                    && let Ok(outer) = TcpStream::connect_timeout(&to, CONNECT)
                {
                    let _ = join(inner, outer);
                }
            }
        })?;
        Ok(Relay { listener, is_over, thread: Some(thread) })
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.is_over.store(true, Relaxed);
        // An accept that waits returns when its socket is shut down.
        let _ = rustix::net::shutdown(&*self.listener, rustix::net::Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Lets two threads copy what comes from either side to the other, until both have said that they send no more.
fn join(inner: TcpStream, outer: TcpStream) -> io::Result<()> {
    inner.set_nodelay(true)?;
    outer.set_nodelay(true)?;
    for (from, to) in [(inner.try_clone()?, outer.try_clone()?), (outer, inner)] {
        std::thread::Builder::new().name("relay".to_owned()).spawn(move || copy(from, to))?;
    }
    Ok(())
}

fn copy(mut from: TcpStream, mut to: TcpStream) {
    let copied = io::copy(&mut from, &mut to);
    // After an error, the other side must not wait for what cannot come.
    let what = if copied.is_ok() { Shutdown::Write } else { Shutdown::Both };
    let _ = to.shutdown(what);
    if copied.is_err() {
        let _ = from.shutdown(Shutdown::Both);
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    fn listener() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let at = listener.local_addr().expect("an address");
        (listener, at)
    }

    #[test]
    fn bytes_and_ends_of_both_sides_pass() {
        let (outside, to) = listener();
        let (inside, at) = listener();
        let relay = Relay::start(inside, to).expect("a relay");
        let mut node = TcpStream::connect(at).expect("a connection");
        let (mut server, _) = outside.accept().expect("a connection that was passed on");
        node.write_all(b"asked").expect("sent");
        node.shutdown(Shutdown::Write).expect("ended");
        let mut read = String::new();
        server.read_to_string(&mut read).expect("all of it");
        assert_eq!(read, "asked");
        server.write_all(b"answered").expect("sent");
        drop(server);
        read.clear();
        node.read_to_string(&mut read).expect("all of it");
        assert_eq!(read, "answered");
        drop(relay);
        assert!(TcpStream::connect(at).is_err(), "a relay that has ended takes no connection");
    }

    #[test]
    fn a_connection_that_nobody_takes_is_closed() {
        let (outside, to) = listener();
        drop(outside);
        let (inside, at) = listener();
        let _relay = Relay::start(inside, to).expect("a relay");
        let mut node = TcpStream::connect(at).expect("a connection");
        let mut read = Vec::new();
        // The end may be an orderly one or a reset.
        let _ = node.read_to_end(&mut read);
        assert!(read.is_empty());
    }
}
