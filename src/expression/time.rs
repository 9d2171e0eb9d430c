//! Moments and spans of time. They are kept in microseconds, as everywhere in aNode; finer digits are cut off.

use super::error::Failure;
use super::function::Function;
use super::value::CelValue;

const SECOND_US: i64 = 1_000_000;
const DAY_S: i64 = 86_400;
/// The first moment of the year 1, in microseconds. CEL has no earlier ones.
const FIRST_US: i64 = -62_135_596_800 * SECOND_US;
/// The end of the year 9999, in microseconds. CEL has no later ones.
const END_US: i64 = 253_402_300_800 * SECOND_US;

/// Returns a moment if it is one that CEL has.
pub(super) fn in_range(us: i64) -> Option<i64> {
    (FIRST_US..END_US).contains(&us).then_some(us)
}

/// A day of the calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Day {
    year: i64,
    /// Month of the year, from 1.
    month: i64,
    /// Day of the month, from 1.
    day: i64,
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn days_in(year: i64, month: i64) -> i64 {
    match month {
        2 => 28 + i64::from(is_leap(year)),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days from the first of January of the year 1 to that of another year.
fn days_before_year(year: i64) -> i64 {
    let before = year - 1;
    before * 365 + before.div_euclid(4) - before.div_euclid(100) + before.div_euclid(400)
}

/// Days from the first of January of the year 1 to the Unix epoch.
const EPOCH_DAYS: i64 = 719_162;

impl Day {
    /// Days since the Unix epoch.
    fn since_epoch(self) -> i64 {
        days_before_year(self.year) - EPOCH_DAYS + self.of_year()
    }

    /// Number of the day in its year, from 0.
    fn of_year(self) -> i64 {
        (1..self.month).map(|month| days_in(self.year, month)).sum::<i64>() + self.day - 1
    }

    fn of_days(days: i64) -> Day {
        let days = days + EPOCH_DAYS;
        // The estimate is at most one year too great.
        let mut year = (days * 400).div_euclid(146_097) + 1;
        while days_before_year(year) > days {
            year -= 1;
        }
        while days_before_year(year + 1) <= days {
            year += 1;
        }
        let mut rest = days - days_before_year(year);
        let mut month = 1;
        while rest >= days_in(year, month) {
            rest -= days_in(year, month);
            month += 1;
        }
        Day { year, month, day: rest + 1 }
    }
}

/// Reads a number of exactly `len` digits at the beginning of a text, and returns what follows.
fn digits(text: &str, len: usize) -> Option<(i64, &str)> {
    let (digits, rest) = text.split_at_checked(len)?;
    let is_number = digits.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| digits.parse().ok().map(|number| (number, rest))).flatten()
}

/// Reads a moment as RFC 3339 writes it, such as `2026-01-31T12:00:00.5Z` or `2026-01-31T12:00:00+01:00`.
pub(super) fn parse_timestamp(text: &str) -> Option<i64> {
    let (year, rest) = digits(text, 4)?;
    let (month, rest) = digits(rest.strip_prefix('-')?, 2)?;
    let (day, rest) = digits(rest.strip_prefix('-')?, 2)?;
    let (hour, rest) = digits(rest.strip_prefix(['T', 't', ' '])?, 2)?;
    let (minute, rest) = digits(rest.strip_prefix(':')?, 2)?;
    let (second, rest) = digits(rest.strip_prefix(':')?, 2)?;
    let is_day = year >= 1 && (1..=12).contains(&month) && (1..=days_in(year, month)).contains(&day);
    if !is_day || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let (us, zone) = fraction(rest)?;
    let offset_s = match zone {
        "Z" | "z" => 0,
        _ => {
            let sign = if zone.starts_with('-') { -1 } else { 1 };
            let (hours, rest) = digits(zone.strip_prefix(['+', '-'])?, 2)?;
            let (minutes, rest) = digits(rest.strip_prefix(':')?, 2)?;
            if !rest.is_empty() || hours > 23 || minutes > 59 {
                return None;
            }
            sign * (hours * 3_600 + minutes * 60)
        }
    };
    let seconds =
        Day { year, month, day }.since_epoch() * DAY_S + hour * 3_600 + minute * 60 + second - offset_s;
    in_range(seconds * SECOND_US + us)
}

/// Reads a point and digits behind it, if there are any, as microseconds, and returns what follows.
fn fraction(text: &str) -> Option<(i64, &str)> {
    let Some(behind) = text.strip_prefix('.') else { return Some((0, text)) };
    let len = behind.bytes().take_while(u8::is_ascii_digit).count();
    let (found, rest) = behind.split_at_checked(len)?;
    if len == 0 {
        return None;
    }
    let six: String = found.chars().chain("000000".chars()).take(6).collect();
    Some((six.parse().ok()?, rest))
}

/// Reads a span of time, such as `1h30m`, `-1.5s` or `200ms`.
pub(super) fn parse_duration(text: &str) -> Option<i64> {
    let (sign, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total = 0f64;
    let mut whole = 0i64;
    while !rest.is_empty() {
        let len = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, behind) = rest.split_at_checked(len)?;
        let unit_len = behind.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(behind.len());
        let (unit, behind) = behind.split_at_checked(unit_len)?;
        let unit_us = match unit {
            "h" => 3_600.0 * 1e6,
            "m" => 60.0 * 1e6,
            "s" => 1e6,
            "ms" => 1e3,
            "us" | "µs" | "μs" => 1.0,
            "ns" => 1e-3,
            _ => return None,
        };
        match number.parse::<i64>() {
            Ok(number) if unit != "ns" => whole = whole.checked_add(number.checked_mul(unit_us as i64)?)?,
            _ => total += number.parse::<f64>().ok()? * unit_us,
        }
        rest = behind;
    }
    let us = whole.checked_add(if total.abs() < 9e18 { total as i64 } else { return None })?;
    Some(sign * us)
}

/// Writes a moment as RFC 3339 does, in UTC.
pub(super) fn timestamp_text(us: i64) -> String {
    let (seconds, rest) = (us.div_euclid(SECOND_US), us.rem_euclid(SECOND_US));
    let Day { year, month, day } = Day::of_days(seconds.div_euclid(DAY_S));
    let of_day = seconds.rem_euclid(DAY_S);
    let (hour, minute, second) = (of_day / 3_600, of_day / 60 % 60, of_day % 60);
    let fraction = fraction_text(rest);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{fraction}Z")
}

/// Writes a span of time in seconds, such as `1.5s`.
pub(super) fn duration_text(us: i64) -> String {
    let sign = if us < 0 { "-" } else { "" };
    let us = us.unsigned_abs();
    format!("{sign}{}{}s", us / 1_000_000, fraction_text((us % 1_000_000) as i64))
}

/// Writes microseconds as digits behind a point, without needless zeros.
fn fraction_text(us: i64) -> String {
    if us == 0 { String::new() } else { format!(".{us:06}").trim_end_matches('0').to_owned() }
}

/// Returns a part of a moment in UTC, such as its hour, or of a span of time, such as its whole hours.
pub(super) fn part<'v>(function: Function, value: &CelValue<'v>) -> Result<CelValue<'v>, Failure<'v>> {
    let kind = value.kind().word();
    let part = match value {
        CelValue::Timestamp(us) => Some(part_of_moment(function, *us)),
        CelValue::Duration(us) => part_of_span(function, *us),
        _ => None,
    };
    part.map(CelValue::Int).ok_or(Failure::NoOverload("a part of a time", kind))
}

fn part_of_moment(function: Function, us: i64) -> i64 {
    let seconds = us.div_euclid(SECOND_US);
    let (days, of_day) = (seconds.div_euclid(DAY_S), seconds.rem_euclid(DAY_S));
    let date = Day::of_days(days);
    match function {
        Function::Year => date.year,
        Function::Month => date.month - 1,
        Function::Date => date.day,
        Function::DayOfMonth => date.day - 1,
        // The Unix epoch was a Thursday, and weeks begin with Sunday.
        Function::DayOfWeek => (days + 4).rem_euclid(7),
        Function::DayOfYear => date.of_year(),
        Function::Hours => of_day / 3_600,
        Function::Minutes => of_day / 60 % 60,
        Function::Seconds => of_day % 60,
        _ => us.rem_euclid(SECOND_US) / 1_000,
    }
}

fn part_of_span(function: Function, us: i64) -> Option<i64> {
    match function {
        Function::Hours => Some(us / (3_600 * SECOND_US)),
        Function::Minutes => Some(us / (60 * SECOND_US)),
        Function::Seconds => Some(us / SECOND_US),
        Function::Milliseconds => Some(us % SECOND_US / 1_000),
        _ => None,
    }
}
