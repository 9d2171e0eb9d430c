//! The log of clients that were refused or closed: each reason once a minute, with the number of clients and the last of
//! them. What single clients do is told at the level `debug`.

use std::net::IpAddr;

use super::close::{CloseCode, CloseReason};
use super::log_limit::LogLimit;
use crate::metrics::CLOSE_CODES;
use crate::protocol::refusal::Refusal;

/// Statuses of refusals that are logged: who may not come in, and for whom there is no room. Others are mistakes of
/// single clients.
const LOGGED_STATUSES: [u16; 4] = [401, 403, 429, 503];

/// Counts clients that were refused or closed between two lines of the log.
#[derive(Debug, Default)]
pub struct ClientComplaints {
    closes: [LogLimit; CLOSE_CODES.len()],
    refusals: [LogLimit; LOGGED_STATUSES.len()],
}

impl ClientComplaints {
    /// Notes that the connection of a client at `address` is closed.
    pub fn closed(&self, now_us: u64, close: &CloseReason, address: IpAddr) {
        let code = close.code.number();
        tracing::debug!(code, reason = close.reason, %address, "a client is closed");
        // A node that stops closes all, and tells that it stops.
        if close.code == CloseCode::Draining {
            return;
        }
        let limit = CLOSE_CODES.iter().position(|&known| known == code).and_then(|at| self.closes.get(at));
        if let Some(clients) = limit.and_then(|limit| limit.count(now_us)) {
            tracing::info!(
                code,
                clients,
                reason = close.reason,
                last = %address,
                "clients were closed; this is logged once a minute for each code"
            );
        }
    }

    /// Notes that a connection or upgrade of a client at `address` is refused.
    pub fn refused(&self, now_us: u64, status: u16, refusal: &Refusal, address: IpAddr) {
        tracing::debug!(status, reason = refusal.message, %address, "a client is refused");
        let limit = LOGGED_STATUSES.iter().position(|&known| known == status);
        let limit = limit.and_then(|at| self.refusals.get(at));
        if let Some(clients) = limit.and_then(|limit| limit.count(now_us)) {
            tracing::info!(
                status,
                clients,
                code = refusal.code.as_str(),
                reason = refusal.message,
                last = %address,
                "connections were refused; this is logged once a minute for each status"
            );
        }
    }
}
