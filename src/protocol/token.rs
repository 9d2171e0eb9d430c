//! Resume tokens: they tell what a subscriber has seen, in a form that every node of the cluster can check.
//!
//! A token holds the cluster, the patterns it is about, when it was made, and heads: for every run of an
//! origin the sequence number up to which the subscriber has seen all matching records. Names are hashed, so
//! that a head costs about eleven bytes however long the name of its origin is, and a token of a thousand
//! origins still fits into a URL. For clients a token is an opaque text.
//!
//! Layout before encoding as base64url without padding: version 1 (1 byte), cluster (8 bytes, little-endian
//! like all hashes), time of issue (varint), number of patterns (varint) and 8 bytes for each, number of
//! heads (varint) and 8 bytes and a varint for each in increasing order, checksum (4 bytes: the low half of
//! XXH3-64 of everything before it).
//!
//! Rejected: signing tokens. A forged token harms nobody but the client that presents it.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::record::fields::write_varint;
use crate::record::{Birth, NodeName, Pattern};

/// Version of the layout: the first byte of every token.
const VERSION: u8 = 1;

/// The content of a resume token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// [`cluster_key`] of the cluster that the token was made in.
    pub cluster: u64,
    /// Wall clock of the node that made the token, in microseconds since the Unix epoch.
    pub issued_us: u64,
    /// [`subscription_key`]s of the patterns that the token is about, in increasing order.
    pub patterns: Vec<u64>,
    /// For every run of an origin its [`head_key`] and the sequence number up to which everything was seen.
    /// In increasing order.
    pub heads: SharedHeads,
}

/// Pairs of [`head_key`] and sequence number, in increasing order. All tokens that are made at the same time
/// share one list.
pub type SharedHeads = Arc<[(u64, u64)]>;

/// The error of a text that is not a valid token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("resume is no token of this server")]
pub struct TokenError;

/// Returns the hash of a cluster's name.
pub fn cluster_key(name: &str) -> u64 {
    xxh3_64(name.as_bytes())
}

/// Returns the hash of a pattern.
pub fn pattern_key(pattern: &Pattern) -> u64 {
    xxh3_64(pattern.as_str().as_bytes())
}

/// Returns the hash of a pattern with the hash of the filter of its subscription, 0 for none. Who has seen only what a
/// filter lets through has not seen the rest.
pub fn subscription_key(pattern: &Pattern, filter_key: u64) -> u64 {
    match filter_key {
        0 => pattern_key(pattern),
        seed => xxh3_64_with_seed(pattern.as_str().as_bytes(), seed),
    }
}

/// Returns the hash of the text of a filter, which is never 0.
pub fn filter_key(text: &str) -> u64 {
    xxh3_64(text.as_bytes()).max(1)
}

/// Returns the hash of one run of an origin: its name and its boot number. The hash of the name is the seed, because two
/// short names with seeds that are close together may have the same hash.
pub fn head_key(origin: &NodeName, boot: u64) -> u64 {
    xxh3_64_with_seed(&boot.to_le_bytes(), xxh3_64(origin.as_bytes()))
}

impl Token {
    /// Returns whether the subscriber has seen the record with this birth, or a newer one of the same source.
    pub fn covers_birth(&self, birth: &Birth) -> bool {
        let key = head_key(&birth.origin, birth.boot);
        let head = self.heads.binary_search_by_key(&key, |head| head.0);
        head.is_ok_and(|at| self.heads.get(at).is_some_and(|head| birth.seq <= head.1))
    }

    /// Returns whether the token is about this pattern with the filter of this hash.
    pub fn covers_pattern(&self, pattern: &Pattern, filter_key: u64) -> bool {
        self.patterns.binary_search(&subscription_key(pattern, filter_key)).is_ok()
    }

    /// Returns the token as the text that clients keep.
    pub fn encode(&self) -> String {
        let mut bytes = Vec::with_capacity(32 + 8 * self.patterns.len() + 13 * self.heads.len());
        debug_assert!(self.patterns.is_sorted() && self.heads.is_sorted(), "`decode` requires this order");
        bytes.push(VERSION);
        bytes.extend_from_slice(&self.cluster.to_le_bytes());
        write_varint(&mut bytes, self.issued_us);
        write_varint(&mut bytes, self.patterns.len() as u64);
        for pattern in &self.patterns {
            bytes.extend_from_slice(&pattern.to_le_bytes());
        }
        write_varint(&mut bytes, self.heads.len() as u64);
        for (key, seq) in self.heads.iter() {
            bytes.extend_from_slice(&key.to_le_bytes());
            write_varint(&mut bytes, *seq);
        }
        let sum = xxh3_64(&bytes) as u32;
        bytes.extend_from_slice(&sum.to_le_bytes());
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Reads a token from its text.
    pub fn decode(text: &str) -> Result<Token, TokenError> {
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| TokenError)?;
        let (body, sum) = bytes.split_last_chunk::<4>().ok_or(TokenError)?;
        if xxh3_64(body) as u32 != u32::from_le_bytes(*sum) {
            return Err(TokenError);
        }
        let mut reader = Reader(body);
        if reader.chunk::<1>()? != [VERSION] {
            return Err(TokenError);
        }
        let cluster = reader.hash()?;
        let issued_us = reader.varint()?;
        let patterns: Vec<u64> = (0..reader.count(8)?).map(|_| reader.hash()).collect::<Result<_, _>>()?;
        let heads: Vec<(u64, u64)> = (0..reader.count(9)?)
            .map(|_| Ok((reader.hash()?, reader.varint()?)))
            .collect::<Result<_, _>>()?;
        if !reader.0.is_empty() || !patterns.is_sorted() || !heads.is_sorted() {
            return Err(TokenError);
        }
        Ok(Token { cluster, issued_us, patterns, heads: heads.into() })
    }
}

/// Reads the fields of a token one after the other.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn chunk<const N: usize>(&mut self) -> Result<[u8; N], TokenError> {
        let (chunk, rest) = self.0.split_first_chunk::<N>().ok_or(TokenError)?;
        self.0 = rest;
        Ok(*chunk)
    }

    fn hash(&mut self) -> Result<u64, TokenError> {
        self.chunk().map(u64::from_le_bytes)
    }

    fn varint(&mut self) -> Result<u64, TokenError> {
        let mut number = 0u64;
        for shift in (0..64).step_by(7) {
            let [byte] = self.chunk::<1>()?;
            let bits = u64::from(byte & 0x7f);
            number |= bits << shift;
            if shift == 63 && bits > 1 {
                return Err(TokenError);
            }
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(TokenError)
    }

    /// Reads the number of entries of a list. Fails if the rest is too short for that many entries of at
    /// least `bytes` bytes each, so that a forged number allocates nothing.
    fn count(&mut self, bytes: usize) -> Result<usize, TokenError> {
        let count = usize::try_from(self.varint()?).map_err(|_| TokenError)?;
        if count > self.0.len() / bytes { Err(TokenError) } else { Ok(count) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn comes_back_as_it_went(
            cluster: u64,
            issued_us: u64,
            mut patterns in proptest::collection::vec(any::<u64>(), 0..20),
            mut heads in proptest::collection::vec(any::<(u64, u64)>(), 0..50),
        ) {
            patterns.sort_unstable();
            heads.sort_unstable();
            let token = Token { cluster, issued_us, patterns, heads: heads.into() };
            prop_assert_eq!(Token::decode(&token.encode()), Ok(token));
        }

        #[test]
        fn garbage_is_an_error(text in "[A-Za-z0-9_-]{0,80}", flip in 0usize..400) {
            prop_assert!(Token::decode(&text).is_err());
            let token = Token { cluster: 1, issued_us: 2, patterns: vec![3], heads: [(4, 5)].into() };
            let mut bytes = URL_SAFE_NO_PAD.decode(token.encode()).expect("base64");
            let bit = flip % (bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(Token::decode(&URL_SAFE_NO_PAD.encode(bytes)).is_err());
        }
    }

    #[test]
    fn a_thousand_origins_fit_a_url() {
        let heads: Vec<_> = (0..1_000).map(|n| (n << 54, 1 << 20)).collect();
        let token = Token { cluster: 1, issued_us: 1 << 50, patterns: vec![7], heads: heads.into() };
        assert!(token.encode().len() < crate::limits::REQUEST_HEAD_BYTES_MAX - 1_024);
    }

    #[test]
    fn births() {
        let (a, b) = (NodeName::parse("a").expect("name"), NodeName::parse("b").expect("name"));
        let heads = [(head_key(&a, 1), 10)].into();
        let token = Token { cluster: 0, issued_us: 0, patterns: vec![], heads };
        let covers =
            |origin: &NodeName, boot, seq| token.covers_birth(&Birth { origin: origin.clone(), boot, seq });
        assert!(covers(&a, 1, 10));
        assert!(!covers(&a, 1, 11) && !covers(&a, 2, 1) && !covers(&b, 1, 1));
    }

    // Runs of nodes whose short names differ in one byte had one key, so who had seen the records of the one was not given
    // those of the other.
    #[test]
    fn runs_of_short_names_have_keys_of_their_own() {
        let names = (0..100).map(|index| NodeName::parse(&format!("n{index}")).expect("name"));
        let runs = names.flat_map(|name| (0..100).map(move |boot| head_key(&name, boot)));
        let keys: std::collections::BTreeSet<u64> = runs.collect();
        assert_eq!(keys.len(), 10_000);
    }
}
