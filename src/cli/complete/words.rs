//! Words of a command line, as shells write them.
//!
//! In: words as they were typed, names from files and from the kernel. Out: words without quotes, and words that a shell
//! takes for themselves. Must never: let a control character through, or a word that could become a command.

use std::borrow::Cow;

use crate::path_encoding::printable;

/// A word as the shell will take it: without its quotes and backslashes. A quote that is still open counts.
pub(super) fn unquoted(typed: &str) -> String {
    let mut out = String::new();
    let mut open = None;
    let mut letters = typed.chars().peekable();
    while let Some(c) = letters.next() {
        match (open, c) {
            (None, '\'' | '"') => open = Some(c),
            (Some(quote), c) if c == quote => open = None,
            (Some('\''), c) => out.push(c),
            (None, '\\') => out.extend(letters.next()),
            (Some(_), '\\') => match letters.peek() {
                Some('"' | '\\' | '$' | '`') => out.extend(letters.next()),
                _ => out.push('\\'),
            },
            (_, c) => out.push(c),
        }
    }
    out
}

/// May a terminal and a shell see it? No control characters, and none that hide what is there.
pub(super) fn is_printable(word: &str) -> bool {
    matches!(printable(word), Cow::Borrowed(_))
}

/// What is said of a word: one short line.
pub(super) fn for_people(help: &str) -> String {
    const MOST: usize = 120;
    let line = help.split_whitespace().collect::<Vec<_>>().join(" ");
    let line = printable(&line).replace('`', "");
    match line.char_indices().nth(MOST) {
        Some((at, _)) => format!("{}...", &line[..at]),
        None => line,
    }
}

/// The same word as bash has to read it; none where what was typed so far has a quote, in which a backslash would stay.
pub(super) fn for_bash(word: &str, typed: &str) -> Option<String> {
    if !is_printable(word) {
        return None;
    }
    // Letters that mean nothing to it, wherever they are.
    let plain = |c: char| c.is_alphanumeric() || "/._-+,:@%=".contains(c);
    if word.chars().all(plain) {
        return Some(word.to_owned());
    }
    if typed.contains(['\'', '"']) {
        return None;
    }
    let mut out = String::with_capacity(word.len() + 8);
    for c in word.chars() {
        if !plain(c) {
            out.push('\\');
        }
        out.push(c);
    }
    Some(out)
}
