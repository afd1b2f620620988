//! The goal of `clone`: EBS volume clones of a consistent set.
//!
//! ```text
//! before      permission by DryRun; is any of them being copied; are there so many copies left in the Region?
//! frozen      CopyVolumes for every volume, all at once, one attempt each
//! thawed      a lost answer is looked for by the run's tag, and never sent again
//! settle      incomplete: deleted, unless less may be kept; else labelled, and waited for until it can be attached
//! ```
//!
//! CopyVolumes takes one volume. Several are one instant only where nothing was written from before the first request
//! until after the last answer, which is what the labels `filesystem` and `application` prove.
//!
//! In: the requests, complete before anything is touched. Out: an [`Outcome`] with the [`CloneRecord`]. Must never:
//! send a CopyVolumes twice, or delete what EC2 does not call a copy of one of the set's volumes.

pub(crate) mod asked;

use std::time::Duration;

use nix::sys::signal::Signal;

use self::asked::{Asked, request};
use super::applications::{self, Applications};
use super::environment::Environment;
use super::failure::Failure;
use super::goal::Goal;
use super::job::Job;
use super::journal::{Created, State};
use super::progress::Progress;
use super::step::Step;
use super::take;
use super::verdict::{Verdict, evidence, judge};
use super::{create_request, preflight, release, settle};
use crate::clock::Clock;
use crate::config::settings::OnDegraded;
use crate::ec2::clones::{CloneFailed, CloneRequest, CloneView, Clones};
use crate::ec2::repeat::Repeating;
use crate::ec2::{CreateRequest, Ec2Error, RUN_TAG, reconcile, tag_of};
use crate::error::Error;
use crate::exit::Exit;
use crate::ids::{InstanceId, RunId, VolumeId};
use crate::interrupt::Interrupt;
use crate::plan::{Consistency, PlannedVolume};
use crate::quiesce::RunResult;
use crate::sets::clones::{CloneRecord, ClonedVolume};
use crate::sets::tags;
use crate::window::{Called, Prepared, Times};

/// For how long EC2 is given until a clone can be attached, or deleted. It takes seconds (EBS guide, "copy a volume").
const CREATING: Duration = Duration::from_secs(120);
const LOOK: Duration = Duration::from_millis(500);

/// How a run that clones ended.
#[derive(Debug)]
pub struct Outcome {
    /// The record of the clones.
    pub record: CloneRecord,
    /// What the user can do about a failure; none when nothing failed, or nothing is known to help.
    pub hint: Option<String>,
    /// Why the watchdog fired; none when it did not.
    pub fired: Option<String>,
    /// The signal that interrupted the run.
    pub signal: Option<Signal>,
}

/// Clones the volumes of a plan. `most`: how many copies EC2 has in progress in a Region at most.
///
/// # Errors
/// When the run is refused before anything is touched.
pub async fn clone<E: Clones>(
    env: &Environment<'_, E>,
    job: &Job<'_>,
    asked: &Asked,
    most: usize,
    interrupt: &mut Interrupt,
) -> Result<Outcome, Error> {
    let base = create_request(&job.run, job.facts, job.plan, job.settings, job.requested, env.clock.now());
    let request = request(job, &base, asked)?;
    let mut cloning = Cloning { most, request, base, made: Vec::new(), lost: false };
    super::run(env, job, &mut cloning, interrupt).await
}

/// Refuses what EC2 would refuse once everything is frozen.
///
/// # Errors
/// When one of these volumes is being copied or is an unfinished copy, or when there would be too many copies in
/// progress.
pub(crate) async fn room<E: Clones>(ec2: &E, volumes: &[PlannedVolume], most: usize) -> Result<(), Error> {
    let refused = |what: String, hint: &str| Err(Error::new(Exit::Ec2, what).hint(hint.to_owned()));
    let wait = "wait until it is initialised: aws ec2 describe-volume-status";
    let under_way = ec2.copies_in_progress().await.map_err(Error::from)?;
    if let Some(volume) = volumes.iter().find(|v| under_way.contains(&v.id)) {
        return refused(format!("{} is itself a copy that EC2 still initialises", volume.id), wait);
    }
    for copy in ec2.clones(&under_way).await.map_err(Error::from)? {
        if volumes.iter().any(|v| v.id == copy.source) {
            let what = format!("{} is being copied: EC2 still initialises {}", copy.source, copy.id);
            return refused(what, wait);
        }
    }
    let (n, busy) = (volumes.len(), under_way.len());
    if busy + n > most {
        let what = format!(
            "EC2 has at most {most} copies of volumes in progress in a Region; {busy} are, and this plan makes {n}"
        );
        return refused(
            what,
            "choose fewer volumes, or have the quota raised (Service Quotas) and say --most-copies N",
        );
    }
    Ok(())
}

struct Cloning {
    most: usize,
    request: CloneRequest,
    /// What a set of snapshots would be asked for: its tags are those of the clones.
    base: CreateRequest,
    made: Vec<CloneView>,
    /// Was an answer lost? EC2 may have carried out the request, so it has to be asked.
    lost: bool,
}

impl<E: Clones> Goal<E> for Cloning {
    type Answer = Result<Vec<CloneView>, CloneFailed>;
    type Outcome = Outcome;

    async fn preflight(&mut self, env: &Environment<'_, E>, job: &Job<'_>) -> Result<(), Error> {
        preflight::tags_fit(&self.base)?;
        env.at(Step::Permission);
        env.patient().may_clone(&self.request).await.map_err(Error::from)?;
        env.at(Step::Pending);
        room(&env.patient(), &job.plan.volumes, self.most).await
    }

    fn note_start(&self, state: &mut State) {
        state.cloning = true;
    }

    async fn before_freeze(
        &mut self,
        env: &Environment<'_, E>,
        job: &Job<'_>,
        _: &Applications,
    ) -> Result<(), Failure> {
        env.at(Step::Warm);
        let ec2 = env.patient_while_held();
        preflight::renew(&ec2, job).await?;
        // Twice at once leaves spare connections, in case the server closes some.
        let (one, two) = tokio::join!(ec2.may_clone(&self.request), ec2.may_clone(&self.request));
        one.and(two)?;
        Ok(())
    }

    /// Nothing is written while frozen, so the journal says before the freeze that requests may have been sent.
    fn note_freeze(&mut self, _: &Environment<'_, E>, _: &Prepared, state: &mut State) {
        state.created = Created::Maybe;
        state.shares.volumes = self.request.volumes.iter().map(|v| v.volume.clone()).collect();
    }

    async fn point_in_time(&mut self, env: &Environment<'_, E>, _: Times) -> Self::Answer {
        env.at(Step::Request);
        env.ec2.clone_volumes(&self.request).await
    }

    fn answered(
        &mut self,
        job: &Job<'_>,
        called: Called<Self::Answer>,
        state: &mut State,
    ) -> Option<Failure> {
        let failure = self.read(job, called);
        if self.made.is_empty() && !self.lost {
            state.created = Created::No;
        }
        failure
    }

    async fn thawed(&mut self, env: &Environment<'_, E>, job: &Job<'_>, progress: &mut Progress) {
        if self.lost {
            // The look-up takes seconds: applications are released before it, with the result `unknown`.
            release::all(env, progress).await;
            env.at(Step::LookUp);
            let ec2 = env.patient().until(&progress.interrupt);
            let known =
                Known { run: &job.run, instance: &self.request.instance, volumes: &sources(&self.request) };
            let found = look_up(&ec2, &known, &reconcile::LOOKS, env.clock).await;
            let told = match found {
                Ok(found) => {
                    for clone in found {
                        if !self.made.iter().any(|c| c.id == clone.id) {
                            self.made.push(clone);
                        }
                    }
                    match self.made.len() {
                        0 => "no clone of this run is to be seen".to_owned(),
                        n => format!("{n} clones of this run exist all the same"),
                    }
                }
                Err(e) => format!("it is not known whether clones were made ({e})"),
            };
            if let Some(failure) = &mut progress.window.failure {
                failure.reason = format!("{}; {told}", failure.reason);
                let run = &job.run;
                failure.hint.get_or_insert(format!("clones of this run carry the tag {RUN_TAG}={run}"));
            }
        }
        let told = &mut progress.applications.env;
        told.result = if self.made.is_empty() { RunResult::Failed } else { RunResult::Taken };
        env.at(Step::Made);
    }

    async fn settle(&mut self, env: &Environment<'_, E>, job: &Job<'_>, progress: &mut Progress) -> Outcome {
        env.at(Step::Judged);
        let evidence =
            evidence(job, &progress.window, &progress.applications.outcomes, progress.journal.is_taken());
        let judged = judge(job.plan, &self.made, &evidence);
        let clones: Vec<ClonedVolume> = judged
            .parts
            .iter()
            .map(|part| (part, self.request.volumes.iter().find(|v| v.volume == part.member.source)))
            .map(|(part, asked)| ClonedVolume {
                id: part.member.id.clone(),
                volume_id: part.member.source.clone(),
                device_name: part.planned.map(|v| v.device_name.clone()),
                mount_points: part.planned.map(|v| v.mount_points.clone()).unwrap_or_default(),
                state: part.member.state.clone(),
                size_gib: asked.and_then(|a| a.size_gib).or(part.planned.map(|v| v.size_gib)),
                volume_type: asked.map(|a| a.volume_type.clone()),
                iops: asked.and_then(|a| a.iops),
                throughput: asked.and_then(|a| a.throughput),
                achieved: part.achieved,
            })
            .collect();
        let verdict = Verdict {
            achieved: judged.achieved,
            reason: judged.reason,
            snapshots: Vec::new(),
            missing: judged.missing,
            doubtful: judged.doubtful,
        };
        progress.applications.env.consistency = (!clones.is_empty()).then_some(verdict.achieved);
        let failure = progress.window.failure.take();
        let failed = match &failure {
            Some(failure) => Some(failure.exit),
            None => (!verdict.missing.is_empty()).then_some(Exit::Ec2),
        };
        let incomplete = !verdict.missing.is_empty() || self.lost;
        let (mut hint, signal, reason) =
            failure.map_or((None, None, None), |f| (f.hint, f.signal, Some(f.reason)));
        let fired = progress.window.thawed.as_ref().and_then(|t| t.fired).map(|why| why.to_string());
        let mut set = take::describe(job, reason, verdict, !clones.is_empty(), progress);
        take::mention(&mut set, &mut hint, std::mem::take(&mut progress.remounted));
        let mut record = CloneRecord::new(set, clones);
        let ec2 = env.patient();
        // Of a set that was asked for as a whole, a part is of no use, and costs as much.
        if incomplete && job.settings.on_degraded == OnDegraded::Fail && !record.clones.is_empty() {
            discard(&ec2, &mut record, env.clock).await;
        } else if !record.clones.is_empty() {
            env.at(Step::Label);
            label(&ec2, &mut record).await;
            created(&ec2, &mut record, env.clock, &progress.interrupt).await;
        }
        let known = !self.lost || record.clones.len() >= job.plan.volumes.len();
        if known && !record.clones.iter().any(|c| c.state == ClonedVolume::NOT_DELETED) {
            // EC2 is asked no more about this run.
            let _ = progress.journal.update(|state| state.created = Created::No);
        }
        progress.applications.env.reason.clone_from(&record.set.reason);
        let finished = applications::finish(job, &progress.applications).await;
        record.set.after.extend(applications::after(&finished));
        record.set.hooks.extend(finished);
        record.set.exit = take::exit(job, &record.set, failed);
        env.at(Step::Record);
        if let Some(trouble) = settle::keep_clones(env.state_dir, &record) {
            record.set.after.push(trouble);
            record.set.exit = take::exit(job, &record.set, failed);
        }
        Outcome { record, hint, fired, signal }
    }
}

impl Cloning {
    /// Reads the answers into `made` and `lost`. Returns why the run fails, if it does.
    fn read(
        &mut self,
        job: &Job<'_>,
        called: Called<Result<Vec<CloneView>, CloneFailed>>,
    ) -> Option<Failure> {
        let failure = match take::answer(job, called) {
            Ok(Ok(made)) => {
                self.made = made;
                return None;
            }
            Ok(Err(CloneFailed { error, outcome_unknown, made })) => {
                self.made = made;
                self.lost = outcome_unknown;
                return Some(error.into());
            }
            Err(failure) => failure,
        };
        self.lost = true;
        Some(failure)
    }
}

fn sources(request: &CloneRequest) -> Vec<VolumeId> {
    request.volumes.iter().map(|v| v.volume.clone()).collect()
}

/// What proves that a clone is of a run.
pub(super) struct Known<'a> {
    pub run: &'a RunId,
    pub instance: &'a InstanceId,
    /// The volumes of its plan.
    pub volumes: &'a [VolumeId],
}

/// The clones that this run made, by its tag. Anybody can copy a tag: EC2 has to call it a copy of one of the run's
/// volumes, and the instance has to be the same. EC2 is eventually consistent, so it is asked more than once.
pub(super) async fn look_up<E: Clones>(
    ec2: &E,
    known: &Known<'_>,
    pauses: &[Duration],
    clock: &dyn Clock,
) -> Result<Vec<CloneView>, Ec2Error> {
    let mut best: Vec<CloneView> = Vec::new();
    for pause in pauses {
        clock.pause(*pause).await;
        let mut found = ec2.clones_of(known.run).await?;
        found.retain(|clone| {
            let tag = |key: &str| tag_of(&clone.tags, key);
            known.volumes.contains(&clone.source)
                && tag(tags::INSTANCE_TAG) == Some(known.instance.as_str())
                && !matches!(clone.state.as_str(), "deleting" | "deleted")
        });
        if found.len() > best.len() {
            best = found;
        }
        if best.len() >= known.volumes.len() {
            break;
        }
    }
    Ok(best)
}

/// Puts the verdict on the clones.
async fn label<E: Clones>(ec2: &Repeating<'_, E>, record: &mut CloneRecord) {
    let ids: Vec<VolumeId> = record.clones.iter().map(|c| c.id.clone()).collect();
    let mut set = tags::verdict(&record.set);
    let instant = if record.one_instant { "one" } else { "each" };
    set.push(("stillpoint:instant".to_owned(), instant.to_owned()));
    let mut done = ec2.label_clones(&ids, &set).await;
    for label in [Consistency::Crash, Consistency::Filesystem, Consistency::Application] {
        let of: Vec<_> = record.clones.iter().filter(|c| c.achieved == label).map(|c| c.id.clone()).collect();
        if done.is_ok() && !of.is_empty() {
            let tag = ("stillpoint:part".to_owned(), label.to_string());
            done = ec2.label_clones(&of, &[tag]).await;
        }
    }
    if let Err(e) = done {
        record.set.after.push(format!("cannot tag the clones with their verdict: {}", e.with_hint()));
    }
}

/// Waits until every clone can be attached.
async fn created<E: Clones>(
    ec2: &Repeating<'_, E>,
    record: &mut CloneRecord,
    clock: &dyn Clock,
    interrupt: &Interrupt,
) {
    let ids: Vec<VolumeId> = record.clones.iter().map(|c| c.id.clone()).collect();
    let end = clock.elapsed().saturating_add(CREATING);
    loop {
        match ec2.clones(&ids).await {
            Ok(found) => {
                for clone in &mut record.clones {
                    if let Some(seen) = found.iter().find(|c| c.id == clone.id) {
                        clone.state.clone_from(&seen.state);
                    }
                }
            }
            Err(e) => {
                let what = format!("cannot see whether the clones can be attached: {}", e.with_hint());
                record.set.after.push(what);
                return;
            }
        }
        let creating = record.clones.iter().any(|c| c.state == "creating");
        if !creating || clock.elapsed() >= end || interrupt.pending().is_some() {
            break;
        }
        clock.pause(LOOK).await;
    }
    for clone in &record.clones {
        if !matches!(clone.state.as_str(), "available" | "in-use") {
            record.set.after.push(format!("{} is in the state {}", clone.id, clone.state));
        }
    }
}

/// Deletes what an incomplete run has made: EC2 deletes a volume only once it is created.
async fn discard<E: Clones>(ec2: &Repeating<'_, E>, record: &mut CloneRecord, clock: &dyn Clock) {
    let end = clock.elapsed().saturating_add(CREATING);
    for clone in &mut record.clones {
        let outcome = loop {
            match ec2.delete_clone(&clone.id).await {
                Err(Ec2Error::Refused { code, .. }) if code == "IncorrectState" && clock.elapsed() < end => {
                    clock.pause(LOOK).await;
                }
                outcome => break outcome,
            }
        };
        match outcome {
            Ok(()) => "deleted".clone_into(&mut clone.state),
            Err(e) => {
                record.set.after.push(format!("cannot delete {}: {}", clone.id, e.with_hint()));
                ClonedVolume::NOT_DELETED.clone_into(&mut clone.state);
            }
        }
    }
}

/// Finds the clones of a run that died, and labels them `crash`: nobody has judged them.
///
/// # Errors
/// When EC2 cannot be asked, or does not do it.
pub(crate) async fn settle_dead<E: Clones>(
    ec2: &E,
    instance: &InstanceId,
    clock: &dyn Clock,
    run: &RunId,
    volumes: &[VolumeId],
) -> Result<Vec<VolumeId>, Ec2Error> {
    let known = Known { run, instance, volumes };
    let found = look_up(ec2, &known, &reconcile::LOOKS[..2], clock).await?;
    let ids: Vec<VolumeId> = found.into_iter().map(|c| c.id).collect();
    if !ids.is_empty() {
        let tags = [
            ("stillpoint:consistency".to_owned(), "crash".to_owned()),
            ("stillpoint:reason".to_owned(), "the run died before its verdict".to_owned()),
            ("stillpoint:instant".to_owned(), if volumes.len() == 1 { "one" } else { "each" }.to_owned()),
        ];
        ec2.label_clones(&ids, &tags).await?;
    }
    Ok(ids)
}
