//! Timestamps as sources in the world write them: numbers of several units, and dates with times.

use crate::limits::TS_MAX;

/// The unit of timestamps that are numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MomentUnit {
    /// Decided for each number by its size. From 1971 to 5138, no number of one unit looks like one of another.
    BySize,
    /// Seconds since the Unix epoch, which may have a fraction.
    Seconds,
    /// Milliseconds since the Unix epoch.
    Milliseconds,
    /// Microseconds since the Unix epoch.
    Microseconds,
    /// Nanoseconds since the Unix epoch. What is less than a microsecond is cut off.
    Nanoseconds,
}

/// The words for the units in a definition. The first is the default.
pub(super) const MOMENT_UNITS: [(&str, MomentUnit); 5] = [
    ("auto", MomentUnit::BySize),
    ("s", MomentUnit::Seconds),
    ("ms", MomentUnit::Milliseconds),
    ("us", MomentUnit::Microseconds),
    ("ns", MomentUnit::Nanoseconds),
];

/// Digits after the decimal point that are read; what follows is cut off.
const FRACTION_DIGITS: usize = 9;

/// Reads a JSON value as a timestamp. Returns microseconds since the Unix epoch, or `None` if it is none in 0 to 2^53-1.
pub(super) fn moment(value: &str, unit: MomentUnit) -> Option<u64> {
    let us = match serde_json::from_str::<String>(value) {
        Ok(text) => number(text.trim(), unit).or_else(|| date_time(text.trim()))?,
        Err(_) => number(value.trim(), unit)?,
    };
    (us <= TS_MAX).then_some(us)
}

/// Reads a decimal number that is not negative, and has no exponent.
fn number(text: &str, unit: MomentUnit) -> Option<u64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let is_digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !is_digits(whole) || !is_digits(fraction) {
        return None;
    }
    let whole: u128 = whole.parse().ok().filter(|whole| *whole < 1 << 80)?;
    // The fraction in parts of 10^9.
    let fraction = u128::from(nanos(fraction)?);
    let us = match unit {
        MomentUnit::BySize if whole < 100_000_000_000 => whole * 1_000_000 + fraction / 1_000,
        MomentUnit::BySize if whole < 100_000_000_000_000 => whole * 1_000 + fraction / 1_000_000,
        MomentUnit::BySize if whole < 100_000_000_000_000_000 => whole,
        MomentUnit::BySize | MomentUnit::Nanoseconds => whole / 1_000,
        MomentUnit::Seconds => whole * 1_000_000 + fraction / 1_000,
        MomentUnit::Milliseconds => whole * 1_000 + fraction / 1_000_000,
        MomentUnit::Microseconds => whole,
    };
    u64::try_from(us).ok()
}

/// Reads the digits of a fraction of a second as nanoseconds.
fn nanos(digits: &str) -> Option<u64> {
    let kept = &digits[..digits.len().min(FRACTION_DIGITS)];
    let scale = 10u64.pow((FRACTION_DIGITS - kept.len()) as u32);
    Some(kept.parse::<u64>().ok()? * scale)
}

/// Reads a date and time of RFC 3339. Seconds, the time and the offset may be missing; the offset is zero then.
fn date_time(text: &str) -> Option<u64> {
    if !text.is_ascii() || text.len() < 10 {
        return None;
    }
    let (date, rest) = text.split_at(10);
    let days = days(date)?;
    let Some(rest) = rest.strip_prefix(['T', 't', ' ']) else {
        return rest.is_empty().then(|| u64::try_from(days * 86_400_000_000).ok())?;
    };
    let time_bytes =
        rest.bytes().take_while(|byte| byte.is_ascii_digit() || matches!(byte, b':' | b'.')).count();
    let (time, offset) = rest.split_at(time_bytes);
    let us = days * 86_400_000_000 + time_us(time)? - offset_us(offset)?;
    u64::try_from(us).ok()
}

/// Reads `YYYY-MM-DD`. Returns the days since the Unix epoch.
fn days(date: &str) -> Option<i64> {
    let mut parts = date.split('-');
    let (year, month, day) =
        (digits(parts.next()?, 4)?, digits(parts.next()?, 2)?, digits(parts.next()?, 2)?);
    let is_leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    let days_of_month = match month {
        2 => 28 + i64::from(is_leap),
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    if parts.next().is_some() || !(1..=days_of_month).contains(&day) {
        return None;
    }
    // The year is counted from March, so that the day of a leap year is its last one.
    let year = if month <= 2 { year - 1 } else { year };
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    Some(
        365 * year + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + day_of_year - 719_468,
    )
}

/// Reads `HH:MM`, `HH:MM:SS` or `HH:MM:SS.fraction`. Returns microseconds. A leap second is the second after it.
fn time_us(time: &str) -> Option<i64> {
    let (time, fraction) = match time.split_once('.') {
        Some((time, fraction)) if time.len() == 8 => (time, i64::try_from(nanos(fraction)? / 1_000).ok()?),
        Some(_) => return None,
        None => (time, 0),
    };
    let mut parts = time.split(':');
    let (hour, minute) = (digits(parts.next()?, 2)?, digits(parts.next()?, 2)?);
    let second = parts.next().map_or(Some(0), |second| digits(second, 2))?;
    let is_time = hour < 24 && minute < 60 && second <= 60 && parts.next().is_none();
    is_time.then_some(((hour * 60 + minute) * 60 + second) * 1_000_000 + fraction)
}

/// Reads `Z`, `+HH:MM`, `-HH:MM`, `+HHMM` or nothing. Returns microseconds.
fn offset_us(offset: &str) -> Option<i64> {
    let sign = match offset.bytes().next() {
        None => return Some(0),
        Some(b'Z' | b'z') => return (offset.len() == 1).then_some(0),
        Some(b'+') => 1,
        Some(b'-') => -1,
        Some(_) => return None,
    };
    let (hours, minutes) = offset[1..].split_once(':').or_else(|| offset[1..].split_at_checked(2))?;
    let (hours, minutes) = (digits(hours, 2)?, digits(minutes, 2)?);
    (hours < 24 && minutes < 60).then_some(sign * (hours * 60 + minutes) * 60_000_000)
}

/// Reads a number of exactly this many digits.
fn digits(text: &str, count: usize) -> Option<i64> {
    let is_number = text.len() == count && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// 2025-11-22T08:26:40Z in microseconds.
    const NOON: u64 = 1_763_800_000_000_000;

    fn auto(value: &str) -> Option<u64> {
        moment(value, MomentUnit::BySize)
    }

    #[test]
    fn numbers_tell_their_unit_by_their_size() {
        for same in ["1763800000", "1763800000000", "1763800000000000", "1763800000000000123", "1763800000.0"]
        {
            assert_eq!(auto(same), Some(NOON), "{same}");
            assert_eq!(auto(&format!("\"{same}\"")), Some(NOON), "{same} as a text");
        }
        assert_eq!(auto("1763800000.25"), Some(NOON + 250_000));
        assert_eq!(auto("1763800000000.5"), Some(NOON + 500));
        assert_eq!(moment("5", MomentUnit::Milliseconds), Some(5_000));
        assert_eq!(moment("5", MomentUnit::Microseconds), Some(5));
        assert_eq!(moment("5999", MomentUnit::Nanoseconds), Some(5));
        assert_eq!(moment("100000000000", MomentUnit::Seconds), None, "beyond the greatest timestamp");
        for bad in
            ["-1", "1e9", "null", "true", "\"\"", "\"x\"", "{}", ".5", "5.", "99999999999999999999999999999"]
        {
            assert_eq!(auto(bad), None, "{bad}");
        }
    }

    #[test]
    fn dates_and_times_of_rfc_3339() {
        for same in [
            "2025-11-22T08:26:40Z",
            "2025-11-22t08:26:40z",
            "2025-11-22 08:26:40",
            "2025-11-22T09:26:40+01:00",
            "2025-11-22T09:26:40+0100",
            "2025-11-22T03:56:40.000-04:30",
        ] {
            assert_eq!(auto(&format!("\"{same}\"")), Some(NOON), "{same}");
        }
        assert_eq!(auto("\"2025-11-22T08:26:40.123456789Z\""), Some(NOON + 123_456));
        assert_eq!(auto("\"2025-11-22T08:26\""), Some(NOON - 40_000_000));
        assert_eq!(auto("\"1970-01-02\""), Some(86_400_000_000));
        assert_eq!(auto("\"2024-02-29\"").map(|us| us / 86_400_000_000), Some(19_782));
        for bad in [
            "2025-02-29",
            "2025-13-01",
            "2025-11-22T24:00:00Z",
            "2025-11-22T08:26:61Z",
            "1969-12-31",
            "2025-11-22T08",
        ] {
            assert_eq!(auto(&format!("\"{bad}\"")), None, "{bad}");
        }
    }

    proptest! {
        /// The days of the calendar follow one another.
        #[test]
        fn days_are_counted_one_by_one(year in 1970i64..2200, month in 1i64..=12, day in 1i64..=31) {
            let text = |year, month, day| format!("{year:04}-{month:02}-{day:02}");
            let Some(number) = days(&text(year, month, day)) else { return Ok(()) };
            let next = [(year, month, day + 1), (year, month + 1, 1), (year + 1, 1, 1)];
            let next = next.into_iter().find_map(|(year, month, day)| days(&text(year, month, day)));
            prop_assert_eq!(next, Some(number + 1));
        }
    }
}
