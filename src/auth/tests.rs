//! The file of rights, as a node uses it: tokens, and what becomes of them when the file changes.

use std::net::IpAddr;

use super::*;
use crate::protocol::refusal::Code;
use crate::record::Now;

const HOME: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
/// The SHA-256 of the token `test`.
const TEST: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

fn now(seconds: u64) -> Now {
    Now { mono_us: seconds * 1_000_000, wall_us: 1_700_000_000_000_000 + seconds * 1_000_000 }
}

fn entry(rights: &str) -> String {
    format!("[[token]]\nname = \"t\"\nsha256 = \"{TEST}\"\n{rights}\n")
}

/// A file of rights that can be changed.
struct Written(tempfile::TempDir);

impl Written {
    fn new(text: &str) -> Written {
        let written = Written(tempfile::tempdir().expect("a folder"));
        written.write(text);
        written
    }

    fn write(&self, text: &str) {
        std::fs::write(self.0.path().join("auth.toml"), text).expect("written");
    }

    fn open(&self) -> Auth {
        Auth::open(&self.0.path().join("auth.toml"), now(0)).unwrap_or_else(|error| panic!("{error}"))
    }
}

#[test]
fn tokens_are_known_by_their_hashes_and_judged_again() {
    let file = Written::new(&entry("publish = [\"a/**\"]\nrate = 5"));
    let auth = file.open();
    let access = auth.authenticate("test", HOME, now(1)).expect("known");
    assert_eq!((access.name(), access.is_anonymous(), access.expires_us()), ("t", false, None));
    assert!(access.rights().may_publish("a/b") && !access.rights().may(Right::Subscribe));
    assert_eq!(auth.authenticate("tesT", HOME, now(1)).expect_err("unknown").code, Code::Unauthorized);
    assert!(auth.anonymous().is_none());
    file.write(&entry("publish = [\"b/**\"]\nrate = 5"));
    assert!(auth.reload(now(2)) && auth.generation() == 1);
    let again = auth.judge_again(&access, now(2)).expect("still known");
    assert!(again.rights().may_publish("b/b") && !again.rights().may_publish("a/b"));
    file.write("[anonymous]\nsubscribe = [\"x\"]\n");
    assert!(auth.reload(now(3)));
    assert_eq!(auth.judge_again(&again, now(3)).expect_err("revoked").code, Code::Unauthorized);
    assert!(auth.anonymous().is_some_and(|access| access.rights().may_read("x") && access.is_anonymous()));
}

#[test]
fn a_bad_file_is_refused_and_read_again_when_it_changes() {
    let file = Written::new(&entry("observe = true"));
    let auth = file.open();
    assert!(!auth.look(now(0), false) && !auth.look(now(5), false), "nothing has changed");
    file.write("[[token]]\nname = 5\n");
    assert!(!auth.look(now(6), false), "the file is bad");
    assert!(auth.authenticate("test", HOME, now(6)).is_ok(), "the rights stay");
    file.write(&entry("admin = true"));
    assert!(auth.look(now(8), false));
    let access = auth.authenticate("test", HOME, now(8)).expect("known");
    assert!(access.rights().may(Right::Admin));
}

#[test]
fn a_rate_outlives_a_change_of_the_file() {
    let file = Written::new(&entry("publish = [\"**\"]\nrate = 2"));
    let auth = file.open();
    let rights = PublishRights::new(auth.authenticate("test", HOME, now(1)).expect("known"));
    assert!(rights.admit(now(1), "a").is_ok() && rights.admit(now(1), "a").is_ok());
    auth.reload(now(1));
    let again = PublishRights::new(auth.authenticate("test", HOME, now(1)).expect("known"));
    assert_eq!(again.admit(now(1), "a").expect_err("used up").code, Code::RateLimited);
}

#[test]
fn the_name_of_a_certificate_is_the_name_of_a_token() {
    let file = Written::new("[[token]]\nname = \"device.example\"\npublish = [\"a\"]\n");
    let auth = file.open();
    let access = auth.certified(&"device.example".into()).expect("known");
    assert!(access.rights().may_publish("a"));
    assert!(auth.certified(&"other.example".into()).is_none());
    file.write("");
    auth.reload(now(1));
    assert!(auth.judge_again(&access, now(1)).is_err());
}
