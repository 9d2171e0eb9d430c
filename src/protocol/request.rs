//! What subscribers ask for and what they are told, apart from records; the same in both codecs.

use super::AckLevel;
use super::answer::Refusal;
use super::draft::RequestId;
use super::token::Token;
use crate::record::{NodeName, Pattern};

/// What a subscriber gets when it cannot keep up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// The newest value of each source.
    #[default]
    Latest,
    /// Every record, or the end of the connection.
    All,
}

impl Mode {
    /// The mode of this name.
    pub fn parse(name: &str) -> Option<Mode> {
        match name {
            "latest" => Some(Mode::Latest),
            "all" => Some(Mode::All),
            _ => None,
        }
    }

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Mode::Latest => "latest",
            Mode::All => "all",
        }
    }
}

/// A subscription as a client asked for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscribe {
    /// At least one.
    pub patterns: Vec<Pattern>,
    /// Whether it begins with the latest record of every source that matches.
    pub snapshot: bool,
    /// `None`: the connection's.
    pub mode: Option<Mode>,
    /// What the client has seen.
    pub resume: Option<Token>,
}

/// What a frame of `/subscribe` asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// A new subscription.
    Subscribe(Subscribe),
    /// The end of the one of this number.
    Unsubscribe(u32),
}

/// A frame of `/subscribe`: what it asks for, or why it cannot be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubscribeFrame<'a> {
    /// As it came, if it came and could be read.
    pub id: Option<RequestId<'a>>,
    /// The request, or the refusal.
    pub request: Result<Request, Refusal>,
}

/// The first thing a client is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connected<'a> {
    /// This node.
    pub node: &'a NodeName,
    /// Names the connection in the node's log.
    pub session: &'a str,
    /// After this silence the node pings.
    pub ping_ms: u64,
    /// Bytes of a record's data.
    pub max_record_bytes: usize,
    /// Bytes of a frame.
    pub max_frame_bytes: usize,
    /// Some live members, (id, `host:port` of HTTP).
    pub members: Vec<(&'a str, &'a str)>,
}

/// What a connection is told, apart from records and the answers to publishes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice<'a> {
    /// The first message.
    Connected(Connected<'a>),
    /// The result of a subscribe or unsubscribe.
    Subscribed {
        /// The request's.
        id: Option<RequestId<'a>>,
        /// The number of the subscription.
        subscription: u32,
        /// Whether the token was good; `None` without a token.
        recovered: Option<bool>,
    },
    /// A frame that was refused.
    Refused {
        /// The request's.
        id: Option<RequestId<'a>>,
        /// Why.
        refusal: &'a Refusal,
    },
    /// The end of a snapshot.
    Eos {
        /// The number of the subscription.
        subscription: u32,
        /// Good on any node.
        resume: &'a str,
    },
    /// A token of all subscriptions.
    Resume(&'a str),
}

/// What the URL of a WebSocket asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UrlRequest {
    /// `/publish`: the connection's default level.
    Publish(AckLevel),
    /// `/subscribe`
    Subscribe {
        /// Asked for at once.
        first: Option<Subscribe>,
        /// The connection's mode, if it was named.
        mode: Option<Mode>,
        /// Whether a frame may hold several records.
        batch: bool,
    },
}
