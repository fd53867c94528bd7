//! Aligned tables for people.

use std::{
    fmt::Write as _,
    io::{self, IsTerminal, Write},
};

/// Rows under a heading. Columns are as wide as their widest cell.
#[derive(Debug)]
pub(super) struct Table {
    heading: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(super) fn new(heading: &[&'static str]) -> Self {
        Self { heading: heading.to_vec(), rows: Vec::new() }
    }

    pub(super) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().map(shown).collect());
    }

    /// The table as text; the heading is bold when `colour` is set.
    pub(super) fn render(&self, colour: bool) -> String {
        let mut widths: Vec<usize> = self.heading.iter().map(|cell| cell.chars().count()).collect();
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        let line = |cells: &mut dyn Iterator<Item = &str>| {
            let mut line = String::new();
            for (cell, &width) in cells.zip(&widths) {
                // Writing to a string cannot fail.
                let _written = write!(line, "{cell:<width$}  ");
            }
            line.trim_end().to_owned()
        };
        let heading = line(&mut self.heading.iter().copied());
        let mut text = if colour { format!("\x1b[1m{heading}\x1b[0m\n") } else { format!("{heading}\n") };
        for row in &self.rows {
            text.push_str(&line(&mut row.iter().map(String::as_str)));
            text.push('\n');
        }
        text
    }

    /// Prints the table to standard output; a note instead when it has no rows.
    pub(super) fn print(&self, when_empty: &str) -> io::Result<()> {
        let mut out = io::stdout().lock();
        if self.rows.is_empty() {
            return writeln!(out, "{when_empty}");
        }
        let text = self.render(out.is_terminal());
        out.write_all(text.as_bytes())
    }
}

/// A cell whose letters stay where they are put: much of what is shown comes from registries, and a terminal obeys control
/// letters and turns text around for those that Unicode has for that (UAX #9, 2).
fn shown(cell: String) -> String {
    let moves = |letter: char| {
        letter.is_control()
            || matches!(letter, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    if !cell.contains(moves) {
        return cell;
    }
    let mut text = String::with_capacity(cell.len() + 8);
    for letter in cell.chars() {
        match moves(letter) {
            true => text.extend(letter.escape_default()),
            false => text.push(letter),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::Table;

    #[test]
    fn no_cell_moves_the_cursor_or_turns_the_text_around() {
        let mut table = Table::new(&["NAME"]);
        table.row(["a\x1b[2Jb\nc\u{202e}dé".into()]);
        assert_eq!(table.render(false), "NAME\na\\u{1b}[2Jb\\nc\\u{202e}dé\n");
    }

    #[test]
    fn columns_align_and_no_line_ends_in_blanks() {
        let mut table = Table::new(&["NAME", "STATE"]);
        table.row(["reviews.default".into(), "ok".into()]);
        table.row(["web".into(), String::new()]);
        assert_eq!(table.render(false), "NAME             STATE\nreviews.default  ok\nweb\n");
    }
}
