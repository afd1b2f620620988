//! What happened that somebody may want to be told: for the journal, for `[[notify]]`, and for metrics.
//!
//! ```text
//! a run, a recovery, a prune, a wait ─▶ Event (made.rs) ─┬▶ journald, with a MESSAGE_ID (log.rs)
//!                                                        ├▶ the commands of [[notify]]
//!                                                        └▶ counters (metrics)
//! ```
//!
//! In: results of the flow. Out: values. Must never: tell anybody (the caller does), or let two kinds have one
//! MESSAGE_ID, or one kind another one than before: alerts go by it.

mod made;

use std::path::PathBuf;

use serde::Serialize;
use tracing::Level;

pub(crate) use self::made::{
    lost, notify_failed, of_clones, of_completed, of_record, of_recovered, of_refusal, of_removed,
    of_withheld, verify_fault, wait_failed,
};

use crate::config::settings::NotifyOn;
use crate::consistency::Consistency;
use crate::exit::Exit;
use crate::ids::{RunId, SnapshotId, VolumeId};
use crate::path_encoding;

/// A kind of event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A run took a set, at the consistency asked for.
    SetTaken,
    /// A run took a set, at a lower one.
    SetLower,
    /// A run took none, or was refused.
    SetFailed,
    /// There is a set, and something after it failed.
    AfterFailed,
    /// The watchdog thawed, because the run did not.
    WatchdogFired,
    /// A filesystem may still be frozen.
    StillFrozen,
    /// A filesystem that was unmounted could not be mounted again.
    NotMounted,
    /// The release of an application failed, so it may still be held.
    LeftHeld,
    /// A run cloned the volumes of a plan, at the consistency asked for.
    ClonesMade,
    /// A run cloned them, at a lower one.
    ClonesLower,
    /// A run cloned none of use, or was refused.
    ClonesFailed,
    /// There are clones, and something after them failed.
    ClonesAfterFailed,
    /// EC2 has completed a set that was waited for.
    SetCompleted,
    /// EC2 could not complete a set of a former run.
    SetLost,
    /// EC2 could not complete a set that was waited for.
    WaitFailed,
    /// A set was removed.
    SetRemoved,
    /// A set was to be removed, and is not, or only in part.
    SetNotRemoved,
    /// A prune removed nothing although something would go.
    PruneHeldBack,
    /// Verify found that a set is not what its label says.
    VerifyFault,
    /// What a dead run had left was undone.
    RunRecovered,
    /// A command of `[[notify]]` failed.
    NotifyFailed,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 21] = [
        Self::SetTaken,
        Self::SetLower,
        Self::SetFailed,
        Self::AfterFailed,
        Self::WatchdogFired,
        Self::StillFrozen,
        Self::NotMounted,
        Self::LeftHeld,
        Self::ClonesMade,
        Self::ClonesLower,
        Self::ClonesFailed,
        Self::ClonesAfterFailed,
        Self::SetCompleted,
        Self::SetLost,
        Self::WaitFailed,
        Self::SetRemoved,
        Self::SetNotRemoved,
        Self::PruneHeldBack,
        Self::VerifyFault,
        Self::RunRecovered,
        Self::NotifyFailed,
    ];

    /// Its name, as in `STILLPOINT_EVENT` and in JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.row().0
    }

    /// Its MESSAGE_ID (systemd.journal-fields(7)); packaging/stillpoint.catalog has a text for each.
    #[must_use]
    pub fn message_id(self) -> &'static str {
        self.row().1
    }

    /// What a `[[notify]]` section names it by.
    #[must_use]
    pub fn outcome(self) -> NotifyOn {
        match self {
            Self::SetTaken | Self::ClonesMade | Self::SetCompleted | Self::SetRemoved => NotifyOn::Success,
            Self::SetLower | Self::ClonesLower => NotifyOn::Lower,
            _ => NotifyOn::Failure,
        }
    }

    fn row(self) -> (&'static str, &'static str) {
        match self {
            Self::SetTaken => ("set-taken", "9c12a663f3b34e918389876b96d92960"),
            Self::SetLower => ("set-lower", "2bdfedb8be81416aa7f4b30fbf9e2848"),
            Self::SetFailed => ("set-failed", "98255031419a4e2db565401f7fb96708"),
            Self::AfterFailed => ("after-failed", "5fe6ffd720fa4731ac13823764d72f44"),
            Self::WatchdogFired => ("watchdog-fired", "24b7f62fbb03484da9e50db40d0c6787"),
            Self::StillFrozen => ("still-frozen", "281eb16c5cb6448ea7f47176e6c778c0"),
            Self::NotMounted => ("not-mounted", "b0d0bca4d0454f559de3cf6bb3a37017"),
            Self::LeftHeld => ("left-held", "fd84733fb6314023a4904773447adff2"),
            Self::ClonesMade => ("clones-made", "0a1475bb06484410af92f36cdae9d8ae"),
            Self::ClonesLower => ("clones-lower", "9e74b7c7efdd435bbe0bdcb688b519a2"),
            Self::ClonesFailed => ("clones-failed", "198af5cf35044e19ae627363602f5678"),
            Self::ClonesAfterFailed => ("clones-after-failed", "f48ef659246e418e92ab1fe10739c636"),
            Self::SetCompleted => ("set-completed", "aabf791d0c974091987392c7f2cfc049"),
            Self::SetLost => ("set-lost", "98453a1402e54178aca112ceaed65b23"),
            Self::WaitFailed => ("wait-failed", "ccc4168262734974928b96ed78d5e1e0"),
            Self::SetRemoved => ("set-removed", "536f2a40aa2d40f9abf1fb2ef3b06649"),
            Self::SetNotRemoved => ("set-not-removed", "0d274dc8c4694f928e82dc19d27dc05d"),
            Self::PruneHeldBack => ("prune-held-back", "549ce32af4dc4bb4836ff368d56df4a7"),
            Self::VerifyFault => ("verify-fault", "56341292bd9d48faaa0e6aff23347674"),
            Self::RunRecovered => ("run-recovered", "cf7ef05b0e2349ed8bcd806ec54b4921"),
            Self::NotifyFailed => ("notify-failed", "19c670c949ab4eb7b3909569aeac18fc"),
        }
    }

    fn level(self) -> Level {
        match self {
            Self::SetTaken | Self::ClonesMade | Self::SetCompleted | Self::SetRemoved => Level::INFO,
            Self::SetLower
            | Self::AfterFailed
            | Self::ClonesLower
            | Self::ClonesAfterFailed
            | Self::PruneHeldBack
            | Self::RunRecovered
            | Self::NotifyFailed => Level::WARN,
            _ => Level::ERROR,
        }
    }
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Event {
    /// What kind of thing.
    #[serde(rename = "event")]
    pub kind: Kind,
    /// In one sentence without a capital letter.
    pub text: String,
    /// Why.
    pub reason: Option<String>,
    /// The plan.
    pub plan: Option<String>,
    /// The run.
    pub run_id: Option<RunId>,
    /// The set; of a run that took one, it has the run's id.
    pub set: Option<RunId>,
    /// The consistency that was requested.
    pub requested: Option<Consistency>,
    /// The label of the set.
    pub achieved: Option<Consistency>,
    /// Length of the frozen window, in milliseconds.
    pub window_ms: Option<f64>,
    /// The snapshots that it is about.
    pub snapshots: Vec<SnapshotId>,
    /// The clones that it is about.
    pub volumes: Vec<VolumeId>,
    /// The mount points that it is about.
    #[serde(serialize_with = "path_encoding::paths")]
    pub mounts: Vec<PathBuf>,
    /// The hooks that it is about.
    pub hooks: Vec<String>,
    /// The exit code of the command.
    pub exit_code: Option<Exit>,
    /// Of the journal's entry.
    #[serde(skip)]
    level: Option<Level>,
}

impl Event {
    /// One of which nothing else is known.
    pub(crate) fn new(kind: Kind, text: impl Into<String>) -> Self {
        Self {
            kind,
            text: text.into(),
            reason: None,
            plan: None,
            run_id: None,
            set: None,
            requested: None,
            achieved: None,
            window_ms: None,
            snapshots: Vec::new(),
            volumes: Vec::new(),
            mounts: Vec::new(),
            hooks: Vec::new(),
            exit_code: None,
            level: None,
        }
    }

    /// How bad it is, for the journal's PRIORITY.
    pub(crate) fn level(&self) -> Level {
        self.level.unwrap_or(self.kind.level())
    }

    /// The journal's fields, with their values. What is not known is not there.
    pub(crate) fn fields(&self) -> Vec<(&'static str, String)> {
        let text = |value: &Option<String>| value.clone();
        let list = |values: Vec<String>| (!values.is_empty()).then(|| values.join(" "));
        let ids = self.snapshots.iter().map(ToString::to_string).collect();
        let volumes = self.volumes.iter().map(ToString::to_string).collect();
        let mounts = self.mounts.iter().map(|m| path_encoding::shown(m)).collect();
        let all = [
            ("MESSAGE_ID", Some(self.kind.message_id().to_owned())),
            ("STILLPOINT_EVENT", Some(self.kind.name().to_owned())),
            ("STILLPOINT_PLAN", text(&self.plan)),
            ("STILLPOINT_RUN", self.run_id.as_ref().map(ToString::to_string)),
            ("STILLPOINT_SET", self.set.as_ref().map(ToString::to_string)),
            ("STILLPOINT_LABEL", self.achieved.map(|c| c.to_string())),
            ("STILLPOINT_REQUESTED", self.requested.map(|c| c.to_string())),
            ("STILLPOINT_WINDOW_MS", self.window_ms.map(|ms| format!("{ms:.1}"))),
            ("STILLPOINT_SNAPSHOTS", list(ids)),
            ("STILLPOINT_VOLUMES", list(volumes)),
            ("STILLPOINT_MOUNTS", list(mounts)),
            ("STILLPOINT_HOOKS", list(self.hooks.clone())),
            ("STILLPOINT_EXIT_CODE", self.exit_code.map(|e| e.code().to_string())),
            ("STILLPOINT_REASON", text(&self.reason)),
        ];
        // What EC2, a hook or a name on a disk says must not act on the terminal of whoever reads the journal.
        let shown = |value: String| path_encoding::printable(&value).into_owned();
        all.into_iter().filter_map(|(name, value)| Some((name, shown(value?)))).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const CATALOG: &str = include_str!("../../packaging/stillpoint.catalog");

    /// The ids that the catalog has a text for, with the text.
    fn catalog() -> Vec<(&'static str, &'static str)> {
        CATALOG.split("\n-- ").skip(1).filter_map(|entry| entry.split_once('\n')).collect()
    }

    #[test]
    fn each_kind_has_an_id_and_a_name_of_its_own_and_a_text_in_the_catalog() {
        let ids: BTreeSet<&str> = Kind::ALL.iter().map(|k| k.message_id()).collect();
        let names: BTreeSet<&str> = Kind::ALL.iter().map(|k| k.name()).collect();
        assert_eq!((ids.len(), names.len()), (Kind::ALL.len(), Kind::ALL.len()));
        assert!(ids.iter().all(|id| id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit())));
        let texts = catalog();
        assert_eq!(texts.iter().map(|(id, _)| *id).collect::<BTreeSet<_>>(), ids);
        assert_eq!(texts.len(), ids.len(), "one has two texts");
        for (id, text) in texts {
            let (head, body) = text.split_once("\n\n").unwrap();
            let kind = Kind::ALL.into_iter().find(|k| k.message_id() == id).unwrap();
            assert!(head.contains("Subject: ") && head.contains("Defined-By: stillpoint"), "{id}");
            assert!(text.contains(&format!("# {}\n", kind.name())), "{id} is {}", kind.name());
            assert!(body.contains("What to do") || kind.outcome() == NotifyOn::Success, "{id}: what to do?");
        }
        for name in names {
            let kind = Kind::ALL.into_iter().find(|k| k.name() == name).unwrap();
            assert_eq!(serde_json::to_value(kind).unwrap(), name);
        }
    }

    #[test]
    fn the_documentation_has_each_id() {
        let documented = include_str!("../../docs/monitoring.md");
        for kind in Kind::ALL {
            let row = format!("| `{}` | `{}` |", kind.name(), kind.message_id());
            assert!(documented.contains(&row), "docs/monitoring.md lacks: {row}");
        }
        let used = CATALOG.split('@').skip(1).step_by(2);
        let known: Vec<_> = super::super::log::FIELDS.to_vec();
        for field in used {
            assert!(known.contains(&field), "the catalog names {field}, which no entry has");
        }
    }
}
