//! How commands print: as JSON for programs, or as text for people; and numbers and tables as people read them.

use std::io::{self, IsTerminal};

use super::Given;

/// The option that asks for JSON.
#[derive(Clone, Copy, Debug, Default, clap::Args)]
pub struct FormatArguments {
    /// Print JSON, for programs; what is JSON already stays as it is
    #[arg(long)]
    json: bool,
}

impl FormatArguments {
    /// Returns whether JSON is asked for, here or before the subcommand.
    pub fn is_json(&self, given: &Given) -> bool {
        self.json || given.is_json
    }
}

/// Returns whether colours may be used on a stream: it is a terminal, and `NO_COLOR` is not set.
pub fn may_colour(stream: &impl IsTerminal) -> bool {
    stream.is_terminal() && !is_without_colour()
}

/// Returns whether the user wants no colours anywhere (`NO_COLOR`, see no-color.org).
pub fn is_without_colour() -> bool {
    std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
}

/// Formats rows with columns as wide as their longest cell. The first row is the head.
pub fn table<const COLUMNS: usize>(rows: &[[String; COLUMNS]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; COLUMNS] = std::array::from_fn(width);
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
        text.push_str(cells.collect::<Vec<String>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}

/// Formats a number with a comma between groups of three digits.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Formats a number of bytes with a unit.
pub fn bytes(number: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut scaled = number as f64;
    let mut unit = 0;
    while scaled >= 1024.0 && unit + 1 < UNITS.len() {
        scaled /= 1024.0;
        unit += 1;
    }
    let name = UNITS.get(unit).copied().unwrap_or_default();
    if unit == 0 { format!("{number} {name}") } else { format!("{scaled:.1} {name}") }
}

/// Formats a duration of some microseconds to some minutes.
pub fn duration(us: u64) -> String {
    match us {
        0..1_000 => format!("{us} µs"),
        1_000..1_000_000 => format!("{:.2} ms", us as f64 / 1e3),
        _ => format!("{:.1} s", us as f64 / 1e6),
    }
}

/// Writes a line to stderr that is no error, unless stderr is closed.
pub fn note(text: &str) {
    use io::Write as _;
    // Nobody is left to be told of a failure.
    let _ = writeln!(io::stderr(), "anode: {text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_as_people_read_them() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!([0, 1_023, 1_536, 5 << 30].map(bytes), ["0 B", "1023 B", "1.5 KiB", "5.0 GiB"]);
        assert_eq!([999, 1_500, 2_500_000].map(duration), ["999 µs", "1.50 ms", "2.5 s"]);
    }

    #[test]
    fn columns_line_up() {
        let rows = [["A", "B"], ["long", "x"]].map(|row| row.map(String::from));
        assert_eq!(table(&rows), "A     B\nlong  x\n");
    }
}
