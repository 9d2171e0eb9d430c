//! Values of a definition that may be secrets, which are named in it and stand in the environment of the runner.
//!
//! A definition is spread to every node and shown to everyone who may observe, so it says `env:NAME`, and only the
//! member that runs it looks the name up. The variables of aNode itself cannot be named: who may put definitions could
//! have the node's own secrets sent to a server of his choice.

use crate::extend::definition::BadField;
use crate::extend::secret::OWN_VARIABLES;

/// What a value begins with that is the name of a variable.
const VARIABLE_PREFIX: &str = "env:";

/// A value that is known, or the name of the variable that holds it.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum PullSecret {
    /// A value that is no secret, since it stands in the definition.
    Plain(String),
    /// Name of the variable of the environment that holds the value.
    Variable(String),
}

impl PullSecret {
    /// Reads a value, which is found at `field` in the definition.
    pub fn parse(field: &str, text: &str) -> Result<PullSecret, BadField> {
        let Some(name) = text.strip_prefix(VARIABLE_PREFIX) else {
            return Ok(PullSecret::Plain(text.to_owned()));
        };
        let is_name =
            !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        if !is_name || name.to_ascii_uppercase().starts_with(OWN_VARIABLES) {
            let allowed =
                "env: and the name of a variable, of A-Z a-z 0-9 _, that does not begin with ANODE_";
            return Err(BadField::new(field, text, allowed));
        }
        Ok(PullSecret::Variable(name.to_owned()))
    }

    /// Reads a value that must not stand in the definition.
    pub fn parse_hidden(field: &str, text: &str) -> Result<PullSecret, BadField> {
        match PullSecret::parse(field, text)? {
            PullSecret::Plain(_) => {
                let allowed = "\"env:NAME\", the name of a variable in the runner's environment: a definition is shown to \
                               everyone who may observe";
                Err(BadField::new(field, "a secret in the definition", allowed))
            }
            hidden => Ok(hidden),
        }
    }

    /// Returns the value, or the reason why it cannot be had here.
    pub fn value(&self) -> Result<String, String> {
        match self {
            PullSecret::Plain(value) => Ok(value.clone()),
            PullSecret::Variable(name) => match std::env::var(name) {
                Ok(value) => Ok(value),
                Err(std::env::VarError::NotPresent) => Err(format!("{name} is not set in the environment")),
                Err(std::env::VarError::NotUnicode(_)) => {
                    Err(format!("{name} in the environment is no UTF-8"))
                }
            },
        }
    }
}

impl std::fmt::Debug for PullSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            PullSecret::Plain(_) => f.write_str("Plain"),
            PullSecret::Variable(name) => f.debug_tuple("Variable").field(name).finish(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_named_and_not_written() {
        let parse = |text: &str| PullSecret::parse("headers.Authorization", text);
        assert_eq!(parse("env:KEY_1"), Ok(PullSecret::Variable("KEY_1".into())));
        assert_eq!(parse("plain"), Ok(PullSecret::Plain("plain".into())));
        for bad in ["env:", "env:a b", "env:A=B", "env:ANODE_CASSANDRA_PASSWORD", "env:anode_x"] {
            let error = parse(bad).expect_err(bad).to_string();
            assert!(
                error.starts_with(&format!("headers.Authorization: {bad}; allowed: env: and")),
                "{error}"
            );
        }
        let error = PullSecret::parse_hidden("password", "hunter2").expect_err("written").to_string();
        assert!(!error.contains("hunter2") && error.contains("env:NAME"), "{error}");
        assert!(!format!("{:?}", parse("hunter2")).contains("hunter2"));
        let missing = parse("env:NO_SUCH_VARIABLE_HERE").expect("a name").value();
        assert_eq!(missing, Err("NO_SUCH_VARIABLE_HERE is not set in the environment".into()));
    }
}
