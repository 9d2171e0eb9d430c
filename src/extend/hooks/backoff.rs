//! When a message is sent again that its receiver did not take, and when that is given up.

/// Waiting time after the first failure, in microseconds. It doubles with each further one.
const FIRST_US: u64 = 1_000_000;
/// Longest waiting time that is chosen here, in microseconds: a receiver that comes back waits no longer for its records.
const LONGEST_US: u64 = 300_000_000;
/// Longest time that a receiver may ask for with `Retry-After`, in microseconds.
const ASKED_US_MAX: u64 = 3_600_000_000;
/// Failures in a row after which the waiting time no longer grows.
const DOUBLINGS_MAX: u32 = 9;

/// Time without a single success after which a webhook is dead, in microseconds: a day.
pub const DEAD_US: u64 = 24 * 3_600_000_000;

/// Waiting time after a failure, in microseconds. `failures` counts those in a row, this one included. `chance` is a
/// random number that spreads the webhooks of one receiver over the upper half of the time.
pub fn delay_us(failures: u32, chance: u64, asked_us: Option<u64>) -> u64 {
    let doubled = FIRST_US << failures.saturating_sub(1).min(DOUBLINGS_MAX);
    let most = doubled.min(LONGEST_US);
    let spread = most / 2 + chance % (most / 2 + 1);
    spread.max(asked_us.unwrap_or(0).min(ASKED_US_MAX))
}

/// Reads the header `Retry-After`, which has seconds or a date. Returns the time from `wall_us` on, in microseconds.
pub fn retry_after_us(text: &str, wall_us: u64) -> Option<u64> {
    let text = text.trim();
    if let Ok(seconds) = text.parse::<u64>() {
        return Some(seconds.saturating_mul(1_000_000));
    }
    let date = httpdate::parse_http_date(text).ok()?;
    let since = date.duration_since(std::time::UNIX_EPOCH).ok()?;
    Some(u64::try_from(since.as_micros()).ok()?.saturating_sub(wall_us))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn waits_grow_and_stay_in_bounds(failures in 1u32.., chance: u64, asked in proptest::option::of(any::<u64>())) {
            let us = delay_us(failures, chance, asked);
            prop_assert!((FIRST_US / 2..=ASKED_US_MAX).contains(&us));
            prop_assert!(asked.is_none_or(|asked| us >= asked.min(ASKED_US_MAX)));
            prop_assert!(asked.is_some() || us <= LONGEST_US);
            prop_assert!(failures < 20 || us >= LONGEST_US / 2);
        }
    }

    #[test]
    fn the_header_has_seconds_or_a_date() {
        assert_eq!(retry_after_us("3", 5), Some(3_000_000));
        assert_eq!(retry_after_us("Thu, 01 Jan 1970 00:00:10 GMT", 4_000_000), Some(6_000_000));
        assert_eq!(retry_after_us("Thu, 01 Jan 1970 00:00:10 GMT", 40_000_000), Some(0));
        for bad in ["", "soon", "-1", "1.5"] {
            assert_eq!(retry_after_us(bad, 0), None, "{bad}");
        }
        assert_eq!(retry_after_us("18446744073709551615", 0), Some(u64::MAX));
    }
}
