//! The Cassandra of a run with `--store cassandra`. It runs on this machine or elsewhere, and is not a part of what the
//! faults meet. The nodes live in namespaces of their own, from which no route leads to it. So in each namespace a
//! [relay] listens at every address of Cassandra, and passes on what comes to it.
//!
//! A run keeps its records in a keyspace with the name of the run, which is removed at the end.

mod keyspace;
mod relay;

use std::net::{IpAddr, SocketAddr};

use anode_loadgen::Outcome;

use crate::world::World;
use keyspace::Login;
use relay::Relay;

/// Where Cassandra answers if the options of the store do not say it.
const HERE: &str = "127.0.0.1:9042";
/// Port of Cassandra where an address has none.
const PORT: u16 = 9042;

/// The nodes of Cassandra as the nodes of a run reach them.
pub struct Cassandra {
    contacts: Vec<SocketAddr>,
    /// The login that the options of the store have, if they have one.
    login: Option<Login>,
    /// The keyspace that was made for the run; none if the options of the store name one.
    keyspace: Option<String>,
    /// Words of the command line of the nodes, besides those that the options of the store have.
    words: Vec<String>,
    _relays: Vec<Relay>,
}

impl Cassandra {
    /// Asks every node of Cassandra that the options of the store name whether it is there, and lets relays listen for
    /// it in the namespaces of the nodes.
    pub fn reach(options: &str, world: &World) -> Outcome<Cassandra> {
        let (contacts, login) = (contacts(options)?, login(options)?);
        for contact in &contacts {
            keyspace::ask(*contact).map_err(|error| {
                format!(
                    "--store cassandra: {contact} does not answer: {error}; scripts/cassandra start runs one"
                )
            })?;
        }
        let mut relays = Vec::new();
        for node in 0..world.nodes() {
            for contact in &contacts {
                relays.push(Relay::start(world.listen_in(node, *contact)?, *contact)?);
            }
        }
        let keyspace = value_of(options, "--keyspace").is_none().then(|| world.run_name().replace('-', "_"));
        let mut words = Vec::new();
        if value_of(options, "--cassandra").is_none() {
            words.extend(["--cassandra".to_owned(), HERE.to_owned()]);
        }
        if let Some(keyspace) = &keyspace {
            words.extend(["--keyspace".to_owned(), keyspace.clone()]);
        }
        Ok(Cassandra { contacts, login, keyspace, words, _relays: relays })
    }

    /// Returns the words that the command lines of the nodes get besides the options of the store.
    pub fn words(&self) -> &[String] {
        &self.words
    }
}

impl Drop for Cassandra {
    fn drop(&mut self) {
        let (Some(keyspace), Some(contact)) = (&self.keyspace, self.contacts.first()) else { return };
        if let Err(error) = keyspace::remove(*contact, self.login.as_ref(), keyspace) {
            eprintln!("  the keyspace {keyspace} stays in Cassandra: {error}");
        }
    }
}

/// Returns the addresses of Cassandra that the options of the store name.
fn contacts(options: &str) -> Outcome<Vec<SocketAddr>> {
    value_of(options, "--cassandra").unwrap_or(HERE).split(',').map(contact).collect()
}

fn contact(text: &str) -> Outcome<SocketAddr> {
    let text = text.trim();
    let only_ip = |_| text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, PORT));
    text.parse().or_else(only_ip).map_err(|_| {
        format!("--store-options: --cassandra {text} is not IP or IP:PORT, by which nodes in namespaces can reach it")
            .into()
    })
}

/// Returns the login that the options of the store name, with the password from its file.
fn login(options: &str) -> Outcome<Option<Login>> {
    let (user, file) =
        (value_of(options, "--cassandra-user"), value_of(options, "--cassandra-password-file"));
    let (Some(user), Some(file)) = (user, file) else { return Ok(None) };
    let read = std::fs::read_to_string(file)
        .map_err(|error| format!("--cassandra-password-file {file}: {error}"))?;
    let password = read.lines().next().unwrap_or_default().to_owned();
    Ok(Some(Login { user: user.to_owned(), password }))
}

/// Returns the value of an option among words that are separated by spaces.
fn value_of<'a>(options: &'a str, name: &str) -> Option<&'a str> {
    let mut words = options.split_whitespace();
    while let Some(word) = words.next() {
        match word.strip_prefix(name) {
            Some("") => return words.next(),
            Some(rest) if rest.starts_with('=') => return Some(&rest[1..]),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_from_the_options_of_the_store() {
        let read = |options: &str| {
            contacts(options).map(|all| all.iter().map(|at| at.to_string()).collect::<Vec<_>>())
        };
        for (options, expected) in [
            ("", vec!["127.0.0.1:9042"]),
            ("--consistency ONE", vec!["127.0.0.1:9042"]),
            ("--cassandra 10.1.2.3:9043", vec!["10.1.2.3:9043"]),
            ("--keyspace k --cassandra=127.0.0.1,127.0.0.2:9042", vec!["127.0.0.1:9042", "127.0.0.2:9042"]),
            ("--cassandra-user u --cassandra [::1]:9", vec!["[::1]:9"]),
        ] {
            assert_eq!(read(options).expect(options), expected, "{options}");
        }
        assert!(login("--cassandra-user u").expect("no login").is_none());
        let error = login("--cassandra-user u --cassandra-password-file /nowhere").err().expect("an error");
        assert!(error.to_string().contains("/nowhere"), "{error}");
        for options in ["--cassandra db:9042", "--cassandra 10.1.2.3:x", "--cassandra 10.1.2.3,"] {
            let error = read(options).expect_err(options).to_string();
            assert!(error.contains("IP:PORT"), "{error}");
        }
    }
}
