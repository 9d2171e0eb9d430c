//! The rights of one publisher, as its records pass the gate.

use std::cell::{Cell, RefCell};

use xxhash_rust::xxh3::xxh3_64;

use super::access::Access;
use crate::limits::{FLOOD_SECONDS, FLOOD_TIMES};
use crate::protocol::refusal::{Code, Refusal};
use crate::record::Now;

/// Number of names that are remembered of one connection.
const REMEMBERED: usize = 16;

/// The rights of one connection or request to publish. Which sources were allowed is remembered, so that a source is
/// matched against the patterns once.
#[derive(Debug)]
pub struct PublishRights {
    access: Access,
    /// Names that are allowed, each at the place that its hash says. The names themselves are compared, so a client
    /// gains nothing by names with equal hashes.
    allowed: RefCell<[String; REMEMBERED]>,
    flood: Cell<FloodMeter>,
}

/// How much a client sends beyond its rate, and for how long.
#[derive(Clone, Copy, Debug, Default)]
struct FloodMeter {
    second: u64,
    /// Records that came in this second.
    came: u64,
    /// Number of seconds of a flood, less those of calm in between.
    seconds: u32,
}

impl FloodMeter {
    fn count(&mut self, now_us: u64, per_second: u64) {
        let second = now_us / 1_000_000;
        if second != self.second {
            let is_flood = self.came >= per_second.saturating_mul(FLOOD_TIMES - 1);
            let calm = u32::try_from(second.saturating_sub(self.second + 1)).unwrap_or(u32::MAX);
            self.seconds =
                if is_flood { self.seconds.saturating_add(1) } else { self.seconds.saturating_sub(1) };
            self.seconds = self.seconds.saturating_sub(calm);
            (self.second, self.came) = (second, 0);
        }
        self.came += 1;
    }
}

impl PublishRights {
    /// The rights of a connection that has just been opened, or of a request.
    pub fn new(access: Access) -> PublishRights {
        PublishRights { access, allowed: RefCell::default(), flood: Cell::default() }
    }

    /// Takes other rights, after the client brought another token or the file of rights changed.
    pub fn set_access(&mut self, access: Access) {
        *self.allowed.get_mut() = Default::default();
        self.access = access;
    }

    /// The access that the rights come from.
    pub fn access(&self) -> &Access {
        &self.access
    }

    /// Returns whether records of the system's names may be published.
    pub fn may_change_system(&self) -> bool {
        self.access.rights().admin
    }

    /// Lets a record of this source pass, or refuses it. Each call counts against the rate.
    pub fn admit(&self, now: Now, source: &str) -> Result<(), Refusal> {
        self.check(source)?;
        let Some(rate) = self.access.rate() else { return Ok(()) };
        let per_second = rate.per_second().get();
        let mut flood = self.flood.get();
        flood.count(now.mono_us, u64::from(per_second));
        self.flood.set(flood);
        rate.take(now.mono_us).map_err(|retry_after_ms| {
            let message = format!("more than {per_second} records a second");
            Refusal::new(Code::RateLimited, message).retry_after_ms(retry_after_ms)
        })
    }

    /// Refuses a source to which the client may not publish. Does not count against the rate.
    pub fn check(&self, source: &str) -> Result<(), Refusal> {
        if self.is_allowed(source) {
            return Ok(());
        }
        let message = format!("{} may not publish to source {source:?}", self.access.name());
        Err(Refusal::new(Code::Forbidden, message))
    }

    fn is_allowed(&self, source: &str) -> bool {
        let rights = self.access.rights();
        if rights.admin {
            return true;
        }
        let place = xxh3_64(source.as_bytes()) as usize % REMEMBERED;
        let Ok(mut allowed) = self.allowed.try_borrow_mut() else { return rights.may_publish(source) };
        let Some(remembered) = allowed.get_mut(place) else { return rights.may_publish(source) };
        if remembered == source {
            return true;
        }
        let is_allowed = rights.may_publish(source);
        if is_allowed {
            remembered.clear();
            remembered.push_str(source);
        }
        is_allowed
    }

    /// Returns whether the client has gone on for long at many times its rate.
    pub fn is_flooding(&self) -> bool {
        self.flood.get().seconds >= FLOOD_SECONDS
    }

    /// Number of bytes of memory that the rights of this connection take.
    pub fn held_bytes(&self) -> usize {
        let names = self.allowed.try_borrow().map_or(0, |names| names.iter().map(String::capacity).sum());
        size_of::<PublishRights>() + names
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;
    use std::sync::Arc;

    use super::super::access::Proof;
    use super::super::patterns::PatternSet;
    use super::super::rate::Rate;
    use super::super::rights::Rights;
    use super::*;
    use crate::record::Pattern;

    fn access(pattern: &str, per_second: Option<u32>) -> Access {
        let publish = PatternSet::new(vec![Pattern::parse(pattern).expect(pattern)]);
        let rate = per_second.and_then(NonZeroU32::new);
        let rights = Arc::new(Rights { publish, rate, ..Rights::default() });
        let rate = rate.map(|rate| Arc::new(Rate::new(rate)));
        Access { name: "n".into(), rights, expires_us: None, rate, proof: Proof::None }
    }

    fn now(us: u64) -> Now {
        Now { mono_us: us, wall_us: us }
    }

    #[test]
    fn what_is_remembered_is_what_the_patterns_say() {
        let mut rights = PublishRights::new(access("a/**", None));
        for round in 0..3 {
            for number in 0..100 {
                assert_eq!(rights.admit(now(1), &format!("a/{number}")), Ok(()), "round {round}");
                let refused = rights.admit(now(1), &format!("b/{number}")).expect_err("not allowed");
                assert_eq!(refused.code, Code::Forbidden);
            }
        }
        rights.set_access(access("b/**", None));
        assert!(rights.admit(now(1), "a/99").is_err() && rights.admit(now(1), "b/1").is_ok());
    }

    #[test]
    fn a_flood_is_ten_seconds_at_ten_times_the_rate() {
        for (times, floods) in [(10, true), (100, true), (5, false), (1, false)] {
            let rights = PublishRights::new(access("**", Some(10)));
            let mut closed_at = None;
            for second in 5..40 {
                for _ in 0..10 * times {
                    let _ = rights.admit(now(second * 1_000_000), "a");
                }
                if rights.is_flooding() && closed_at.is_none() {
                    closed_at = Some(second - 5);
                }
            }
            assert_eq!(closed_at, floods.then_some(10), "{times} times");
        }
        let rights = PublishRights::new(access("**", Some(10)));
        for second in 0..100 {
            let burst = if second % 4 == 0 { 1_000 } else { 10 };
            (0..burst).for_each(|_| drop(rights.admit(now(second * 1_000_000), "a")));
            assert!(!rights.is_flooding(), "bursts are no flood");
        }
    }

    #[test]
    fn a_refusal_says_when_there_is_room() {
        let rights = PublishRights::new(access("**", Some(2)));
        assert!(rights.admit(now(1), "a").is_ok() && rights.admit(now(1), "a").is_ok());
        let refused = rights.admit(now(1), "a").expect_err("too many");
        assert_eq!((refused.code, refused.retry_after_ms), (Code::RateLimited, Some(500)));
    }
}
