//! Counts how much has come of a record of TLS that is not whole yet.
//!
//! rustls keeps such a part until the rest has come, and does not say how much it keeps. A client that sends the
//! beginning of a large record and then nothing makes the node hold memory, which is to be counted.

/// Length of the head of a record: its type, its version, and the length of the rest (RFC 8446, 5.1).
const HEAD_BYTES: usize = 5;

/// The place in the stream of records that comes from a client.
#[derive(Debug, Default)]
pub struct RecordMeter {
    head: [u8; HEAD_BYTES],
    /// Bytes of the present record that have come, with its head.
    come: usize,
}

impl RecordMeter {
    /// Notes that these bytes have come.
    pub fn handle_received(&mut self, mut bytes: &[u8]) {
        while let Some(first) = bytes.first() {
            if let Some(place) = self.head.get_mut(self.come) {
                *place = *first;
                self.come += 1;
                bytes = bytes.get(1..).unwrap_or_default();
            } else {
                let taken = bytes.len().min(self.record_bytes().saturating_sub(self.come));
                self.come += taken;
                bytes = bytes.get(taken..).unwrap_or_default();
            }
            if self.come >= HEAD_BYTES && self.come >= self.record_bytes() {
                self.come = 0;
            }
        }
    }

    /// Length of the present record, whose head must have come.
    fn record_bytes(&self) -> usize {
        let [_, _, _, high, low] = self.head;
        HEAD_BYTES + usize::from(u16::from_be_bytes([high, low]))
    }

    /// Returns how many bytes have come of a record that is not whole.
    pub fn partial_bytes(&self) -> usize {
        self.come
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_has_come_of_the_last_record_is_known_however_it_is_cut(
            lengths in prop::collection::vec(0_usize..3_000, 1..6),
            cuts in prop::collection::vec(1_usize..700, 1..40),
        ) {
            let mut stream = Vec::new();
            let mut starts = vec![0];
            for length in &lengths {
                stream.extend([23, 3, 3]);
                stream.extend((*length as u16).to_be_bytes());
                stream.extend(vec![7; *length]);
                starts.push(stream.len());
            }
            let (mut meter, mut at) = (RecordMeter::default(), 0);
            for cut in cuts.iter().cycle() {
                if at >= stream.len() {
                    break;
                }
                let end = (at + cut).min(stream.len());
                meter.handle_received(&stream[at..end]);
                at = end;
                let start = starts.iter().rev().find(|start| **start <= at).copied().unwrap_or(0);
                prop_assert_eq!(meter.partial_bytes(), at - start);
            }
        }
    }
}
