//! Memory for encoded records that are kept for a while and then dropped, mostly in the order in which they came.
//!
//! Records are appended to a *segment*, one after the other. A segment is filled anew when none of its records is
//! held any more. The processor fetches memory that is written from front to back ahead of time, while a block of
//! an allocator that was last used long ago has to be waited for; and a record that is dropped is not touched.
//!
//! Records that stay for long can keep a segment from being filled anew. If a third of the memory is lost that
//! way, [`Segments::take_sparsest`] gives out the segment with the fewest bytes that are held, whose records the
//! owner appends once more.

use crate::record::cost::allocated;

/// Usual size of a segment in bytes. A record of more than [`OWN_PART`] of it gets a segment of its own.
pub(super) const SEGMENT_BYTES: usize = 64 * 1024;
/// So little of a segment is lost at its end, where the next record has no room.
const OWN_PART: usize = 8;
/// Number of empty segments whose memory is kept to be filled anew.
const EMPTY_KEPT: usize = 2;
/// Bytes before each record: the hash of its source, its number, and its length.
const HEADER_BYTES: usize = 8 + 8 + 4;

/// The place of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    segment: u32,
    /// Index of the first byte of the record.
    at: u32,
    /// Length of the record in bytes.
    len: u32,
}

/// What names a record to its owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tag {
    /// Hash of the record's source.
    pub hash: u64,
    /// Number of the record.
    pub number: u64,
}

#[derive(Debug, Default)]
struct Segment {
    bytes: Vec<u8>,
    /// Bytes of the records that are held, their headers included.
    held: usize,
}

/// A segment that was taken out, with what its records were.
pub(super) struct Taken {
    index: u32,
    bytes: Vec<u8>,
}

/// The segments of one owner.
#[derive(Debug)]
pub(super) struct Segments {
    segments: Vec<Segment>,
    /// Indices of segments that hold nothing and have memory to be filled anew.
    empty: Vec<u32>,
    /// Indices of segments without memory.
    unused: Vec<u32>,
    /// Index of the segment that is being filled; of none before the first record.
    filling: u32,
    /// Bytes of memory of all segments.
    allocated: usize,
    /// Bytes of memory of the empty segments.
    spare: usize,
    /// Bytes of all records that are held, their headers included.
    held: usize,
    /// Usual size of a segment in bytes.
    segment_bytes: usize,
}

impl Segments {
    /// Begins without memory. Segments have `segment_bytes` bytes unless a record is larger.
    pub(super) fn new(segment_bytes: usize) -> Segments {
        Segments {
            segments: Vec::new(),
            empty: Vec::new(),
            unused: Vec::new(),
            filling: u32::MAX,
            allocated: 0,
            spare: 0,
            held: 0,
            segment_bytes,
        }
    }

    /// Memory of all segments in bytes, that which is not in use included.
    pub(super) fn allocated_bytes(&self) -> usize {
        self.allocated + allocated(self.segments.capacity() * size_of::<Segment>())
    }

    /// Appends a record of `len` bytes, which `write` appends to what it is given.
    pub(super) fn append(&mut self, tag: Tag, len: usize, write: impl FnOnce(&mut Vec<u8>)) -> Place {
        let bytes = HEADER_BYTES + len;
        let index = self.segment_for(bytes);
        let Some(segment) = self.segments.get_mut(index as usize) else {
            debug_assert!(false, "there is a segment for every record");
            return Place { segment: index, at: 0, len: 0 };
        };
        let out = &mut segment.bytes;
        out.extend_from_slice(&tag.hash.to_le_bytes());
        out.extend_from_slice(&tag.number.to_le_bytes());
        out.extend_from_slice(&(len as u32).to_le_bytes());
        let at = out.len();
        write(out);
        debug_assert_eq!(out.len() - at, len, "the length is known before");
        segment.held += bytes;
        self.held += bytes;
        Place { segment: index, at: at as u32, len: len as u32 }
    }

    /// Index of the segment that the next record of this size is appended to.
    fn segment_for(&mut self, bytes: usize) -> u32 {
        if bytes > self.segment_bytes / OWN_PART {
            return self.add(bytes);
        }
        let room = |segment: &Segment| segment.bytes.capacity() - segment.bytes.len();
        if self.segments.get(self.filling as usize).is_none_or(|segment| room(segment) < bytes) {
            let filled = std::mem::replace(&mut self.filling, u32::MAX);
            // Its records may all have been dropped while it was filled.
            self.empty_if_unheld(filled);
            self.filling = match self.empty.pop() {
                Some(index) => {
                    self.spare -=
                        self.segments.get(index as usize).map_or(0, |segment| segment.bytes.capacity());
                    index
                }
                None => self.add(self.segment_bytes),
            };
        }
        self.filling
    }

    /// Adds a segment with memory for this many bytes; returns its index.
    #[cold]
    fn add(&mut self, bytes: usize) -> u32 {
        let index = self.unused.pop().unwrap_or_else(|| {
            self.segments.push(Segment::default());
            self.segments.len() as u32 - 1
        });
        if let Some(segment) = self.segments.get_mut(index as usize) {
            debug_assert!(segment.held == 0 && segment.bytes.capacity() == 0, "segment {index} is in use");
            segment.bytes = Vec::with_capacity(bytes);
            self.allocated += segment.bytes.capacity();
        }
        index
    }

    /// The bytes of a record that is held.
    pub(super) fn get(&self, place: Place) -> &[u8] {
        let (at, len) = (place.at as usize, place.len as usize);
        let segment = self.segments.get(place.segment as usize);
        segment.and_then(|segment| segment.bytes.get(at..at + len)).unwrap_or_default()
    }

    /// Drops a record.
    pub(super) fn release(&mut self, place: Place) {
        let bytes = HEADER_BYTES + place.len as usize;
        let Some(segment) = self.segments.get_mut(place.segment as usize) else { return };
        debug_assert!(segment.held >= bytes, "a record is dropped once");
        segment.held -= bytes;
        self.held -= bytes;
        if segment.held == 0 && place.segment != self.filling {
            self.empty_if_unheld(place.segment);
        }
    }

    /// Makes a segment one of the empty ones, if it holds nothing.
    fn empty_if_unheld(&mut self, index: u32) {
        let Some(segment) = self.segments.get_mut(index as usize) else { return };
        if segment.held > 0 || index == self.filling {
            return;
        }
        segment.bytes.clear();
        let capacity = segment.bytes.capacity();
        if capacity == self.segment_bytes && self.empty.len() < EMPTY_KEPT {
            self.spare += capacity;
            self.empty.push(index);
            return;
        }
        self.allocated -= capacity;
        segment.bytes = Vec::new();
        self.unused.push(index);
    }

    /// Takes out the segment with the fewest bytes that are held, if a third of all memory is lost. Its records
    /// count as dropped.
    pub(super) fn take_sparsest(&mut self) -> Option<Taken> {
        // The segment that is being filled, and a little more, may be held for nothing.
        let slack = 4 * self.segment_bytes;
        let in_use = self.allocated - self.spare;
        if 2 * in_use <= 3 * self.held + slack {
            return None;
        }
        let filling = self.filling as usize;
        let used = self.segments.iter().enumerate();
        let used = used.filter(|(index, segment)| *index != filling && segment.held > 0);
        // Of equally large segments the one of which least is held frees most.
        let freed = |segment: &Segment| segment.bytes.capacity() - segment.held;
        let (index, segment) = used.max_by_key(|(_, segment)| freed(segment))?;
        if freed(segment) == 0 {
            return None;
        }
        let index = index as u32;
        let segment = self.segments.get_mut(index as usize)?;
        self.held -= std::mem::take(&mut segment.held);
        let bytes = std::mem::take(&mut segment.bytes);
        self.allocated -= bytes.capacity();
        Some(Taken { index, bytes })
    }

    /// Takes the memory of a segment that was taken out, to fill it anew.
    pub(super) fn give_back(&mut self, taken: Taken) {
        let Some(segment) = self.segments.get_mut(taken.index as usize) else { return };
        self.allocated += taken.bytes.capacity();
        segment.bytes = taken.bytes;
        self.empty_if_unheld(taken.index);
    }
}

impl Taken {
    /// All records that were ever appended to the segment, in order, those that were dropped included: each with
    /// its tag, its place and its bytes.
    pub(super) fn records(&self) -> impl Iterator<Item = (Tag, Place, &[u8])> {
        let mut rest = self.bytes.as_slice();
        let mut at = 0;
        std::iter::from_fn(move || {
            let (hash, after) = rest.split_first_chunk()?;
            let (number, after) = after.split_first_chunk()?;
            let (len, after) = after.split_first_chunk()?;
            let tag = Tag { hash: u64::from_le_bytes(*hash), number: u64::from_le_bytes(*number) };
            let len = u32::from_le_bytes(*len);
            let (record, after) = after.split_at_checked(len as usize)?;
            at += HEADER_BYTES;
            let place = Place { segment: self.index, at: at as u32, len };
            at += record.len();
            rest = after;
            Some((tag, place, record))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn append(segments: &mut Segments, number: u64, len: usize) -> Place {
        let byte = number as u8;
        segments.append(Tag { hash: number * 7, number }, len, |out| out.resize(out.len() + len, byte))
    }

    /// Moves the records of the sparsest segments, as an owner does. Returns whether there was one.
    fn compact(segments: &mut Segments, held: &mut BTreeMap<u64, Place>) -> bool {
        let Some(taken) = segments.take_sparsest() else { return false };
        for (tag, place, bytes) in taken.records() {
            assert_eq!(tag.hash, tag.number * 7);
            if held.get(&tag.number) == Some(&place) {
                let moved = segments.append(tag, bytes.len(), |out| out.extend_from_slice(bytes));
                held.insert(tag.number, moved);
            }
        }
        segments.give_back(taken);
        true
    }

    proptest! {
        #[test]
        fn what_is_held_stays_and_memory_follows_it(
            steps in proptest::collection::vec((0usize..400, any::<prop::sample::Index>(), 0u8..4), 1..600),
        ) {
            let mut segments = Segments::new(512);
            let mut held = BTreeMap::new();
            for (number, (len, index, kind)) in steps.into_iter().enumerate() {
                let number = number as u64;
                let len = if kind == 3 && len > 390 { 3 * len } else { len / 8 };
                held.insert(number, append(&mut segments, number, len));
                if kind > 0 {
                    let oldest = *index.get(&held.keys().copied().collect::<Vec<_>>());
                    let place = held.remove(&oldest).expect("is held");
                    segments.release(place);
                }
                while compact(&mut segments, &mut held) {}
                for (number, place) in &held {
                    let bytes = segments.get(*place);
                    prop_assert!(bytes.len() == place.len as usize && bytes.iter().all(|byte| *byte == *number as u8));
                }
                let sum: usize = held.values().map(|place| place.len as usize + HEADER_BYTES).sum();
                prop_assert_eq!(segments.held, sum);
                let capacity: usize = segments.segments.iter().map(|segment| segment.bytes.capacity()).sum();
                prop_assert_eq!(segments.allocated, capacity);
            }
            for place in held.into_values() {
                segments.release(place);
            }
            prop_assert!(segments.held == 0 && segments.allocated <= (EMPTY_KEPT + 1) * 512 + 3 * 400 + HEADER_BYTES);
        }
    }

    #[test]
    fn records_in_turns_need_no_more_memory_than_they_have_bytes() {
        let mut segments = Segments::new(1024);
        let mut held = std::collections::VecDeque::new();
        for number in 0..10_000 {
            held.push_back(append(&mut segments, number, 80));
            if held.len() > 500 {
                segments.release(held.pop_front().expect("is held"));
            }
            assert!(segments.take_sparsest().is_none(), "nothing needs to be moved");
        }
        assert!(segments.allocated < 500 * 100 * 11 / 10, "{} bytes", segments.allocated);
    }

    #[test]
    fn a_record_that_stays_does_not_keep_its_segment() {
        let mut segments = Segments::new(1024);
        let mut held = BTreeMap::new();
        for number in 0..10_000 {
            let place = append(&mut segments, number, 80);
            match number % 100 {
                0 => drop(held.insert(number, place)),
                _ => segments.release(place),
            }
            while compact(&mut segments, &mut held) {}
        }
        assert_eq!(held.len(), 100);
        assert!(segments.allocated < 2 * 100 * 100 + 8 * 1024, "{} bytes", segments.allocated);
    }
}
