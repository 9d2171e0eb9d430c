//! Resume tokens: what a subscriber has seen, said so that any node of the cluster can check it.
//!
//! A token names the cluster, the patterns it speaks of, when it was made, and the heads up to which
//! the subscriber has seen everything that matches: for each life of an origin a sequence number.
//! Names are hashed, so that a head costs about eleven bytes however long its origin's name is: a
//! token of a thousand origins still fits a URL. Clients keep it as an opaque text.
//!
//! Layout, before base64url without padding: version 1 (1 byte), cluster (8, little-endian, as all
//! hashes), issued (varint), patterns (varint, then 8 each), heads (varint, then 8 and a varint
//! each, in increasing order), checksum (4: the low half of XXH3-64 of all before it).
//!
//! Rejected: signing it. A forged token harms nobody but the one who shows it.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::record::fields::write_varint;
use crate::record::{Birth, NodeName, Pattern};

const VERSION: u8 = 1;

/// What a subscriber has seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// [`cluster_key`] of the cluster it was made in.
    pub cluster: u64,
    /// The wall clock of the node that made it, in microseconds since the Unix epoch.
    pub issued_us: u64,
    /// [`pattern_key`] of the patterns it speaks of, in increasing order.
    pub patterns: Vec<u64>,
    /// (head key, sequence number): everything up to it was seen. In increasing order.
    pub heads: SharedHeads,
}

/// Heads by their keys, in increasing order: shared by all tokens made from one look at them.
pub type SharedHeads = Arc<[(u64, u64)]>;

/// The text is no token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("resume is no token of this server")]
pub struct TokenError;

/// A cluster's name, hashed.
pub fn cluster_key(name: &str) -> u64 {
    xxh3_64(name.as_bytes())
}

/// A pattern, hashed.
pub fn pattern_key(pattern: &Pattern) -> u64 {
    xxh3_64(pattern.as_str().as_bytes())
}

/// One life of an origin, hashed.
pub fn head_key(origin: &NodeName, boot: u64) -> u64 {
    xxh3_64_with_seed(origin.as_bytes(), boot)
}

impl Token {
    /// Whether the subscriber has seen the record of this birth, or a newer one of its source.
    pub fn covers_birth(&self, birth: &Birth) -> bool {
        let key = head_key(&birth.origin, birth.boot);
        let head = self.heads.binary_search_by_key(&key, |head| head.0);
        head.is_ok_and(|at| self.heads.get(at).is_some_and(|head| birth.seq <= head.1))
    }

    /// Whether it speaks of the pattern.
    pub fn covers_pattern(&self, pattern: &Pattern) -> bool {
        self.patterns.binary_search(&pattern_key(pattern)).is_ok()
    }

    /// The token as clients keep it.
    pub fn encode(&self) -> String {
        let mut bytes = Vec::with_capacity(32 + 8 * self.patterns.len() + 13 * self.heads.len());
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

    /// The token of such a text.
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

/// Takes a token's fields from its bytes.
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

    /// A count of things of at least `bytes` bytes each, of which so many can still follow.
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
}
