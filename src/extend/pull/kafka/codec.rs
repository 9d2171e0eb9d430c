//! Decompresses batches, within a bound: what is small on the wire may be huge behind it.

use std::io::Read;

use super::wire::ValueReader;

/// Most bytes of a batch when it is decompressed.
pub(super) const KAFKA_BATCH_BYTES_MAX: usize = 64 << 20;
/// Largest window of zstd that a batch may ask for, as a power of two: what all levels but the ultra ones use.
const ZSTD_WINDOW_LOG_MAX: u32 = 27;
/// The beginning of what Java's producer makes of Snappy: blocks with their lengths. Others send one block alone.
const SNAPPY_BLOCKS: &[u8] = b"\x82SNAPPY\0";
/// Bytes of the versions behind [`SNAPPY_BLOCKS`].
const SNAPPY_VERSIONS: usize = 8;

/// How a batch is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KafkaCodec {
    None,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

impl KafkaCodec {
    /// The codec that the attributes of a batch name.
    pub fn of(attributes: i16) -> Result<KafkaCodec, String> {
        match attributes & 7 {
            0 => Ok(KafkaCodec::None),
            1 => Ok(KafkaCodec::Gzip),
            2 => Ok(KafkaCodec::Snappy),
            3 => Ok(KafkaCodec::Lz4),
            4 => Ok(KafkaCodec::Zstd),
            other => Err(format!("a batch with the compression {other}, which is not known")),
        }
    }

    /// Decompresses bytes. May take a tenth of a second.
    pub fn decompress(self, bytes: &[u8]) -> Result<Vec<u8>, String> {
        let broken = |error: std::io::Error| format!("a batch that cannot be decompressed: {error}");
        match self {
            KafkaCodec::None => Ok(bytes.to_vec()),
            KafkaCodec::Gzip => read_bounded(flate2::read::GzDecoder::new(bytes)),
            KafkaCodec::Lz4 => read_bounded(lz4_flex::frame::FrameDecoder::new(bytes)),
            KafkaCodec::Zstd => {
                let mut decoder = zstd::stream::read::Decoder::new(bytes).map_err(broken)?;
                decoder.window_log_max(ZSTD_WINDOW_LOG_MAX).map_err(broken)?;
                read_bounded(decoder)
            }
            KafkaCodec::Snappy => snappy(bytes),
        }
    }
}

fn read_bounded(reader: impl Read) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let read = reader.take(KAFKA_BATCH_BYTES_MAX as u64 + 1).read_to_end(&mut bytes);
    read.map_err(|error| format!("a batch that cannot be decompressed: {error}"))?;
    match bytes.len() > KAFKA_BATCH_BYTES_MAX {
        true => Err(too_large()),
        false => Ok(bytes),
    }
}

fn too_large() -> String {
    format!("a batch of more than {} MiB when it is decompressed", KAFKA_BATCH_BYTES_MAX >> 20)
}

fn snappy(bytes: &[u8]) -> Result<Vec<u8>, String> {
    let mut whole = Vec::new();
    let mut add = |block: &[u8]| -> Result<(), String> {
        let broken = |error: snap::Error| format!("a batch that cannot be decompressed: {error}");
        // The length stands before the data, so nothing is set aside for more than the bound.
        let length = snap::raw::decompress_len(block).map_err(broken)?;
        if whole.len().saturating_add(length) > KAFKA_BATCH_BYTES_MAX {
            return Err(too_large());
        }
        whole.append(&mut snap::raw::Decoder::new().decompress_vec(block).map_err(broken)?);
        Ok(())
    };
    match bytes.strip_prefix(SNAPPY_BLOCKS) {
        None => add(bytes)?,
        Some(rest) => {
            let mut reader = ValueReader(rest);
            reader.take(SNAPPY_VERSIONS)?;
            while !reader.0.is_empty() {
                add(reader.bytes()?)?;
            }
        }
    }
    Ok(whole)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn all_codecs_give_back_what_was_compressed() {
        let text = "{\"celsius\": 21.5}\n".repeat(1_000).into_bytes();
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&text).expect("compressed");
        let mut lz4 = lz4_flex::frame::FrameEncoder::new(Vec::new());
        lz4.write_all(&text).expect("compressed");
        let block = snap::raw::Encoder::new().compress_vec(&text).expect("compressed");
        let mut blocks = [SNAPPY_BLOCKS, &[0, 0, 0, 1, 0, 0, 0, 1]].concat();
        for part in text.chunks(5_000) {
            let part = snap::raw::Encoder::new().compress_vec(part).expect("compressed");
            blocks.extend_from_slice(&(part.len() as u32).to_be_bytes());
            blocks.extend_from_slice(&part);
        }
        for (codec, bytes) in [
            (KafkaCodec::None, text.clone()),
            (KafkaCodec::Gzip, gzip.finish().expect("ended")),
            (KafkaCodec::Lz4, lz4.finish().expect("ended")),
            (KafkaCodec::Zstd, zstd::bulk::compress(&text, 3).expect("compressed")),
            (KafkaCodec::Snappy, block),
            (KafkaCodec::Snappy, blocks),
        ] {
            assert!(codec.decompress(&bytes).is_ok_and(|whole| whole == text), "{codec:?}");
            if codec != KafkaCodec::None {
                assert!(codec.decompress(&bytes[..bytes.len() / 2]).is_err(), "{codec:?}, cut off");
                assert!(codec.decompress(b"nonsense").is_err(), "{codec:?}");
            }
        }
    }

    #[test]
    fn what_is_small_on_the_wire_and_huge_behind_it_is_refused() {
        let bomb = zstd::bulk::compress(&vec![0; KAFKA_BATCH_BYTES_MAX + 1], 1).expect("compressed");
        assert!(bomb.len() < 100_000);
        assert_eq!(KafkaCodec::Zstd.decompress(&bomb), Err(too_large()));
        // A block of Snappy that says that it has 4 GiB.
        assert_eq!(KafkaCodec::Snappy.decompress(&[0xff, 0xff, 0xff, 0xff, 0x0f, 0]), Err(too_large()));
    }
}
