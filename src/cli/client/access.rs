//! The options by which commands reach a node: the authorities that they trust, and the token that they bring.

use super::endpoint::NodeUrl;
use super::token::TokenArguments;
use super::trust::TrustArguments;
use crate::cli::CliError;

/// The authorities and the token.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct AccessArguments {
    #[command(flatten)]
    trust: TrustArguments,
    #[command(flatten)]
    token: TokenArguments,
}

impl AccessArguments {
    /// Returns the node at `url`, which is the value of the option `flag`.
    pub fn node(&self, url: &str, flag: &str) -> Result<NodeUrl, CliError> {
        Ok(NodeUrl::parse(url, flag, &self.trust)?.with_token(self.token.read()?))
    }
}
