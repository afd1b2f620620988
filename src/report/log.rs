//! Where log events go: stderr for people, journald with fields under systemd.
//!
//! In: tracing events. Out: lines or journald entries, by way of the queue in [`gate`]. Must never: write by
//! itself, pass a control character on, or log the SDK's canonical requests, which hold signatures.

use std::fmt::{self, Write as _};

use tracing::field::{Field, Visit};
use tracing::{Dispatch, Event, Level, Subscriber};
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::Context;
use tracing_subscriber::prelude::*;
use tracing_subscriber::{EnvFilter, Layer, Registry};

use crate::error::Error;
use crate::exit::Exit;
use crate::gate::{self, Weight};
use crate::path_encoding::printable;
use crate::sets::record::SetRecord;

/// Events of this target are for journald only.
const JOURNAL: &str = "stillpoint::journal";
/// MESSAGE_ID of the entry that ends a run (systemd.journal-fields(7)).
pub const RUN_ENDED: &str = "6d0a4c1e5b7f4f0b9d6e2a8c3f17b54e";
/// MESSAGE_ID of the entry about a set that was waited for.
pub const SET_COMPLETED: &str = "aabf791d0c974091987392c7f2cfc049";

/// What an event says, taken from the thread that says it.
struct Entry {
    level: Level,
    target: &'static str,
    message: String,
    fields: Vec<(&'static str, String)>,
}

impl Entry {
    fn of(event: &Event<'_>) -> Self {
        let metadata = event.metadata();
        let (level, target) = (*metadata.level(), metadata.target());
        let mut entry = Self { level, target, message: String::new(), fields: Vec::new() };
        event.record(&mut entry);
        entry
    }

    fn weight(&self) -> Weight {
        if self.level <= Level::WARN { Weight::Essential } else { Weight::Chatter }
    }

    fn size(&self) -> usize {
        self.message.len() + self.fields.iter().map(|(_, value)| value.len()).sum::<usize>() + 64
    }

    fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(field, _)| *field == name).map(|(_, value)| value.as_str())
    }

    /// `hook NAME: message field=value`.
    fn text(&self) -> String {
        let hook = self.field(HOOK).map(|name| format!("hook {name}: "));
        let mut text = format!("{}{}", hook.unwrap_or_default(), self.message);
        for (name, value) in self.fields.iter().filter(|(name, _)| !KNOWN.contains(name)) {
            let _ = write!(text, " {name}={value}");
        }
        printable(&text).into_owned()
    }

    /// With a prefix for warnings and errors only, because people read stderr.
    fn line(&self) -> String {
        let text = self.text();
        match self.level {
            Level::ERROR => format!("error: {text}\n"),
            Level::WARN => format!("warning: {text}\n"),
            Level::INFO => format!("{text}\n"),
            level => format!("{level} {}: {text}\n", self.target),
        }
    }

    /// The same as an event again, for the journald layer alone: tracing knows fields by their static names.
    fn say_again(&self) {
        let text = self.text();
        macro_rules! at {
            ($level:expr) => {
                tracing::event!(
                    target: JOURNAL,
                    $level,
                    HOOK = self.field(HOOK),
                    MESSAGE_ID = self.field("MESSAGE_ID"),
                    STILLPOINT_RUN = self.field("STILLPOINT_RUN"),
                    STILLPOINT_PLAN = self.field("STILLPOINT_PLAN"),
                    STILLPOINT_CONSISTENCY = self.field("STILLPOINT_CONSISTENCY"),
                    STILLPOINT_SNAPSHOTS = self.field("STILLPOINT_SNAPSHOTS"),
                    STILLPOINT_WINDOW_MS = self.field("STILLPOINT_WINDOW_MS"),
                    STILLPOINT_EXIT_CODE = self.field("STILLPOINT_EXIT_CODE"),
                    STILLPOINT_REASON = self.field("STILLPOINT_REASON"),
                    "{text}"
                )
            };
        }
        match self.level {
            Level::ERROR => at!(Level::ERROR),
            Level::WARN => at!(Level::WARN),
            Level::INFO => at!(Level::INFO),
            Level::DEBUG => at!(Level::DEBUG),
            Level::TRACE => at!(Level::TRACE),
        }
    }
}

/// The field of events that belong to one hook.
const HOOK: &str = "hook";

/// Fields that journald gets as fields; every other one is a part of the text.
const KNOWN: [&str; 9] = [
    HOOK,
    "MESSAGE_ID",
    "STILLPOINT_RUN",
    "STILLPOINT_PLAN",
    "STILLPOINT_CONSISTENCY",
    "STILLPOINT_SNAPSHOTS",
    "STILLPOINT_WINDOW_MS",
    "STILLPOINT_EXIT_CODE",
    "STILLPOINT_REASON",
];

impl Visit for Entry {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.record_str(field, &format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => value.clone_into(&mut self.message),
            name => self.fields.push((name, value.to_owned())),
        }
    }
}

/// Queues every event; `write` is done by the log's thread.
struct Queued<W>(W);

impl<S: Subscriber, W: Fn(Entry) + Clone + Send + Sync + 'static> Layer<S> for Queued<W> {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let entry = Entry::of(event);
        let write = self.0.clone();
        gate::add(entry.weight(), entry.size(), move || write(entry));
    }
}

fn to_stderr(entry: Entry) {
    let _ = std::io::Write::write_all(&mut std::io::stderr(), entry.line().as_bytes());
}

/// Starts logging. `verbose` adds this program's debug events; `STILLPOINT_LOG` takes filter directives.
pub fn start(verbose: bool) {
    let default = if verbose { "warn,stillpoint=debug" } else { "stillpoint=info" };
    let chosen = std::env::var("STILLPOINT_LOG").unwrap_or_else(|_| default.to_owned());
    let filter = EnvFilter::try_new(&chosen).unwrap_or_else(|_| EnvFilter::new(default));
    // At TRACE aws_sigv4 logs canonical requests.
    let filter = match "aws_sigv4=info".parse() {
        Ok(directive) => filter.add_directive(directive),
        Err(_) => filter,
    };
    gate::start();
    match under_systemd().then(journald).flatten() {
        Some(journald) => {
            let to_journald = move |entry: Entry| {
                tracing::dispatcher::with_default(&journald, || entry.say_again());
            };
            tracing_subscriber::registry().with(Queued(to_journald).with_filter(filter)).init();
        }
        None => {
            let for_people = filter_fn(|m| m.target() != JOURNAL);
            let layer = Queued(to_stderr).with_filter(for_people).with_filter(filter);
            tracing_subscriber::registry().with(layer).init();
        }
    }
}

/// The way to journald, for the log's thread: its socket blocks while journald does not read.
fn journald() -> Option<Dispatch> {
    let layer = tracing_journald::layer().ok()?;
    let layer = layer.with_field_prefix(None).with_syslog_identifier("stillpoint".to_owned());
    Some(Dispatch::new(Registry::default().with(layer)))
}

fn under_systemd() -> bool {
    is_journal(2)
}

/// Does the journal get what is printed on stdout? It has the report too, which names all that stdout names:
/// the ids alone, for a program that reads them, would only be there a second time.
#[must_use]
pub fn stdout_is_journal() -> bool {
    is_journal(1) && is_journal(2)
}

/// True when this descriptor is connected to the journal (systemd.exec(5), JOURNAL_STREAM).
fn is_journal(fd: u32) -> bool {
    use std::os::unix::fs::MetadataExt;
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else { return false };
    let Ok(file) = std::fs::metadata(format!("/proc/self/fd/{fd}")) else { return false };
    stream == format!("{}:{}", file.dev(), file.ino())
}

/// The journald entry that ends a run.
pub fn run_ended(record: &SetRecord) {
    let snapshots: Vec<_> = record.snapshots.iter().map(|s| s.id.as_str()).collect();
    let consistency = record.achieved.map_or_else(|| "none".to_owned(), |c| c.to_string());
    let lower = record.achieved.is_some_and(|c| c < record.requested);
    let requested = if lower { format!(", {} was requested", record.requested) } else { String::new() };
    macro_rules! at {
        ($level:expr) => {
            tracing::event!(
                target: JOURNAL,
                $level,
                MESSAGE_ID = RUN_ENDED,
                STILLPOINT_RUN = %record.run_id,
                STILLPOINT_PLAN = %record.plan.name,
                STILLPOINT_CONSISTENCY = %consistency,
                STILLPOINT_SNAPSHOTS = %snapshots.join(" "),
                STILLPOINT_WINDOW_MS = record.window_ms,
                STILLPOINT_EXIT_CODE = record.exit.code(),
                STILLPOINT_REASON = %record.reason.as_deref().unwrap_or_default(),
                "run ended with {}: {consistency}{requested}",
                record.exit.code()
            )
        };
    }
    match record.exit {
        Exit::Ok => at!(Level::INFO),
        // There is a set, and whoever keeps it has to see that it is less, or that something failed.
        Exit::Lower | Exit::After => at!(Level::WARN),
        _ => at!(Level::ERROR),
    }
}

/// The journald entry of a set that was waited for.
pub fn set_completed(record: &SetRecord) {
    let done = record.snapshots.iter().all(|s| s.state == "completed");
    macro_rules! at {
        ($level:expr, $what:expr) => {
            tracing::event!(
                target: JOURNAL,
                $level,
                MESSAGE_ID = SET_COMPLETED,
                STILLPOINT_RUN = %record.run_id,
                STILLPOINT_PLAN = %record.plan.name,
                STILLPOINT_EXIT_CODE = record.exit.code(),
                STILLPOINT_REASON = %record.after.last().map_or("", String::as_str),
                "{}: {}",
                record.run_id,
                $what
            )
        };
    }
    if done {
        at!(Level::INFO, "every snapshot is completed");
    } else {
        at!(Level::ERROR, "not every snapshot is completed");
    }
}

/// The journald entry of a run that was refused, and took nothing.
pub fn run_refused(plan: &str, error: &Error) {
    tracing::error!(
        target: JOURNAL,
        MESSAGE_ID = RUN_ENDED,
        STILLPOINT_PLAN = %plan,
        STILLPOINT_CONSISTENCY = "none",
        STILLPOINT_EXIT_CODE = error.exit.code(),
        STILLPOINT_REASON = %error,
        "run ended with {}: nothing was taken",
        error.exit.code()
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(level: Level, message: &str, fields: &[(&'static str, &str)]) -> Entry {
        let fields = fields.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        Entry { level, target: "stillpoint::test", message: message.to_owned(), fields }
    }

    #[test]
    fn a_line_names_the_hook_and_cannot_pretend_to_be_two() {
        let line = entry(Level::INFO, "done\nerror: fake \x1b[2J", &[(HOOK, "app"), ("n", "3")]).line();
        assert_eq!(line, "hook app: done\\nerror: fake \\u{1b}[2J n=3\n");
        assert_eq!(entry(Level::WARN, "late", &[]).line(), "warning: late\n");
        assert_eq!(entry(Level::DEBUG, "x", &[]).line(), "DEBUG stillpoint::test: x\n");
    }
}
