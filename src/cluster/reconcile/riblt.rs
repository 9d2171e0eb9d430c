//! Rateless invertible Bloom lookup tables: the difference of two sets, at a cost that grows with
//! the difference alone.
//!
//! One side turns its set into an endless sequence of *coded symbols*. Each symbol is the XOR of the items
//! mapped to it, the XOR of their checksums, and their number. Every item is in the first symbol, and in
//! later ones with a chance that falls as 1/(1 + i/2). The other side makes the same sequence of its own set
//! and subtracts: what both hold cancels out, so only the difference is left. A symbol that holds a single
//! item reveals it. When that item is taken out of the other symbols that it is in, some of these hold a
//! single item in turn. About 1.35 symbols a difference are enough for large differences, 1.7 for small ones,
//! and the size of the difference need not be known before. After Yang, Gilad, Alizadeh: Practical Rateless
//! Set Reconciliation (SIGCOMM 2024).
//!
//! [`Encoder`] makes symbols, [`Decoder`] subtracts its own and peels. The first symbol holds all
//! items, so it is empty when, and only when, everything was found.
//!
//! Rejected: plain IBLTs (the size must be guessed before, and a wrong guess starts over); Merkle
//! trees and range splitting (a round trip for each level, and spread differences touch everything);
//! polynomial methods (quadratic to decode).

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// A member of a set: a hash, so that the XOR of several is as good as random.
pub(super) type SetItem = u128;

/// One coded symbol: what the items mapped to one place of the sequence add up to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Symbol {
    /// XOR of the items.
    pub sum: u128,
    /// XOR of the lower halves of the items' checksums. It distinguishes a symbol of one item from a symbol
    /// of several. Where it errs, once in four billion, the symbols do not decode and more are asked for.
    pub check: u32,
    /// Number of items. After subtraction, items of the peer count up and own items count down.
    pub count: i64,
}

impl Symbol {
    fn is_empty(&self) -> bool {
        *self == Symbol::default()
    }

    fn add(&mut self, coded: &Coded, sign: i64) {
        self.sum ^= coded.item;
        self.check ^= coded.check as u32;
        self.count = self.count.wrapping_add(sign);
    }

    fn subtract(&mut self, other: &Symbol) {
        self.sum ^= other.sum;
        self.check ^= other.check;
        self.count = self.count.wrapping_sub(other.count);
    }
}

/// Returns the checksum of an item.
fn check_of(item: SetItem, seed: u64) -> u64 {
    xxh3_64_with_seed(&item.to_le_bytes(), seed)
}

/// An item and the next place of the sequence that it is mapped to.
#[derive(Clone, Copy, Debug)]
struct Coded {
    item: SetItem,
    check: u64,
    random: u64,
    next: u32,
}

impl Coded {
    fn new(item: SetItem, seed: u64) -> Coded {
        let check = check_of(item, seed);
        Coded { item, check, random: check, next: 0 }
    }

    /// Moves on to the place after `next`. With `u` even in (0, 1], the gap from place `i` is
    /// ⌈(i + 3/2)(1/√u − 1)⌉: that gives the chance 1/(1 + i/2) for every place, in one step for
    /// each place that is hit, not for each that is passed. Square roots and divisions are exact to
    /// the last bit on every machine, so both sides walk the same places.
    fn advance(&mut self) {
        self.random = self.random.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        let even = ((self.random >> 32) + 1) as f64 / (1u64 << 32) as f64;
        let gap = ((f64::from(self.next) + 1.5) * (1.0 / even.sqrt() - 1.0)).ceil();
        // Past u32::MAX the conversion saturates: that item is in no later symbol.
        self.next = self.next.saturating_add((gap as u32).max(1));
    }

    /// Adds the item, with `sign`, to all of its places in `symbols` from `next` on.
    fn spread(&mut self, symbols: &mut [Symbol], sign: i64) {
        while let Some(symbol) = symbols.get_mut(self.next as usize) {
            symbol.add(self, sign);
            self.advance();
        }
    }
}

/// Makes the sequence of symbols of a set, one stretch after the other.
#[derive(Clone, Debug)]
pub(super) struct Encoder {
    coded: Vec<Coded>,
    produced: usize,
}

impl Encoder {
    /// Begins the sequence of these items. Both sides must use the same seed.
    pub fn new(items: &[SetItem], seed: u64) -> Encoder {
        Encoder { coded: items.iter().map(|&item| Coded::new(item, seed)).collect(), produced: 0 }
    }

    /// Number of items in the set.
    pub fn len(&self) -> usize {
        self.coded.len()
    }

    /// The items, in the order in which they were given.
    pub fn items(&self) -> impl Iterator<Item = SetItem> {
        self.coded.iter().map(|coded| coded.item)
    }

    /// XOR of the checksums of all items, which is equal for equal sets.
    pub fn fold(&self) -> u64 {
        self.coded.iter().fold(0, |fold, coded| fold ^ coded.check)
    }

    /// Makes the next symbols, up to but not including the one at `upto`.
    pub fn extend(&mut self, upto: usize) -> Vec<Symbol> {
        let from = self.produced;
        let mut symbols = vec![Symbol::default(); upto.saturating_sub(from)];
        for coded in &mut self.coded {
            while let Some(at) = (coded.next as usize).checked_sub(from)
                && let Some(symbol) = symbols.get_mut(at)
            {
                symbol.add(coded, 1);
                coded.advance();
            }
        }
        self.produced = from + symbols.len();
        symbols
    }
}

/// The error that symbols unfold to more items than there are symbols, which those of an honest peer never
/// do.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("symbols that do not come from a set")]
pub(super) struct Undecodable;

/// The items that are in only one of two sets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Difference {
    /// Items that only the peer has.
    pub theirs: Vec<SetItem>,
    /// Items that only this side has.
    pub ours: Vec<SetItem>,
}

/// Finds the difference between a peer's set, whose symbols come in, and the own set.
#[derive(Clone, Debug)]
pub(super) struct Decoder {
    own: Encoder,
    seed: u64,
    symbols: Vec<Symbol>,
    found: Vec<(Coded, i64)>,
}

impl Decoder {
    /// A decoder for the difference to the set `own`, whose sequence must not have begun.
    pub fn new(own: Encoder, seed: u64) -> Decoder {
        Decoder { own, seed, symbols: Vec::new(), found: Vec::new() }
    }

    /// Number of symbols taken in.
    pub fn taken(&self) -> usize {
        self.symbols.len()
    }

    /// The set of this side.
    pub fn own(&self) -> &Encoder {
        &self.own
    }

    /// Takes in the next symbols of the peer. Returns whether the whole difference is found.
    pub fn absorb(&mut self, theirs: &[Symbol]) -> Result<bool, Undecodable> {
        let from = self.symbols.len();
        self.symbols.extend_from_slice(theirs);
        let own = self.own.extend(self.symbols.len());
        for (symbol, own) in self.symbols.iter_mut().skip(from).zip(&own) {
            symbol.subtract(own);
        }
        for (coded, sign) in &mut self.found {
            coded.spread(&mut self.symbols, -*sign);
        }
        self.peel(from)?;
        Ok(self.symbols.first().is_some_and(Symbol::is_empty))
    }

    /// Takes every item that stands alone in a symbol out of all symbols, until none stands alone.
    fn peel(&mut self, from: usize) -> Result<(), Undecodable> {
        let mut todo: Vec<usize> = (from..self.symbols.len()).collect();
        while let Some(at) = todo.pop() {
            let Some(&symbol) = self.symbols.get(at) else { continue };
            if symbol.count.unsigned_abs() != 1 || symbol.check != check_of(symbol.sum, self.seed) as u32 {
                continue;
            }
            if self.found.len() >= self.symbols.len() {
                return Err(Undecodable);
            }
            let mut coded = Coded::new(symbol.sum, self.seed);
            while let Some(place) = self.symbols.get_mut(coded.next as usize) {
                place.add(&coded, -symbol.count);
                todo.push(coded.next as usize);
                coded.advance();
            }
            self.found.push((coded, symbol.count));
        }
        Ok(())
    }

    /// Returns the difference that was found.
    pub fn into_difference(self) -> Difference {
        let mut difference = Difference::default();
        for (coded, sign) in self.found {
            let side = if sign > 0 { &mut difference.theirs } else { &mut difference.ours };
            side.push(coded.item);
        }
        difference
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SEED: u64 = 7;

    fn item(number: u64) -> SetItem {
        xxhash_rust::xxh3::xxh3_128(&number.to_le_bytes())
    }

    fn items(numbers: impl Iterator<Item = u64>) -> Vec<SetItem> {
        numbers.map(item).collect()
    }

    /// Finds the difference with one symbol at a time. Returns it sorted, and the number of symbols that it
    /// took.
    fn reconcile(theirs: &[SetItem], ours: &[SetItem]) -> (Difference, usize) {
        let mut encoder = Encoder::new(theirs, SEED);
        let mut decoder = Decoder::new(Encoder::new(ours, SEED), SEED);
        while !decoder.absorb(&encoder.extend(encoder.produced + 1)).expect("an honest peer") {}
        let taken = decoder.taken();
        let mut difference = decoder.into_difference();
        difference.theirs.sort_unstable();
        difference.ours.sort_unstable();
        (difference, taken)
    }

    fn sorted(mut items: Vec<SetItem>) -> Vec<SetItem> {
        items.sort_unstable();
        items
    }

    #[test]
    fn places_are_hit_as_often_as_they_should() {
        let mut hits = vec![0u32; 400];
        for number in 0..20_000 {
            let mut coded = Coded::new(item(number), SEED);
            while let Some(hit) = hits.get_mut(coded.next as usize) {
                *hit += 1;
                coded.advance();
            }
        }
        for at in [0usize, 1, 2, 5, 10, 50, 100, 399] {
            let expected = 20_000.0 / (1.0 + at as f64 / 2.0);
            let off = (f64::from(hits[at]) - expected).abs();
            assert!(off <= 5.0 * expected.sqrt() + 1.0, "place {at}: {} instead of {expected}", hits[at]);
        }
    }

    #[test]
    fn equal_sets_take_one_symbol() {
        let set = items(0..1000);
        assert_eq!(reconcile(&set, &set), (Difference::default(), 1));
        assert_eq!(reconcile(&[], &[]), (Difference::default(), 1));
    }

    #[test]
    fn cost_grows_with_the_difference_alone() {
        for (differing, symbols_max) in [(1u64, 2.0), (10, 3.0), (100, 1.9), (1000, 1.5)] {
            let theirs = items(0..3_000);
            let ours = items(differing / 2..3_000 + differing.div_ceil(2));
            let (difference, taken) = reconcile(&theirs, &ours);
            assert_eq!(difference.theirs.len() + difference.ours.len(), differing as usize);
            let each = taken as f64 / differing as f64;
            assert!(each <= symbols_max, "{differing} differences took {taken} symbols");
        }
    }

    #[test]
    fn stretches_give_the_same_as_single_symbols() {
        let set = items(0..500);
        let (mut one, mut many) = (Encoder::new(&set, SEED), Encoder::new(&set, SEED));
        let whole = one.extend(300);
        let mut parts = Vec::new();
        for upto in [1, 2, 17, 17, 130, 300] {
            parts.extend(many.extend(upto));
        }
        assert_eq!(whole, parts);
        assert_eq!(many.produced, 300);
    }

    #[test]
    fn symbols_of_no_set_end() {
        // Every symbol claims to hold the same single item, which appears again wherever it was taken out.
        let lone = Coded::new(item(1), SEED);
        let mut symbol = Symbol::default();
        symbol.add(&lone, 1);
        let mut decoder = Decoder::new(Encoder::new(&[], SEED), SEED);
        assert_ne!(decoder.absorb(&[symbol; 1000]), Ok(true));
    }

    proptest! {
        #[test]
        fn finds_any_difference(both in 0u64..200, theirs in 0u64..60, ours in 0u64..60, seed: u64) {
            let item = |number: u64| item(number ^ seed);
            let common = (0..both).map(item);
            let their_own: Vec<SetItem> = (1000..1000 + theirs).map(item).collect();
            let our_own: Vec<SetItem> = (2000..2000 + ours).map(item).collect();
            let (difference, _) = reconcile(
                &common.clone().chain(their_own.iter().copied()).collect::<Vec<_>>(),
                &common.chain(our_own.iter().copied()).collect::<Vec<_>>(),
            );
            prop_assert_eq!(difference, Difference { theirs: sorted(their_own), ours: sorted(our_own) });
        }

        #[test]
        fn garbage_ends(symbols in proptest::collection::vec((any::<u128>(), any::<u32>(), -2i64..3), 0..300)) {
            let symbols: Vec<Symbol> =
                symbols.into_iter().map(|(sum, check, count)| Symbol { sum, check, count }).collect();
            let _ = Decoder::new(Encoder::new(&items(0..50), SEED), SEED).absorb(&symbols);
        }
    }
}
