//! What became of copies, or would, for programs: docs/schema/copy-1.json.
//!
//! In: destinations, forecasts, results. Out: one document on stdout. Must never: call a copy more than
//! [`Copied`] does.

use serde::Serialize;

use super::Whose;
use super::destination::Destination;
use crate::cli::print_document;
use crate::ec2::copies::Encryption;
use crate::error::Error;
use crate::exit::Exit;
use crate::ids::{RunId, SnapshotId};
use crate::path_encoding::printable;
use crate::sets::copy::forecast::{Expected, Forecast};
use crate::sets::copy::make::{Copied, PartState};
use crate::sets::copy::source::Source;
use crate::sets::copy::{ByDefault, DEFAULT_KEY};

/// Version of the JSON of `copy`.
const VERSION: u32 = 1;

#[derive(Debug, Serialize)]
struct Document<'a> {
    version: u32,
    set: &'a RunId,
    region: &'a str,
    account: Option<&'a str>,
    dry_run: bool,
    copies: &'a [OfRegion],
    exit_code: Exit,
}

/// The copy in one Region.
#[derive(Debug, Serialize)]
pub(super) struct OfRegion {
    region: String,
    /// The id of the copied set; none of one that was not asked for.
    set: Option<RunId>,
    state: State,
    encryption: &'static str,
    key: Option<String>,
    encrypts_by_default: Option<bool>,
    within_minutes: Option<u16>,
    full_bytes: Option<u64>,
    reason: Option<String>,
    snapshots: Vec<OfSnapshot>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum State {
    Planned,
    Pending,
    Completed,
    Failed,
}

#[derive(Debug, Serialize)]
struct OfSnapshot {
    source: SnapshotId,
    id: Option<SnapshotId>,
    state: &'static str,
    reason: Option<String>,
    expected: Option<&'static str>,
    expected_because: Option<String>,
}

/// Prints the document.
pub(super) fn tell(
    source: &Source,
    whose: Option<&Whose>,
    dry_run: bool,
    copies: &[OfRegion],
    exit_code: Exit,
) -> Result<(), Error> {
    let account = whose.map(|other| other.account.as_str());
    let (set, region) = (&source.set.id, source.set.region.as_str());
    print_document(&Document { version: VERSION, set, region, account, dry_run, copies, exit_code })
}

impl OfRegion {
    /// A destination at which the copy is there already, or nothing is known yet.
    pub(super) fn of(source: &Source, at: &Destination) -> Self {
        let whole = at.existing.whole.as_ref();
        let known = whole.or(at.existing.started.as_ref());
        let snapshots = source.parts.iter().map(|part| {
            let made = known.and_then(|set| set.members.iter().find(|m| m.number == part.number));
            let state = match made.map(|m| &*m.state) {
                None => "open",
                Some("completed") => "completed",
                Some("error") => "error",
                Some(_) => "pending",
            };
            OfSnapshot {
                source: part.id.clone(),
                id: made.map(|m| m.id.clone()),
                state,
                reason: None,
                expected: None,
                expected_because: None,
            }
        });
        let (encryption, key) = match &at.how.encryption {
            Encryption::AsSource => ("as_source", None),
            Encryption::Key(key) if at.how.asked.as_deref() == Some(DEFAULT_KEY) => {
                ("default_key", Some(key))
            }
            Encryption::Key(key) => ("key", Some(key)),
            Encryption::Unnamed => ("default_key", None),
        };
        Self {
            region: at.to.region.clone(),
            set: known.map(|set| set.id.clone()),
            state: if whole.is_some() { State::Completed } else { State::Planned },
            encryption,
            key: key.map(|key| printable(key).to_string()),
            encrypts_by_default: match at.how.by_default {
                ByDefault::NotKnown => None,
                ByDefault::Off => Some(false),
                ByDefault::On(_) => Some(true),
            },
            within_minutes: at.how.minutes,
            full_bytes: None,
            reason: None,
            snapshots: snapshots.collect(),
        }
    }

    /// With what EC2 is expected to do.
    pub(super) fn expecting(mut self, forecast: &Forecast) -> Self {
        if self.state == State::Completed {
            return self;
        }
        self.full_bytes = forecast.full_bytes;
        for (snapshot, expected) in self.snapshots.iter_mut().zip(&forecast.parts) {
            let (word, because) = match expected {
                Expected::Incremental(after) => ("incremental", after.as_ref().map(ToString::to_string)),
                Expected::Full(why) => ("full", Some(why.clone())),
                Expected::NotKnown(why) => ("not_known", Some(why.clone())),
            };
            (snapshot.expected, snapshot.expected_because) = (Some(word), because);
        }
        self
    }

    /// With what became of it.
    pub(super) fn done(mut self, copied: &Copied) -> Self {
        self.state = match () {
            () if copied.completed() => State::Completed,
            () if copied.accepted() && copied.stopped.is_none() => State::Pending,
            () => State::Failed,
        };
        self.set = (!copied.nothing()).then(|| copied.run.clone());
        self.reason = copied.stopped.as_ref().map(|e| printable(&e.to_string()).to_string());
        for (snapshot, part) in self.snapshots.iter_mut().zip(&copied.parts) {
            snapshot.id.clone_from(&part.copy);
            (snapshot.state, snapshot.reason) = match &part.state {
                PartState::Open => ("open", None),
                PartState::Unsure => ("unsure", None),
                PartState::Pending => ("pending", None),
                PartState::Completed => ("completed", None),
                PartState::Gone => ("gone", None),
                PartState::Error(why) => ("error", Some(printable(why).to_string())),
            };
        }
        self
    }
}
