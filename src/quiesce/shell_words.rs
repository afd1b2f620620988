//! The words of a shell's text, as far as it takes to know which of them are in the place of a command.
//!
//! In: the text of `sh -c`. Out: its simple commands, each a list of words. Must never: take quoted text for
//! a separator, or an argument for a command.

use std::iter::Peekable;
use std::str::Chars;

/// Words that may stand before a command.
const BEFORE: [&str; 11] = ["if", "then", "else", "elif", "do", "while", "until", "!", "{", "}", "coproc"];
/// Words after which no command follows up to the next separator.
const NO_COMMAND: [&str; 3] = ["for", "case", "select"];

/// `NAME=VALUE`.
pub(super) fn assignment(word: &str) -> Option<(&str, &str)> {
    let (name, value) = word.split_once('=')?;
    let starts = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    let plain = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    (starts && plain).then_some((name, value))
}

/// Every simple command of this text, those in `$(…)` and backquotes too.
pub(super) fn simple_commands(text: &str) -> Vec<Vec<String>> {
    let mut words = Words::default();
    words.read(text);
    words.done
}

#[derive(Default)]
struct Words {
    done: Vec<Vec<String>>,
    command: Vec<String>,
    word: Option<String>,
    /// The next word is the file of a redirection.
    redirected: bool,
}

impl Words {
    fn read(&mut self, text: &str) {
        let mut chars = text.chars().peekable();
        while let Some(c) = chars.next() {
            match c {
                ' ' | '\t' => self.end_word(),
                '\n' | ';' | '&' | '|' | '(' | ')' => self.end_command(),
                '#' if self.word.is_none() => while chars.next_if(|c| *c != '\n').is_some() {},
                '<' | '>' => {
                    // `2>`: the number is no word.
                    if self.word.as_ref().is_some_and(|w| w.chars().all(|c| c.is_ascii_digit())) {
                        self.word = None;
                    }
                    self.end_word();
                    while chars.next_if(|c| matches!(c, '<' | '>' | '&' | '|')).is_some() {}
                    self.redirected = true;
                }
                '\\' => {
                    // A line that goes on.
                    if let Some(c) = chars.next().filter(|c| *c != '\n') {
                        self.push(c);
                    }
                }
                '\'' => {
                    self.word.get_or_insert_default();
                    for c in chars.by_ref().take_while(|c| *c != '\'') {
                        self.push(c);
                    }
                }
                '"' => self.double_quoted(&mut chars),
                '`' => self.inner(chars.by_ref().take_while(|c| *c != '`').collect()),
                '$' if chars.peek() == Some(&'(') => self.inner(in_parentheses(&mut chars)),
                c => self.push(c),
            }
        }
        self.end_command();
    }

    fn double_quoted(&mut self, chars: &mut Peekable<Chars<'_>>) {
        self.word.get_or_insert_default();
        while let Some(c) = chars.next() {
            match c {
                '"' => return,
                '\\' => chars.next().into_iter().for_each(|c| self.push(c)),
                '`' => self.inner(chars.by_ref().take_while(|c| *c != '`').collect()),
                '$' if chars.peek() == Some(&'(') => self.inner(in_parentheses(chars)),
                c => self.push(c),
            }
        }
    }

    /// The commands of a substitution. What it prints is not known, so that its word names nothing.
    fn inner(&mut self, text: String) {
        self.done.extend(simple_commands(&text));
        self.push('$');
    }

    fn push(&mut self, c: char) {
        self.word.get_or_insert_default().push(c);
    }

    fn end_word(&mut self) {
        let Some(word) = self.word.take() else { return };
        if std::mem::take(&mut self.redirected) {
            return;
        }
        if self.command.is_empty() && BEFORE.contains(&word.as_str()) {
            return;
        }
        self.command.push(word);
    }

    fn end_command(&mut self) {
        self.end_word();
        self.redirected = false;
        let command = std::mem::take(&mut self.command);
        if command.first().is_some_and(|first| !NO_COMMAND.contains(&first.as_str())) {
            self.done.push(command);
        }
    }
}

/// Up to the parenthesis that closes the one that is next.
fn in_parentheses(chars: &mut Peekable<Chars<'_>>) -> String {
    chars.next();
    let mut depth = 1;
    let inside = chars.by_ref().take_while(|c| {
        depth += match c {
            '(' => 1,
            ')' => -1,
            _ => 0,
        };
        depth > 0
    });
    inside.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commands(text: &str) -> Vec<String> {
        simple_commands(text).iter().map(|words| words.join(" ")).collect()
    }

    #[test]
    fn commands_are_what_stands_in_their_place() {
        for (text, expected) in [
            ("/a b; /c d", vec!["/a b", "/c d"]),
            ("/a && /b || /c | /d & /e", vec!["/a", "/b", "/c", "/d", "/e"]),
            ("if /a; then /b; else /c; fi", vec!["/a", "/b", "/c", "fi"]),
            ("for f in /x /y; do /a \"$f\"; done", vec!["/a $f", "done"]),
            ("while ! /a 2>/dev/null >>/log; do { /b; }; done", vec!["/a", "/b", "done"]),
            ("x=$(/a; /b) \"/c `/d`\"", vec!["/a", "/b", "/d", "x=$ /c $"]),
            ("/a '; /b' \"; /c\" \\; # /d\n/e", vec!["/a ; /b ; /c ;", "/e"]),
            ("( /a ); f() { /b; }", vec!["/a", "f", "/b"]),
            ("/a </in 2>&1 x", vec!["/a x"]),
        ] {
            assert_eq!(commands(text), expected, "{text}");
        }
    }

    #[test]
    fn a_text_that_is_cut_off_ends() {
        for text in ["'", "\"a", "$(", "`x", "\\", "a <", "$((", "case"] {
            let _ = commands(text);
        }
    }
}
