//! The evidence of a window: what its proofs have shown, and which of them could have shown nothing.
//!
//! In: a window that is about to be thawed, then the reports of its freezing threads. Out: [`Thawed`], and
//! the [`Check`]s that remain. Must never: open a file, or take a proof for passed that was not able to fail.

use std::time::Duration;

use super::check::{Check, Finding};
use super::filesystem::Filesystem;
use super::freeze::Report;
use super::prepared::Prepared;
use super::thawed::{Stall, Thawed, Times};
use super::witness::{Moved, Witness};
use super::{memory, watchdog, write_back};
use crate::path_encoding::shown;
use crate::plan::Method;

impl Prepared {
    /// What the write counters say. Read while everything is still frozen.
    pub(super) fn moved(&self) -> Vec<Moved> {
        let mut moved = Vec::new();
        for filesystem in &self.filesystems {
            let unfrozen = filesystem.method != Method::Freeze;
            moved.extend(filesystem.witnesses.iter().filter_map(|w| w.moved(&self.kernel, unfrozen)));
        }
        moved.extend(self.idle.iter().filter_map(|w| w.moved(&self.kernel, true)));
        moved
    }

    pub(super) fn finish(
        mut self,
        reports: &[Report],
        fired: Option<watchdog::Trigger>,
        moved: Vec<Moved>,
        times: Times,
        length: Duration,
    ) -> (Thawed, Vec<Check>) {
        let mut thawed =
            Thawed { moved, times, length, fired: fired.or(self.guard.fired()), ..Thawed::default() };
        let stamps = self.freezers.board().stamps();
        for filesystem in &self.filesystems {
            let stamps = filesystem.freezer.and_then(|i| stamps.get(i).copied()).unwrap_or_default();
            thawed.stalls.push(Stall {
                mount_point: filesystem.mount_point.clone(),
                flush: filesystem.flush,
                freeze: stamps.freeze(),
                stalled: stamps.stalled(),
            });
            if filesystem.unsynced.is_some() {
                thawed.unsynced.push(filesystem.mount_point.clone());
            }
            let Some(report) = filesystem.freezer.map(|i| reports[i]) else { continue };
            match report {
                Report::Thawed => thawed.held.push(filesystem.mount_point.clone()),
                Report::ThawedByOther => thawed.thawed_by_other.push(filesystem.mount_point.clone()),
                r if r.may_be_frozen() => thawed.still_frozen.push(filesystem.mount_point.clone()),
                _ => {}
            }
        }
        if thawed.still_frozen.is_empty() {
            self.guard.dismiss();
        }
        memory::unlock(&*self.kernel);
        let used = self.claims.in_use.iter();
        thawed.in_use = used.map(|d| format!("{} cannot be taken for unused: {}", d.name, d.why)).collect();
        self.blind(&mut thawed);
        // What hangs in FIFREEZE would make syncfs hang too, and there is doubt enough.
        let checks = if thawed.still_frozen.is_empty() { self.checks() } else { Vec::new() };
        (thawed, checks)
    }

    /// Counters that could not have moved: of what is only synced they are the proof, of all else they are a
    /// second one.
    fn blind(&self, thawed: &mut Thawed) {
        let second = |witness: &Witness| {
            let why = witness.blind.as_ref()?;
            Some(format!("{}: {why}", witness.name))
        };
        for filesystem in &self.filesystems {
            if is_proof(filesystem) {
                let blind = |w: &Witness| Some(nothing_shows(&w.name, w.blind.as_ref()?));
                thawed.unproven.extend(filesystem.witnesses.iter().filter_map(blind));
            } else {
                thawed.unwitnessed.extend(filesystem.witnesses.iter().filter_map(second));
            }
            if filesystem.witnesses.is_empty() {
                let none = format!("{}: no device of it is known", shown(&filesystem.mount_point));
                if is_proof(filesystem) { &mut thawed.unproven } else { &mut thawed.unwitnessed }.push(none);
            }
        }
        thawed.unwitnessed.extend(self.idle.iter().filter_map(second));
    }

    /// What is asked once everything is thawed.
    fn checks(&self) -> Vec<Check> {
        let mut checks = Vec::new();
        for filesystem in &self.filesystems {
            let finding = if is_proof(filesystem) { doubt } else { unwitnessed };
            checks.push(write_back::check(&self.kernel, filesystem));
            checks.extend(filesystem.witnesses.iter().filter_map(|w| w.check(&self.kernel, finding)));
        }
        checks.extend(self.idle.iter().filter_map(|w| w.check(&self.kernel, unwitnessed)));
        checks
    }
}

/// Is the write counter the only proof that this filesystem was quiet?
fn is_proof(filesystem: &Filesystem) -> bool {
    filesystem.method == Method::Sync
}

fn doubt(device: &str, why: &str) -> Finding {
    Finding::Doubt(nothing_shows(device, why))
}

fn nothing_shows(device: &str, why: &str) -> String {
    format!("nothing shows that {device} was not written to: {why}")
}

fn unwitnessed(device: &str, why: &str) -> Finding {
    Finding::Unwitnessed(format!("{device}: {why}"))
}
