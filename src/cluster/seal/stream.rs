//! The seal of a stream after its preamble: chunks, each sealed by itself, in each direction with a key of its own.
//!
//! The node that connects puts a share of 16 random bytes into the preamble, and the other one writes a share of its
//! own before anything else. The keys are derived from both shares, the header of the preamble and a key of the
//! cluster. So a recorded stream is of no use: the other node has another share each time.
//!
//! A chunk is its length without the tag (two bytes, little-endian, authenticated), so many sealed bytes, and the
//! tag. Chunks are counted in each direction, so none can be left out, repeated or moved.

use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};

use super::derived::{AEAD_TAG_BYTES, AeadKey, RootKey, STREAM_SHARE_BYTES, StreamShare};
use super::header::LONG_HEADER_BYTES;
use super::{KeyId, SealRefusal, StreamSeal};

/// Most bytes in one chunk. A receiver keeps a chunk until it is whole.
const CHUNK_BYTES_MAX: usize = 16 * 1024;
/// Bytes of the length in front of a chunk.
const CHUNK_LENGTH_BYTES: usize = 2;
const _: () = assert!(CHUNK_BYTES_MAX <= u16::MAX as usize);

/// The seal of a stream between nodes that have a key in common.
#[derive(Debug)]
pub struct SealedStream {
    /// The key of the cluster from which the keys of the stream are derived.
    key: KeyId,
    keys: StreamKeys,
    /// This node's share, if it is still to be written.
    answer: Bytes,
    /// Number of chunks that were sealed.
    sealed: u64,
    /// Number of chunks that were opened.
    opened: u64,
    /// Bytes that came and are not opened: less than a chunk.
    waiting: BytesMut,
}

#[derive(Debug)]
enum StreamKeys {
    /// This node has connected, and waits for the share of the other one.
    Awaited { root: Arc<RootKey>, preamble: [u8; LONG_HEADER_BYTES], share: StreamShare },
    /// Both have contributed.
    Ready { sealing: Box<AeadKey>, opening: Box<AeadKey> },
}

/// Names the direction from the node that connected in the derivation of a key.
const FROM_CONNECTOR: &[u8] = b"stream from connector";
/// Names the direction from the node that accepted in the derivation of a key.
const FROM_ACCEPTOR: &[u8] = b"stream from acceptor";

impl SealedStream {
    /// The seal of a stream that this node opens with `share`, by a preamble with this header.
    pub(super) fn connecting(
        root: Arc<RootKey>,
        preamble: [u8; LONG_HEADER_BYTES],
        share: StreamShare,
    ) -> Self {
        SealedStream::new(root.id, StreamKeys::Awaited { root, preamble, share }, Bytes::new())
    }

    /// The seal of a stream that a peer opened with the share `theirs`.
    pub(super) fn accepted(
        root: &RootKey,
        preamble: &[u8],
        theirs: &StreamShare,
        ours: &StreamShare,
    ) -> Self {
        let keys = StreamKeys::Ready {
            sealing: Box::new(root.of_stream(preamble, theirs, ours, FROM_ACCEPTOR)),
            opening: Box::new(root.of_stream(preamble, theirs, ours, FROM_CONNECTOR)),
        };
        SealedStream::new(root.id, keys, Bytes::copy_from_slice(ours))
    }

    fn new(key: KeyId, keys: StreamKeys, answer: Bytes) -> Self {
        SealedStream { key, keys, answer, sealed: 0, opened: 0, waiting: BytesMut::new() }
    }

    /// Id of the key of the cluster from which the keys of the stream are derived.
    pub fn key(&self) -> KeyId {
        self.key
    }

    /// Takes the other node's share, if it is still awaited and has come.
    fn take_share(&mut self) {
        if let StreamKeys::Awaited { root, preamble, share } = &self.keys
            && let Some(theirs) = self.waiting.first_chunk::<STREAM_SHARE_BYTES>()
        {
            self.keys = StreamKeys::Ready {
                sealing: Box::new(root.of_stream(preamble, share, theirs, FROM_CONNECTOR)),
                opening: Box::new(root.of_stream(preamble, share, theirs, FROM_ACCEPTOR)),
            };
            self.waiting.advance(STREAM_SHARE_BYTES);
        }
    }
}

impl StreamSeal for SealedStream {
    fn is_ready(&self) -> bool {
        matches!(self.keys, StreamKeys::Ready { .. })
    }

    fn take_answer(&mut self) -> Bytes {
        std::mem::take(&mut self.answer)
    }

    fn seal(&mut self, bytes: Bytes) -> Bytes {
        let StreamKeys::Ready { sealing, .. } = &self.keys else {
            debug_assert!(false, "nothing is sealed before both have contributed");
            return Bytes::new();
        };
        let chunks = bytes.len().div_ceil(CHUNK_BYTES_MAX);
        let mut sealed = Vec::with_capacity(bytes.len() + chunks * (CHUNK_LENGTH_BYTES + AEAD_TAG_BYTES));
        let mut chunk =
            Vec::with_capacity(CHUNK_LENGTH_BYTES + CHUNK_BYTES_MAX.min(bytes.len()) + AEAD_TAG_BYTES);
        for part in bytes.chunks(CHUNK_BYTES_MAX) {
            chunk.clear();
            chunk.extend_from_slice(&(part.len() as u16).to_le_bytes());
            chunk.extend_from_slice(part);
            self.sealed += 1;
            sealing.seal(self.sealed, CHUNK_LENGTH_BYTES, &mut chunk);
            sealed.extend_from_slice(&chunk);
        }
        sealed.into()
    }

    fn open(&mut self, received: Bytes) -> Result<Bytes, SealRefusal> {
        self.waiting.extend_from_slice(&received);
        self.take_share();
        let StreamKeys::Ready { opening, .. } = &self.keys else { return Ok(Bytes::new()) };
        let mut opened = Vec::new();
        while let Some(length) = self.waiting.first_chunk::<CHUNK_LENGTH_BYTES>() {
            let bytes = usize::from(u16::from_le_bytes(*length));
            if !(1..=CHUNK_BYTES_MAX).contains(&bytes) {
                return Err(SealRefusal::Forged);
            }
            let whole = CHUNK_LENGTH_BYTES + bytes + AEAD_TAG_BYTES;
            if self.waiting.len() < whole {
                break;
            }
            let mut chunk = self.waiting.split_to(whole);
            let (length, sealed) = chunk.split_at_mut(CHUNK_LENGTH_BYTES);
            self.opened += 1;
            let content = opening.open(self.opened, length, sealed).ok_or(SealRefusal::Forged)?;
            opened.extend_from_slice(content);
        }
        Ok(opened.into())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::cluster_key::ClusterKey;

    const PREAMBLE: [u8; LONG_HEADER_BYTES] = [9; LONG_HEADER_BYTES];

    fn root() -> Arc<RootKey> {
        Arc::new(RootKey::new(&ClusterKey::new([1; 32]), "c"))
    }

    /// The two ends of a stream whose acceptor has this share.
    fn ends(share: u8) -> (SealedStream, SealedStream) {
        let mut connecting = SealedStream::connecting(root(), PREAMBLE, [1; 16]);
        let mut accepted = SealedStream::accepted(&root(), &PREAMBLE, &[1; 16], &[share; 16]);
        assert!(!connecting.is_ready() && accepted.is_ready());
        assert_eq!(connecting.open(accepted.take_answer()), Ok(Bytes::new()));
        assert!(connecting.is_ready() && accepted.take_answer().is_empty());
        (connecting, accepted)
    }

    proptest! {
        #[test]
        fn bytes_come_back_however_they_are_cut(
            parts in proptest::collection::vec(0usize..50_000, 1..5), piece in 1usize..70_000,
        ) {
            let (mut from, mut to) = ends(2);
            let (mut sent, mut wire) = (Vec::new(), Vec::new());
            for (index, bytes) in parts.into_iter().enumerate() {
                let part = vec![index as u8 + 1; bytes];
                wire.extend_from_slice(&from.seal(Bytes::from(part.clone())));
                sent.extend_from_slice(&part);
            }
            let mut came = Vec::new();
            for piece in wire.chunks(piece) {
                came.extend_from_slice(&to.open(Bytes::copy_from_slice(piece)).expect("its own bytes"));
                prop_assert!(to.waiting.len() < CHUNK_LENGTH_BYTES + CHUNK_BYTES_MAX + AEAD_TAG_BYTES);
            }
            prop_assert_eq!(came, sent);
        }
    }

    #[test]
    fn a_changed_repeated_or_recorded_chunk_is_refused() {
        let (mut from, mut to) = ends(2);
        let one = from.seal(Bytes::from_static(b"one"));
        for bit in 0..one.len() * 8 {
            let (_, mut to) = ends(2);
            let mut changed = one.to_vec();
            changed[bit / 8] ^= 1 << (bit % 8);
            // A length that grew makes the receiver wait for more.
            let opened = to.open(changed.into());
            assert!(opened.as_ref().map_or(true, |opened| opened.is_empty()), "bit {bit}: {opened:?}");
            assert!(opened.is_err() || bit < 16, "bit {bit}");
        }
        assert_eq!(to.open(one.clone()), Ok(Bytes::from_static(b"one")));
        assert_eq!(to.open(one.clone()), Err(SealRefusal::Forged), "sent again");
        let (_, mut to) = ends(3);
        assert_eq!(to.open(one.clone()), Err(SealRefusal::Forged), "sent again on another stream");
        let (mut from, _) = ends(2);
        assert_eq!(from.open(one), Err(SealRefusal::Forged), "sent back");
        let (_, mut to) = ends(2);
        assert_eq!(to.open(Bytes::from_static(&[0, 0])), Err(SealRefusal::Forged), "an empty chunk");
        assert_eq!(to.open(Bytes::from_static(&[255, 255])), Err(SealRefusal::Forged), "too long");
    }
}
