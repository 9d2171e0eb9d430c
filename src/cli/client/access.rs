//! The options by which commands reach nodes: their URLs, the authorities that are trusted, and the token to bring.

use super::DEFAULT_URL;
use super::endpoint::NodeUrl;
use super::nodes::Nodes;
use super::token::TokenArguments;
use super::trust::TrustArguments;
use crate::cli::{CliError, Given};

/// Name of the environment variable with the URLs of nodes.
pub const URL_VARIABLE: &str = "ANODE_URL";

/// The URLs, the authorities and the token.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct AccessArguments {
    /// URL of a node: ws://HOST:PORT or http://HOST:PORT, with TLS wss:// or https://; of several, the next is tried
    /// when one does not answer [env: ANODE_URL] [default: ws://127.0.0.1:7070]
    #[arg(long, value_name = "URL[,…]", value_delimiter = ',')]
    url: Vec<String>,
    #[command(flatten)]
    trust: TrustArguments,
    #[command(flatten)]
    token: TokenArguments,
}

impl AccessArguments {
    /// Returns the nodes to use. `given` are the options before the subcommand, and `older` is another option of the
    /// command for the same purpose, with its values.
    pub fn nodes(&self, given: &Given, older: (&str, &[String])) -> Result<Nodes, CliError> {
        let variable = std::env::var(URL_VARIABLE).unwrap_or_default();
        let chosen = self.choose(given, older, &variable);
        let token = self.token.read()?;
        let parse = |(field, url): &(String, String)| {
            let node = NodeUrl::parse(url, field, &self.trust)?;
            Ok::<_, CliError>(node.with_token(token.clone()))
        };
        let nodes = chosen.iter().map(parse).collect::<Result<Vec<NodeUrl>, CliError>>()?;
        Nodes::new(nodes).ok_or_else(|| CliError::Usage("--url: \"\" cannot be used; allowed: a URL".into()))
    }

    /// Returns whether the user has named a node on the command line.
    pub fn is_chosen(&self, given: &Given) -> bool {
        !self.url.is_empty() || !given.urls.is_empty()
    }

    /// Returns the URLs to use, each with the name of where it was given: the options of the command go before those in
    /// front of the subcommand, and these before the environment.
    fn choose(&self, given: &Given, older: (&str, &[String]), variable: &str) -> Vec<(String, String)> {
        let named = |field: &str, urls: &[String]| -> Vec<(String, String)> {
            urls.iter().map(|url| (field.to_owned(), url.clone())).collect()
        };
        let own = [named("--url", &self.url), named(older.0, older.1)].concat();
        let listed: Vec<String> =
            variable.split(',').map(str::trim).filter(|url| !url.is_empty()).map(str::to_owned).collect();
        let choices = [own, named("--url", &given.urls), named(URL_VARIABLE, &listed)];
        let chosen = choices.into_iter().find(|urls| !urls.is_empty());
        chosen.unwrap_or_else(|| named("--url", &[DEFAULT_URL.to_owned()]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_of_the_command_go_before_all_others() {
        let texts = |urls: &[&str]| urls.iter().map(|url| (*url).to_owned()).collect::<Vec<String>>();
        let of = |own: &[&str], older: &[&str], before: &[&str], variable: &str| {
            let access = AccessArguments { url: texts(own), ..AccessArguments::default() };
            let given = Given { urls: texts(before), is_json: false };
            let chosen = access.choose(&given, ("--from", &texts(older)), variable);
            chosen.into_iter().map(|(field, url)| format!("{field} {url}")).collect::<Vec<String>>()
        };
        assert_eq!(of(&[], &[], &[], ""), [format!("--url {DEFAULT_URL}")]);
        assert_eq!(of(&[], &[], &[], "a:1, b:2,"), ["ANODE_URL a:1", "ANODE_URL b:2"]);
        assert_eq!(of(&[], &[], &["c:3"], "a:1"), ["--url c:3"]);
        assert_eq!(of(&["d:4"], &["e:5"], &["c:3"], "a:1"), ["--url d:4", "--from e:5"]);
    }
}
