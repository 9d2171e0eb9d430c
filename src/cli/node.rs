//! The joint between the command line and the nodes it runs.

use std::net::SocketAddr;

use super::CliError;
use crate::config::Config;

/// Runs a node until a signal ends it.
pub fn run(_config: Config) -> Result<(), CliError> {
    Err(CliError::Failed("the server is not joined yet".into()))
}

/// A node of this process.
pub struct Running {
    /// Where its clients go.
    pub http: SocketAddr,
    /// Where its peers go.
    pub gossip: SocketAddr,
}

impl Running {
    /// Starts a node and waits until its sockets listen.
    pub fn start(_config: Config) -> Result<Running, CliError> {
        Err(CliError::Failed("the server is not joined yet".into()))
    }

    /// Ends it as a power cut would: nothing is flushed, nobody is told.
    pub fn kill(self) {}
}
