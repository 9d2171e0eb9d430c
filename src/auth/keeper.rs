//! Judges tokens by the file of rights, and reads the file again when it changes.

use std::fmt::Write;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use parking_lot::{Mutex, RwLock};
use ring::digest::{SHA256, digest};

use super::access::{Access, Entries, Proof};
use super::address::Guessers;
use super::error::AuthFileError;
use super::file;
use super::jwt::{ProvenClaims, ProvenTokens};
use super::policy::{Holder, Policy};
use super::provider;
use super::rate::RateTable;
use super::watch::FileWatch;
use crate::limits::TOKEN_BYTES_MAX;
use crate::protocol::refusal::{Code, Refusal};
use crate::record::Now;

/// Time between two looks at the files, in microseconds.
const FILES_LOOK_US: u64 = 1_000_000;
/// Least time between two lines in the log about wrong tokens, in microseconds.
const FAILURE_LINE_US: u64 = 60_000_000;

/// The file of rights, and what is remembered of those who bring tokens. All threads of a node share it.
pub struct Auth {
    path: PathBuf,
    policy: RwLock<Arc<Policy>>,
    /// Number of times that the file was read. Whoever was judged before is judged again.
    generation: AtomicU64,
    guessers: Guessers,
    rates: RateTable,
    proven: ProvenTokens,
    files: Mutex<Files>,
    /// How often holders of JWTs were let in.
    jwt_entries: Entries,
    failures: AtomicU64,
    failures_logged: AtomicU64,
    /// Monotonic time at which the next line about wrong tokens may be written, in microseconds.
    failure_line_us: AtomicU64,
}

/// The files that are watched.
#[derive(Default)]
struct Files {
    watch: FileWatch,
    /// Monotonic time of the next look, in microseconds.
    look_us: u64,
    /// What was wrong with the file when it was read last, if anything.
    flaw: Option<AuthFileError>,
}

impl Auth {
    /// Reads the file at the start of a node.
    pub fn open(path: &Path, now: Now) -> Result<Auth, AuthFileError> {
        provider::install();
        let policy = file::read(path)?;
        let auth = Auth {
            path: path.to_owned(),
            policy: RwLock::new(Arc::new(policy)),
            generation: AtomicU64::new(0),
            guessers: Guessers::default(),
            rates: RateTable::default(),
            proven: ProvenTokens::default(),
            files: Mutex::default(),
            jwt_entries: Entries::default(),
            failures: AtomicU64::new(0),
            failures_logged: AtomicU64::new(0),
            failure_line_us: AtomicU64::new(0),
        };
        auth.watch(now);
        Ok(auth)
    }

    fn policy(&self) -> Arc<Policy> {
        self.policy.read().clone()
    }

    /// Number of times that the file was read. When it has grown, live connections are to be judged again.
    pub fn generation(&self) -> u64 {
        self.generation.load(Relaxed)
    }

    /// Reads the file again if it, or a file of keys that it names, has changed. May be called often: it looks at the
    /// files about once a second. Returns whether the rights have changed.
    pub fn poll(&self, now: Now) -> bool {
        let wants_reading = {
            let mut files = self.files.lock();
            if now.mono_us < files.look_us {
                return false;
            }
            files.look_us = now.mono_us + FILES_LOOK_US;
            // A file that was bad may be mended in a file that it names and that is not watched so far.
            files.watch.take_changed(now.wall_us) || files.flaw.is_some()
        };
        wants_reading && self.reload(now)
    }

    /// Reads the file again. A file that cannot be used is refused with a line in the log, and the rights stay as they
    /// were. Returns whether the rights have changed.
    pub fn reload(&self, now: Now) -> bool {
        match file::read(&self.path) {
            Ok(mut policy) => {
                policy.inherit(&self.policy());
                let (tokens, keys) =
                    (policy.holders.len(), policy.issuers.as_ref().map_or(0, |issuers| issuers.keys.len()));
                *self.policy.write() = Arc::new(policy);
                self.proven.clear();
                self.generation.fetch_add(1, Relaxed);
                self.files.lock().flaw = None;
                self.watch(now);
                tracing::info!(tokens, keys, "the file of rights was read again");
                true
            }
            Err(error) => {
                let mut files = self.files.lock();
                if files.flaw.as_ref() != Some(&error) {
                    tracing::error!(%error, "the file of rights is refused; the rights before it stay in force");
                    files.flaw = Some(error);
                }
                false
            }
        }
    }

    fn watch(&self, now: Now) {
        let policy = self.policy();
        let paths = std::iter::once(self.path.as_path()).chain(policy.files.iter().map(PathBuf::as_path));
        self.files.lock().watch.set(paths, now.wall_us);
    }

    /// Judges a token that a client at this address brings. A token that is not in force is refused with
    /// `unauthorized`, and an address that has brought many of them with `rate_limited`. A token of the file is let
    /// in whatever its address has done before, because it costs no more to look for it than to refuse it.
    pub fn authenticate(&self, token: &str, address: IpAddr, now: Now) -> Result<Access, Refusal> {
        let policy = self.policy();
        let digest = sha256(token.as_bytes());
        if let Some(holder) = policy.holder_of(&digest) {
            holder.entries.count();
            return Ok(holder.access(Proof::Digest(digest)));
        }
        if let Some((claims, issuers)) = self.proven.get(&digest).zip(policy.issuers.as_ref())
            && issuers.check(&claims, now.wall_us).is_ok()
        {
            self.jwt_entries.count();
            return Ok(self.access_of(claims, now));
        }
        self.guessers.check(address, now.mono_us).map_err(|retry_after_ms| {
            let message = "too many wrong tokens have come from this address";
            Refusal::new(Code::RateLimited, message).retry_after_ms(retry_after_ms)
        })?;
        let proven = match &policy.issuers {
            _ if token.len() > TOKEN_BYTES_MAX => {
                Err(format!("the token has more than {TOKEN_BYTES_MAX} bytes"))
            }
            Some(issuers) if token.contains('.') => issuers.prove(token, now.wall_us),
            _ => Err("the token is unknown".into()),
        };
        match proven {
            Ok(claims) => {
                let claims = Arc::new(claims);
                self.proven.insert(digest, claims.clone(), now.wall_us);
                self.jwt_entries.count();
                Ok(self.access_of(claims, now))
            }
            Err(reason) => {
                self.handle_failure(address, &reason, now);
                Err(Refusal::new(Code::Unauthorized, reason))
            }
        }
    }

    fn handle_failure(&self, address: IpAddr, reason: &str, now: Now) {
        self.guessers.handle_failure(address, now.mono_us);
        let failures = self.failures.fetch_add(1, Relaxed) + 1;
        let due_us = self.failure_line_us.load(Relaxed);
        let next_us = now.mono_us + FAILURE_LINE_US;
        if now.mono_us >= due_us
            && self.failure_line_us.compare_exchange(due_us, next_us, Relaxed, Relaxed).is_ok()
        {
            let refused = failures - self.failures_logged.swap(failures, Relaxed);
            tracing::warn!(%address, reason, refused, "a token is refused; this is logged once a minute");
        }
    }

    fn access_of(&self, claims: Arc<ProvenClaims>, now: Now) -> Access {
        let per_second = claims.rights.rate;
        Access {
            name: claims.name.clone(),
            rights: claims.rights.clone(),
            expires_us: Some(claims.expires_us),
            rate: per_second.map(|per_second| self.rates.of(&claims.name, per_second, now.mono_us)),
            proof: Proof::Claims(claims),
        }
    }

    /// The access of those who bring no token; `None` if they may do nothing.
    pub fn anonymous(&self) -> Option<Access> {
        self.policy().anonymous.as_ref().map(|holder| holder.access(Proof::None))
    }

    /// The access of a client whose certificate was verified and has this name; `None` if no token has it.
    pub fn certified(&self, name: &Arc<str>) -> Option<Access> {
        let policy = self.policy();
        let holder = policy.holder_named(name)?;
        holder.entries.count();
        Some(holder.access(Proof::Certificate(name.clone())))
    }

    /// Judges a client again that was let in before. An error says that its access has ended.
    pub fn judge_again(&self, access: &Access, now: Now) -> Result<Access, Refusal> {
        let policy = self.policy();
        let of = |holder: Option<&Holder>| {
            holder.map(|holder| holder.access(access.proof.clone())).ok_or("the token was revoked".to_owned())
        };
        let judged = match &access.proof {
            Proof::None => of(policy.anonymous.as_ref()),
            Proof::Digest(digest) => of(policy.holder_again(digest)),
            Proof::Certificate(name) => of(policy.holder_named(name)),
            Proof::Claims(claims) => match &policy.issuers {
                Some(issuers) => {
                    issuers.check(claims, now.wall_us).map(|()| self.access_of(claims.clone(), now))
                }
                None => Err("nobody may issue tokens any longer".into()),
            },
        };
        judged.map_err(|reason| Refusal::new(Code::Unauthorized, reason))
    }

    /// Appends the metrics in the text format of Prometheus. Holders are named, secrets never.
    pub fn write_metrics(&self, out: &mut String) {
        let policy = self.policy();
        let failures = self.failures.load(Relaxed);
        let mut text = String::new();
        // Writing to a `String` cannot fail.
        let _ = write!(
            text,
            "# HELP anode_auth_failures_total Tokens that were not in force.\n\
             # TYPE anode_auth_failures_total counter\nanode_auth_failures_total {failures}\n\
             # HELP anode_auth_entries_total Connections and requests that were let in, by the name of the token.\n\
             # TYPE anode_auth_entries_total counter\n\
             anode_auth_entries_total{{kind=\"jwt\",name=\"\"}} {}\n",
            self.jwt_entries.get()
        );
        for holder in &policy.holders {
            let (name, count) = (label(&holder.name), holder.entries.get());
            let _ = writeln!(text, "anode_auth_entries_total{{kind=\"token\",name=\"{name}\"}} {count}");
        }
        text.push_str(
            "# HELP anode_auth_rate_limited_total Records that were refused because of a token's rate.\n\
             # TYPE anode_auth_rate_limited_total counter\n",
        );
        for holder in policy.holders.iter().chain(&policy.anonymous) {
            if let Some(rate) = &holder.rate {
                let (name, count) = (label(&holder.name), rate.refused());
                let _ = writeln!(text, "anode_auth_rate_limited_total{{name=\"{name}\"}} {count}");
            }
        }
        out.push_str(&text);
    }
}

/// Returns a name as the value of a label.
fn label(name: &str) -> String {
    name.replace('\\', "\\\\").replace('"', "\\\"")
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest(&SHA256, bytes).as_ref());
    out
}
