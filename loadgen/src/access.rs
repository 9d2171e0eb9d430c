//! Options by which connections are let in: the authorities that are trusted, and the token that is brought.

use std::path::PathBuf;

use clap::Args;

use crate::tls::{self, TlsSettings};
use crate::token::{self, Bearer};
use crate::usage::wrong;

/// The authorities and the token.
#[derive(Clone, Debug, Default, Args)]
pub struct AccessArgs {
    /// PEM file of the authorities that sign the servers' certificates [default: those of this system]
    #[arg(long, value_name = "FILE", help_heading = "Target")]
    pub ca: Option<PathBuf>,
    /// aNode: token that every connection brings [env: ANODE_TOKEN]
    // One token in 64 that `anode token` makes begins with a dash.
    #[arg(long, conflicts_with = "token_file", allow_hyphen_values = true, help_heading = "Target")]
    pub token: Option<Bearer>,
    /// aNode: file with that token
    #[arg(long, help_heading = "Target")]
    pub token_file: Option<PathBuf>,
}

impl AccessArgs {
    /// Returns the settings of TLS, if the addresses of the servers ask for it: all of them, or none.
    pub fn tls<'a>(
        &self,
        addresses: impl Iterator<Item = &'a String>,
    ) -> Result<Option<TlsSettings>, String> {
        let (with, without): (Vec<_>, Vec<_>) = addresses.partition(|address| tls::is_tls(address));
        match (with.first(), without.first()) {
            (Some(_), Some(plain)) => wrong("--to", plain, "wss:// as the others are, or none of them"),
            (None, _) if self.ca.is_some() => wrong("--to", "", "wss://host:port with --ca"),
            (None, _) => Ok(None),
            (Some(_), None) => TlsSettings::new(self.ca.as_deref()).map(Some),
        }
    }

    /// Returns the token that connections bring, if there is one. Errors do not repeat it.
    pub fn token(&self) -> Result<Option<Bearer>, String> {
        token::read(self.token.as_ref().map(|token| &*token.0), self.token_file.as_deref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The options by themselves, as a command that has nothing else.
    #[derive(clap::Parser)]
    struct Connecting {
        #[command(flatten)]
        access: AccessArgs,
    }

    /// One in 64 of the tokens that `anode token` makes begins with a dash. It was taken for further options.
    #[test]
    fn a_token_may_begin_with_a_dash_and_is_shown_nowhere() {
        for token in ["-GFfg8vAXEwX", "--FFfg8vAXEwX"] {
            let read = <Connecting as clap::Parser>::try_parse_from(["load", "--token", token]);
            let Connecting { access } = read.unwrap_or_else(|error| panic!("{error}"));
            let brought = access.token().expect("a token").map(|brought| brought.0.to_string());
            assert_eq!(brought.as_deref(), Some(token));
            assert!(!format!("{access:?}").contains(token), "{token} is shown");
        }
    }
}
