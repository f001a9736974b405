//! Results for people (aligned tables) and for scripts (JSON).

use serde::Serialize;

/// Rows under a header, first column left, the others right.
#[derive(Debug)]
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// Starts with the header.
    #[must_use]
    pub fn new(header: &[&str]) -> Self {
        Self {
            rows: vec![header.iter().map(|cell| (*cell).to_owned()).collect()],
        }
    }

    /// Adds a row.
    pub fn row<I: IntoIterator<Item = String>>(&mut self, cells: I) {
        self.rows.push(cells.into_iter().collect());
    }

    /// The table as text.
    #[must_use]
    pub fn render(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut text = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
                if column == 0 {
                    line.push_str(&format!("{cell:<width$}"));
                } else {
                    line.push_str(&format!("  {cell:>width$}"));
                }
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

/// A result that can be shown both ways.
pub trait Report: Serialize {
    /// For people.
    fn text(&self) -> String;

    /// For people, or with `json` for scripts.
    ///
    /// # Errors
    /// When the value cannot be written as JSON.
    fn render(&self, json: bool) -> serde_json::Result<String> {
        if json {
            Ok(serde_json::to_string_pretty(self)? + "\n")
        } else {
            Ok(self.text())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_even_with_wide_characters() {
        let mut table = Table::new(&["", "p50", "max"]);
        table.row(["proxy".into(), "43 µs".into(), "1.20 ms".into()]);
        table.row(["b".into(), "9 µs".into(), "1 ms".into()]);
        let expected = "         p50      max\nproxy  43 µs  1.20 ms\nb       9 µs     1 ms\n";
        assert_eq!(table.render(), expected);
    }
}
