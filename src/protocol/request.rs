//! The requests of subscribers and the messages to them except records, in the form that both codecs share.

use std::borrow::Cow;

use super::AckLevel;
use super::draft::RequestId;
use super::refusal::{Code, Refusal};
use super::token::Token;
use crate::expression::SharedExpression;
use crate::record::{NodeName, Pattern};

/// The policy for a subscriber that receives more slowly than records arrive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// The subscriber is sent only the newest record of each source.
    #[default]
    Latest,
    /// The subscriber is sent every record; if too many wait, the connection is closed.
    All,
}

impl Mode {
    /// Returns the mode with this name.
    pub fn parse(name: &str) -> Option<Mode> {
        match name {
            "latest" => Some(Mode::Latest),
            "all" => Some(Mode::All),
            _ => None,
        }
    }

    /// Returns the name of the mode in requests.
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
    /// The patterns of the sources that are wanted, at least one.
    pub patterns: Vec<Pattern>,
    /// Whether the subscription begins with the newest record of every matching source.
    pub snapshot: bool,
    /// The mode; `None` means that of the connection.
    pub mode: Option<Mode>,
    /// A token that tells what the client has seen already.
    pub resume: Option<Token>,
    /// The expression that says which records are wanted; `None` for all.
    pub filter: Option<SharedExpression>,
}

/// Reads the filter of a subscription.
pub fn filter(text: &str) -> Result<SharedExpression, Refusal> {
    let refused = |bad| Refusal::new(Code::BadFilter, format!("filter: {bad}"));
    SharedExpression::filter(text).map_err(refused)
}

/// The request in a frame on `/subscribe`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Start a new subscription.
    Subscribe(Subscribe),
    /// End the subscription with this number.
    Unsubscribe(u32),
}

/// A frame on `/subscribe`: its request, or the reason why it is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubscribeFrame<'a> {
    /// The id of the request, if there is a readable one.
    pub id: Option<RequestId<'a>>,
    /// The checked request, or its refusal.
    pub request: Result<Request, Refusal>,
}

/// A frame that brings a token, on any path.
#[derive(Clone, PartialEq, Eq)]
pub struct AuthFrame<'a> {
    /// The id of the request, if there is a readable one.
    pub id: Option<RequestId<'a>>,
    /// The token, or the refusal of a frame that is malformed.
    pub token: Result<Cow<'a, str>, Refusal>,
}

/// Written to logs without the secret.
impl std::fmt::Debug for AuthFrame<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let token = self.token.as_ref().map(|_| "…");
        f.debug_struct("AuthFrame").field("id", &self.id).field("token", &token).finish()
    }
}

/// The first message on every connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connected<'a> {
    /// Name of the node that serves the connection.
    pub node: &'a NodeName,
    /// Identifies the connection in the node's log.
    pub session: &'a str,
    /// Silence after which the node pings the client, in milliseconds.
    pub ping_ms: u64,
    /// Largest data of one record, in bytes.
    pub max_record_bytes: usize,
    /// Largest frame that the client may send, in bytes.
    pub max_frame_bytes: usize,
    /// Some live members: their names and the `host:port` of their HTTP ports.
    pub members: Vec<(&'a str, &'a str)>,
}

/// A message to a client that is neither a record nor the answer to a publish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice<'a> {
    /// The first message on a connection.
    Connected(Connected<'a>),
    /// The answer to a request that started or ended a subscription.
    Subscribed {
        /// The id of the request.
        id: Option<RequestId<'a>>,
        /// Number of the subscription, unique on the connection.
        subscription: u32,
        /// Whether the subscription continues where the token of the request ended; `None` if the request had
        /// no token.
        recovered: Option<bool>,
    },
    /// The answer to a request that brought a token.
    Authenticated {
        /// The id of the request.
        id: Option<RequestId<'a>>,
        /// The name that the token stands for.
        name: &'a str,
        /// Time at which the token ends, in seconds since the Unix epoch; `None` for never.
        expires_s: Option<u64>,
    },
    /// The answer to a request that is refused.
    Refused {
        /// The id of the request.
        id: Option<RequestId<'a>>,
        /// Kind and reason of the refusal.
        refusal: &'a Refusal,
    },
    /// The end of a snapshot: all records of it have been sent.
    Eos {
        /// Number of the subscription.
        subscription: u32,
        /// Resume token up to here, which every node of the cluster accepts.
        resume: &'a str,
    },
    /// Resume token of all subscriptions of the connection.
    Resume(&'a str),
}

/// The request in the URL of a WebSocket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UrlRequest {
    /// `/publish`, with the default ack level of the connection.
    Publish(AckLevel),
    /// `/subscribe`, with the parameters of its query.
    Subscribe {
        /// The subscription that starts at once, if the query names sources.
        first: Option<Subscribe>,
        /// The default mode of the connection, if the query names one.
        mode: Option<Mode>,
        /// Whether the node may put several records into one frame.
        batch: bool,
    },
}
