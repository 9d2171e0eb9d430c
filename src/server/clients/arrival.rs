//! Accepted connections: which are taken in, with which layer, and which are dropped to make room.

use std::net::SocketAddr;

use mio::Registry;
use mio::net::TcpStream;

use super::super::connection::{Admission, AwaitedEnd, Connection, ConnectionStage};
use super::super::framing::wrap::Framing;
use super::super::guests::Guest;
use super::super::tokens;
use super::super::transport::{Layer, Transport};
use super::Clients;
use crate::record::Now;

/// Number of connections over `--max-connections` that a worker turns away with an answer at a time. For
/// each one beyond, the oldest whose request has not come is dropped without an answer.
const EXCESS_MAX: usize = 128;
/// Number of connections of a worker through the port for those who watch the node. For each one beyond, the oldest is
/// dropped.
const WATCHERS_MAX: usize = 64;

impl Clients {
    /// Takes in connections that were just accepted.
    pub fn admit(&mut self, registry: &Registry, accepted: Vec<(TcpStream, SocketAddr)>, now: Now) {
        let shared = self.shared().clone();
        for (socket, address) in accepted {
            let admission = if shared.places.take() { Admission::Admitted } else { Admission::Excess };
            let place = shared.address_places.take(address.ip());
            let is_excess = admission == Admission::Excess;
            if is_excess && self.env.excess.len() >= EXCESS_MAX {
                self.drop_oldest_excess();
            }
            let entry = self.table.vacant_entry();
            let key = entry.key();
            let layer = match &self.tls {
                None => Layer::Plain,
                Some(tls) => Layer::Tls(Box::new(tls.layer(&shared.metrics))),
            };
            let mut transport = Transport::new(socket, layer);
            if (is_excess && self.env.excess.len() >= EXCESS_MAX)
                || transport.register(registry, tokens::of_connection(key)).is_err()
            {
                shared.places.give_back();
                continue;
            }
            shared.metrics.connections_accepted.increment();
            self.next_generation += 1;
            let numbers = (self.next_generation, now.mono_us);
            let connection = Connection::new(transport, numbers, admission, (address.ip(), place));
            let connection = entry.insert(connection);
            if is_excess {
                self.env.excess.insert(self.next_generation, key);
            }
            self.env.arm(now.mono_us, key, connection);
        }
    }

    /// Takes in connections that were just accepted on the port for those who watch the node. They are never
    /// encrypted.
    pub fn admit_watchers(&mut self, registry: &Registry, accepted: Vec<(TcpStream, SocketAddr)>, now: Now) {
        for (socket, address) in accepted {
            if self.env.watchers.len() >= WATCHERS_MAX
                && let Some((_, oldest)) = self.env.watchers.pop_first()
                && let Some(connection) = self.table.get_mut(oldest)
            {
                let session = connection.finish(AwaitedEnd::Nothing, now.mono_us);
                debug_assert!(session.is_none(), "nobody who watches has a session");
                self.env.kill(oldest, connection);
            }
            let entry = self.table.vacant_entry();
            let key = entry.key();
            let mut transport = Transport::new(socket, Layer::Plain);
            if transport.register(registry, tokens::of_connection(key)).is_err() {
                continue;
            }
            self.next_generation += 1;
            self.env.watchers.insert(self.next_generation, key);
            let numbers = (self.next_generation, now.mono_us);
            // The bound on the connections of an address is for clients.
            let from = (address.ip(), None);
            let connection = Connection::new(transport, numbers, Admission::Watcher, from);
            let connection = entry.insert(connection);
            self.env.arm(now.mono_us, key, connection);
        }
    }

    /// Lets the subscribers begin that the control plane has brought to this worker.
    pub fn admit_guests(&mut self, registry: &Registry, now: Now) {
        for Guest { socket, session, address } in self.shared().guests.take(self.env.host.worker) {
            let entry = self.table.vacant_entry();
            let key = entry.key();
            let mut transport = Transport::new(TcpStream::from_std(socket), Layer::Plain);
            if let Err(error) = transport.register(registry, tokens::of_connection(key)) {
                // The control plane sees that its end of the pair is closed.
                tracing::warn!(%error, "a subscription over GraphQL cannot be served");
                continue;
            }
            self.next_generation += 1;
            let numbers = (self.next_generation, now.mono_us);
            entry.insert(Connection::new(transport, numbers, Admission::Guest, (address, None)));
            self.open(now, key, session, Framing::WebSocket);
            if let Some(connection) = self.table.get_mut(key) {
                self.env.arm(now.mono_us, key, connection);
            }
            self.queue_turn(key);
        }
    }

    /// Drops the oldest connection beyond the node's bound whose request has not come, so that those that
    /// say nothing do not keep out one that asks for a health path.
    fn drop_oldest_excess(&mut self) {
        let is_silent = |key: usize| {
            let connection = self.table.get(key);
            connection.is_some_and(|one| matches!(one.stage, ConnectionStage::Head { .. }))
        };
        let oldest = self.env.excess.iter().find(|(_, key)| is_silent(**key));
        let Some((generation, key)) = oldest.map(|(generation, key)| (*generation, *key)) else { return };
        self.env.excess.remove(&generation);
        if let Some(connection) = self.table.get_mut(key) {
            self.env.kill(key, connection);
        }
    }
}
