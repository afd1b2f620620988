//! Text for a terminal: words within a width, rows in columns.
//!
//! In: text. Out: lines. Must never: break a path, an id or what is between backticks, or pass a control
//! character on.

use std::path::Path;

use crate::path_encoding::{printable, shown};

/// Widths of the columns before the free text of a row.
pub(crate) struct Columns {
    widths: Vec<usize>,
    /// Where the free text begins.
    text: usize,
}

impl Columns {
    const INDENT: usize = 4;
    const GAP: usize = 2;

    pub fn of<const N: usize>(rows: &[[String; N]], width: usize) -> Self {
        // A longer cell gets a line of its own, so that it does not push every other row to the right.
        let most = (width / 3).max(21);
        let widths: Vec<usize> = (0..N)
            .map(|i| rows.iter().map(|r| columns(&r[i])).filter(|w| *w <= most).max().unwrap_or(0))
            .collect();
        let text = Self::INDENT + widths.iter().map(|w| w + Self::GAP).sum::<usize>();
        Self { widths, text }
    }
}

/// Lines of at most a width, where paths and ids allow it.
pub(crate) struct Page {
    out: String,
    width: usize,
}

impl Page {
    pub fn new(width: usize) -> Self {
        Self { out: String::new(), width: width.max(40) }
    }

    pub fn width(&self) -> usize {
        self.width
    }

    pub fn finish(self) -> String {
        self.out
    }

    pub fn blank(&mut self) {
        self.out.push('\n');
    }

    /// An empty line and a title.
    pub fn heading(&mut self, title: &str) {
        self.blank();
        self.line(title);
    }

    /// Cells in their columns, then free text beside them; each piece begins on a new line.
    pub fn row(&mut self, table: &Columns, cells: &[String], texts: &[String]) {
        let mut head = " ".repeat(Columns::INDENT);
        let mut next = Columns::INDENT;
        for (cell, width) in cells.iter().zip(&table.widths) {
            next += width + Columns::GAP;
            head.push_str(cell);
            if columns(cell) > *width {
                self.line(&head);
                head.clear();
            }
            head.push_str(&" ".repeat(next.saturating_sub(columns(&head))));
        }
        let hang = " ".repeat(table.text);
        for text in texts.iter().filter(|t| !t.is_empty()) {
            let longest = words(text).iter().map(|w| columns(w)).max().unwrap_or(0);
            if table.text + longest <= self.width {
                self.wrapped(&head, &hang, text);
            } else {
                // Too wide beside the columns, so it goes below them.
                if !head.trim().is_empty() {
                    self.line(&head);
                }
                let below = " ".repeat(Columns::INDENT + Columns::GAP);
                self.wrapped(&below, &below, text);
            }
            head.clone_from(&hang);
        }
        if !head.trim().is_empty() {
            self.line(&head);
        }
    }

    pub fn line(&mut self, text: &str) {
        self.out.push_str(&printable(text.trim_end()));
        self.out.push('\n');
    }

    /// Words within the width; `first` before the first line, `rest` before the others. A word is never
    /// broken.
    pub fn wrapped(&mut self, first: &str, rest: &str, text: &str) {
        let mut line = first.to_owned();
        let mut empty = true;
        for word in words(text) {
            if !empty && columns(&line) + 1 + columns(&word) > self.width {
                self.line(&line);
                rest.clone_into(&mut line);
                empty = true;
            }
            if !empty {
                line.push(' ');
            }
            line.push_str(&word);
            empty = false;
        }
        self.line(&line);
    }
}

/// Stands for a space within a path while lines are made.
const SPACE_IN_PATH: char = '\u{a0}';

/// A path that stays in one piece.
pub(super) fn whole(path: &Path) -> String {
    shown(path).replace(' ', &SPACE_IN_PATH.to_string())
}

/// A stack that is broken only between its layers, not within `dm-0 (lvm vg0-data)`.
pub(super) fn layers_whole(stack: &str) -> String {
    let layers = stack.split(" → ").map(|layer| {
        let devices = layer.split(" + ").map(|d| d.replace(' ', &SPACE_IN_PATH.to_string()));
        devices.collect::<Vec<_>>().join(" + ")
    });
    layers.collect::<Vec<_>>().join(" → ")
}

/// Splits text into pieces that are not broken: words, text between backticks, and paths.
fn words(text: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let mut quoted = false;
    for word in text.split(' ') {
        let piece = word.replace(SPACE_IN_PATH, " ");
        match words.last_mut().filter(|_| quoted) {
            Some(last) => {
                last.push(' ');
                last.push_str(&piece);
            }
            None => words.push(piece),
        }
        quoted ^= word.matches('`').count() % 2 == 1;
    }
    words
}

/// Columns on a terminal, roughly: one for each character.
fn columns(text: &str) -> usize {
    text.chars().count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_settings_stay_in_one_piece() {
        let text = format!("at {} by `a = 1` too", whole(Path::new("/my data")));
        assert_eq!(words(&text), ["at", "/my data", "by", "`a = 1`", "too"]);
    }

    #[test]
    fn a_line_stays_one_line_of_plain_text() {
        let mut page = Page::new(60);
        page.line("fuse.\x1b]0;mine\x07\nproblem: none");
        assert_eq!(page.finish(), "fuse.\\u{1b}]0;mine\\u{7}\\nproblem: none\n");
    }

    #[test]
    fn a_long_cell_has_its_own_line_and_the_rest_stays_in_its_columns() {
        let rows = [["/a".into(), "xfs".into()], ["/long".repeat(10), "ext4".into()]];
        let table = Columns::of(&rows, 60);
        let mut page = Page { out: String::new(), width: 60 };
        for row in &rows {
            page.row(&table, row, &["text".into()]);
        }
        page.row(&table, &rows[0], &["w".repeat(55)]);
        let long = "/long".repeat(10);
        let w = "w".repeat(55);
        assert_eq!(
            page.out,
            format!("    /a  xfs   text\n    {long}\n        ext4  text\n    /a  xfs\n      {w}\n")
        );
    }
}
