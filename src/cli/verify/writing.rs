//! What was found goes into the ledger: the tags of the set, and the record of this host.
//!
//! In: what was found. Out: [`Ledger`]. Must never: hide a verdict because it could not be noted, or tag a snapshot
//! whose tags do not say clearly that it is of this set.

use jiff::Timestamp;
use serde::Serialize;

use crate::cli::sets::Account;
use crate::ec2::keep::Keep as _;
use crate::ec2::{RUN_TAG, TaggedSnapshot};
use crate::ids::SnapshotId;
use crate::restore::verify::{Report, Verdict};
use crate::sets::guard::{members, unclear};
use crate::sets::ledger::{By, FaultFound, Found, Level, Verified, tag};
use crate::sets::recorded;
use crate::sets::set::SnapshotSet;
use crate::sets::tags::MAX_TAGS;

/// What became of it.
#[derive(Debug, Default, Serialize)]
pub(super) struct Ledger {
    /// The tag that the snapshots got; none where what they have says more.
    pub tag: Option<String>,
    /// The record of this host has it.
    pub record: bool,
    /// Why a part of it could not be written.
    pub error: Option<String>,
}

/// What a look has come to, for the ledger.
pub(super) fn found(level: Level, report: &Report, verdict: Verdict, account: &Account) -> Found {
    let now = Timestamp::now();
    let at = Timestamp::from_second(now.as_second()).unwrap_or(now);
    let given = account.loaded.settings.identity.instance_id.as_ref();
    let by = By::of(account.identity.as_ref().map(|i| &i.instance_id).or(given));
    if verdict == Verdict::Fault {
        let first = report.findings.iter().find(|f| f.verdict == Verdict::Fault);
        let what = first.map_or_else(String::new, super::line);
        return Found::Fault(FaultFound { level, at, by, what });
    }
    let (filesystems, sound) = report.filesystems();
    Found::NoFault(Verified { level, at, by, sound, filesystems })
}

/// Writes it: tags, then the record.
pub(super) async fn write(account: &Account, set: &SnapshotSet, found: &Found) -> Ledger {
    let mut ledger = Ledger::default();
    if let Some(refusal) = unclear(set) {
        ledger.error = Some(refusal.what);
        return ledger;
    }
    if let Some(tag) = tag(set, found) {
        match put(account, set, &tag).await {
            Ok(()) => ledger.tag = Some(tag.0),
            Err(why) => ledger.error = Some(why),
        }
    }
    match recorded::note(&account.loaded.settings.state_dir, &set.id, found) {
        Ok(noted) => ledger.record = noted,
        // Somebody who may look at sets, and is not the root of their host.
        Err(e) if e.kind() == std::io::ErrorKind::PermissionDenied => {}
        Err(e) => {
            let why = format!("the record of this host: {e}");
            ledger.error =
                Some(ledger.error.map_or_else(|| why.clone(), |before| format!("{before}; {why}")));
        }
    }
    ledger
}

async fn put(account: &Account, set: &SnapshotSet, tag: &(String, String)) -> Result<(), String> {
    let ec2 = account.calls();
    // The look may have taken hours.
    let now = members(&ec2, set).await.map_err(|e| e.to_string())?;
    if let Some(other) = now.iter().find(|s| s.tag(RUN_TAG) != Some(set.id.as_str())) {
        return Err(format!("{} is no longer of this set, by its tags", other.view.id));
    }
    // The last place is for the mark of a set that is being removed.
    let full = |s: &&TaggedSnapshot| s.tag(&tag.0).is_none() && s.tags.len() + 1 >= MAX_TAGS;
    if let Some(full) = now.iter().find(full) {
        return Err(format!("{} has {} tags, and EC2 allows {MAX_TAGS}", full.view.id, full.tags.len()));
    }
    let ids: Vec<SnapshotId> = set.snapshots().cloned().collect();
    let tags = [tag.clone()];
    let put = async || ec2.inner().put_tags(&ids, &tags).await;
    ec2.call("CreateTags", put).await.map_err(|e| {
        let hint = e.hint().map_or_else(String::new, |hint| format!(" (hint: {hint})"));
        format!("{e}{hint}")
    })
}
