//! What happens in EC2 around the window: the request before, look-up and labels after.
//!
//! In: the stage, the record. Out: the create request; tags on the snapshots. Must never: run while anything is frozen, or
//! label a set higher than its record says.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;

use super::{Stage, Window};
use crate::config::settings::PlanSettings;
use crate::discover::{Facts, Volume};
use crate::ec2::reconcile::Outcome;
use crate::ec2::{CreateRequest, Ec2, Ec2Error};
use crate::host::superblock;
use crate::ids::RunId;
use crate::plan::{Consistency, Plan};
use crate::sets::record::SetRecord;
use crate::sets::tags;

/// How a message starts that says that snapshots lack their verdict.
pub(super) const UNLABELLED: &str = "cannot tag the snapshots with their verdict";
/// Pauses between tries to tag: CreateTags is idempotent, and a new snapshot may not be visible at once.
const PAUSES: [Duration; 4] =
    [Duration::ZERO, Duration::from_millis(300), Duration::from_secs(1), Duration::from_secs(3)];

/// The request that will be sent, complete: DryRun sends the very same.
#[must_use]
pub fn create_request(
    run: &RunId,
    facts: &Facts,
    plan: &Plan,
    settings: &PlanSettings,
    requested: Consistency,
) -> CreateRequest {
    let in_set = |v: &&Volume| plan.volumes.iter().any(|p| p.id == v.id);
    // EC2 keeps tags that begin with `aws:` to itself.
    let own = |v: &Volume| v.tags.iter().filter(|(k, _)| !k.starts_with("aws:")).cloned().collect::<Vec<_>>();
    let copied_tags: BTreeMap<_, _> = if settings.copy_volume_tags {
        facts.volumes.iter().filter(in_set).map(|v| (v.id.clone(), own(v))).collect()
    } else {
        BTreeMap::new()
    };
    let copied = copied_tags.values().map(Vec::len).max().unwrap_or_default();
    let description = settings
        .description
        .clone()
        .unwrap_or_else(|| format!("stillpoint {} {} {:.0}", plan.name, facts.hostname, Timestamp::now()));
    CreateRequest {
        instance: facts.identity.instance_id.clone(),
        call: plan.call.clone(),
        description,
        tags: tags::on_create(run, &facts.identity, &facts.hostname, plan, settings, requested, copied),
        copied_tags,
        later_tags: tags::later(settings),
    }
}

/// Says into the kernel's log what may still be frozen: that line gets out whatever else hangs. True when the record would be
/// written to one of these filesystems.
pub(super) fn warn_of_frozen(state_dir: &Path, still_frozen: &[PathBuf]) -> bool {
    if still_frozen.is_empty() {
        return false;
    }
    let names: Vec<_> = still_frozen.iter().map(|m| m.display().to_string()).collect();
    let line = format!("<2>stillpoint: may still be frozen: {}\n", names.join(" "));
    let _ = std::fs::OpenOptions::new()
        .write(true)
        .open("/dev/kmsg")
        .and_then(|mut f| f.write_all(line.as_bytes()));
    let on = |path: &Path| std::fs::File::open(path).ok().and_then(superblock::of_fd);
    let nearest = state_dir.ancestors().find(|p| p.exists()).unwrap_or(Path::new("/"));
    let state = on(nearest);
    state.is_none() || still_frozen.iter().any(|m| on(m) == state)
}

/// Takes in what the look-up by run id found.
pub(super) fn look_up<E>(stage: &Stage<'_, E>, window: &mut Window, outcome: Outcome) {
    let found = match outcome {
        Outcome::Made(found) => {
            for snapshot in found {
                if !window.made.iter().any(|s| s.id == snapshot.id) {
                    window.made.push(snapshot);
                }
            }
            format!("{} snapshots of this run exist all the same", window.made.len())
        }
        Outcome::NoneSeen => "no snapshot of this run is to be seen".to_owned(),
        Outcome::Unknown(e) => format!("whether snapshots were made is not known ({e})"),
    };
    if let Some(failure) = &mut window.failure {
        failure.reason = format!("{}; {found}", failure.reason);
        failure.hint.get_or_insert(format!(
            "snapshots of this run carry the tag {}={}",
            crate::ec2::RUN_TAG,
            stage.run
        ));
    }
}

/// Tags every snapshot with the set's verdict and its own part. What fails is noted in the record.
pub(super) async fn label<E: Ec2>(stage: &Stage<'_, E>, record: &mut SetRecord) {
    if record.snapshots.is_empty() {
        return;
    }
    let ids: Vec<_> = record.snapshots.iter().map(|s| s.id.clone()).collect();
    let mut verdict = tags::verdict(record);
    verdict.extend(tags::applications(&record.applications, stage.settings));
    let mut result = patiently(|| stage.ec2.tag(&ids, &verdict)).await;
    for (id, own) in tags::parts(record) {
        if result.is_err() {
            break;
        }
        let id = [id];
        result = patiently(|| stage.ec2.tag(&id, &own)).await;
    }
    if let Err(e) = result {
        let hint = e.hint().map_or_else(String::new, |h| format!(" ({h})"));
        record.after.push(format!("{UNLABELLED}: {e}{hint}"));
    }
}

async fn patiently<F: Future<Output = Result<(), Ec2Error>>>(
    mut call: impl FnMut() -> F,
) -> Result<(), Ec2Error> {
    let mut last = Ok(());
    for pause in PAUSES {
        tokio::time::sleep(pause).await;
        last = call().await;
        if last.as_ref().map_or_else(Ec2Error::denied, |()| true) {
            break;
        }
    }
    last
}
