//! The rights of everybody, as the file says once it is checked.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use subtle::{Choice, ConstantTimeEq};

use super::access::{Access, Entries, Proof};
use super::jwt::Issuers;
use super::rate::Rate;
use super::rights::Rights;

/// The name of those who bring no token.
pub const ANONYMOUS: &str = "anonymous";

/// One kind of client that the file names: its rights, and what is counted for its name.
#[derive(Clone, Debug)]
pub(super) struct Holder {
    pub(super) name: Arc<str>,
    pub(super) rights: Arc<Rights>,
    pub(super) rate: Option<Arc<Rate>>,
    pub(super) entries: Arc<Entries>,
}

impl Holder {
    /// A holder with a full bucket.
    pub(super) fn new(name: &str, rights: Rights) -> Holder {
        let rate = rights.rate.map(|per_second| Arc::new(Rate::new(per_second)));
        Holder { name: name.into(), rights: Arc::new(rights), rate, entries: Arc::default() }
    }

    /// The access of a client that has this name.
    pub(super) fn access(&self, proof: Proof) -> Access {
        Access {
            name: self.name.clone(),
            rights: self.rights.clone(),
            expires_us: None,
            rate: self.rate.clone(),
            proof,
        }
    }
}

/// All that the file says.
#[derive(Default)]
pub(super) struct Policy {
    /// Those who bring no token; `None` if they may do nothing.
    pub(super) anonymous: Option<Holder>,
    /// The holders of tokens, in the order of the file.
    pub(super) holders: Vec<Holder>,
    /// The SHA-256 of the tokens, with the places of their holders.
    pub(super) digests: Vec<([u8; 32], usize)>,
    /// Who may issue JWTs; `None` if nobody.
    pub(super) issuers: Option<Issuers>,
    /// The files that were read besides the file of rights.
    pub(super) files: Vec<PathBuf>,
    /// The places of the holders by the digests of their tokens.
    by_digest: BTreeMap<[u8; 32], usize>,
    /// The places of the holders by their names.
    by_name: BTreeMap<Arc<str>, usize>,
}

impl Policy {
    /// Fills the tables by which holders are found. To be called when all holders are in.
    pub(super) fn index(&mut self) {
        self.by_digest = self.digests.iter().copied().collect();
        let names = self.holders.iter().enumerate().map(|(at, holder)| (holder.name.clone(), at));
        self.by_name = names.collect();
    }

    /// Returns the holder of a token that a stranger brings. The digest is compared with all digests, each in the
    /// same time, so how long it takes tells nothing about them.
    pub(super) fn holder_of(&self, digest: &[u8; 32]) -> Option<&Holder> {
        self.holders.get(place_of(&self.digests, |known| known.ct_eq(digest))?)
    }

    /// Returns the holder of a token that was let in before.
    pub(super) fn holder_again(&self, digest: &[u8; 32]) -> Option<&Holder> {
        self.holders.get(*self.by_digest.get(digest)?)
    }

    /// Returns the holder with this name, for a client that has proved the name.
    pub(super) fn holder_named(&self, name: &str) -> Option<&Holder> {
        self.holders.get(*self.by_name.get(name)?)
    }

    /// Takes over what was counted, and the buckets of unchanged rates, from the policy before this one.
    pub(super) fn inherit(&mut self, before: &Policy) {
        let by_name = |name: &str| match name {
            ANONYMOUS => before.anonymous.as_ref(),
            name => before.holder_named(name),
        };
        for holder in self.holders.iter_mut().chain(&mut self.anonymous) {
            let Some(old) = by_name(&holder.name) else { continue };
            holder.entries = old.entries.clone();
            if old.rights.rate == holder.rights.rate {
                holder.rate.clone_from(&old.rate);
            }
        }
    }
}

/// Returns the place that stands beside the digest which `compare` says is the one. All digests are compared, also those
/// behind it.
fn place_of(digests: &[([u8; 32], usize)], mut compare: impl FnMut(&[u8; 32]) -> Choice) -> Option<usize> {
    let mut found = None;
    for (known, at) in digests {
        if bool::from(compare(known)) {
            found = Some(*at);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An answer that came sooner for a token further up in the file would tell strangers where theirs nearly is.
    #[test]
    fn a_token_is_compared_with_all_wherever_it_stands() {
        let digests: Vec<([u8; 32], usize)> = (0..5).map(|at| ([at as u8; 32], at)).collect();
        for (wanted, found) in [(0u8, Some(0)), (2, Some(2)), (4, Some(4)), (9, None)] {
            let mut compared = 0;
            let place = place_of(&digests, |known| {
                compared += 1;
                known.ct_eq(&[wanted; 32])
            });
            assert_eq!((place, compared), (found, digests.len()), "{wanted}");
        }
    }
}
