//! Who the client of a session is, and what it may do.
//!
//! Only sessions of nodes with a file of rights have this. A client that has brought no token at the upgrade may do so
//! in its first frame, and is closed if it does not in time.

use std::net::IpAddr;

use crate::auth::{Access, Auth, PublishRights, SessionEntry};
use crate::limits::AUTH_FRAME_US_MAX;
use crate::protocol::refusal::{Code, Refusal};
use crate::record::{Now, Pattern};
use crate::server::close::{CloseCode, CloseReason};

/// Longest time between two looks at the end of an access, in microseconds, because the wall clock may be set.
const EXPIRY_LOOK_US_MAX: u64 = 60_000_000;

/// The rights of one session.
#[derive(Debug)]
pub(super) struct SessionRights {
    /// Address that the client comes from.
    address: IpAddr,
    /// The rights of a client that is known; `None` while its token is waited for.
    known: Option<PublishRights>,
    /// Monotonic time at which to look again whether the token has come or has ended, in microseconds.
    look_us: Option<u64>,
}

impl SessionRights {
    /// The rights with which a session begins. `wanted` are the patterns that its URL names. A refusal says that the
    /// client may not read them.
    pub(super) fn begin(
        entry: SessionEntry,
        address: IpAddr,
        wanted: &[Pattern],
        now: Now,
    ) -> Result<Option<SessionRights>, Refusal> {
        let awaited = now.mono_us + AUTH_FRAME_US_MAX;
        let mut rights = SessionRights { address, known: None, look_us: Some(awaited) };
        match entry {
            SessionEntry::Open => return Ok(None),
            SessionEntry::Known(access) => {
                check_readable(&access, wanted)?;
                rights.set(access, now);
            }
            SessionEntry::Unknown(Some(access)) if check_readable(&access, wanted).is_ok() => {
                rights.set(access, now);
            }
            SessionEntry::Unknown(_) => {}
        }
        Ok(Some(rights))
    }

    /// Address that the client comes from.
    pub(super) fn address(&self) -> IpAddr {
        self.address
    }

    /// The rights of the client; `None` while its token is waited for.
    pub(super) fn known(&self) -> Option<&PublishRights> {
        self.known.as_ref()
    }

    /// Takes the access of a token that has come, or of one that was judged again.
    pub(super) fn set(&mut self, access: Access, now: Now) {
        self.look_us = access
            .expires_us()
            .map(|expires_us| now.mono_us + expires_us.saturating_sub(now.wall_us).min(EXPIRY_LOOK_US_MAX));
        match &mut self.known {
            Some(known) => known.set_access(access),
            None => self.known = Some(PublishRights::new(access)),
        }
    }

    /// Monotonic time at which [`SessionRights::check`] is to be called, in microseconds.
    pub(super) fn next_timeout_us(&self) -> Option<u64> {
        self.look_us
    }

    /// Refuses the client if its token has not come in time, or has ended.
    pub(super) fn check(&mut self, now: Now) -> Result<(), Refusal> {
        if self.look_us.is_none_or(|look_us| now.mono_us < look_us) {
            return Ok(());
        }
        let Some(known) = &self.known else {
            let message = format!("no token has come within {} s", AUTH_FRAME_US_MAX / 1_000_000);
            return Err(Refusal::new(Code::Unauthorized, message));
        };
        let access = known.access().clone();
        if access.is_over(now) {
            return Err(Refusal::new(Code::Unauthorized, "the token has expired"));
        }
        self.set(access, now);
        Ok(())
    }

    /// Judges the client again, because the file of rights has changed.
    pub(super) fn judge_again(&mut self, auth: &Auth, now: Now) -> Result<(), Refusal> {
        let Some(known) = &self.known else { return Ok(()) };
        let access = auth.judge_again(known.access(), now)?;
        self.set(access, now);
        Ok(())
    }

    /// Number of bytes of memory that the rights take.
    pub(super) fn held_bytes(&self) -> usize {
        size_of::<SessionRights>() + self.known.as_ref().map_or(0, PublishRights::held_bytes)
    }
}

/// Refuses patterns of which any can match a source that may not be read.
pub(super) fn check_readable(access: &Access, patterns: &[Pattern]) -> Result<(), Refusal> {
    match patterns.iter().find(|pattern| !access.rights().may_read_all(pattern)) {
        None => Ok(()),
        Some(pattern) => {
            let name = access.name();
            let message = format!("{name} may not read every source that pattern {pattern:?} can match");
            Err(Refusal::new(Code::Forbidden, message))
        }
    }
}

/// The close that follows when a client is refused altogether.
pub(super) fn close_of(refusal: &Refusal) -> CloseReason {
    let code = match refusal.code {
        Code::RateLimited => CloseCode::OverRate,
        Code::Forbidden => CloseCode::Forbidden,
        _ => CloseCode::Unauthorized,
    };
    CloseReason::new(code, refusal.message.clone())
}
