//! What a set was taken before: a command, such as an upgrade, and how that ended.
//!
//! | tag | when | value |
//! |---|---|---|
//! | `stillpoint:before` | create | the command, as a shell would take it, cut to what a tag can have |
//! | `stillpoint:before-ended` | when it ended | `status=0 at=2027-01-31T03:00:00Z`; a signal's name in place of the number, `unknown` where nobody said |
//!
//! In: a command's words, how it ended; tags that anybody may have written. Out: tags, values. Must never: have a
//! control character in a tag, or believe more of one than that somebody wrote it.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;

use jiff::Timestamp;
use nix::sys::signal::Signal;
use serde::Serialize;

use super::spread::{MAX_VALUE, Tag};
use crate::path_encoding::printable;

/// The command.
pub(crate) const BEFORE_TAG: &str = "stillpoint:before";
/// How it ended.
pub(crate) const ENDED_TAG: &str = "stillpoint:before-ended";
/// What stands at the end of a command that was cut.
const CUT: &str = " …";

/// What a set was taken before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Before {
    /// The command.
    pub command: String,
    /// How it ended; none while it runs, and where nobody has said.
    pub ended: Option<Ended>,
}

/// How a command ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Ended {
    /// Its exit status, the name of the signal that killed it, or `unknown`.
    pub status: String,
    /// When.
    pub at: Timestamp,
}

impl Ended {
    /// Now, with this status.
    #[must_use]
    pub(crate) fn now(status: ExitStatus) -> Self {
        let of_signal =
            |n: i32| Signal::try_from(n).map_or_else(|_| format!("signal-{n}"), |s| s.as_str().to_owned());
        let status = match (status.code(), status.signal()) {
            (Some(code), _) => code.to_string(),
            (None, Some(signal)) => of_signal(signal),
            (None, None) => UNKNOWN.to_owned(),
        };
        Self { status, at: Timestamp::now() }
    }

    /// Now, with the status that somebody says, if he does.
    #[must_use]
    pub(crate) fn said(status: Option<u8>) -> Self {
        let status = status.map_or_else(|| UNKNOWN.to_owned(), |code| code.to_string());
        Self { status, at: Timestamp::now() }
    }

    /// The tag.
    #[must_use]
    pub(crate) fn tag(&self) -> Tag {
        (
            ENDED_TAG.to_owned(),
            format!("status={} at={}", self.status, self.at.round(jiff::Unit::Second).unwrap_or(self.at)),
        )
    }

    fn read(text: &str) -> Option<Self> {
        let (status, at) = text.strip_prefix("status=")?.split_once(" at=")?;
        let known = !status.is_empty()
            && status.len() <= 16
            && status.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        known.then_some(())?;
        Some(Self { status: status.to_owned(), at: at.parse().ok()? })
    }
}

/// Nobody said.
const UNKNOWN: &str = "unknown";

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.status.as_str() {
            UNKNOWN => f.write_str("ended, and nobody said how"),
            status if status.starts_with("SIG") || status.starts_with("signal-") => {
                write!(f, "was killed by {status}")
            }
            status => write!(f, "ended with {status}"),
        }
    }
}

impl Before {
    /// What the tags of a snapshot say.
    #[must_use]
    pub(super) fn read(command: Option<&str>, ended: Option<&str>) -> Option<Box<Self>> {
        let command = printable(command?).into_owned();
        Some(Box::new(Self { command, ended: ended.and_then(Ended::read) }))
    }
}

impl fmt::Display for Before {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.ended {
            Some(ended) => write!(f, "{}, which {ended}", self.command),
            None => write!(f, "{}; how it ended is not known", self.command),
        }
    }
}

/// The words of a command in one line, as a shell would take them.
#[must_use]
pub(crate) fn line(words: &[OsString]) -> String {
    words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ")
}

/// One word as a shell would take it; quoted only where that is needed.
#[must_use]
pub(crate) fn quoted(word: &OsStr) -> String {
    let plain = |b: &u8| b.is_ascii_alphanumeric() || b"_@%+=:,./-".contains(b);
    let bytes = word.as_bytes();
    if !bytes.is_empty() && !bytes.starts_with(b"=") && bytes.iter().all(plain) {
        return word.to_string_lossy().into_owned();
    }
    // A zero byte is in no word that was ever a program's.
    let quoted = shlex::bytes::try_quote(bytes).unwrap_or_else(|_| bytes.into());
    String::from_utf8_lossy(&quoted).into_owned()
}

/// The tag that says what is to come, however long and strange it is; none where that is nothing.
#[must_use]
pub(crate) fn tag(command: &str) -> Option<Tag> {
    let command = printable(command.trim()).into_owned();
    let value = if command.chars().count() <= MAX_VALUE {
        command
    } else {
        let kept: String = command.chars().take(MAX_VALUE - CUT.chars().count()).collect();
        kept + CUT
    };
    (!value.is_empty()).then(|| (BEFORE_TAG.to_owned(), value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[&str]) -> Vec<OsString> {
        words.iter().map(OsString::from).collect()
    }

    #[test]
    fn a_command_is_a_line_that_a_shell_takes_and_a_tag_can_have() {
        assert_eq!(line(&words(&["apt-get", "install", "a b", ""])), "apt-get install 'a b' ''");
        assert_eq!(line(&words(&["x", "--a=b", "=c", "$(d)"])), "x --a=b '=c' '$(d)'");
        let (_, value) = tag("psql -c 'drop\ntable\u{1b}[2J'").unwrap();
        assert!(!value.chars().any(char::is_control), "{value}");
        let (_, value) = tag(&"ü".repeat(300)).unwrap();
        assert_eq!((value.chars().count(), value.ends_with(CUT)), (256, true));
        let (_, value) = tag(&"ü".repeat(256)).unwrap();
        assert!(!value.ends_with(CUT));
        assert_eq!(tag(" \n"), None);
    }

    #[test]
    fn how_it_ended_is_read_as_it_was_written_and_nothing_else_is() {
        for (status, text) in [
            (ExitStatus::from_raw(0), "ended with 0"),
            (ExitStatus::from_raw(100 << 8), "ended with 100"),
            (ExitStatus::from_raw(9), "was killed by SIGKILL"),
            (ExitStatus::from_raw(35), "was killed by signal-35"),
        ] {
            let ended = Ended::now(status);
            assert_eq!(ended.to_string(), text);
            let read = Ended::read(&ended.tag().1).unwrap();
            assert_eq!(read.status, ended.status);
            assert!((read.at.as_second() - ended.at.as_second()).abs() <= 1);
        }
        assert_eq!(Ended::said(None).to_string(), "ended, and nobody said how");
        for strange in [
            "0",
            "status= at=2027-01-31T03:00:00Z",
            "status=0 at=then",
            "status=a\u{1b}b at=2027-01-31T03:00:00Z",
        ] {
            assert_eq!(Ended::read(strange), None, "{strange}");
        }
        let read = Before::read(Some("apt\u{1b}[2J"), Some("status=0 at=2027-01-31T03:00:00Z")).unwrap();
        assert_eq!(read.to_string(), "apt\\u{1b}[2J, which ended with 0");
        assert_eq!(Before::read(None, Some("status=0 at=2027-01-31T03:00:00Z")), None);
    }
}
