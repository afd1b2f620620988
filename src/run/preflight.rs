//! The checks that are made before anything is touched.
//!
//! In: the environment, the job, and the same request that will be sent later. Out: nothing, or a refusal
//! with a hint. Must never: change anything on the host or in EC2.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use jiff::SignedDuration;

use super::environment::Environment;
use super::failure::Failure;
use super::job::Job;
use super::planned::credentials_needed;
use super::step::Step;
use crate::config::settings::OnDegraded;
use crate::discover::{self, Facts, Filesystem};
use crate::doctor::{self, Set, Severity, cloud, refuse, storage};
use crate::ec2::tagging::{Tagging, tagging};
use crate::ec2::{CreateRequest, Describe, Ec2Error};
use crate::error::{Error, chain};
use crate::exit::Exit;
use crate::host::inspect::Helper;
use crate::host::mountinfo::{self, MountTree};
use crate::plan::{self, Method, Plan};

/// The checks on this host.
///
/// # Errors
/// When the run would fail. Nothing has been touched.
pub(super) fn host<E>(env: &Environment<'_, E>, job: &Job<'_>) -> Result<(), Error> {
    refuse(doctor::system::pid_namespace(env.root, job.settings.allow_pid_namespace))?;
    if let Some(what) = job.facts.unchecked.values().flatten().next() {
        return Err(Error::new(Exit::Permission, format!("it was not checked {what}")).hint("run as root"));
    }
    let set = Set::planned(job.facts, job.plan);
    refuse(doctor::hooks::runnable(&job.settings.hooks, env.program))?;
    refuse(doctor::hooks::writable(&job.settings.hooks))?;
    refuse(storage::run_dir(env.root, env.run_dir, &set))?;
    refuse(storage::own_folder("run_dir", env.run_dir))?;
    refuse(storage::own_folder("state_dir", env.state_dir))?;
    for finding in storage::records(env.state_dir).into_iter().filter(|f| f.severity >= Severity::Warning) {
        tracing::warn!("{}: {}", finding.what, finding.why.unwrap_or_default());
    }
    refuse(storage::names(job.plan))
}

/// The checks with EC2. Returns how long the DryRun took.
///
/// # Errors
/// When the run would fail. Nothing has been touched.
pub(super) async fn ec2<E: Describe>(
    env: &Environment<'_, E>,
    job: &Job<'_>,
    request: &CreateRequest,
) -> Result<Duration, Error> {
    refuse(cloud::tags_fit(request))?;
    env.at(Step::Permission);
    let ec2 = env.patient();
    let took = timed(&ec2, request).await.map_err(Error::from)?;
    may_tag(&ec2, job).await?;
    env.at(Step::Pending);
    pending(env, job).await?;
    Ok(took)
}

/// May the snapshots get their label? Without it, every set would count as `crash`, and every run end with 11.
///
/// What is not certain does not keep anybody from taking a set: a policy can allow it for stillpoint's own
/// snapshots alone, and before the first run there is none to ask about.
async fn may_tag<E: Describe>(ec2: &E, job: &Job<'_>) -> Result<(), Error> {
    let ids: Vec<_> = job.plan.volumes.iter().map(|v| v.id.clone()).collect();
    let said = tagging(ec2, &ids).await.map_err(Error::from)?;
    let finding = cloud::tagging(Ok(&said));
    let certain = matches!(said, Tagging::Denied { certain: true, .. });
    if certain && job.settings.on_degraded == OnDegraded::Fail {
        return refuse([finding]);
    }
    if finding.severity == Severity::Problem {
        let why = finding.why.unwrap_or_default();
        let remedy = finding.remedy.unwrap_or_default();
        tracing::warn!("{}: {why}; {remedy}", finding.what);
    }
    Ok(())
}

/// May all tags of the request be put on one resource?
///
/// # Errors
/// When they are too many.
pub(super) fn tags_fit(request: &CreateRequest) -> Result<(), Error> {
    refuse(cloud::tags_fit(request))
}

/// Has credentials that last for the window: in it nothing is fetched.
pub(super) async fn renew<E: Describe>(ec2: &E, job: &Job<'_>) -> Result<(), Failure> {
    ec2.renew(credentials_needed(job.settings.window)).await?;
    Ok(())
}

/// Warms the connections by a DryRun of the same request once more: hooks may have taken long. Returns how
/// long each DryRun took.
pub(super) async fn warm<E: Describe>(
    env: &Environment<'_, E>,
    job: &Job<'_>,
    request: &CreateRequest,
) -> Result<Vec<Duration>, Failure> {
    env.at(Step::Warm);
    let ec2 = env.patient_while_held();
    // Hooks may have taken hours; in the window nothing is fetched.
    ec2.renew(credentials_needed(job.settings.window)).await?;
    let mut took = Vec::new();
    for _ in 0..3 {
        // Two at once leave a spare connection, in case the server closes one.
        let (one, two) = tokio::join!(timed(&ec2, request), timed(&ec2, request));
        took.extend([one?, two?]);
        if ec2.warm_connections().is_none_or(|n| n > 0) {
            return Ok(took);
        }
    }
    // The window then has one TLS handshake in it, but no look-up: names and credentials are pinned.
    tracing::warn!("EC2 closes connections after each reply: the window will be longer by a TLS handshake");
    Ok(took)
}

async fn timed<E: Describe>(ec2: &E, request: &CreateRequest) -> Result<Duration, Ec2Error> {
    let sent = Instant::now();
    ec2.dry_run(request).await.map(|()| sent.elapsed())
}

/// Has what would be frozen changed since the plan was made? Hooks and automounters mount and unmount.
///
/// A filesystem that was mounted meanwhile on a volume of the set would be neither flushed nor frozen, and
/// the set could still be labelled `filesystem`.
pub(super) fn unchanged<E>(env: &Environment<'_, E>, job: &Job<'_>) -> Result<(), Failure> {
    let failed = |what: String| {
        Failure::new(Exit::Freeze, format!("the host changed since it was planned: {what}"))
            .hint("run again; hooks must not mount or unmount filesystems of the set")
    };
    env.at(Step::Unchanged);
    let inspect = Helper::new(env.program, Helper::HOLDING);
    let now = discover::host(env.root, &inspect, job.facts.answers.clone()).map_err(|e| failed(chain(&e)))?;
    let facts = Facts {
        filesystems: with_those_unmounted(job, now.filesystems),
        devices: now.devices,
        swap_files: now.swap_files,
        unread_mounts: now.unread_mounts,
        unchecked: now.unchecked,
        answers: now.answers,
        ..job.facts.clone()
    };
    let again = plan::plan(&facts, job.settings).map_err(|e| failed(chain(&e)))?;
    let shape = |p: &Plan| {
        let filesystems: Vec<_> = p
            .filesystems
            .iter()
            .map(|f| (f.mount_point.clone(), f.dev, f.method, f.wave, f.witnesses.clone()))
            .collect();
        (filesystems, p.witnesses.clone(), p.call.clone())
    };
    let (before, after) = (shape(job.plan), shape(&again));
    if before == after {
        return Ok(());
    }
    let differs = |a: &[(PathBuf, _, _, _, _)], b: &[(PathBuf, _, _, _, _)]| {
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

/// `now`, with the filesystems that this run itself has unmounted put in where they were.
fn with_those_unmounted(job: &Job<'_>, mut now: Vec<Filesystem>) -> Vec<Filesystem> {
    for planned in job.with_method(Method::Unmount) {
        let known = &job.facts.filesystems;
        if now.iter().any(|f| f.dev == planned.dev) {
            continue;
        }
        if let Some(at) = known.iter().position(|f| f.dev == planned.dev) {
            now.insert(at.min(now.len()), known[at].clone());
        }
    }
    now
}

/// The filesystem of the plan that this path is on.
pub(super) fn planned_at<'a, E>(
    env: &Environment<'_, E>,
    job: &Job<'a>,
    path: &Path,
) -> Result<Option<&'a plan::PlannedFilesystem>, Error> {
    let unreadable =
        |e: String| Error::new(Exit::Permission, format!("cannot read /proc/self/mountinfo: {e}"));
    let table = std::fs::read(env.root.join("proc/self/mountinfo")).map_err(|e| unreadable(e.to_string()))?;
    let lines = mountinfo::parse(&table).lines;
    let tree = MountTree::new(&lines);
    let path = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
    let Some(holder) = tree.mount_of(&path) else { return Ok(None) };
    Ok(job.plan.filesystems.iter().find(|f| f.dev == holder.dev))
}

/// Waits out EC2's 15 s between two snapshots of a volume; refuses when too many snapshots are pending.
async fn pending<E: Describe>(env: &Environment<'_, E>, job: &Job<'_>) -> Result<(), Error> {
    let ids: Vec<_> = job.plan.volumes.iter().map(|v| v.id.clone()).collect();
    let ec2 = env.patient();
    let pending = ec2.pending(&ids).await.map_err(Error::from)?;
    refuse(cloud::pending(job.plan, &pending))?;
    let now = env.clock.now();
    // EC2's clock and ours may differ, and completed snapshots count too.
    let minutes: Vec<String> = [-60, 0, 60]
        .iter()
        .filter_map(|s| now.checked_add(SignedDuration::from_secs(*s)).ok())
        .map(|t| t.strftime("%Y-%m-%dT%H:%M").to_string())
        .collect();
    let recent = ec2.started(&ids, &minutes).await.map_err(Error::from)?;
    let newest = recent.iter().filter_map(|s| s.started).max();
    let age = newest.and_then(|t| Duration::try_from(env.clock.now().duration_since(t)).ok());
    if let Some(left) = age.and_then(|age| env.volume_interval.checked_sub(age)) {
        tracing::info!(
            "a volume of this set had a snapshot a moment ago: waiting {} s, EC2's least interval",
            left.as_secs() + 1
        );
        env.clock.pause(left).await;
    }
    Ok(())
}
