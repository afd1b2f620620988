//! The verdict: the label of a run, why it is not higher, and the exit code that follows. The same rules for
//! every goal.
//!
//! ```text
//! doubt ───────────────→ crash         it is not proven that the freeze held on every device of the set
//! applications ────────→ filesystem    no evidence for the applications, or one was not quiesced throughout
//! neither ─────────────→ application   but never more than the plan can reach
//! ```
//!
//! In: the plan, EC2's answer, the evidence of the window and of the applications. Out: a label, a
//! [`Verdict`] of a set, an [`Exit`]. Pure. Must never: give a higher label than the evidence allows.

use super::applications;
use super::job::Job;
use super::progress::Window;
use crate::config::settings::OnDegraded;
use crate::ec2::SnapshotView;
use crate::ec2::clones::CloneView;
use crate::exit::Exit;
use crate::ids::VolumeId;
use crate::plan::{Consistency, Plan, PlannedVolume};
use crate::quiesce::HookOutcome;
use crate::sets::record::SnapshotRecord;

/// The labels of a set and of each snapshot in it, with the reasons.
#[derive(Debug, Clone)]
pub struct Verdict {
    /// The lowest of its parts.
    pub achieved: Consistency,
    /// Why it is lower than the plan could have reached; none when it is not.
    pub reason: Option<String>,
    /// The snapshots in the plan's order, then those of volumes that were not planned.
    pub snapshots: Vec<SnapshotRecord>,
    /// Volumes of the plan of which there is no good snapshot: the set cannot be restored as a whole.
    pub missing: Vec<VolumeId>,
    /// It is not proven that the freeze held, or the set is incomplete: every part of it is only `crash`.
    pub(crate) doubtful: bool,
}

const TAKEN: &str = "another process removed or replaced the journal of this run, and may have released its \
                     applications before the point in time";

/// What is known about the window and about the applications.
#[derive(Debug, Clone, Default)]
pub struct Evidence {
    /// Why it is not proven that the freeze held over the point in time; none when it is.
    pub doubt: Option<String>,
    /// Why there is no evidence for the applications; none when there is.
    pub(crate) applications: Option<String>,
}

impl Evidence {
    /// The highest label that this evidence allows. The plan may limit it further.
    #[must_use]
    pub fn label(&self) -> Consistency {
        match (&self.doubt, &self.applications) {
            (Some(_), _) => Consistency::Crash,
            (None, Some(_)) => Consistency::Filesystem,
            (None, None) => Consistency::Application,
        }
    }

    /// Why the label is not higher.
    #[must_use]
    pub fn reason(&self) -> Option<&String> {
        self.doubt.as_ref().or(self.applications.as_ref())
    }
}

/// The evidence of a run. `taken`: another process has its journal.
pub(super) fn evidence(job: &Job<'_>, window: &Window, outcomes: &[HookOutcome], taken: bool) -> Evidence {
    let doubt = match (&window.failure, &window.thawed) {
        (Some(failure), _) => Some(failure.reason.clone()),
        _ if taken => Some(TAKEN.to_owned()),
        (None, Some(thawed)) => thawed.doubt(),
        (None, None) => Some("there was no window".to_owned()),
    };
    Evidence { doubt, applications: applications::doubt(job.settings, outcomes) }
}

/// What decides the exit code of a run.
#[derive(Debug, Clone, Default)]
pub(super) struct Ending {
    /// A filesystem may still be frozen.
    pub still_frozen: bool,
    /// A filesystem could not be mounted again.
    pub(crate) not_mounted: bool,
    /// What failed up to the verdict.
    pub(crate) failure: Option<Exit>,
    /// The consistency that was achieved; none when nothing was.
    pub achieved: Option<Consistency>,
    /// The group's point in time was asked for, and the set has only that of this host.
    pub(crate) apart: bool,
    /// Something failed after the point in time.
    pub(crate) trouble_after: bool,
}

/// The exit code: the worst that applies.
pub(super) fn exit(job: &Job<'_>, ending: &Ending) -> Exit {
    ladder(job.requested, job.settings.on_degraded, job.plan.is_incomplete(), ending)
}

/// `incomplete`: something that should be mounted is not, so the set lacks what was asked for.
fn ladder(requested: Consistency, on_degraded: OnDegraded, incomplete: bool, ending: &Ending) -> Exit {
    let lower = ending.achieved.is_some_and(|a| a < requested || incomplete || ending.apart);
    let degraded = match on_degraded {
        OnDegraded::Fail => Exit::NotHeld,
        OnDegraded::Keep if ending.trouble_after => Exit::After,
        OnDegraded::Keep => Exit::Lower,
    };
    match ending.failure {
        _ if ending.still_frozen => Exit::StillFrozen,
        _ if ending.not_mounted => Exit::NotMounted,
        // There is a set all the same, and it is only less than requested.
        Some(Exit::NotHeld) if lower => degraded,
        Some(failed) => failed,
        None if lower => degraded,
        None if ending.trouble_after => Exit::After,
        None => Exit::Ok,
    }
}

/// A snapshot or a clone of a volume.
pub(super) trait Member {
    /// What it is called.
    const NAME: &'static str;
    /// The volume that it is of.
    fn volume(&self) -> &VolumeId;
    /// It exists and is of no use.
    fn failed(&self) -> bool;
}

impl Member for SnapshotView {
    const NAME: &'static str = "snapshot";

    fn volume(&self) -> &VolumeId {
        &self.volume
    }

    fn failed(&self) -> bool {
        self.state == "error"
    }
}

impl Member for CloneView {
    const NAME: &'static str = "clone";

    fn volume(&self) -> &VolumeId {
        &self.source
    }

    fn failed(&self) -> bool {
        self.state == "error"
    }
}

/// The labels of what was made.
#[derive(Debug)]
pub(super) struct Judged<'a, M> {
    /// The lowest of its parts.
    pub achieved: Consistency,
    /// As [`Verdict::reason`].
    pub reason: Option<String>,
    /// In the plan's order, then those of volumes that were not planned.
    pub parts: Vec<Part<'a, M>>,
    /// As [`Verdict::missing`].
    pub missing: Vec<VolumeId>,
    /// As [`Verdict::doubtful`].
    pub doubtful: bool,
}

/// One of them.
#[derive(Debug)]
pub(super) struct Part<'a, M> {
    pub member: &'a M,
    /// Its volume, where that was planned.
    pub planned: Option<&'a PlannedVolume>,
    pub achieved: Consistency,
}

/// Judges a set of snapshots.
#[must_use]
pub fn verdict(plan: &Plan, made: &[SnapshotView], evidence: &Evidence) -> Verdict {
    let judged = judge(plan, made, evidence);
    let record = |part: &Part<'_, SnapshotView>| SnapshotRecord {
        id: part.member.id.clone(),
        volume_id: part.member.volume.clone(),
        device_name: part.planned.map(|volume| volume.device_name.clone()),
        mount_points: part.planned.map(|volume| volume.mount_points.clone()).unwrap_or_default(),
        state: part.member.state.to_string(),
        achieved: part.achieved,
    };
    Verdict {
        snapshots: judged.parts.iter().map(record).collect(),
        achieved: judged.achieved,
        reason: judged.reason,
        missing: judged.missing,
        doubtful: judged.doubtful,
    }
}

/// Judges what was made of each volume of a plan.
pub(super) fn judge<'a, M: Member>(plan: &'a Plan, made: &'a [M], evidence: &Evidence) -> Judged<'a, M> {
    let base = evidence.label();
    let mut reason = evidence.reason().cloned();
    let mut lower = None; // why a part is only `crash`: a better reason than a missing hook
    let mut parts = Vec::new();
    let mut missing = Vec::new();
    for volume in &plan.volumes {
        let part = base.min(volume.best).min(plan.best.max(Consistency::Filesystem));
        let Some(member) = made.iter().find(|m| *m.volume() == volume.id) else {
            missing.push(volume.id.clone());
            continue;
        };
        // One in state `error` exists, so it has to be reported, but it is of no use.
        if member.failed() {
            missing.push(volume.id.clone());
        } else if volume.best == Consistency::Crash {
            let why = volume.limited_by.as_ref().unwrap_or(&volume.reason);
            lower.get_or_insert(format!("{} cannot be made quiet: {why}", volume.id));
        }
        let achieved = if member.failed() { Consistency::Crash } else { part };
        parts.push(Part { member, planned: Some(volume), achieved });
    }
    for extra in made.iter().filter(|m| !plan.volumes.iter().any(|v| v.id == *m.volume())) {
        lower.get_or_insert(format!(
            "{} is in the set but not in the plan: attached meanwhile",
            extra.volume()
        ));
        parts.push(Part { member: extra, planned: None, achieved: Consistency::Crash });
    }
    if base > Consistency::Crash {
        reason = lower.or(reason);
    }
    let mut achieved =
        parts.iter().map(|part| part.achieved).min().unwrap_or(Consistency::Crash).min(plan.best);
    if !missing.is_empty() {
        achieved = Consistency::Crash;
        let names: Vec<_> = missing.iter().map(VolumeId::as_str).collect();
        reason = Some(format!("incomplete: EC2 made no good {} of {}", M::NAME, names.join(", ")));
    }
    let doubtful = evidence.doubt.is_some() || !missing.is_empty();
    Judged { achieved, reason, parts, missing, doubtful }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Expediting, PointInTimeCall};

    fn id(digit: char) -> VolumeId {
        format!("vol-{}", digit.to_string().repeat(17)).parse().unwrap()
    }

    fn plan(bests: &[Consistency]) -> Plan {
        let volume = |(i, best): (usize, &Consistency)| PlannedVolume {
            id: id(char::from(b'a' + u8::try_from(i).unwrap())),
            device_name: format!("/dev/sd{i}"),
            disk: None,
            boot: false,
            size_gib: 1,
            volume_type: "gp3".into(),
            iops: None,
            throughput: None,
            encrypted: false,
            mount_points: vec![],
            best: *best,
            reason: "chosen".into(),
            limited_by: (*best == Consistency::Crash).then(|| "no mounted filesystem".into()),
        };
        Plan {
            name: "test".into(),
            filesystems: vec![],
            volumes: bests.iter().enumerate().map(volume).collect(),
            witnesses: vec![],
            beneath: vec![],
            left_out: vec![],
            missing: vec![],
            call: PointInTimeCall::CreateSnapshots {
                exclude_boot_volume: false,
                exclude_data_volumes: vec![],
            },
            expedite: Expediting::default(),
            notes: vec![],
            best: bests.iter().min().copied().unwrap(),
        }
    }

    fn made(volumes: &str, state: &str) -> Vec<SnapshotView> {
        let view = |c: char| SnapshotView {
            id: format!("snap-{}", c.to_string().repeat(17)).parse().unwrap(),
            volume: id(c),
            state: state.to_owned().into(),
            started: None,
            progress: None,
        };
        volumes.chars().map(view).collect()
    }

    const APP: Consistency = Consistency::Application;

    #[test]
    fn with_all_evidence_it_is_what_the_plan_can_reach() {
        let verdict = verdict(&plan(&[APP, APP]), &made("ab", "pending"), &Evidence::default());
        assert_eq!((verdict.achieved, verdict.reason), (APP, None));
    }

    #[test]
    fn failed_hooks_lower_to_filesystem_and_doubt_to_crash() {
        let evidence = |doubt: Option<&str>, hooks: Option<&str>| Evidence {
            doubt: doubt.map(Into::into),
            applications: hooks.map(Into::into),
        };
        let judge = |e: &Evidence| {
            let v = verdict(&plan(&[APP]), &made("a", "pending"), e);
            (v.achieved, v.snapshots[0].achieved, v.reason.unwrap())
        };
        let fs = Consistency::Filesystem;
        assert_eq!(judge(&evidence(None, Some("hook"))), (fs, fs, "hook".into()));
        let crash = Consistency::Crash;
        assert_eq!(judge(&evidence(Some("thawed"), None)), (crash, crash, "thawed".into()));
        assert_eq!(judge(&evidence(Some("thawed"), Some("hook"))), (crash, crash, "thawed".into()));
    }

    #[test]
    fn a_set_is_as_good_as_its_worst_part() {
        let verdict =
            verdict(&plan(&[APP, Consistency::Crash]), &made("ab", "pending"), &Evidence::default());
        assert_eq!(verdict.achieved, Consistency::Crash);
        assert!(verdict.snapshots[0].achieved > Consistency::Crash, "each part keeps its own");
        assert!(verdict.reason.unwrap().contains("no mounted filesystem"));
    }

    #[test]
    fn missing_failed_and_extra_volumes_are_never_consistent() {
        let set = plan(&[APP, APP]);
        let missing = verdict(&set, &made("a", "pending"), &Evidence::default());
        let told = |names: &str| Some(format!("incomplete: EC2 made no good snapshot of {names}"));
        assert_eq!((missing.achieved, missing.missing), (Consistency::Crash, vec![id('b')]));
        assert_eq!(missing.reason, told(id('b').as_str()));
        let failed = verdict(&set, &made("ab", "error"), &Evidence::default());
        assert_eq!(failed.achieved, Consistency::Crash);
        assert_eq!(failed.snapshots.len(), 2, "they exist, so they are reported");
        assert_eq!((failed.missing, failed.doubtful), (vec![id('a'), id('b')], true));
        assert_eq!(failed.reason, told(&format!("{}, {}", id('a'), id('b'))));
        let extra = verdict(&set, &made("abc", "pending"), &Evidence::default());
        assert_eq!(extra.achieved, Consistency::Crash);
        assert!(extra.reason.unwrap().contains("not in the plan"));
    }

    #[test]
    fn only_a_doubt_or_a_missing_part_makes_the_whole_set_doubtful() {
        let judge = |bests: &[Consistency], made_of: &str, doubt: Option<&str>| {
            let evidence = Evidence { doubt: doubt.map(Into::into), applications: Some("hook".into()) };
            let verdict = verdict(&plan(bests), &made(made_of, "pending"), &evidence);
            (verdict.doubtful, verdict.reason.unwrap())
        };
        let raw = [APP, Consistency::Crash];
        assert!(!judge(&[APP], "a", None).0);
        assert!(!judge(&raw, "ab", None).0, "a part that nobody promised to be more");
        assert_eq!(judge(&[APP], "a", Some("thawed")), (true, "thawed".into()));
        assert!(judge(&[APP, APP], "a", None).0);
        // The doubt is about every part: it says more than that one of them could not be better anyway.
        assert_eq!(judge(&raw, "ab", Some("thawed")), (true, "thawed".into()));
    }

    #[test]
    fn the_exit_code_is_that_of_the_worst_that_happened() {
        use Consistency::{Application, Crash, Filesystem};
        let exit = |ending: Ending| {
            [OnDegraded::Fail, OnDegraded::Keep].map(|policy| ladder(Filesystem, policy, false, &ending))
        };
        let good = Ending { achieved: Some(Application), ..Ending::default() };
        assert_eq!(exit(good.clone()), [Exit::Ok; 2]);
        assert_eq!(exit(Ending { achieved: Some(Filesystem), ..good.clone() }), [Exit::Ok; 2]);
        // What should be mounted and is not counts as less, whatever the label of the rest.
        let incomplete = |policy, ending: &Ending| ladder(Filesystem, policy, true, ending);
        assert_eq!(incomplete(OnDegraded::Fail, &good), Exit::NotHeld);
        assert_eq!(incomplete(OnDegraded::Keep, &good), Exit::Lower);
        let nothing = Ending { failure: Some(Exit::Ec2), ..Ending::default() };
        assert_eq!(incomplete(OnDegraded::Keep, &nothing), Exit::Ec2);
        let lower = Ending { achieved: Some(Crash), ..good.clone() };
        assert_eq!(exit(lower.clone()), [Exit::NotHeld, Exit::Lower]);
        let after = Ending { trouble_after: true, ..good };
        assert_eq!(exit(after.clone()), [Exit::After; 2]);
        let lost = Some(Exit::NotHeld);
        assert_eq!(exit(Ending { failure: lost, ..lower.clone() }), [Exit::NotHeld, Exit::Lower]);
        assert_eq!(
            exit(Ending { failure: lost, achieved: None, ..lower.clone() }),
            [Exit::NotHeld; 2],
            "no set"
        );
        let both = Ending { trouble_after: true, ..lower };
        assert_eq!(exit(both.clone()), [Exit::NotHeld, Exit::After]);
        for failed in [Exit::Hook, Exit::Freeze, Exit::Ec2, Exit::Permission] {
            assert_eq!(exit(Ending { failure: Some(failed), ..both.clone() }), [failed; 2]);
            assert_eq!(exit(Ending { failure: Some(failed), achieved: None, ..after.clone() }), [failed; 2]);
        }
        let away = Ending { not_mounted: true, failure: Some(Exit::Hook), ..both };
        assert_eq!(exit(away.clone()), [Exit::NotMounted; 2]);
        assert_eq!(exit(Ending { still_frozen: true, ..away }), [Exit::StillFrozen; 2]);
    }
}
