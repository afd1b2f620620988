//! The words of a session: what it says on its standard output, a line each.
//!
//! | line on standard output | |
//! |---|---|
//! | `ready` | it is quiesced |
//! | `fact KEY VALUE` | goes into the record and the tags; `\n` in VALUE is a line feed, `\\` a backslash |
//! | `failed WHY`, `hint WHAT` | why it cannot quiesce, or did not; what to do about it |
//! | `note TEXT`, anything else | goes to the log |
//!
//! In: lines. Out: [`Messages`]. Must never: take for the protocol what is for the log, or keep more than a
//! session may say.

use std::collections::BTreeMap;

/// How many facts are taken of one session.
const MOST_FACTS: usize = 64;

/// The messages of a session.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Messages {
    /// It is quiesced.
    pub ready: bool,
    pub facts: BTreeMap<String, String>,
    /// Why the application could not be quiesced.
    pub failed: Option<String>,
    pub hint: Option<String>,
}

impl Messages {
    /// Reads a line; false when it is no message, so that it belongs into the log.
    pub(super) fn take(&mut self, line: &str) -> bool {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        match word {
            "ready" if rest.trim().is_empty() => self.ready = true,
            // A limit, because tags and the record have little room, and this process's memory is locked.
            "fact" if self.facts.len() < MOST_FACTS => {
                let (key, value) = rest.split_once(' ').unwrap_or((rest, ""));
                self.facts.insert(key.to_owned(), unescaped(value));
            }
            "failed" => self.failed = Some(rest.to_owned()),
            "hint" => self.hint = Some(rest.to_owned()),
            _ => return false,
        }
        true
    }
}

/// A value on one line.
#[must_use]
pub(crate) fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('\n', "\\n")
}

fn unescaped(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    let mut rest = value.chars();
    while let Some(c) = rest.next() {
        match c {
            '\\' => match rest.next() {
                Some('n') => out.push('\n'),
                Some(other) => out.push(other),
                None => out.push('\\'),
            },
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_the_protocol_are_taken_and_all_else_is_for_the_log() {
        let mut messages = Messages::default();
        for line in
            ["fact lsn 0/3000028", r"fact label START\nEND\\n", "hint wait", "failed because", "ready"]
        {
            assert!(messages.take(line), "{line}");
        }
        assert_eq!(messages.facts["lsn"], "0/3000028");
        assert_eq!(messages.facts["label"], "START\nEND\\n");
        assert_eq!((messages.hint.as_deref(), messages.failed.as_deref()), (Some("wait"), Some("because")));
        assert!(messages.ready);
        let mut messages = Messages::default();
        for line in ["ready or not", "note hello", "", "reading", "facts are", "thaw"] {
            assert!(!messages.take(line), "{line}");
        }
        assert_eq!(messages, Messages::default());
    }

    #[test]
    fn values_come_back_as_they_were() {
        for value in ["", "plain", "a\nb", r"C:\new", "\\\n\\n"] {
            assert_eq!(unescaped(&escaped(value)), value);
        }
    }
}
