//! The file with the keys of the cluster, which is read again while the node runs, and warnings about nodes that have
//! no key in common with this one.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use parking_lot::Mutex;

use super::clock;
use crate::cluster::seal::{KeyMismatch, SealKeys};
use crate::config::cluster_key::{ClusterKeys, KeyFileError, KeyId, KeyPhase, Keyring};

/// Time after which a file that cannot be used is read once more, in microseconds: somebody may be writing it.
const AGAIN_US: u64 = 50_000;
/// Least time between two warnings of the same kind, in microseconds.
const MISMATCH_REPORT_US: u64 = 60_000_000;

/// The key file of a node. All threads share it.
#[derive(Debug)]
pub struct KeyFile {
    file: PathBuf,
    phase: KeyPhase,
    /// Number of times that the keys have changed.
    version: AtomicU64,
    read: Mutex<ReadKeys>,
}

/// The keys that are in force, and the reason why the file as it is now was not taken.
#[derive(Debug)]
struct ReadKeys {
    keyring: Keyring,
    failure: Option<KeyFileError>,
}

impl KeyFile {
    /// The file from which these keys were read.
    pub fn new(keys: ClusterKeys) -> KeyFile {
        let ClusterKeys { file, keyring, phase } = keys;
        let read = Mutex::new(ReadKeys { keyring, failure: None });
        KeyFile { file, phase, version: AtomicU64::new(0), read }
    }

    /// Reads the file again, whether or not it has changed: it is small. If it is bad, that is logged once, and the keys stay as they are. May wait for a moment.
    pub fn reload(&self) {
        let read = Keyring::read(&self.file).or_else(|_| {
            clock::sleep(AGAIN_US);
            Keyring::read(&self.file)
        });
        let mut known = self.read.lock();
        match read {
            Ok(keyring) => {
                known.failure = None;
                if keyring != known.keyring {
                    let (seals, opens) = (keyring.first().id(), ids_of(&keyring));
                    tracing::info!(%seals, opens, "the cluster keys have changed");
                    known.keyring = keyring;
                    self.version.fetch_add(1, SeqCst);
                }
            }
            Err(error) if known.failure.as_ref() != Some(&error) => {
                let file = self.file.display().to_string();
                tracing::error!(
                    file,
                    %error,
                    "--cluster-key: the file cannot be used; the keys that were read before stay in force"
                );
                known.failure = Some(error);
            }
            Err(_) => {}
        }
    }

    /// Number of times that the keys have changed. It can be read often.
    pub fn version(&self) -> u64 {
        self.version.load(SeqCst)
    }

    /// The keys that are in force.
    pub fn keyring(&self) -> Keyring {
        self.read.lock().keyring.clone()
    }

    /// The keys that are in force, for a new life of a node.
    pub fn of_new_life(&self) -> SealKeys {
        SealKeys { keyring: self.keyring(), phase: self.phase, secret: clock::secret() }
    }
}

fn ids_of(keyring: &Keyring) -> String {
    keyring.keys().map(|key| key.id().to_string()).collect::<Vec<String>>().join(", ")
}

/// The warnings about nodes that have no key in common with this one.
#[derive(Debug, Default)]
pub struct KeyReports {
    /// When messages with an unknown key were logged last, on the monotonic clock in microseconds.
    unknown_us: Option<u64>,
    /// When plain messages were logged last, on the same clock.
    plain_us: Option<u64>,
}

impl KeyReports {
    /// Returns whether a message that was refused is to be logged: one of a kind of which none was logged within a minute.
    /// It counts as logged then.
    fn is_due(&mut self, now_us: u64, mismatch: KeyMismatch) -> bool {
        let last_us = if mismatch.key.is_some() { &mut self.unknown_us } else { &mut self.plain_us };
        let is_due = last_us.is_none_or(|last_us| now_us >= last_us + MISMATCH_REPORT_US);
        if is_due {
            *last_us = Some(now_us);
        }
        is_due
    }

    /// Logs that a message was refused, unless that was logged within a minute. `opens` are the keys of this node.
    pub fn report(&mut self, now_us: u64, mismatch: KeyMismatch, opens: Option<&KeyFile>) {
        if !self.is_due(now_us, mismatch) {
            return;
        }
        let KeyMismatch { from, key } = mismatch;
        let opens = opens.map_or("none".into(), |file| ids_of(&file.keyring()));
        match key.map(|id: KeyId| id.to_string()) {
            Some(seals) => tracing::warn!(
                %from,
                seals,
                opens,
                "no key in common: what a node sends is sealed with a key that this node does not have; it is ignored; \
                 check --cluster-key on both"
            ),
            None => tracing::warn!(
                %from,
                opens,
                "no key in common: a node sends plain messages, which this node ignores; check --cluster-key and \
                 --cluster-key-phase on both"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::config::cluster_key::ClusterKey;

    /// However many messages are refused, the log says so once a minute, and again in the next one. Plain messages and
    /// those with an unknown key are told apart.
    #[test]
    fn a_missing_key_is_logged_once_a_minute() {
        let from = SocketAddr::from(([10, 0, 0, 1], 7946));
        let (plain, unknown) =
            (KeyMismatch { from, key: None }, KeyMismatch { from, key: Some(KeyId([7; 4])) });
        let (mut reports, mut logged) = (KeyReports::default(), Vec::new());
        for second in 0..150 {
            for _ in 0..10 {
                if reports.is_due(second * 1_000_000, plain) {
                    logged.push((second, "plain"));
                }
                if second >= 30 && reports.is_due(second * 1_000_000, unknown) {
                    logged.push((second, "unknown"));
                }
            }
        }
        let expected = [(0, "plain"), (30, "unknown"), (60, "plain"), (90, "unknown"), (120, "plain")];
        assert_eq!(logged, expected);
    }

    fn text(byte: u8) -> String {
        ClusterKey::new([byte; 32]).to_text() + "\n"
    }

    #[test]
    fn good_files_are_taken_and_bad_ones_are_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("keys");
        std::fs::write(&file, text(1)).expect("written");
        let keyring = Keyring::read(&file).expect("a key");
        let keys = KeyFile::new(ClusterKeys { file: file.clone(), keyring, phase: KeyPhase::Require });
        keys.reload();
        assert_eq!(keys.version(), 0, "nothing has changed");
        std::fs::write(&file, text(1) + &text(2)).expect("written");
        keys.reload();
        assert_eq!((keys.version(), keys.keyring().keys().count()), (1, 2));
        std::fs::write(&file, "none").expect("written");
        keys.reload();
        std::fs::remove_file(&file).expect("removed");
        keys.reload();
        assert_eq!((keys.version(), keys.keyring().keys().count()), (1, 2), "a bad file changes nothing");
        std::fs::write(&file, text(2)).expect("written");
        keys.reload();
        assert_eq!((keys.version(), keys.keyring().first().id()), (2, ClusterKey::new([2; 32]).id()));
    }
}
