//! How much memory a record occupies. The bounds of queues and of the map are checked with these numbers, so
//! they must be what the process really needs, with what the allocator adds.
//!
//! They follow mimalloc, the allocator of the program, which puts nothing before a block and rounds its size up
//! to one of four sizes in each power of two. Others differ by a few bytes.

use super::Record;

/// Blocks up to this size are rounded up to a multiple of [`ALIGN_BYTES`], in bytes.
const SMALL_BYTES_MAX: usize = 128;
/// The least difference between the sizes of two blocks, in bytes.
const ALIGN_BYTES: usize = 16;
/// Bytes of the two counts that stand before the content of an `Arc`.
const COUNTS_BYTES: usize = 2 * size_of::<usize>();

/// Returns how many bytes the allocator sets aside for `bytes` bytes, which must not be 0.
#[inline]
pub const fn allocated(bytes: usize) -> usize {
    let step = match bytes <= SMALL_BYTES_MAX {
        true => ALIGN_BYTES,
        // A quarter of the greatest power of two below.
        false => 1 << ((bytes - 1).ilog2() - 2),
    };
    bytes.next_multiple_of(step)
}

/// Returns how many bytes the shared text of a name takes.
#[inline]
pub const fn name_bytes(name: &str) -> usize {
    allocated(COUNTS_BYTES + name.len())
}

impl Record {
    /// Returns how much memory the record occupies, in bytes, including the name of its source.
    #[inline]
    pub fn cost_bytes(&self) -> usize {
        /// Bytes of a record besides the name of its source and its data.
        const RECORD_BYTES: usize = allocated(size_of::<Record>() + COUNTS_BYTES);
        RECORD_BYTES + name_bytes(self.source.as_str()) + self.data_cost_bytes()
    }

    /// Returns the part of [`Record::cost_bytes`] in which records of one source differ: the memory of the data.
    #[inline]
    pub fn data_cost_bytes(&self) -> usize {
        match self.payload.bytes().len() {
            0 => 0,
            len => allocated(len),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_what_mimalloc_makes_of_them() {
        assert_eq!([1, 16, 17, 40, 56, 80, 128].map(allocated), [16, 16, 32, 48, 64, 80, 128]);
        assert_eq!([129, 160, 161, 256, 257, 1_025].map(allocated), [160, 160, 192, 256, 320, 1_280]);
        assert_eq!(name_bytes("s/1"), 32);
        assert_eq!(name_bytes("sensors/17/temperature"), 48);
    }
}
