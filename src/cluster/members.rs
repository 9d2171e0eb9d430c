//! Members as everyone in the cluster core sees them.

use std::net::SocketAddr;
use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_64;

use crate::record::NodeName;

/// What a member is believed to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// Answers.
    Alive,
    /// Did not answer; may still refute.
    Suspect,
    /// Given up, and probed once in a while all the same.
    Dead,
    /// Went by itself.
    Left,
}

impl State {
    /// The state's name in the contract.
    pub fn as_str(self) -> &'static str {
        match self {
            State::Alive => "alive",
            State::Suspect => "suspect",
            State::Dead => "dead",
            State::Left => "left",
        }
    }

    /// Whether records are sent to it: alive, or not yet given up.
    pub fn is_live(self) -> bool {
        matches!(self, State::Alive | State::Suspect)
    }
}

/// What a member says of itself, the same for as long as it lives. Shared: a member must cost a
/// node little (10,000 machines of 10,000 members stand in one simulated world).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Its name.
    pub name: NodeName,
    /// Which of its lives.
    pub boot: u64,
    /// Where its UDP and TCP are.
    pub gossip: SocketAddr,
    /// `host:port` of its HTTP port.
    pub http: String,
    /// Its zone; empty if it named none.
    pub zone: String,
    /// Its program's version.
    pub version: String,
}

impl Identity {
    /// Its place on the ring: a hash of the name, so that it outlives restarts and moves.
    pub fn ring_hash(&self) -> u64 {
        xxh3_64(self.name.as_str().as_bytes())
    }
}

/// A member as one node sees it at one time; what `GET /v1/members` shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberInfo {
    /// What it says of itself.
    pub identity: Arc<Identity>,
    /// What it is believed to be.
    pub state: State,
    /// How often it refuted a suspicion in this life.
    pub incarnation: u32,
    /// Smoothed round trip, in microseconds; `None`: not measured (or this very node).
    pub rtt_us: Option<u32>,
}
