//! Where log events go: stderr for people, journald with fields under systemd.
//!
//! In: tracing events. Out: lines or journald entries, by way of the queue in [`gate`]. Must never: write by
//! itself, pass a control character on, or log the SDK's canonical requests, which hold signatures.

use std::fmt::{self, Write as _};
use std::sync::OnceLock;

use tracing::field::{Field, Visit};
use tracing::{Dispatch, Event, Level, Subscriber};
use tracing_subscriber::layer::Context;
use tracing_subscriber::prelude::*;
use tracing_subscriber::{EnvFilter, Layer, Registry};

use crate::gate::{self, Weight};
use crate::path_encoding::printable;

/// The target of entries that are for journald only.
const JOURNAL: &str = "stillpoint::journal";
/// The way to journald, once it is known that stderr leads there.
static JOURNALD: OnceLock<Dispatch> = OnceLock::new();

/// The field of events that belong to one hook.
const HOOK: &str = "hook";

/// Passes the names of the journal's fields to another macro: the only list of them.
macro_rules! with_fields {
    ($to:ident $(, $($argument:tt)*)?) => {
        $to!([
            MESSAGE_ID STILLPOINT_EVENT STILLPOINT_RUN STILLPOINT_PLAN STILLPOINT_SET STILLPOINT_LABEL
            STILLPOINT_REQUESTED STILLPOINT_SNAPSHOTS STILLPOINT_VOLUMES STILLPOINT_WINDOW_MS STILLPOINT_MOUNTS STILLPOINT_HOOKS
            STILLPOINT_EXIT_CODE STILLPOINT_REASON
        ] $($($argument)*)?)
    };
}
macro_rules! at {
    ([$($field:ident)*] $level:expr, $entry:ident, $text:ident) => {
        tracing::event!(
            target: JOURNAL,
            $level,
            HOOK = $entry.field(HOOK),
            $($field = $entry.field(stringify!($field)),)*
            "{}", $text
        )
    };
}
macro_rules! names {
    ([$($field:ident)*]) => {
        [$(stringify!($field)),*]
    };
}

/// Fields that the journal gets as fields; every other one is a part of the text.
pub(super) const FIELDS: [&str; 14] = with_fields!(names);

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
        for (name, value) in self.fields.iter().filter(|(name, _)| *name != HOOK && !FIELDS.contains(name)) {
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

    /// The same as an event, for the journald layer alone: tracing knows fields by their static names.
    fn say_again(&self) {
        let text = self.text();
        match self.level {
            Level::ERROR => with_fields!(at, Level::ERROR, self, text),
            Level::WARN => with_fields!(at, Level::WARN, self, text),
            Level::INFO => with_fields!(at, Level::INFO, self, text),
            Level::DEBUG => with_fields!(at, Level::DEBUG, self, text),
            Level::TRACE => with_fields!(at, Level::TRACE, self, text),
        }
    }
}

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
            let _ = JOURNALD.set(journald);
            tracing_subscriber::registry().with(Queued(to_journald).with_filter(filter)).init();
        }
        None => tracing_subscriber::registry().with(Queued(to_stderr).with_filter(filter)).init(),
    }
}

fn to_journald(entry: Entry) {
    if let Some(journald) = JOURNALD.get() {
        tracing::dispatcher::with_default(journald, || entry.say_again());
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

/// Tells the journal what happened, where stderr leads there. People read the report; whatever the log's level is,
/// this is not left out.
pub fn tell(event: &super::event::Event) {
    if JOURNALD.get().is_none() {
        return;
    }
    let entry =
        Entry { level: event.level(), target: JOURNAL, message: event.text.clone(), fields: event.fields() };
    gate::add(Weight::Essential, entry.size(), move || to_journald(entry));
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
