//! The addresses of clients: how many connections each has, and what wrong tokens cost it.
//!
//! One client can have all addresses of an IPv6 network of 64 bits, so these count as one.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroUsize;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::limits::GUESSERS_MAX;

/// Wrong tokens cost units. An address may owe this many before its tokens are not looked at any longer.
const UNITS_MAX: u64 = 5_000;
/// Units that are forgiven each second.
const UNITS_PER_SECOND: u64 = 20;
/// Most units that one wrong token costs: they take a minute to be forgiven.
const COST_MAX: u64 = 60 * UNITS_PER_SECOND;

/// The one who is counted for an address: the address itself, or the network of 64 bits of an IPv6 address.
fn counted(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
        address => address,
    }
}

/// The debts of addresses from which wrong tokens have come.
///
/// The first wrong token costs one unit, the second two, and so on, until all is forgiven. So a hundred mistakes
/// are free, and whoever goes on must wait longer each time, up to a minute for every token.
#[derive(Debug, Default)]
pub(super) struct Guessers(Mutex<BTreeMap<IpAddr, Debt>>);

#[derive(Clone, Copy, Debug)]
struct Debt {
    /// Millionths of units that are owed at `at_us`.
    owed: u64,
    at_us: u64,
    /// Number of wrong tokens since the debt began.
    failures: u64,
}

/// Millionths of a unit.
const UNIT: u64 = 1_000_000;

impl Debt {
    fn owed(&self, now_us: u64) -> u64 {
        self.owed.saturating_sub(now_us.saturating_sub(self.at_us).saturating_mul(UNITS_PER_SECOND))
    }
}

impl Guessers {
    /// Returns an error if the address owes too much: the time after which it may try again, in milliseconds.
    pub(super) fn check(&self, address: IpAddr, now_us: u64) -> Result<(), u64> {
        let debts = self.0.lock();
        let owed = debts.get(&counted(address)).map_or(0, |debt| debt.owed(now_us));
        match owed.saturating_sub(UNITS_MAX * UNIT) {
            0 => Ok(()),
            over => Err((over / UNITS_PER_SECOND).div_ceil(1_000).max(1)),
        }
    }

    /// Notes a wrong token.
    pub(super) fn handle_failure(&self, address: IpAddr, now_us: u64) {
        let (key, mut debts) = (counted(address), self.0.lock());
        if debts.len() >= GUESSERS_MAX && !debts.contains_key(&key) {
            forget_half(&mut debts, now_us);
        }
        let debt = debts.entry(key).or_insert(Debt { owed: 0, at_us: now_us, failures: 0 });
        let owed = debt.owed(now_us);
        let failures = if owed == 0 { 1 } else { debt.failures + 1 };
        *debt = Debt { owed: owed + failures.min(COST_MAX) * UNIT, at_us: now_us, failures };
    }
}

/// Forgets the half of the addresses that owe least, so that those who go on guessing stay known.
fn forget_half(debts: &mut BTreeMap<IpAddr, Debt>, now_us: u64) {
    let mut owed: Vec<u64> = debts.values().map(|debt| debt.owed(now_us)).collect();
    let half = owed.len() / 2;
    let (_, median, _) = owed.select_nth_unstable(half);
    let (median, mut spare) = (*median, half);
    debts.retain(|_, debt| {
        let goes = debt.owed(now_us) <= median && spare > 0;
        spare -= usize::from(goes);
        !goes
    });
}

/// The number of connections of each address, and the bound on it.
#[derive(Debug)]
pub struct AddressPlaces {
    max: Option<NonZeroUsize>,
    counts: Mutex<BTreeMap<IpAddr, usize>>,
}

/// The place of one connection among those of its address, which is given back when it is dropped.
#[derive(Debug)]
pub struct AddressPlace {
    places: Arc<AddressPlaces>,
    address: IpAddr,
    is_within: bool,
}

impl AddressPlaces {
    /// Makes the counts. Without a bound nothing is counted.
    pub fn new(max: Option<NonZeroUsize>) -> Arc<AddressPlaces> {
        Arc::new(AddressPlaces { max, counts: Mutex::default() })
    }

    /// Counts a connection. Returns `None` if there is no bound.
    pub fn take(self: &Arc<AddressPlaces>, address: IpAddr) -> Option<AddressPlace> {
        let max = self.max?.get();
        let address = counted(address);
        let mut counts = self.counts.lock();
        let count = counts.entry(address).or_default();
        *count += 1;
        Some(AddressPlace { places: self.clone(), address, is_within: *count <= max })
    }
}

impl AddressPlace {
    /// Returns whether the connection is within the bound.
    pub fn is_within(&self) -> bool {
        self.is_within
    }
}

impl Drop for AddressPlace {
    fn drop(&mut self) {
        let mut counts = self.places.counts.lock();
        if let Some(count) = counts.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect(text)
    }

    #[test]
    fn wrong_tokens_cost_more_each_time_and_are_forgiven() {
        let (guessers, bad, good) = (Guessers::default(), ip("10.0.0.1"), ip("10.0.0.2"));
        let mut now_us = 1_000_000;
        let mut free = 0;
        while guessers.check(bad, now_us).is_ok() {
            guessers.handle_failure(bad, now_us);
            free += 1;
        }
        assert_eq!(free, 100);
        let mut last_ms = 0;
        for _ in 0..1_200 {
            let wait_ms = guessers.check(bad, now_us).expect_err("owes");
            assert!(wait_ms >= last_ms && wait_ms <= 60_001, "{wait_ms} after {last_ms}");
            last_ms = if now_us > 1_000_000 { wait_ms } else { 0 };
            assert_eq!(guessers.check(good, now_us), Ok(()), "others are not affected");
            now_us += wait_ms * 1_000;
            assert_eq!(guessers.check(bad, now_us), Ok(()));
            guessers.handle_failure(bad, now_us);
        }
        assert!(last_ms > 59_000, "{last_ms}");
        now_us += 400_000_000;
        for _ in 0..100 {
            assert_eq!(guessers.check(bad, now_us), Ok(()), "all is forgiven");
            guessers.handle_failure(bad, now_us);
        }
    }

    #[test]
    fn the_table_of_guessers_is_bounded_and_keeps_the_worst() {
        let guessers = Guessers::default();
        let worst = ip("10.9.9.9");
        (0..150).for_each(|_| guessers.handle_failure(worst, 0));
        for number in 0..2 * GUESSERS_MAX as u32 {
            guessers.handle_failure(IpAddr::V4(number.into()), 0);
        }
        assert!(guessers.0.lock().len() <= GUESSERS_MAX);
        assert!(guessers.check(worst, 0).is_err());
    }

    #[test]
    fn a_network_of_ipv6_is_one_guesser() {
        assert_eq!(counted(ip("2001:db8::1")), counted(ip("2001:db8::2")));
        assert_ne!(counted(ip("2001:db8::1")), counted(ip("2001:db8:0:1::1")));
        assert_eq!(counted(ip("::ffff:10.0.0.1")), ip("10.0.0.1"));
    }

    #[test]
    fn places_are_given_back() {
        let places = AddressPlaces::new(NonZeroUsize::new(2));
        let (a, b) = (ip("10.0.0.1"), ip("10.0.0.2"));
        let is_within = |place: &Option<AddressPlace>| place.as_ref().is_some_and(AddressPlace::is_within);
        let held = [places.take(a), places.take(a), places.take(b)];
        assert!(held.iter().all(is_within));
        assert!(!is_within(&places.take(a)), "the third is too many, and is not counted any longer");
        drop(held);
        assert!(is_within(&places.take(a)) && places.counts.lock().is_empty());
        assert!(AddressPlaces::new(None).take(a).is_none());
    }
}
