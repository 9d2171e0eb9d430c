//! `anode token`: makes a token for the file of rights.

use std::io::Write;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom, SystemRandom};
use serde_json::json;

use super::format::FormatArguments;
use super::{CliError, Given};

/// Number of random bytes in a token: 256 bits.
const TOKEN_BYTES: usize = 32;

/// The arguments of `anode token`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n\
    \x20 anode token        the token is for its holder, the SHA-256 for a [[token]] in the file of --auth")]
pub struct Arguments {
    #[command(flatten)]
    format: FormatArguments,
}

/// Prints a new token, for its holder, and its SHA-256, for the file of rights.
pub fn run(arguments: &Arguments, given: &Given) -> Result<(), CliError> {
    let mut bytes = [0; TOKEN_BYTES];
    let random = SystemRandom::new().fill(&mut bytes);
    random.map_err(|_| CliError::Failed("the operating system gives no random bytes".into()))?;
    let token = URL_SAFE_NO_PAD.encode(bytes);
    let mut out = std::io::stdout().lock();
    if arguments.format.is_json(given) {
        let told = json!({ "token": token, "sha256": sha256_hex(&token) });
        return Ok(writeln!(out, "{told}")?);
    }
    Ok(writeln!(out, "token  {token}\nsha256 {}", sha256_hex(&token))?)
}

fn sha256_hex(token: &str) -> String {
    digest(&SHA256, token.as_bytes()).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_those_of_other_tools() {
        assert_eq!(sha256_hex("test"), "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08");
    }
}
