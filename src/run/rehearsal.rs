//! A run without its call: what freezing costs here, before anything depends on it.
//!
//! ```text
//! preflight → quiesce → prepare → freeze → (hold) → thaw → release      each as in a run, by the same code
//! ```
//!
//! In: the stage of a run, over [`Rehearsed`] EC2. Out: a [`Round`], and from all rounds a [`Suggestion`]. Must never: send a create
//! call, tag, or keep a record: [`Rehearsed`] has no way to.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde::{Serialize, Serializer};

use super::applications::{self, Applications};
use super::journal::Journal;
use super::outcome::evidence;
use super::unmounted::{self, Unmounted, Remounted};
use super::{Stage, Window, create_request, preflight};
use crate::config::settings::OnDegraded;
use crate::discover::volumes::AttachedVolume;
use crate::ec2::{CreateFailed, CreateRequest, Ec2, Ec2Error, InstanceView, SnapshotView};
use crate::error::Error;
use crate::exit::Exit;
use crate::host::processes::{self, OpenFile, Process};
use crate::ids::{DevNo, InstanceId, RunId, SnapshotId, VolumeId};
use crate::interrupt::Interrupt;
use crate::path_encoding;
use crate::plan::Consistency;
use crate::quiesce::{HookOutcome, RunResult};

/// Never suggest less: EC2's real answer takes longer than that of a DryRun, and not always the same time.
pub const LEAST: Duration = Duration::from_secs(2);
/// The suggested window is this many times what was measured.
pub const FACTOR: u32 = 3;
/// From this long a FIFREEZE is worth asking who was writing. A clean one takes 25 to 35 ms.
pub const SLOW: Duration = Duration::from_millis(100);
/// Most writers that a mount is reported with.
const WRITERS: usize = 5;

/// How long everything stays frozen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hold {
    /// This long.
    For(Duration),
    /// As long as the slowest DryRun took.
    Answer,
}

/// EC2 for a rehearsal: it is asked what it is asked before a run, and nothing that makes or changes anything reaches it.
#[derive(Debug)]
pub struct Rehearsed<'a, E> {
    ec2: &'a E,
    hold: Hold,
    answers: Mutex<Vec<Duration>>,
    held: Mutex<Duration>,
}

impl<'a, E> Rehearsed<'a, E> {
    /// Over the real one.
    #[must_use]
    pub fn new(ec2: &'a E, hold: Hold) -> Self {
        Self { ec2, hold, answers: Mutex::default(), held: Mutex::default() }
    }

    /// How long each DryRun took so far.
    #[must_use]
    pub fn answers(&self) -> Vec<Duration> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn held(&self) -> Duration {
        *self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What stands in for EC2's answer.
    fn instead(action: &'static str) -> Ec2Error {
        let message = "a rehearsal sends no such request".to_owned();
        Ec2Error::Refused { action, code: "Rehearsal".to_owned(), message }
    }
}

impl<E: Ec2> Ec2 for Rehearsed<'_, E> {
    async fn instance(&self, id: &InstanceId) -> Result<InstanceView, Ec2Error> {
        self.ec2.instance(id).await
    }

    async fn volumes(&self, id: &InstanceId) -> Result<Vec<AttachedVolume>, Ec2Error> {
        self.ec2.volumes(id).await
    }

    async fn pending(&self, volumes: &[VolumeId]) -> Result<Vec<SnapshotView>, Ec2Error> {
        self.ec2.pending(volumes).await
    }

    async fn started(&self, volumes: &[VolumeId], minutes: &[String]) -> Result<Vec<SnapshotView>, Ec2Error> {
        self.ec2.started(volumes, minutes).await
    }

    async fn dry_run(&self, request: &CreateRequest) -> Result<(), Ec2Error> {
        let sent = Instant::now();
        let said = self.ec2.dry_run(request).await;
        self.answers.lock().unwrap_or_else(PoisonError::into_inner).push(sent.elapsed());
        said
    }

    fn warm_connections(&self) -> Option<usize> {
        self.ec2.warm_connections()
    }

    /// Holds instead. Everything is frozen here: nothing but a timer.
    async fn create(&self, _: &CreateRequest) -> Result<Vec<SnapshotView>, CreateFailed> {
        let slowest = || self.answers.lock().unwrap_or_else(PoisonError::into_inner).iter().max().copied();
        let hold = match self.hold {
            Hold::For(time) => time,
            Hold::Answer => slowest().unwrap_or_default(),
        };
        let started = Instant::now();
        if !hold.is_zero() {
            tokio::time::sleep(hold).await;
        }
        *self.held.lock().unwrap_or_else(PoisonError::into_inner) = started.elapsed();
        Err(CreateFailed { error: Self::instead("create"), outcome_unknown: false, made: Vec::new() })
    }

    async fn find_run(&self, run: &RunId) -> Result<Vec<SnapshotView>, Ec2Error> {
        self.ec2.find_run(run).await
    }

    async fn tag(&self, _: &[SnapshotId], _: &[(String, String)]) -> Result<(), Ec2Error> {
        Err(Self::instead("tag"))
    }
}

/// One rehearsal.
#[derive(Debug, Serialize)]
pub struct Round {
    /// From before the first FIFREEZE to after the last FITHAW, the hold included.
    #[serde(rename = "window_ms", serialize_with = "milliseconds")]
    pub window: Duration,
    /// How long everything was held for the answer that was not asked for.
    #[serde(rename = "hold_ms", serialize_with = "milliseconds")]
    pub hold: Duration,
    /// Every filesystem, in the order of the plan.
    pub mounts: Vec<MountRound>,
    /// Hooks, as they ran.
    pub hooks: Vec<HookOutcome>,
    /// What a set would have been called; none when the window was not reached or not kept.
    pub achieved: Option<Consistency>,
    /// Why it is less than requested, or why it failed.
    pub reason: Option<String>,
    /// Mount points that may still be frozen.
    #[serde(serialize_with = "path_encoding::paths")]
    pub still_frozen: Vec<PathBuf>,
    /// Post hooks that failed.
    pub after: Vec<String>,
    /// The exit code that a run with this outcome has.
    pub exit_code: u8,
    /// What to do about it.
    #[serde(skip)]
    pub hint: Option<String>,
    /// The signal to die by.
    #[serde(skip)]
    pub signal: Option<Signal>,
}

impl Round {
    /// What became of what was unmounted.
    fn tell(&mut self, back: Remounted) {
        let (failed, differs) = (back.failed, back.differs);
        if !failed.is_empty() {
            self.hint = Some(unmounted::AGAIN.to_owned());
            // What may still be frozen outranks it.
            if self.still_frozen.is_empty() {
                self.exit_code = Exit::NotMounted.code();
            }
        } else if !differs.is_empty() && self.exit_code == Exit::Ok.code() {
            self.exit_code = Exit::After.code();
        }
        self.after.extend(failed.iter().map(ToString::to_string).chain(differs));
    }
}

/// One filesystem in a rehearsal.
#[derive(Debug, Serialize)]
pub struct MountRound {
    /// Where.
    #[serde(serialize_with = "path_encoding::path")]
    pub mount_point: PathBuf,
    /// Filesystem type.
    pub fstype: String,
    /// How long it was flushed before the freeze, while everything still ran.
    #[serde(rename = "flush_ms", serialize_with = "milliseconds")]
    pub flush: Duration,
    /// How long its FIFREEZE took; none where it is not frozen, or did not get there.
    #[serde(rename = "freeze_ms", serialize_with = "some_milliseconds")]
    pub freeze: Option<Duration>,
    /// From the begin of its FIFREEZE to the return of its FITHAW: the longest that a writer can have waited.
    #[serde(rename = "stall_ms", serialize_with = "some_milliseconds")]
    pub stall: Option<Duration>,
    /// Who had files of it open for writing just before and just after, those that wrote most first.
    pub writers: Vec<Writer>,
}

/// A process with files open for writing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Writer {
    /// Who.
    #[serde(flatten)]
    pub process: Process,
    /// One of its files.
    #[serde(serialize_with = "path_encoding::path")]
    pub path: PathBuf,
    /// Bytes it wrote to any storage from before the flush until after the thaw; none when that cannot be read.
    pub written: Option<u64>,
}

fn milliseconds<S: Serializer>(d: &Duration, s: S) -> Result<S::Ok, S::Error> {
    s.serialize_f64(d.as_secs_f64() * 1e3)
}

fn some_milliseconds<S: Serializer>(d: &Option<Duration>, s: S) -> Result<S::Ok, S::Error> {
    d.map(|d| d.as_secs_f64() * 1e3).serialize(s)
}

/// Rehearses once.
///
/// # Errors
/// When a run would be refused before anything is touched.
pub async fn rehearse<E: Ec2>(
    stage: &Stage<'_, Rehearsed<'_, E>>,
    interrupt: &mut Interrupt,
) -> Result<Round, Error> {
    let requested = super::requested(stage)?;
    let request = create_request(&stage.run, stage.facts, stage.plan, stage.settings, requested);
    preflight::check(stage, &request).await?;
    applications::check(stage, interrupt).await?;
    let unwritable = |e: std::io::Error| {
        Error::new(Exit::Permission, format!("cannot write the journal in {}: {e}", stage.run_dir.display()))
    };
    let mut journal = Journal::start(stage.run_dir, &stage.run, &stage.plan.name).map_err(unwritable)?;
    journal.update(|state| state.rehearsal = true).map_err(unwritable)?;
    let mut env = super::hook_env(stage);
    let mut apps = Applications::default();
    let mut busy = Busy::default();
    let mut away = Unmounted::default();
    let mut ready = super::quiesce(stage, &mut journal, &env, interrupt, &mut apps).await;
    if ready.is_ok() {
        ready = unmounted::begin(stage, &mut journal, &env, interrupt, &mut apps.outcomes, &mut away).await;
    }
    let mut window = match ready {
        Ok(()) => {
            busy = Busy::look(stage);
            super::window(stage, &request, &mut journal, interrupt).await
        }
        Err(failure) => Window { failure: Some(failure), ..Window::default() },
    };
    let back = unmounted::end(away, &mut journal, &mut apps.outcomes).await;
    env.not_mounted = back.not_mounted();
    env.frozen = window.call.is_some();
    let writers = busy.since(stage);
    // The call that was not made is no failure. A window that ran out, or lost its watchdog, is one, but there is nothing to look up.
    let instead = Rehearsed::<E>::instead("create").to_string();
    let reached = window.failure.take_if(|f| f.reason == instead).is_some();
    if let Some(failure) = window.failure.as_mut().filter(|f| window.lost && f.exit == Exit::Ec2) {
        let limit = humantime::format_duration(stage.settings.window);
        failure.reason = format!("the window of {limit} ran out during the hold");
        failure.hint = Some("hold for less (--hold), or give it a longer --window".to_owned());
    }
    env.result = if reached { RunResult::Rehearsed } else { RunResult::Failed };
    super::release(stage, &mut journal, &env, &mut apps).await;

    let mut round = describe(stage, requested, window, apps.outcomes, &writers);
    round.tell(back);
    super::settle::warn_of_frozen(stage.state_dir, &round.still_frozen);
    if round.still_frozen.is_empty()
        && journal.state.unmounted.is_empty()
        && journal.state.attempted.is_empty()
    {
        journal.close();
    }
    Ok(round)
}

fn describe<E>(
    stage: &Stage<'_, Rehearsed<'_, E>>,
    requested: Consistency,
    window: Window,
    hooks: Vec<HookOutcome>,
    writers: &[(DevNo, Writer)],
) -> Round {
    let evidence = evidence(stage, &window, &hooks);
    let reached = match (&evidence.doubt, &evidence.hooks) {
        (Some(_), _) => Consistency::Crash,
        (None, Some(_)) => Consistency::Filesystem.min(stage.plan.best),
        (None, None) => stage.plan.best,
    };
    let thawed = window.thawed.unwrap_or_default();
    let after = applications::after(&hooks);
    let lower = reached < requested;
    let exit = match &window.failure {
        _ if !thawed.still_frozen.is_empty() => Exit::StillFrozen,
        Some(failure) => failure.exit,
        None if lower && stage.settings.on_degraded == OnDegraded::Fail => Exit::NotHeld,
        None if !after.is_empty() => Exit::After,
        None if lower => Exit::Lower,
        None => Exit::Ok,
    };
    let mounts = stage.plan.filesystems.iter().map(|f| {
        let stall = thawed.stalls.iter().find(|s| s.mount_point == f.mount_point);
        MountRound {
            mount_point: f.mount_point.clone(),
            fstype: f.fstype.clone(),
            flush: stall.map(|s| s.flush).unwrap_or_default(),
            freeze: stall.and_then(|s| s.freeze),
            stall: stall.and_then(|s| s.stalled),
            writers: writers
                .iter()
                .filter(|(dev, _)| *dev == f.dev)
                .map(|(_, w)| w.clone())
                .take(WRITERS)
                .collect(),
        }
    });
    let failure = window.failure;
    Round {
        window: thawed.length,
        hold: if thawed.length.is_zero() { Duration::ZERO } else { stage.ec2.held() },
        mounts: mounts.collect(),
        achieved: failure.is_none().then_some(reached),
        hint: failure.as_ref().and_then(|f| f.hint.clone()),
        signal: failure.as_ref().and_then(|f| f.signal),
        reason: failure.map(|f| f.reason).or(evidence.doubt.or(evidence.hooks).filter(|_| lower)),
        still_frozen: thawed.still_frozen,
        hooks,
        after,
        exit_code: exit.code(),
    }
}

/// Who has files open for writing, and how much each of them has written so far. Looked at before and after, never in the window:
/// to look opens files in /proc.
#[derive(Debug, Default)]
struct Busy {
    files: Vec<OpenFile>,
    written: BTreeMap<i32, Option<u64>>,
}

impl Busy {
    fn look<E>(stage: &Stage<'_, E>) -> Self {
        let on: Vec<DevNo> = stage.plan.filesystems.iter().map(|f| f.dev).collect();
        let root = Path::new("/");
        let files = processes::writers(root, &on).map(|w| w.found).unwrap_or_default();
        let written =
            files.iter().map(|f| (f.process.pid, processes::written(root, f.process.pid))).collect();
        Self { files, written }
    }

    /// One entry a process and filesystem, who wrote most since the first look first.
    fn since<E>(self, stage: &Stage<'_, E>) -> Vec<(DevNo, Writer)> {
        let now = Self::look(stage);
        let wrote =
            |pid| Some(now.written.get(&pid).copied()??.saturating_sub(self.written.get(&pid).copied()??));
        let mut writers: Vec<(DevNo, Writer)> = Vec::new();
        for file in self.files.iter().chain(&now.files) {
            if !writers.iter().any(|(dev, w)| *dev == file.dev && w.process == file.process) {
                let written = wrote(file.process.pid);
                writers.push((
                    file.dev,
                    Writer { process: file.process.clone(), path: file.path.clone(), written },
                ));
            }
        }
        writers.sort_by_key(|(_, w)| std::cmp::Reverse(w.written));
        writers
    }
}

/// A window that would have had room for what was measured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Suggestion {
    /// The suggested `window`.
    #[serde(rename = "window_ms", serialize_with = "milliseconds")]
    pub window: Duration,
    /// The longest window of all rounds, without the hold.
    #[serde(rename = "longest_ms", serialize_with = "milliseconds")]
    pub longest: Duration,
    /// EC2's slowest answer: of the DryRuns, and of the calls in this plan's kept records.
    #[serde(rename = "answer_ms", serialize_with = "milliseconds")]
    pub answer: Duration,
}

/// [`FACTOR`] × (longest window without its hold + slowest answer), rounded up to whole seconds, never below [`LEAST`]. None when no
/// round had a window that was kept.
#[must_use]
pub fn suggest(rounds: &[Round], answers: &[Duration]) -> Option<Suggestion> {
    let kept = rounds.iter().filter(|r| r.achieved.is_some() && !r.window.is_zero());
    let longest = kept.map(|r| r.window.saturating_sub(r.hold)).max()?;
    let answer = answers.iter().max().copied().unwrap_or_default();
    let wanted = (longest + answer) * FACTOR;
    let whole = Duration::from_secs(wanted.as_secs() + u64::from(wanted.subsec_nanos() > 0));
    Some(Suggestion { window: whole.max(LEAST), longest, answer })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(window: u64, hold: u64) -> Round {
        Round {
            window: Duration::from_millis(window),
            hold: Duration::from_millis(hold),
            mounts: vec![],
            hooks: vec![],
            achieved: Some(Consistency::Filesystem),
            reason: None,
            still_frozen: vec![],
            after: vec![],
            exit_code: 0,
            hint: None,
            signal: None,
        }
    }

    #[test]
    fn the_suggestion_is_the_documented_rule() {
        let ms = Duration::from_millis;
        let suggested = |rounds: &[Round], answers: &[Duration]| suggest(rounds, answers).unwrap().window;
        assert_eq!(suggested(&[round(60, 0)], &[ms(5)]), LEAST);
        // 3 × (800 + 400 ms) = 3.6 s.
        assert_eq!(suggested(&[round(60, 0), round(1300, 500)], &[ms(5), ms(400)]), ms(4000));
        assert_eq!(suggested(&[round(1000, 0)], &[]), ms(3000), "whole seconds stay what they are");
        let failed = Round { achieved: None, ..round(9000, 0) };
        assert_eq!(suggested(&[failed, round(1000, 0)], &[]), ms(3000));
        assert_eq!(suggest(&[], &[ms(5)]), None);
    }
}
