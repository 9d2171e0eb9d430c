//! The door that every request passes, whichever thread reads it: the name that it is addressed to, the page that it
//! comes from, and who sends it.

use std::net::IpAddr;

use super::access::Access;
use super::caller::{BroughtToken, Caller, Peer};
use super::keeper::Auth;
use super::rights::Right;
use crate::config::access::{AccessConfig, Origin, split_port};
use crate::protocol::refusal::{Code, Refusal};
use crate::record::Now;

/// Who may come in. All threads of a node share it.
pub struct Door {
    config: AccessConfig,
    auth: Option<Auth>,
}

/// The page that a request comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageOrigin {
    /// The request says nothing of a page, so it comes from no browser, or from a page of this host.
    None,
    /// A page that may connect.
    Allowed,
    /// A page that may not.
    Foreign,
}

/// How a session begins.
#[derive(Clone, Debug)]
pub enum SessionEntry {
    /// The node has no file of rights: everybody may do everything that clients may.
    Open,
    /// The client is known.
    Known(Access),
    /// The client has brought no token so far, and has these rights until it does; `None`: it has none.
    Unknown(Option<Access>),
}

impl Door {
    /// Makes the door of a node.
    pub fn new(config: AccessConfig, auth: Option<Auth>) -> Door {
        Door { config, auth }
    }

    /// The file of rights; `None` if the node has none.
    pub fn auth(&self) -> Option<&Auth> {
        self.auth.as_ref()
    }

    /// Refuses a request that is addressed to a name which is not this node's, while there is no file of rights. A page
    /// whose name is made to point at this machine (DNS rebinding) is known by its own name there.
    pub fn check_host(&self, caller: &Caller) -> Result<(), Refusal> {
        let Some(host) = caller.host.as_deref().filter(|_| self.auth.is_none()) else { return Ok(()) };
        let name = split_port(host).map_or(host, |(name, _)| name);
        let name = name.strip_suffix('.').unwrap_or(name);
        let address = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(name);
        let is_known = name.is_empty()
            || address.parse::<IpAddr>().is_ok()
            || name.eq_ignore_ascii_case("localhost")
            || self.config.hosts.iter().any(|known| known.eq_ignore_ascii_case(name));
        match is_known {
            true => Ok(()),
            false => {
                let shown: String = name.chars().take(64).collect();
                let message = format!(
                    "Host is {shown:?}; without --auth this node answers to addresses, to localhost and to the \
                     names given by --allow-host"
                );
                Err(Refusal::new(Code::Forbidden, message))
            }
        }
    }

    /// Returns which page a request comes from.
    pub fn page_of(&self, caller: &Caller) -> PageOrigin {
        let Some(text) = caller.origin.as_deref() else { return PageOrigin::None };
        if self.config.is_any_origin {
            return PageOrigin::Allowed;
        }
        let origin = Origin::parse(text);
        let is_allowed = origin.is_some_and(|origin| {
            self.config.origins.contains(&origin)
                || caller.host.as_deref().is_some_and(|host| origin.is_of_host(host))
        });
        if is_allowed { PageOrigin::Allowed } else { PageOrigin::Foreign }
    }

    /// Refuses a request that changes something, or a session, that a page of another host asks for.
    pub fn check_page(&self, caller: &Caller) -> Result<(), Refusal> {
        match self.page_of(caller) {
            PageOrigin::None | PageOrigin::Allowed => Ok(()),
            PageOrigin::Foreign => {
                let shown: String = caller.origin.as_deref().unwrap_or_default().chars().take(64).collect();
                let message = format!("pages of {shown:?} may not connect to this node; see --allow-origin");
                Err(Refusal::new(Code::Forbidden, message))
            }
        }
    }

    /// Lets a request in that needs this right, or refuses it. Returns who sends it, if the node has a file of rights
    /// and the request needs any right.
    pub fn admit(
        &self,
        caller: &Caller,
        peer: &Peer,
        right: Right,
        now: Now,
    ) -> Result<Option<Access>, Refusal> {
        if right == Right::Public {
            return Ok(None);
        }
        let Some(auth) = &self.auth else { return check_local(peer, right).map(|()| None) };
        let access = match identify(auth, caller, peer, now)? {
            Some(known) => known,
            None => match auth.anonymous().filter(|access| access.rights().may(right)) {
                Some(anonymous) => anonymous,
                None => return Err(Refusal::new(Code::Unauthorized, "this needs a token")),
            },
        };
        check_right(&access, right).map(|()| Some(access))
    }

    /// Lets a session begin that needs this right, or refuses it. A client that has brought no token may do so on the
    /// connection.
    pub fn admit_session(
        &self,
        caller: &Caller,
        peer: &Peer,
        right: Right,
        now: Now,
    ) -> Result<SessionEntry, Refusal> {
        self.check_host(caller)?;
        self.check_page(caller)?;
        let Some(auth) = &self.auth else { return Ok(SessionEntry::Open) };
        match identify(auth, caller, peer, now)? {
            Some(access) => check_right(&access, right).map(|()| SessionEntry::Known(access)),
            None => {
                let anonymous = auth.anonymous().filter(|access| access.rights().may(right));
                Ok(SessionEntry::Unknown(anonymous))
            }
        }
    }
}

/// Returns who sends a request: by its token, else by the certificate of its connection. Returns `None` if it brings
/// neither.
fn identify(auth: &Auth, caller: &Caller, peer: &Peer, now: Now) -> Result<Option<Access>, Refusal> {
    match &caller.token {
        BroughtToken::Token(token) => auth.authenticate(token, peer.address, now).map(Some),
        BroughtToken::Unreadable(reason) => Err(Refusal::new(Code::Unauthorized, *reason)),
        BroughtToken::None => Ok(peer.certificate.as_ref().and_then(|name| auth.certified(name))),
    }
}

fn check_right(access: &Access, right: Right) -> Result<(), Refusal> {
    if access.rights().may(right) {
        return Ok(());
    }
    let what = match right {
        Right::Public | Right::Known | Right::Observe => "observe",
        Right::Subscribe | Right::ReadSystem => "subscribe",
        Right::Publish => "publish",
        Right::Admin => "administrate",
    };
    Err(Refusal::new(Code::Forbidden, format!("{} may not {what}", access.name())))
}

/// Without a file of rights, admin requests are taken from this machine alone.
fn check_local(peer: &Peer, right: Right) -> Result<(), Refusal> {
    if right == Right::Admin && !peer.address.to_canonical().is_loopback() {
        let message = "without --auth, admin requests are taken from loopback addresses alone";
        return Err(Refusal::new(Code::Forbidden, message));
    }
    Ok(())
}
