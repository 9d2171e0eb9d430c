//! The seal of a node that has keys of its cluster.
//!
//! What does not open is refused before anything of it is parsed, kept or answered, and the cheapest test comes first:
//! the mark, the id of the key, the life that it is for, the window of the sender's life, and only then the cipher.
//! A message under a key that this node does not have costs a comparison of four bytes.
//!
//! Everything here happens on the thread of the cluster machine. To open a message takes a fifth of a microsecond, and
//! what is in it must be read there anyway. To hand it to another thread first would cost more, and unopened bytes
//! would have to be kept in a queue meanwhile. The batches of records that it brings are merged by all workers, as
//! without a key.

use std::net::SocketAddr;
use std::sync::Arc;

use super::derived::{AEAD_TAG_BYTES, AeadKey, LifeSecret, RootKey, STREAM_SHARE_BYTES};
use super::header::{
    LONG_HEADER_BYTES, LifeName, NUMBER_MAX, SEALED_FIELD_BYTES, SaidLife, SealedHeader, is_sealed,
    short_name_hash,
};
use super::lives::{KnownLives, LIVES_MAX};
use super::peers::HeardPeers;
use super::stream::SealedStream;
use super::{CHECKED_HEADER_BYTES, CHECKSUM_BYTES, Checksum, KeyMismatch, OVERHEAD_BYTES_MAX, SENDER_BYTES};
use super::{SealRefusal, Unsealed, cluster_hash};
use crate::config::cluster_key::{KeyId, KeyPhase, Keyring};
use crate::record::NodeName;

/// Bytes that the seal adds to a message at most.
const SEALED_OVERHEAD_BYTES: usize = SEALED_FIELD_BYTES + AEAD_TAG_BYTES;
const _: () = assert!(SEALED_OVERHEAD_BYTES <= OVERHEAD_BYTES_MAX);
/// Bytes of the preamble of a sealed stream.
pub(super) const SEALED_PREAMBLE_BYTES: usize = LONG_HEADER_BYTES + STREAM_SHARE_BYTES + AEAD_TAG_BYTES;

/// The keys and settings with which a life of a node seals.
#[derive(Clone, Debug)]
pub struct SealKeys {
    /// The keys of the cluster.
    pub keyring: Keyring,
    /// How far the cluster has gone over to sealed messages.
    pub phase: KeyPhase,
    /// Random bits of the life.
    pub secret: LifeSecret,
}

/// The seal of one life of a node.
#[derive(Debug)]
pub struct KeyedSeal {
    cluster_name: Box<str>,
    /// Hash of the name of the cluster, as plain messages have it.
    cluster: [u8; 4],
    phase: KeyPhase,
    /// The first seals; there is always one.
    roots: Vec<Arc<RootKey>>,
    secret: LifeSecret,
    own: LifeName,
    /// Number of lives that were begun since the start.
    begun: u64,
    /// Tag of the life before this one, under which messages may be on their way.
    tag_before: Option<u32>,
    /// The key that seals the messages of this life.
    sealing: AeadKey,
    /// Number of the last message that was sealed in this life.
    sealed: u64,
    /// Number of the last stream for which this node gave a share.
    streams: u64,
    lives: KnownLives,
    peers: HeardPeers,
    /// The content of the message that was opened last.
    opened: Vec<u8>,
    mismatch: Option<KeyMismatch>,
}

/// A header that passed all tests which need no cipher, and the life of its sender.
struct Examined {
    header: SealedHeader,
    life: LifeName,
    /// Place of the key among the keys of the node.
    root: usize,
}

impl KeyedSeal {
    /// The seal of the life `boot` of the node of this name.
    pub fn new(cluster_name: &str, name: &NodeName, boot: u64, keys: SealKeys) -> KeyedSeal {
        let SealKeys { keyring, phase, secret } = keys;
        let own = LifeName { nonce: secret.nonce(0), name: short_name_hash(name), boot };
        KeyedSeal {
            cluster_name: cluster_name.into(),
            cluster: cluster_hash(cluster_name).to_le_bytes(),
            phase,
            roots: keyring.keys().map(|key| Arc::new(RootKey::new(key, cluster_name))).collect(),
            secret,
            own,
            begun: 0,
            tag_before: None,
            sealing: RootKey::new(keyring.first(), cluster_name).of_life(&own),
            sealed: 0,
            streams: 0,
            lives: KnownLives::default(),
            peers: HeardPeers::default(),
            opened: Vec::new(),
            mismatch: None,
        }
    }

    /// Takes other keys.
    pub fn set_keys(&mut self, keyring: &Keyring) {
        let name = &self.cluster_name;
        self.roots = keyring.keys().map(|key| Arc::new(RootKey::new(key, name))).collect();
        self.sealing = RootKey::new(keyring.first(), name).of_life(&self.own);
        let roots = &self.roots;
        self.lives.keep_keys(|id| roots.iter().any(|root| root.id == id));
    }

    /// Returns whether this node still has the key with which a stream began.
    pub fn is_current(&self, stream: &SealedStream) -> bool {
        self.roots.iter().any(|root| root.id == stream.key())
    }

    /// Begins a new life, with the boot number `boot`. What is on its way to the life before still arrives.
    pub fn begin_life(&mut self, boot: u64) {
        self.begun += 1;
        self.tag_before = Some(self.own.tag());
        let nonce = self.secret.nonce(self.begun);
        self.own = LifeName { nonce, boot, ..self.own };
        if let Some(root) = self.roots.first() {
            self.sealing = root.of_life(&self.own);
        }
        self.sealed = 0;
        self.peers.begin_anew();
    }

    /// How far the cluster has gone over to sealed messages.
    pub fn phase(&self) -> KeyPhase {
        self.phase
    }

    /// Ids of the keys that open; the first is that of the key that seals.
    pub fn key_ids(&self) -> Vec<KeyId> {
        self.roots.iter().map(|root| root.id).collect()
    }

    /// Takes what was refused last because its sender has no key in common with this node.
    pub fn take_mismatch(&mut self) -> Option<KeyMismatch> {
        self.mismatch.take()
    }

    /// Takes the members with their boot numbers, and whether each has answered at its own address.
    pub fn note_members(&mut self, members: &mut dyn Iterator<Item = (&NodeName, u64, bool)>) {
        self.lives.note_members(members);
    }

    /// Number of other nodes' lives that are kept, and its bound.
    pub fn lives_kept(&self) -> (usize, usize) {
        (self.lives.len(), LIVES_MAX)
    }

    pub(super) fn overhead_bytes(&self) -> usize {
        SEALED_OVERHEAD_BYTES
    }

    pub(super) fn is_sealing(&self) -> bool {
        self.phase != KeyPhase::Accept
    }

    pub(super) fn field_bytes(&self) -> usize {
        if self.is_sealing() { SEALED_FIELD_BYTES } else { CHECKSUM_BYTES }
    }

    /// The answer of a node that seals is larger by so much than the plain question.
    pub(super) fn answer_excess_bytes(&self) -> usize {
        match self.is_sealing() {
            true => 0,
            false => LONG_HEADER_BYTES + AEAD_TAG_BYTES - CHECKED_HEADER_BYTES,
        }
    }

    fn next_number(&mut self) -> u64 {
        if self.sealed >= NUMBER_MAX {
            self.begin_life(self.own.boot);
        }
        self.sealed += 1;
        self.sealed
    }

    /// Lets the next message be the last of this life that has a number.
    #[cfg(test)]
    pub(super) fn use_up_numbers(&mut self) {
        self.sealed = NUMBER_MAX - 1;
    }

    fn seal_to(&mut self, receiver: u32, is_known: bool, message: &mut Vec<u8>) {
        let number = self.next_number();
        let Some(root) = self.roots.first() else { return message.clear() };
        let life = if is_known { SaidLife::Nonce(self.own.nonce) } else { SaidLife::Full(self.own) };
        let header = SealedHeader { key: root.id, life, number, receiver };
        header.write(message);
        self.sealing.seal(number, header.bytes(), message);
    }

    /// Seals a datagram to `to`.
    pub(super) fn seal(&mut self, to: SocketAddr, message: &mut Vec<u8>) {
        if !self.is_sealing() {
            return Checksum::fill(message);
        }
        let heard = self.peers.at(to);
        let receiver = heard.map_or(0, |heard| heard.life.tag());
        self.seal_to(receiver, heard.is_some_and(|heard| heard.knows_us), message);
    }

    /// Examines the header of a message, as far as that needs no cipher.
    fn examine(&mut self, from: SocketAddr, message: &[u8]) -> Result<Examined, SealRefusal> {
        let header = SealedHeader::read(message).ok_or(SealRefusal::Forged)?;
        let Some(root) = self.roots.iter().position(|root| root.id == header.key) else {
            self.mismatch = Some(KeyMismatch { from, key: Some(header.key) });
            return Err(SealRefusal::Key);
        };
        let is_for_us = header.receiver == self.own.tag() || Some(header.receiver) == self.tag_before;
        if header.receiver != 0 && !is_for_us {
            return Err(SealRefusal::Replay);
        }
        let life = match header.life {
            SaidLife::Full(life) => life,
            // Nobody says so little to a node that does not know the life.
            SaidLife::Nonce(nonce) => {
                self.lives.get(nonce).map(|known| known.name).ok_or(SealRefusal::Replay)?
            }
        };
        if self.lives.is_over(&life) {
            return Err(SealRefusal::Replay);
        }
        Ok(Examined { header, life, root })
    }

    fn refuse_plain(&mut self, from: SocketAddr) -> Result<(), SealRefusal> {
        if self.phase == KeyPhase::Require {
            self.mismatch = Some(KeyMismatch { from, key: None });
            return Err(SealRefusal::Plain);
        }
        Ok(())
    }

    fn unsealed<'a>(&'a self, examined: &Examined, opened_bytes: usize) -> Unsealed<'a> {
        let mut sender = [0; SENDER_BYTES];
        let boot = examined.life.boot.to_le_bytes();
        sender.iter_mut().zip(self.cluster.into_iter().chain(boot)).for_each(|(to, from)| *to = from);
        // Where plain messages are taken, too, nobody needs a recording.
        let is_fresh = examined.header.receiver != 0 || self.phase != KeyPhase::Require;
        Unsealed { sender, body: self.opened.get(..opened_bytes).unwrap_or_default(), is_fresh }
    }

    /// Opens a datagram that came from `from`.
    pub(super) fn open<'a>(
        &'a mut self,
        from: SocketAddr,
        message: &'a [u8],
    ) -> Result<Unsealed<'a>, SealRefusal> {
        if !is_sealed(message) {
            self.refuse_plain(from)?;
            return Checksum::verify(message);
        }
        let examined = self.examine(from, message)?;
        let Examined { header, life, .. } = &examined;
        let known = self.lives.get(life.nonce);
        if known.is_some_and(|known| known.name != *life) {
            return Err(SealRefusal::Forged);
        }
        if header.number == 0 || known.is_some_and(|known| !known.window.is_new(header.number)) {
            return Err(SealRefusal::Replay);
        }
        let (key, derived) = match known.and_then(|known| known.key(header.key)) {
            Some(key) => (Some(key), None),
            None => (None, self.roots.get(examined.root).map(|root| root.of_life(life))),
        };
        let Some(key) = key.or(derived.as_ref()) else { return Err(SealRefusal::Forged) };
        let (clear, sealed) = message.split_at_checked(header.bytes()).ok_or(SealRefusal::Forged)?;
        self.opened.clear();
        self.opened.extend_from_slice(sealed);
        let opened = key.open(header.number, clear, &mut self.opened).ok_or(SealRefusal::Forged)?;
        let opened_bytes = opened.len();
        let derived = derived.map(|key| (header.key, key));
        if let Some(evicted) = self.lives.note(*life, header.number, derived) {
            self.peers.forget(evicted);
        }
        self.peers.note(from, *life, header.receiver == self.own.tag());
        Ok(self.unsealed(&examined, opened_bytes))
    }

    /// Seals the preamble of a stream that this node opens. `None`: the stream is plain.
    pub(super) fn connect(&mut self, preamble: &mut Vec<u8>) -> Option<SealedStream> {
        if !self.is_sealing() {
            Checksum::fill(preamble);
            return None;
        }
        self.streams += 1;
        let share = self.secret.share(self.streams);
        preamble.extend_from_slice(&share);
        self.seal_to(0, false, preamble);
        let (header, root) = (*preamble.first_chunk::<LONG_HEADER_BYTES>()?, self.roots.first()?.clone());
        Some(SealedStream::connecting(root, header, share))
    }

    /// Opens the preamble of a stream that a peer opened. The stream is plain if there is no seal for it.
    ///
    /// A preamble is not looked up in the window of its sender's life: it may come long after the datagrams that
    /// were sent with it. One that was recorded is of no use, since this node's share is another one each time.
    pub(super) fn accept<'a>(
        &'a mut self,
        from: SocketAddr,
        preamble: &'a [u8],
    ) -> Result<(Unsealed<'a>, Option<SealedStream>), SealRefusal> {
        if !is_sealed(preamble) {
            self.refuse_plain(from)?;
            return Ok((Checksum::verify(preamble)?, None));
        }
        let examined = self.examine(from, preamble)?;
        let Examined { header, life, .. } = &examined;
        let root = self.roots.get(examined.root).ok_or(SealRefusal::Key)?;
        let (clear, sealed) = preamble.split_at_checked(header.bytes()).ok_or(SealRefusal::Forged)?;
        let mut sealed = sealed.to_vec();
        let share = root.of_life(life).open(header.number, clear, &mut sealed).ok_or(SealRefusal::Forged)?;
        let theirs = share.try_into().map_err(|_| SealRefusal::Forged)?;
        self.streams += 1;
        let ours = self.secret.share(self.streams);
        let stream = SealedStream::accepted(root, clear, theirs, &ours);
        Ok((self.unsealed(&examined, 0), Some(stream)))
    }
}
