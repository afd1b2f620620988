//! Checks of single values.
//!
//! In: text or a value, from a file or a flag alike. Out: the typed value, or a [`Fault`] that says what to
//! write. Must never: guess a unit, or look at anything outside the value.

use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use super::error::{ConfigError, Origin, choices, nearest};
use super::settings::{Automounts, MissingMounts, OnDegraded, UnmountedVolumes};
use crate::consistency::{Consistency, Method};
use crate::sets::retention::{Age, Count, Zone};
use crate::sets::tags;

/// Most user tags on a snapshot: EC2 allows 50, and the tool's own and copied ones need room.
pub(crate) const MAX_TAGS: usize = 20;
/// Least and most for `window`.
pub const WINDOW: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(300));
/// Limits of `freeze_timeout`; it must also be below the window.
pub(crate) const FREEZE_TIMEOUT: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(300));
pub(crate) const BUSY_TIMEOUT: (Duration, Duration) = (Duration::ZERO, Duration::from_secs(86_400));
pub(crate) const FLUSH_TIMEOUT: (Duration, Duration) =
    (Duration::from_millis(100), Duration::from_secs(3600));
pub(crate) const UNMOUNT_TIMEOUT: (Duration, Duration) =
    (Duration::from_millis(100), Duration::from_secs(3600));
pub(crate) const CALL_TIMEOUT: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(300));
pub(crate) const IMDS_TIMEOUT: (Duration, Duration) = (Duration::ZERO, Duration::from_secs(3600));
pub(crate) const RETRY_TIMEOUT: (Duration, Duration) = (Duration::ZERO, Duration::from_secs(3600));
pub(crate) const VOLUME_INTERVAL: (Duration, Duration) = (Duration::ZERO, Duration::from_secs(300));
/// Limits of a hook's timeout: at most a day, so that `1M` (a month) instead of `1m` is an error.
pub(crate) const HOOK_TIMEOUT: (Duration, Duration) = (Duration::from_millis(1), Duration::from_secs(86_400));

/// The most that a count of sets or periods may be: more than a year of hours.
pub(super) const MAX_COUNT: u32 = 10_000;
/// What a count may be.
pub(super) const COUNTS: &str =
    "a count is a whole number, 0 to switch the rule off, or \"all\" for every one";

/// What is wrong with a value, and what to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Continues a sentence that starts with the key.
    pub(crate) problem: String,
    pub hint: Option<String>,
}

impl Fault {
    pub(super) fn new(problem: impl Into<String>) -> Self {
        Self { problem: problem.into(), hint: None }
    }

    pub(super) fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    pub(crate) fn at(self, origin: Origin, key: &str) -> ConfigError {
        ConfigError::Invalid { origin, key: key.to_owned(), problem: self.problem, hint: self.hint }
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.problem)?;
        self.hint.iter().try_for_each(|hint| write!(f, " ({hint})"))
    }
}

/// clap's value parsers need an `Error`.
impl std::error::Error for Fault {}

/// A time in hours, if it is a whole number of them.
pub(crate) fn whole_hours(time: Duration) -> Option<u32> {
    let hours = u32::try_from(time.as_secs() / 3600).ok()?;
    (Duration::from_secs(u64::from(hours) * 3600) == time).then_some(hours)
}

const UNITS: &str = "units are ms, s, m (minutes), h and d, as in `500ms`, `10s` or `1m 30s`";

/// A time with its unit.
///
/// # Errors
/// When the unit is missing or unknown.
pub(crate) fn duration(text: &str) -> Result<Duration, Fault> {
    if text.trim().parse::<f64>().is_ok() {
        // Other programs take a bare number as seconds or as milliseconds; here it is an error.
        return Err(bare_number(text.trim()));
    }
    humantime::parse_duration(text.trim())
        .map_err(|e| Fault::new(format!("is `{text}`, which is not a time: {e}")).hint(UNITS))
}

/// The fault of a bare number where a time belongs.
pub(super) fn bare_number(number: &str) -> Fault {
    Fault::new(format!("is `{number}`, a number without a unit"))
        .hint(format!("write \"{number}s\" for seconds; {UNITS}"))
}

pub(super) fn within(value: Duration, (min, max): (Duration, Duration)) -> Result<Duration, Fault> {
    let show = humantime::format_duration;
    if (min..=max).contains(&value) {
        Ok(value)
    } else {
        Err(Fault::new(format!("is {}, outside {} to {}", show(value), show(min), show(max))))
    }
}

/// A count that is written as text.
pub(super) fn count(text: &str) -> Result<Count, Fault> {
    match text {
        "all" => Ok(Count::All),
        _ => Err(Fault::new(format!("is \"{text}\"")).hint(COUNTS)),
    }
}

/// An age: nothing, which switches its rule off, or at least `least`.
pub(super) fn age(text: &str, least: Age) -> Result<Age, Fault> {
    let age = Age::parse(text).map_err(|e| Fault::new(e.problem).hint(e.hint))?;
    if age.is_zero() || least.never_longer(age) {
        return Ok(age);
    }
    Err(Fault::new(format!("is {age}, less than {least}")).hint("0h switches the rule off"))
}

/// A time zone that this host knows.
pub(super) fn timezone(text: &str) -> Result<Zone, Fault> {
    Zone::named(text).map_err(|unknown| {
        let names = unknown.known.iter().map(String::as_str);
        let hint = match nearest(text, names) {
            Some(nearest) => format!("did you mean `{nearest}`?"),
            None if unknown.known.is_empty() => "this host has no time zones: install tzdata".to_owned(),
            None => {
                "write an IANA name such as Europe/Berlin; `timedatectl list-timezones` has them".to_owned()
            }
        };
        Fault::new(format!("is `{text}`, which is not a time zone of this host")).hint(hint)
    })
}

/// An absolute path without `..`; repeated slashes are removed.
pub(super) fn absolute(path: &Path) -> Result<PathBuf, Fault> {
    let Some(text) = path.to_str() else {
        return Err(Fault::new(format!("is `{}`, which is not UTF-8", path.display())));
    };
    let fault = |what| Err(Fault::new(format!("is {text:?}, {what}")));
    if !path.is_absolute() {
        return fault("which is not an absolute path").map_err(|f: Fault| f.hint("start it with /"));
    }
    if text.chars().any(char::is_control) {
        return fault("which has control characters");
    }
    if path.components().any(|c| c == Component::ParentDir) {
        return fault("which has `..` in it");
    }
    Ok(path.components().collect())
}

/// A file for node_exporter's textfile collector, which reads only names that end like this.
pub(super) fn textfile(text: &str) -> Result<PathBuf, Fault> {
    let path = absolute(Path::new(text))?;
    if path.extension().is_some_and(|e| e == "prom") {
        return Ok(path);
    }
    let hint = "write a whole path, such as \"/var/lib/node_exporter/stillpoint.prom\"";
    Err(Fault::new(format!("is `{text}`, which does not end with .prom")).hint(hint))
}

pub(super) fn choice<T: Copy>(text: &str, known: &[(&str, T)]) -> Result<T, Fault> {
    known.iter().find(|(word, _)| *word == text).map(|(_, value)| *value).ok_or_else(|| {
        let words = known.iter().map(|(word, _)| *word);
        Fault::new(format!("is `{text}`")).hint(choices(text, "it can be", words))
    })
}

pub(super) const CONSISTENCIES: &[(&str, Consistency)] = &[
    ("crash", Consistency::Crash),
    ("filesystem", Consistency::Filesystem),
    ("application", Consistency::Application),
];
pub(super) const METHODS: &[(&str, Method)] =
    &[("freeze", Method::Freeze), ("sync", Method::Sync), ("unmount", Method::Unmount)];
pub(super) const ON_DEGRADED: &[(&str, OnDegraded)] =
    &[(OnDegraded::Fail.word(), OnDegraded::Fail), (OnDegraded::Keep.word(), OnDegraded::Keep)];
pub(super) const UNMOUNTED: &[(&str, UnmountedVolumes)] =
    &[("exclude", UnmountedVolumes::Exclude), ("crash", UnmountedVolumes::Crash)];
pub(super) const AUTOMOUNTS: &[(&str, Automounts)] =
    &[("mount", Automounts::Mount), ("name", Automounts::Name)];
pub(super) const MISSING_MOUNTS: &[(&str, MissingMounts)] =
    &[("degrade", MissingMounts::Degrade), ("warn", MissingMounts::Warn)];

/// Parses a consistency, for a flag.
///
/// # Errors
/// When the text is not one.
pub fn consistency(text: &str) -> Result<Consistency, Fault> {
    choice(text, CONSISTENCIES)
}

/// Parses a value of `on_degraded`, for a flag.
///
/// # Errors
/// When the text is not one.
pub fn on_degraded(text: &str) -> Result<OnDegraded, Fault> {
    choice(text, ON_DEGRADED)
}

/// `KEY=VALUE`, or `KEY` alone for an empty value, for a flag's value parser.
///
/// # Errors
/// When the key is empty.
pub(crate) fn key_value(text: &str) -> Result<(String, String), Fault> {
    let (key, value) = text.split_once('=').unwrap_or((text, ""));
    if key.is_empty() {
        return Err(Fault::new(format!("is `{text}`, without a key")).hint("write KEY=VALUE"));
    }
    Ok((key.to_owned(), value.to_owned()))
}

/// A tag to choose volumes by: any that EC2 can have, `aws:` included.
pub(super) fn filter_tag(key: &str, value: &str) -> Result<(), Fault> {
    // EC2 counts characters (EC2 user guide, "Tag restrictions").
    if key.is_empty() || key.chars().count() > 128 {
        return Err(Fault::new("has a tag key that is empty or longer than 128 characters"));
    }
    if value.chars().count() > 256 {
        return Err(Fault::new(format!("has a value longer than 256 characters for the tag `{key}`")));
    }
    Ok(())
}

/// Checks a tag of the user's: EC2's limits, and that its key is not one of this tool's.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn own_tag(key: &str, value: &str) -> Result<(), Fault> {
    filter_tag(key, value)?;
    match tags::reserved(key) {
        Some(prefix) => Err(Fault::new(format!("has the tag `{key}`; the prefix `{prefix}` is reserved"))),
        None => Ok(()),
    }
}

pub(crate) fn url(text: &str) -> Result<String, Fault> {
    let uri = text.parse::<http::Uri>().ok();
    let good = uri.is_some_and(|u| {
        matches!(u.scheme_str(), Some("http" | "https")) && u.host().is_some_and(|h| !h.is_empty())
    });
    if good {
        Ok(text.to_owned())
    } else {
        Err(Fault::new(format!("is `{text}`, which is not an endpoint URL"))
            .hint("write it like https://ec2.eu-central-1.amazonaws.com"))
    }
}

pub(crate) fn region(text: &str) -> Result<String, Fault> {
    let good =
        (3..=32).contains(&text.len()) && text.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'));
    if good {
        Ok(text.to_owned())
    } else {
        Err(Fault::new(format!("is `{text}`, which is not a Region")).hint("write it like eu-central-1"))
    }
}

pub(super) fn description(text: &str) -> Result<String, Fault> {
    // The set's id stands before it, and a space.
    let most = tags::MAX_DESCRIPTION - tags::DESCRIBED - 1;
    if text.is_empty() || text.chars().count() > most || text.chars().any(char::is_control) {
        return Err(Fault::new(format!("must be one line of 1 to {most} characters")));
    }
    Ok(text.to_owned())
}

/// The key of a host: it becomes a tag's value, and a filter's, which has wildcards.
pub(super) fn host_key(text: &str) -> Result<String, Fault> {
    let good = (1..=128).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b':' | b'/'));
    if good {
        Ok(text.to_owned())
    } else {
        Err(Fault::new(format!("is `{text}`, which is not the key of a host"))
            .hint("up to 128 letters, digits, `_`, `-`, `.`, `:` and `/`, as in \"db-1.example.com\""))
    }
}

/// A plan's name: it becomes a systemd instance, a tag and a file name.
pub(super) fn plan_name(text: &str) -> Result<String, Fault> {
    let good = (1..=64).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'))
        && text.as_bytes()[0].is_ascii_alphanumeric();
    if good {
        Ok(text.to_owned())
    } else {
        Err(Fault::new("is not a plan name")
            .hint("up to 64 letters, digits, `_`, `-` and `.`, starting with a letter or digit"))
    }
}

pub(super) fn hook_name(text: &str) -> Result<String, Fault> {
    if text.trim().is_empty() || text.chars().count() > 64 || text.chars().any(char::is_control) {
        return Err(Fault::new("must be 1 to 64 characters on one line"));
    }
    Ok(text.to_owned())
}

/// A user's name, as useradd(8) takes it, or as directory services have it.
pub(super) fn user_name(text: &str) -> Result<String, Fault> {
    let good = (1..=256).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b'@'))
        && !text.starts_with('-');
    if good {
        Ok(text.to_owned())
    } else {
        Err(Fault::new(format!("is `{text}`, which is not a user's name")))
    }
}

/// One line of text that is not empty.
pub(super) fn word(text: &str) -> Result<String, Fault> {
    if text.trim().is_empty() || text.chars().count() > 256 || text.chars().any(char::is_control) {
        return Err(Fault::new("must be 1 to 256 characters on one line"));
    }
    Ok(text.to_owned())
}

/// The name of a systemd credential: it is a file's name (systemd.exec(5)).
pub(super) fn credential(text: &str) -> Result<String, Fault> {
    let good = !matches!(text, "." | "..") && !text.contains('/');
    if good {
        word(text)
    } else {
        Err(Fault::new(format!("is `{text}`, which is not the name of a credential")))
    }
}

/// A container's name or id (docker: `[a-zA-Z0-9][a-zA-Z0-9_.-]+`).
pub(super) fn container_name(text: &str) -> Result<String, Fault> {
    let good = (1..=256).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'))
        && text.as_bytes()[0].is_ascii_alphanumeric();
    if good {
        Ok(text.to_owned())
    } else {
        Err(Fault::new(format!("is `{text}`, which is not a container's name")))
    }
}

/// A variable of a hook's environment. The prefix STILLPOINT_ is reserved for what stillpoint sets.
pub(super) fn variable(key: &str, value: &str) -> Result<(), Fault> {
    let good = !key.is_empty()
        && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        && !key.as_bytes()[0].is_ascii_digit();
    if !good {
        return Err(Fault::new(format!("has `{key}`, which is not a variable's name")));
    }
    if key.starts_with("STILLPOINT_") {
        return Err(Fault::new(format!("has `{key}`; STILLPOINT_ is for what stillpoint says")));
    }
    if value.contains('\0') {
        return Err(Fault::new(format!("has a NUL character in `{key}`")));
    }
    Ok(())
}

/// A unit that systemctl can stop and start, with its type spelled out.
pub(super) fn unit_name(text: &str) -> Result<String, Fault> {
    const TYPES: [&str; 6] = [".service", ".socket", ".timer", ".path", ".target", ".slice"];
    // systemd.unit(5); a leading dash would be an option.
    let good = (1..256).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b':' | b'-' | b'_' | b'.' | b'\\' | b'@'))
        && !text.starts_with(['-', '.'])
        && TYPES.iter().any(|t| text.ends_with(t));
    if good {
        return Ok(text.to_owned());
    }
    Err(Fault::new(format!("is `{text}`, which is not the name of a unit"))
        .hint("write it in full, like postgresql.service"))
}

/// A command: the program's absolute path, then its arguments as they are.
pub(super) fn argv(words: Vec<String>) -> Result<Vec<String>, Fault> {
    let Some(program) = words.first() else {
        return Err(Fault::new("is empty").hint("write [\"/path/to/program\", \"argument\"]"));
    };
    if !program.starts_with('/') {
        let hint = "commands are not looked up in PATH and not given to a shell; for a shell write \
                    [\"/bin/sh\", \"-c\", \"…\"]";
        return Err(Fault::new(format!("starts with `{program}`, not an absolute path")).hint(hint));
    }
    if words.iter().any(|w| w.contains('\0')) {
        return Err(Fault::new("has a NUL character in it"));
    }
    Ok(words)
}
