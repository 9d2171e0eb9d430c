//! How much memory a record occupies. The bounds of queues and of the map are checked with these numbers, so
//! they must be what the process really needs, with what the allocator adds.
//!
//! They follow glibc's allocator, which puts eight bytes before every block and rounds it up to sixteen. Others
//! differ by a few bytes.

use super::Record;

/// Bytes that the allocator puts before every block.
const HEADER_BYTES: usize = 8;
/// The allocator rounds the size of a block up to a multiple of this, in bytes.
const ALIGN_BYTES: usize = 16;
/// Smallest block of the allocator, in bytes.
const BLOCK_BYTES_MIN: usize = 32;
/// Bytes of the two counts that stand before the content of an `Arc`.
const COUNTS_BYTES: usize = 2 * size_of::<usize>();

/// Returns how many bytes the allocator sets aside for `bytes` bytes, which must not be 0.
#[inline]
pub const fn allocated(bytes: usize) -> usize {
    let block = (bytes + HEADER_BYTES).next_multiple_of(ALIGN_BYTES);
    if block < BLOCK_BYTES_MIN { BLOCK_BYTES_MIN } else { block }
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
    fn blocks_are_what_glibc_makes_of_them() {
        assert_eq!([1, 24, 25, 40, 41, 56, 57].map(allocated), [32, 32, 48, 48, 64, 64, 80]);
        assert_eq!(name_bytes("s/1"), 32);
        assert_eq!(name_bytes("sensors/17/temperature"), 48);
    }
}
