//! Writes outcomes as a table for the terminal.

use crate::sim::scenario::RunOutcome;

/// A table of a head and rows; every column is as wide as its widest cell.
#[derive(Clone, Debug, Default)]
pub struct Columns {
    rows: Vec<Vec<String>>,
    /// Number of columns that are aligned left; all further ones are aligned right.
    left: usize,
}

impl Columns {
    /// Makes a table with this head, whose first `left` columns hold text and the others numbers.
    pub fn new(head: &[&str], left: usize) -> Columns {
        Columns { rows: vec![head.iter().map(|cell| (*cell).into()).collect()], left }
    }

    /// Adds a row at the end.
    pub fn push(&mut self, row: Vec<String>) {
        self.rows.push(row);
    }
}

impl std::fmt::Display for Columns {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width_of = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width_of).collect();
        for row in &self.rows {
            let cells = row.iter().enumerate().map(|(column, cell)| {
                let width = widths.get(column).copied().unwrap_or(0);
                if column < self.left { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
            });
            let line = cells.collect::<Vec<String>>().join("  ");
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// Makes a table with a row for every run. Each comes with the real time that it took in microseconds.
pub fn table(runs: &[(RunOutcome, u64)]) -> Columns {
    let head = [
        "SCENARIO",
        "SEED",
        "NODES",
        "LOSS",
        "RECORDS",
        "HOPS",
        "P50 ms",
        "P99 ms",
        "P99.9 ms",
        "MAX ms",
        "COPIES",
        "RESENT",
        "CONTROL B/s",
        "MISSING",
        "UNEXPLAINED",
        "EQUAL AFTER s",
        "VIRTUAL s",
        "WALL s",
    ];
    let mut columns = Columns::new(&head, 1);
    for (outcome, wall_us) in runs {
        let time = &outcome.time_us;
        columns.push(vec![
            outcome.scenario.clone(),
            outcome.seed.to_string(),
            outcome.nodes.to_string(),
            format!("{}%{}", outcome.loss * 100.0, if outcome.is_bursty { "b" } else { "" }),
            outcome.records.to_string(),
            outcome.hops.max.to_string(),
            millis(time.p50),
            millis(time.p99),
            millis(time.p999),
            millis(time.max),
            format!("{:.4}", outcome.copies_mean),
            format!("{:.2}%", outcome.resent_share * 100.0),
            format!("{:.0}", outcome.control_bytes_per_node_per_s),
            outcome.missing.to_string(),
            outcome.unexplained_missing.to_string(),
            outcome.converged_us.map_or("never".into(), |us| format!("{:.1}", us as f64 / 1e6)),
            format!("{:.1}", outcome.virtual_us as f64 / 1e6),
            format!("{:.1}", *wall_us as f64 / 1e6),
        ]);
    }
    columns
}

fn millis(us: u64) -> String {
    format!("{:.2}", us as f64 / 1e3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_stands_left_and_numbers_right() {
        let mut columns = Columns::new(&["NAME", "N"], 1);
        columns.push(vec!["a".into(), "100".into()]);
        assert_eq!(columns.to_string(), "NAME    N\na     100\n");
    }
}
