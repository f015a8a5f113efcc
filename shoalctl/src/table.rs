//! What is printed for people: columns, and numbers as people read them.
//!
//! Names come from registries and nodes, so what a terminal would obey is left out of each cell.

use std::fmt;
use std::time::Duration;

use indicatif::BinaryBytes;

/// Between two columns.
const GAP: &str = "  ";

/// Rows under a header; columns are as wide as they have to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these columns.
    pub fn new(header: &[&str]) -> Self {
        Self { rows: vec![header.iter().map(|it| (*it).to_owned()).collect()] }
    }

    /// One without a header.
    pub const fn bare() -> Self {
        Self { rows: Vec::new() }
    }

    /// Adds a row. What is empty is shown as `-`.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        let shown = |it: String| match plain(&it) {
            it if it.is_empty() => "-".to_owned(),
            it => it,
        };
        self.rows.push(cells.into_iter().map(shown).collect());
    }

    fn widths(&self) -> Vec<usize> {
        let n_columns = self.rows.iter().map(Vec::len).max().unwrap_or_default();
        let width =
            |at: usize| self.rows.iter().filter_map(|it| it.get(at)).map(|it| it.chars().count()).max();
        (0..n_columns).map(|at| width(at).unwrap_or_default()).collect()
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let widths = self.widths();
        for row in &self.rows {
            let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
            writeln!(f, "{}", cells.collect::<Vec<_>>().join(GAP).trim_end())?;
        }
        Ok(())
    }
}

/// A text without what a terminal would obey.
pub fn plain(text: &str) -> String {
    text.chars().filter(|it| !it.is_control()).collect()
}

/// Bytes as people read them: `1.50 MiB`.
pub fn bytes(n_bytes: u64) -> String {
    BinaryBytes(n_bytes).to_string()
}

/// A part of a whole in percent; nothing where there is no whole.
pub fn percent(part: u64, whole: u64) -> String {
    let percent = u128::from(part).saturating_mul(100).checked_div(whole.into());
    percent.map(|it| format!("{it} %")).unwrap_or_default()
}

/// A time as people read it: `340 ms`, `12.3 s`, `2m 5s`.
pub fn time(time: Duration) -> String {
    match time.as_millis() {
        millis @ ..1000 => format!("{millis} ms"),
        millis @ ..60_000 => format!("{}.{} s", millis / 1000, millis % 1000 / 100),
        _ => humantime::format_duration(Duration::from_secs(time.as_secs())).to_string(),
    }
}

/// `1 node`, `2 nodes`.
pub fn count(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_they_have_to_be() {
        let mut table = Table::new(&["ID", "STATE"]);
        table.row(["a".to_owned(), "COMPLETE".to_owned()]);
        table.row(["größer\u{1b}[2J\n".to_owned(), String::new()]);
        assert_eq!(table.to_string(), "ID         STATE\na          COMPLETE\ngrößer[2J  -\n");
        assert_eq!(Table::bare().to_string(), "");
    }

    #[test]
    fn numbers_are_as_people_read_them() {
        assert_eq!([0, 1536, 5 << 30].map(bytes), ["0 B", "1.50 KiB", "5.00 GiB"]);
        let millis = [7, 340, 12_345, 125_900].map(|it| time(Duration::from_millis(it)));
        assert_eq!(millis, ["7 ms", "340 ms", "12.3 s", "2m 5s"]);
        assert_eq!([percent(1, 3), percent(0, 0), percent(u64::MAX, u64::MAX)], ["33 %", "", "100 %"]);
        assert_eq!([count(1, "node"), count(0, "node")], ["1 node", "0 nodes"]);
    }
}
