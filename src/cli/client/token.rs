//! The token that a command brings: from a flag, from a file, or from the environment.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use crate::cli::CliError;

/// Name of the environment variable with the token.
pub const TOKEN_VARIABLE: &str = "ANODE_TOKEN";

/// The flags that say which token to bring.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct TokenArguments {
    /// Token to bring, if the node wants one; other users of this machine may see it, unlike that of --token-file
    /// or of ANODE_TOKEN [env: ANODE_TOKEN]
    // One token in 64 that `anode token` makes begins with a dash.
    #[arg(long, value_name = "TOKEN", conflicts_with = "token_file", allow_hyphen_values = true)]
    token: Option<NodeToken>,
    /// File with the token to bring
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

/// A token. Its text is shown nowhere.
#[derive(Clone, PartialEq, Eq)]
pub struct NodeToken(Arc<str>);

impl NodeToken {
    /// The text of the token.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for NodeToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NodeToken(…)")
    }
}

/// clap converts arguments with this. The check comes later, so that no error repeats a token.
impl From<String> for NodeToken {
    fn from(text: String) -> NodeToken {
        NodeToken(text.into())
    }
}

impl TokenArguments {
    /// Returns the token, or `None` if there is none.
    pub fn read(&self) -> Result<Option<NodeToken>, CliError> {
        let (field, text) = match (&self.token, &self.token_file) {
            (Some(token), _) => ("--token", token.as_str().to_owned()),
            (None, Some(path)) => {
                let text = std::fs::read_to_string(path).map_err(|error| {
                    let path = path.display();
                    CliError::Usage(format!(
                        "--token-file: {path} cannot be used; allowed: a readable file ({error})"
                    ))
                })?;
                ("--token-file", text)
            }
            (None, None) => match std::env::var(TOKEN_VARIABLE) {
                Ok(text) if !text.is_empty() => (TOKEN_VARIABLE, text),
                _ => return Ok(None),
            },
        };
        let text = text.trim();
        if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            let message =
                format!("{field}: the token cannot be used; allowed: printable ASCII without spaces");
            return Err(CliError::Usage(message));
        }
        Ok(Some(NodeToken(text.into())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(token: Option<&str>, token_file: Option<PathBuf>) -> Result<Option<NodeToken>, CliError> {
        TokenArguments { token: token.map(|text| NodeToken(text.into())), token_file }.read()
    }

    #[test]
    fn tokens_come_from_a_flag_or_a_file_and_are_never_shown() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("token");
        std::fs::write(&path, "from-file\n").expect("written");
        assert_eq!(read(Some("from-flag"), None).expect("fine"), Some(NodeToken("from-flag".into())));
        assert_eq!(read(None, Some(path.clone())).expect("fine"), Some(NodeToken("from-file".into())));
        std::fs::write(&path, "my secret").expect("written");
        for error in
            [read(None, Some(path)), read(Some("my\tsecret"), None), read(None, Some("/no/file".into()))]
        {
            let Err(CliError::Usage(message)) = error else { panic!("taken") };
            assert!(message.contains("--token") && !message.contains("secret"), "{message}");
        }
        assert_eq!(format!("{:?}", NodeToken("x".into())), "NodeToken(…)");
    }
}
