//! Faults as people read them: the form of rustc, because its readers know where to look.
//!
//! ```text
//! error: unknown key `retrys`
//!  --> weft.toml:4:1
//!   |
//! 4 | retrys = 3
//!   | ^^^^^^ expected one of `listen`, `retries`
//!   = help: did you mean `retries`?
//! ```

use std::fmt::Write as _;

use super::fault::{Fault, Place, Severity};

/// Longest source line shown; a longer one is cut around the place.
const MAX_LINE: usize = 160;

/// Whether to colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// For files and pipes.
    Plain,
    /// With ANSI colours, for a terminal.
    Coloured,
}

/// The pieces of a rendering that have a colour.
#[derive(Clone, Copy)]
enum Paint {
    Error,
    Warning,
    Frame,
    Strong,
}

impl Style {
    fn paint(self, paint: Paint, text: &str) -> String {
        let code = match paint {
            Paint::Error => "1;31",
            Paint::Warning => "1;33",
            Paint::Frame => "1;34",
            Paint::Strong => "1",
        };
        match self {
            Self::Plain => text.to_owned(),
            Self::Coloured => format!("\x1b[{code}m{text}\x1b[0m"),
        }
    }
}

/// One fault, ending with a line break.
#[must_use]
pub fn render(fault: &Fault, style: Style) -> String {
    let mut out = String::new();
    let paint = match fault.severity {
        Severity::Error => Paint::Error,
        Severity::Warning => Paint::Warning,
    };
    let head = style.paint(paint, fault.severity.word());
    let message = style.paint(Paint::Strong, &format!(": {}", printable(&fault.message)));
    let gutter = gutter(fault);
    // Writing into a String cannot fail.
    let _ = writeln!(out, "{head}{message}");
    snippet(&mut out, &fault.place, &fault.expected, paint, gutter, style);
    for related in &fault.related {
        let _ = writeln!(
            out,
            "{}{}",
            style.paint(Paint::Strong, "note"),
            printable(&format!(": {}", related.message))
        );
        snippet(&mut out, &related.place, "", Paint::Frame, gutter, style);
    }
    if !fault.help.is_empty() {
        let frame = style.paint(Paint::Frame, "=");
        let _ = writeln!(out, "{:gutter$} {frame} help: {}", "", printable(&fault.help));
    }
    out
}

/// All faults, errors and warnings as they come, with a blank line between.
#[must_use]
pub fn render_all(faults: &[Fault], style: Style) -> String {
    faults.iter().map(|fault| render(fault, style)).collect::<Vec<_>>().join("\n")
}

/// The width of the widest line number shown.
fn gutter(fault: &Fault) -> usize {
    let lines = fault.related.iter().map(|related| related.place.line).chain([fault.place.line]);
    lines.max().unwrap_or(0).to_string().len()
}

fn snippet(out: &mut String, place: &Place, label: &str, paint: Paint, gutter: usize, style: Style) {
    let bar = style.paint(Paint::Frame, "|");
    let arrow = style.paint(Paint::Frame, "-->");
    let _ = writeln!(out, "{:gutter$}{arrow} {}", "", printable(&place.to_string()));
    if place.line == 0 {
        if !label.is_empty() {
            let _ = writeln!(out, "{:gutter$} {} {}", "", style.paint(Paint::Frame, "="), printable(label));
        }
        return;
    }
    let (text, column) = cut(&place.line_text, place.column);
    let width = (place.width.max(1) as usize).min(MAX_LINE);
    let carets = style.paint(paint, format!("{} {}", "^".repeat(width), printable(label)).trim_end());
    let number = style.paint(Paint::Frame, &format!("{:>gutter$}", place.line));
    let _ = writeln!(out, "{:gutter$} {bar}", "");
    let _ = writeln!(out, "{number} {bar} {}", printable(&text));
    let _ = writeln!(out, "{:gutter$} {bar} {:indent$}{carets}", "", "", indent = column.saturating_sub(1));
}

/// The part of a long line that holds `column`, and the column within that part.
fn cut(line: &str, column: u32) -> (String, usize) {
    let column = column as usize;
    if line.chars().count() <= MAX_LINE {
        return (line.to_owned(), column);
    }
    let skip = column.saturating_sub(MAX_LINE / 2);
    (line.chars().skip(skip).take(MAX_LINE).collect(), column - skip)
}

/// A tab counts as one column, so it is shown as one; other control characters could rewrite the terminal.
fn printable(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '\t' => ' ',
            c if c.is_control() => '\u{fffd}',
            c => c,
        })
        .collect()
}
