//! What can be known to fail before anything is touched.
//!
//! In: the stage and the very request that will be sent. Out: nothing, or a refusal with a hint. Must never: change anything on
//! the host or in EC2.

use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::step::Step;
use super::{Failure, Stage, unmounted};
use crate::discover::{self, Facts};
use crate::doctor::{self, Set, cloud, refuse, storage};
use crate::ec2::{CreateRequest, Ec2, Ec2Error};
use crate::error::{Error, chain};
use crate::exit::Exit;
use crate::host::mountinfo::{self, MountTree};
use crate::plan::{self, Plan};

/// Checks everything that can be checked.
///
/// # Errors
/// When the run would fail. Nothing has been touched.
pub(super) async fn check<E: Ec2>(stage: &Stage<'_, E>, request: &CreateRequest) -> Result<(), Error> {
    stage.at(Step::Preflight);
    host(stage)?;
    refuse(cloud::tags_fit(request))?;
    stage.at(Step::Permission);
    stage.ec2.dry_run(request).await.map_err(Error::from)?;
    stage.at(Step::Pending);
    pending(stage).await
}

/// The part of it that needs no EC2.
pub(super) fn host<E>(stage: &Stage<'_, E>) -> Result<(), Error> {
    let set = Set::planned(stage.facts, stage.plan);
    refuse(doctor::hooks::runnable(&stage.settings.hooks))?;
    refuse(doctor::hooks::writable(&stage.settings.hooks))?;
    refuse(storage::run_dir(Path::new("/"), stage.run_dir, &set))?;
    refuse(storage::names(stage.plan))
}

/// Warms the connections with the same request, again: hooks may have taken long.
pub(super) async fn warm<E: Ec2>(stage: &Stage<'_, E>, request: &CreateRequest) -> Result<(), Failure> {
    stage.at(Step::Warm);
    let failed = |e: Ec2Error| Failure { hint: e.hint(), ..Failure::new(e.exit(), e.to_string()) };
    for _ in 0..3 {
        // Two at once leave a spare connection, in case the server closes one.
        let (one, two) = tokio::join!(stage.ec2.dry_run(request), stage.ec2.dry_run(request));
        one.map_err(failed)?;
        two.map_err(failed)?;
        if stage.ec2.warm_connections().is_none_or(|n| n > 0) {
            return Ok(());
        }
    }
    // It costs the window one TLS handshake, and no look-up: names and credentials are pinned.
    tracing::warn!("EC2 closes connections after each reply: the window will be longer by a handshake");
    Ok(())
}

/// Has what would be frozen changed since the plan was made? Hooks and automounters mount and unmount.
///
/// A filesystem mounted meanwhile on a volume of the set would be neither flushed nor frozen, and could still be called so.
pub(super) fn unchanged<E>(stage: &Stage<'_, E>) -> Result<(), Failure> {
    let failed = |what: String| Failure {
        hint: Some("run again; hooks must not mount or unmount filesystems of the set".to_owned()),
        ..Failure::new(Exit::Freeze, format!("the host changed since it was planned: {what}"))
    };
    stage.at(Step::Unchanged);
    let now = discover::host(Path::new("/")).map_err(|e| failed(chain(&e)))?;
    let facts = Facts {
        filesystems: unmounted::with_those_away(stage, now.filesystems),
        devices: now.devices,
        swap_files: now.swap_files,
        ..stage.facts.clone()
    };
    let again = plan::plan(&facts, stage.settings).map_err(|e| failed(chain(&e)))?;
    let shape = |p: &Plan| {
        let filesystems: Vec<_> =
            p.filesystems.iter().map(|f| (f.mount_point.clone(), f.dev, f.method, f.wave)).collect();
        (filesystems, p.witnesses.clone(), p.call.clone())
    };
    let (before, after) = (shape(stage.plan), shape(&again));
    if before == after {
        return Ok(());
    }
    let differs = |a: &[(PathBuf, _, _, _)], b: &[(PathBuf, _, _, _)]| {
        a.iter().filter(|f| !b.contains(f)).map(|f| f.0.display().to_string()).collect::<Vec<_>>().join(" ")
    };
    let (gone, new) = (differs(&before.0, &after.0), differs(&after.0, &before.0));
    Err(failed(match (gone.as_str(), new.as_str()) {
        ("", "") => "other devices are in use".to_owned(),
        ("", new) => format!("mounted meanwhile: {new}"),
        (gone, "") => format!("unmounted meanwhile: {gone}"),
        (gone, new) => format!("unmounted meanwhile: {gone}; mounted meanwhile: {new}"),
    }))
}

/// The filesystem of the plan that this path is on.
pub(super) fn planned_at<'a, E>(
    stage: &Stage<'a, E>,
    path: &Path,
) -> Result<Option<&'a plan::PlannedFilesystem>, Error> {
    let unreadable =
        |e: String| Error::new(Exit::Permission, format!("cannot read /proc/self/mountinfo: {e}"));
    let table = std::fs::read("/proc/self/mountinfo").map_err(|e| unreadable(e.to_string()))?;
    let lines = mountinfo::parse(&table).map_err(|e| unreadable(e.to_string()))?;
    let tree = MountTree::new(&lines);
    let path = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
    let Some(holder) = tree.mount_of(&path) else { return Ok(None) };
    Ok(stage.plan.filesystems.iter().find(|f| f.dev == holder.dev))
}

/// The 15 s rule is waited out; too many pending snapshots are a refusal.
async fn pending<E: Ec2>(stage: &Stage<'_, E>) -> Result<(), Error> {
    let ids: Vec<_> = stage.plan.volumes.iter().map(|v| v.id.clone()).collect();
    let pending = stage.ec2.pending(&ids).await.map_err(Error::from)?;
    refuse(cloud::pending(stage.plan, &pending))?;
    let now = Timestamp::now();
    // EC2's clock and ours may differ, and completed snapshots count too.
    let minutes: Vec<String> = [-60, 0, 60]
        .iter()
        .filter_map(|s| now.checked_add(SignedDuration::from_secs(*s)).ok())
        .map(|t| t.strftime("%Y-%m-%dT%H:%M").to_string())
        .collect();
    let recent = stage.ec2.started(&ids, &minutes).await.map_err(Error::from)?;
    let newest = recent.iter().filter_map(|s| s.started).max();
    let age = newest.and_then(|t| Duration::try_from(Timestamp::now().duration_since(t)).ok());
    if let Some(left) = age.and_then(|age| stage.volume_interval.checked_sub(age)) {
        tracing::info!(
            "a volume of this set had a snapshot a moment ago: waiting {} s, EC2's least interval",
            left.as_secs() + 1
        );
        tokio::time::sleep(left).await;
    }
    Ok(())
}
