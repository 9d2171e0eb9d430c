//! The ack levels, and the one parser of their names.

use std::fmt;

use super::refusal::{Code, Refusal, shortened};

/// How far a publish must have come before the client is answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AckLevel {
    /// The node has applied the record to its map and queued it for the store and the cluster.
    #[default]
    Accepted,
    /// The record is on disk and survives a power cut.
    Stored,
    /// Every member that was alive when the record was accepted holds it.
    Replicated,
}

impl AckLevel {
    /// All levels, the weakest first.
    pub const ALL: [AckLevel; 3] = [AckLevel::Accepted, AckLevel::Stored, AckLevel::Replicated];

    /// Returns the level with this name, or a refusal that quotes the name and lists the allowed ones.
    pub fn parse(name: &str) -> Result<AckLevel, Refusal> {
        let level = AckLevel::ALL.into_iter().find(|level| level.as_str() == name);
        level.ok_or_else(|| AckLevel::unknown(format_args!("{:?}", shortened(name))))
    }

    /// Makes the refusal of a request whose ack level is written as `shown`, which is the name of no level.
    pub(super) fn unknown(shown: impl fmt::Display) -> Refusal {
        let allowed = AckLevel::ALL.map(AckLevel::as_str).join(", ");
        Refusal::new(Code::BadRequest, format!("ack is {shown}; allowed are {allowed}"))
    }

    /// Returns the name of the level in requests and answers.
    pub fn as_str(self) -> &'static str {
        match self {
            AckLevel::Accepted => "accepted",
            AckLevel::Stored => "stored",
            AckLevel::Replicated => "replicated",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_level_is_read_by_its_name() {
        for level in AckLevel::ALL {
            assert_eq!(AckLevel::parse(level.as_str()), Ok(level));
        }
        let refusal = AckLevel::parse("best").expect_err("no level");
        assert_eq!(refusal.message, "ack is \"best\"; allowed are accepted, stored, replicated");
    }
}
