//! Secrets that a definition names and does not contain: they are read from the environment of the node that runs it.
//!
//! A definition is spread to every node and may be read by anyone who may observe. So it has only the name of a secret,
//! `env:NAME`, and a node that has no such variable cannot run it. The variables of aNode itself cannot be named: whoever may
//! put definitions could have the node's own secrets sent to a server of their choice.

use std::env;

/// Longest name of a variable, in bytes.
const VARIABLE_BYTES_MAX: usize = 128;
/// Beginning of the names of the variables that aNode itself reads.
pub(super) const OWN_VARIABLES: &str = "ANODE_";

/// The name of a secret in the environment of the program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretName(String);

impl SecretName {
    /// What a text must look like.
    pub const ALLOWED: &'static str =
        "env:NAME, a variable in the environment of the node that runs it, which does not begin with ANODE_";

    /// Reads a text of the form `env:NAME`.
    pub fn parse(text: &str) -> Option<SecretName> {
        let name = text.strip_prefix("env:")?;
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        let is_own = name.to_ascii_uppercase().starts_with(OWN_VARIABLES);
        let is_fine = (1..=VARIABLE_BYTES_MAX).contains(&name.len()) && name.bytes().all(is_name) && !is_own;
        is_fine.then(|| SecretName(name.into()))
    }

    /// The name of the variable.
    pub fn variable(&self) -> &str {
        &self.0
    }

    /// The secret; `None` if the environment of this program has no such variable, or an empty one.
    pub fn read(&self) -> Option<String> {
        env::var(&self.0).ok().filter(|value| !value.is_empty())
    }

    /// The reason why this node cannot run what needs the secret; `None` if it can.
    pub fn lack(&self) -> Option<String> {
        match self.read() {
            Some(_) => None,
            None => Some(format!("the environment of this node has no variable {}", self.0)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_a_name() {
        assert_eq!(SecretName::parse("env:A_1").map(|name| name.variable().to_owned()), Some("A_1".into()));
        let long = format!("env:{}", "A".repeat(129));
        for bad in
            ["", "A", "env:", "env:A B", "env:A=B", "file:A", "env:ANODE_TOKEN", "env:anode_token", &long]
        {
            assert_eq!(SecretName::parse(bad), None, "{bad}");
        }
        let none = SecretName::parse("env:NO_SUCH_VARIABLE_HERE").expect("a name");
        assert!(none.lack().is_some_and(|why| why.contains("NO_SUCH_VARIABLE_HERE")));
    }
}
