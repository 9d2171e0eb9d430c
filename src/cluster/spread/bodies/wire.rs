//! Encodes and decodes the frames of a stream on which bodies are pulled.

use bytes::Bytes;
use prost::Message as _;

use crate::cluster::frames::frame;
use crate::cluster::spread::batch::BatchId;
use crate::proto::gossip as proto;
use crate::proto::gossip::bodies::Frame as ProtoFrame;

/// Most bytes of a body that go in one frame.
pub(super) const PIECE_BYTES_MAX: usize = 32 * 1024;
/// Most bytes of a frame: a piece with its tag and length.
pub(super) const FRAME_BYTES_MAX: usize = PIECE_BYTES_MAX + 64;

/// A frame of a stream on which bodies are pulled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum BodyFrame {
    /// The sender of the frame asks for this batch.
    Ask(BatchId),
    /// The next piece of the first batch that was asked for and is not complete.
    Piece(Bytes),
    /// The sender of the frame does not have the first batch that was asked for and is not complete.
    Lack,
}

impl BodyFrame {
    /// The encoded frame, with its length before it.
    pub fn encode(self) -> Bytes {
        let inner = match self {
            BodyFrame::Ask(BatchId { line, first_seq }) => {
                ProtoFrame::Ask(proto::BodyAsk { line, first_seq })
            }
            BodyFrame::Piece(bytes) => ProtoFrame::Piece(bytes),
            BodyFrame::Lack => ProtoFrame::Lack(true),
        };
        frame(&proto::Bodies { frame: Some(inner) })
    }

    /// Decodes a frame without its length. `None`: no node would write it.
    pub fn decode(bytes: Bytes) -> Option<BodyFrame> {
        match proto::Bodies::decode(bytes).ok()?.frame? {
            ProtoFrame::Ask(ask) => {
                let (line, first_seq) = (ask.line, ask.first_seq);
                Some(BodyFrame::Ask(BatchId { line, first_seq }))
            }
            ProtoFrame::Piece(bytes) if bytes.is_empty() => None,
            ProtoFrame::Piece(bytes) => Some(BodyFrame::Piece(bytes)),
            ProtoFrame::Lack(_) => Some(BodyFrame::Lack),
        }
    }
}
