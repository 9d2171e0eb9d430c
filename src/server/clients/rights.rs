//! Judging sessions again: when their tokens end, and when the file of rights has changed.

use super::super::connection::{Connection, ConnectionStage};
use super::Clients;
use crate::auth::Peer;
use crate::record::Now;

/// Number of places of the table that are looked at in one turn, so that a change of the file holds up nobody.
const JUDGED_PER_TURN: usize = 1_024;

/// How far the sessions of a worker were judged by the file of rights as it is now.
#[derive(Debug, Default)]
pub(super) struct Judgement {
    /// Number of times that the file was read when this judgement began.
    generation: u64,
    /// The next place of the table to look at; `None` if all were.
    next: Option<usize>,
}

impl Judgement {
    /// Returns whether there are sessions that are to be judged.
    pub(super) fn is_under_way(&self) -> bool {
        self.next.is_some()
    }
}

/// What is known of the client of a connection.
pub(super) fn peer_of(connection: &Connection) -> Peer {
    Peer { address: connection.address, certificate: connection.transport.peer_name().map(Into::into) }
}

impl Clients {
    /// Judges some sessions again, if the file of rights has changed.
    pub(super) fn judge_again(&mut self, now: Now) {
        let Some(generation) = self.shared().door.auth().map(|auth| auth.generation()) else { return };
        if generation != self.judgement.generation {
            self.judgement = Judgement { generation, next: Some(0) };
        }
        let Some(first) = self.judgement.next else { return };
        let end = self.table.capacity().min(first + JUDGED_PER_TURN);
        self.judgement.next = (end < self.table.capacity()).then_some(end);
        for key in first..end {
            let Some(connection) = self.table.get_mut(key) else { continue };
            let judged = self.env.with(now, key, connection, |session, turn| session.judge_again(turn));
            if let Some(Err(close)) = judged {
                self.env.close(now, key, connection, &close);
            }
            self.env.arm(now.mono_us, key, connection);
        }
    }

    /// Closes the connection at `key` if its token has not come in time or has ended. Returns whether it was closed.
    pub(super) fn check_rights(&mut self, now: Now, key: usize) -> bool {
        let Some(connection) = self.table.get_mut(key) else { return false };
        if !matches!(connection.stage, ConnectionStage::Open(_)) {
            return false;
        }
        let checked = self.env.with(now, key, connection, |session, turn| session.check_rights(turn));
        let Some(Err(close)) = checked else { return false };
        self.env.close(now, key, connection, &close);
        self.env.arm(now.mono_us, key, connection);
        true
    }
}
