//! Where log events go: stderr for people, journald with fields under systemd.
//!
//! In: tracing events. Out: lines through the gate, or journald entries. Must never: write while anything is
//! frozen, or log the SDK's canonical requests, which hold signatures.

use std::fmt;

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::{dynamic_filter_fn, filter_fn};
use tracing_subscriber::fmt::FmtContext;
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::prelude::*;
use tracing_subscriber::registry::LookupSpan;

use crate::gate;
use crate::sets::record::SetRecord;

/// Events of this target are for journald only.
const JOURNAL: &str = "stillpoint::journal";
/// MESSAGE_ID of the entry that ends a run (systemd.journal-fields(7)).
pub const RUN_ENDED: &str = "6d0a4c1e5b7f4f0b9d6e2a8c3f17b54e";

/// `message field=value`, with a prefix for warnings and errors only, because people read stderr.
struct Prose;

impl<S, N> FormatEvent<S, N> for Prose
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        match *event.metadata().level() {
            Level::ERROR => writer.write_str("error: ")?,
            Level::WARN => writer.write_str("warning: ")?,
            Level::INFO => {}
            level => write!(writer, "{level} {}: ", event.metadata().target())?,
        }
        context.format_fields(writer.by_ref(), event)?;
        writeln!(writer)
    }
}

/// Starts logging. `verbose` adds this program's debug events; `STILLPOINT_LOG` takes filter directives.
pub fn start(verbose: bool) {
    let default = if verbose { "warn,stillpoint=debug" } else { "stillpoint=info" };
    let filter = || {
        let chosen = std::env::var("STILLPOINT_LOG").unwrap_or_else(|_| default.to_owned());
        let filter = EnvFilter::try_new(&chosen).unwrap_or_else(|_| EnvFilter::new(default));
        // At TRACE aws_sigv4 logs canonical requests.
        match "aws_sigv4=info".parse() {
            Ok(directive) => filter.add_directive(directive),
            Err(_) => filter,
        }
    };
    let under_systemd = under_systemd();
    gate::set_journald(under_systemd);
    let journald = under_systemd.then(|| tracing_journald::layer().ok()).flatten();
    let to_stderr = journald.is_none().then(|| {
        tracing_subscriber::fmt::layer()
            .event_format(Prose)
            .with_ansi(false)
            .with_writer(|| gate::Stderr)
            .with_filter(filter_fn(|m| m.target() != JOURNAL))
            .with_filter(filter())
    });
    let to_journald = journald.map(|layer| {
        layer
            .with_field_prefix(None)
            .with_syslog_identifier("stillpoint".to_owned())
            // Dynamic, because a plain filter is evaluated only once for each call site. What happens in the
            // window is in the record.
            .with_filter(dynamic_filter_fn(|_, _| !gate::is_shut()))
            .with_filter(filter())
    });
    tracing_subscriber::registry().with(to_stderr).with(to_journald).init();
}

/// True when stderr is connected to the journal (systemd.exec(5), JOURNAL_STREAM).
fn under_systemd() -> bool {
    use std::os::unix::fs::MetadataExt;
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else { return false };
    let Ok(stderr) = std::fs::metadata("/proc/self/fd/2") else { return false };
    stream == format!("{}:{}", stderr.dev(), stderr.ino())
}

/// The journald entry that ends a run.
pub fn run_ended(record: &SetRecord) {
    let snapshots: Vec<_> = record.snapshots.iter().map(|s| s.id.as_str()).collect();
    let consistency = record.achieved.map_or_else(|| "none".to_owned(), |c| c.to_string());
    tracing::info!(
        target: JOURNAL,
        MESSAGE_ID = RUN_ENDED,
        STILLPOINT_RUN = %record.run_id,
        STILLPOINT_PLAN = %record.plan.name,
        STILLPOINT_CONSISTENCY = %consistency,
        STILLPOINT_SNAPSHOTS = %snapshots.join(" "),
        STILLPOINT_WINDOW_MS = record.window_ms,
        STILLPOINT_EXIT_CODE = record.exit.code(),
        STILLPOINT_REASON = %record.reason.as_deref().unwrap_or_default(),
        "run ended: {consistency}"
    );
}
