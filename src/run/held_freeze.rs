//! `freeze`: the order of a run that takes nothing itself, but holds the freeze for somebody else's snapshots.
//!
//! ```text
//! preflight   as in a run, without the create call's permission
//! quiesce     pre hooks in order; each journaled before it starts
//! freeze      prepare, waves; then the command that asked for it is told, and returns
//! hold        until `thaw` asks, the deadline, a signal, or the loss of the watchdog
//! release     post hooks in reverse
//! ```
//!
//! In: a plan, its settings, the kernel. Out: a [`HeldFreezeRecord`]. This process and the watchdog guard each other: whichever dies,
//! the other thaws; both keep the deadline. Must never: extend the deadline, or say that a freeze held which was not proven so.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::applications::{self, Applications, hook_env, quiesce, release};
use super::control_socket::ControlSocket;
use super::journal::{HeldFreeze, Journal, will_freeze};
use super::{Failure, Stage, Window, freeze_hint, outcome, preflight, requested};
use crate::config::settings::OnDegraded;
use crate::ec2::Ec2;
use crate::error::Error;
use crate::exit::Exit;
use crate::ids::{DevNo, RunId, VolumeId};
use crate::interrupt::Interrupt;
use crate::path_encoding;
use crate::plan::{Consistency, Method};
use crate::quiesce::HookOutcome;
use crate::window::guard::StartGuard;
use crate::window::guard::process::Program;
use crate::window::{Called, Extras, FreezeFailure, Limits, Machine, Prepared, Times};

/// Version of the JSON below; raised when a field changes its meaning or goes.
pub const VERSION: u32 = 1;

/// Where the Systems Manager agent keeps its state.
const SSM_AGENT: &str = "/var/lib/amazon/ssm";

/// What `freeze` and `thaw` print.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct HeldFreezeRecord {
    /// [`VERSION`].
    pub version: u32,
    /// The run.
    pub run_id: RunId,
    /// Its plan's name.
    pub plan: String,
    /// The process that holds the freeze.
    pub pid: i32,
    /// What is made quiet, and how.
    pub filesystems: Vec<HeldFilesystem>,
    /// The volumes below.
    pub volumes: Vec<VolumeId>,
    /// When everything is thawed at the latest.
    pub until: Option<Timestamp>,
    /// A snapshot's point in time has to lie between `frozen` and `responded`, which is when the thaw was asked for and before the
    /// first FITHAW; at `thawed`, after the last, some filesystems have been writable for a while.
    pub times: Times,
    /// Did the freeze hold, on every filesystem, from `frozen` until it was thawed on request? None while it lasts.
    pub held: Option<bool>,
    /// The consistency that was requested.
    pub requested: Consistency,
    /// What a set may be called whose point in time lies in between; none while that is not known.
    pub achieved: Option<Consistency>,
    /// Why it did not hold, or why it is less than requested.
    pub reason: Option<String>,
    /// What to do about it.
    pub hint: Option<String>,
    /// From before the first FIFREEZE to after the last FITHAW, in milliseconds.
    pub frozen_ms: f64,
    /// Mount points that may still be frozen.
    #[serde(serialize_with = "path_encoding::paths")]
    pub still_frozen: Vec<PathBuf>,
    /// Hooks, as they ran.
    pub hooks: Vec<HookOutcome>,
    /// Post hooks that failed.
    pub after: Vec<String>,
    /// Exit code: of `freeze` while it lasts or when it never was, else of `thaw`.
    pub exit_code: u8,
}

/// A filesystem that is made quiet.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct HeldFilesystem {
    /// Where it is mounted.
    pub mount_point: PathBuf,
    /// Its type.
    pub fstype: String,
    /// How.
    pub method: String,
}

impl HeldFreezeRecord {
    /// What is left to say of a freeze whose process died, where it has not said it itself.
    #[must_use]
    pub fn died(mut self) -> Self {
        if self.held.is_none() {
            self.held = Some(false);
            self.achieved = Some(Consistency::Crash);
            self.reason = Some("the process that held the freeze died".to_owned());
            self.exit_code = Exit::NotHeld.code();
        }
        self
    }

    /// Is everything frozen, as far as this record says?
    #[must_use]
    pub fn lasts(&self) -> bool {
        self.times.frozen.is_some() && self.held.is_none()
    }

    /// The exit code of a `thaw` that is told this record.
    #[must_use]
    pub fn thaw_exit(&self) -> Exit {
        let own = Exit::ALL.into_iter().find(|e| e.code() == self.exit_code).unwrap_or(Exit::Bug);
        match own {
            // A freeze that never was did not hold either.
            Exit::Ok | Exit::Lower | Exit::After if self.held != Some(true) => Exit::NotHeld,
            Exit::Ok | Exit::Lower | Exit::After | Exit::StillFrozen => own,
            _ => Exit::NotHeld,
        }
    }
}

/// What is unmounted would have to stay away until somebody else is done, and come back by another process.
fn none_is_unmounted<E>(stage: &Stage<'_, E>) -> Result<(), Error> {
    match stage.plan.filesystems.iter().find(|f| f.method == Method::Unmount) {
        None => Ok(()),
        Some(f) => {
            let what =
                format!("{} has the method \"unmount\", which `freeze` cannot hold", f.mount_point.display());
            Err(Error::new(Exit::Config, what)
                .hint("give it another method in the plan for this, or leave it out (--exclude-mount)"))
        }
    }
}

/// Holds a freeze for `lasts` at most. `outputs` are the superblocks that the waiting command writes to.
///
/// # Errors
/// When it is refused before anything is touched.
pub async fn hold<E: Ec2>(
    stage: &Stage<'_, E>,
    lasts: Duration,
    outputs: &[DevNo],
    control: &mut ControlSocket,
    interrupt: &mut Interrupt,
) -> Result<HeldFreezeRecord, Error> {
    let requested = requested(stage)?;
    none_is_unmounted(stage)?;
    preflight::host(stage)?;
    outputs_are_safe(stage, outputs)?;
    agent_is_safe(stage)?;
    applications::check(stage, interrupt).await?;
    let mut record = begun(stage, requested);
    let mut journal = Journal::start(stage.run_dir, &stage.run, &stage.plan.name)
        .and_then(|mut j| {
            j.update(|state| state.held_freeze = Some(HeldFreeze { watchdog: None, record: record.clone() }))?;
            Ok(j)
        })
        .map_err(|e| {
            let what = format!("cannot write the journal in {}: {e}", stage.run_dir.display());
            Error::new(Exit::Permission, what)
        })?;
    let mut env = hook_env(stage);
    env.hold_limit += lasts;
    let mut apps = Applications::default();
    let window = match quiesce(stage, &mut journal, &env, interrupt, &mut apps).await {
        Ok(()) => {
            record.hooks.clone_from(&apps.outcomes);
            window(stage, lasts, &mut record, &mut journal, control, interrupt).await
        }
        Err(failure) => Window { failure: Some(failure), ..Window::default() },
    };
    env.frozen = record.times.frozen.is_some();
    judge(stage, &mut record, &window, &apps.outcomes);
    // Told before the post hooks too: they may take long, and this process may be killed over them.
    control.keep(&unconfirmed(stage, &record, &journal));
    release(stage, &mut journal, &env, &mut apps).await;
    // Once more: what a session says when it lets go counts.
    judge(stage, &mut record, &window, &apps.outcomes);
    record.after = applications::after(&apps.outcomes);
    record.hooks = apps.outcomes;
    if record.exit_code == Exit::Ok.code() && !record.after.is_empty() {
        record.exit_code = Exit::After.code();
    }
    if record.still_frozen.is_empty() && journal.state.attempted.is_empty() {
        journal.close();
    } // else the next start and `thaw` go on from the journal
    Ok(record)
}

/// What may be said while sessions have not yet confirmed that they held: nobody may ever be able to ask them.
fn unconfirmed<E>(stage: &Stage<'_, E>, record: &HeldFreezeRecord, journal: &Journal) -> HeldFreezeRecord {
    let mut early = record.clone();
    let open = journal.state.attempted.iter().any(|h| h.is_session() || h.releases_again());
    if open && early.achieved == Some(Consistency::Application) {
        early.achieved = Some(Consistency::Filesystem);
        early.reason = Some("whether the applications were held all the time is not known".to_owned());
        if early.requested > Consistency::Filesystem && early.exit_code == Exit::Ok.code() {
            let lower =
                if stage.settings.on_degraded == OnDegraded::Fail { Exit::NotHeld } else { Exit::Lower };
            early.exit_code = lower.code();
        }
    }
    early
}

/// What is known before anything is touched.
fn begun<E>(stage: &Stage<'_, E>, requested: Consistency) -> HeldFreezeRecord {
    let method = |m: Method| serde_json::to_value(m).ok().and_then(|v| v.as_str().map(str::to_owned));
    let filesystem = |f: &crate::plan::PlannedFilesystem| HeldFilesystem {
        mount_point: f.mount_point.clone(),
        fstype: f.fstype.clone(),
        method: method(f.method).unwrap_or_default(),
    };
    HeldFreezeRecord {
        version: VERSION,
        run_id: stage.run.clone(),
        plan: stage.plan.name.clone(),
        pid: i32::try_from(std::process::id()).unwrap_or_default(),
        filesystems: stage.plan.filesystems.iter().map(filesystem).collect(),
        volumes: stage.plan.volumes.iter().map(|v| v.id.clone()).collect(),
        until: None,
        times: Times::default(),
        held: None,
        requested,
        achieved: None,
        reason: None,
        hint: None,
        frozen_ms: 0.0,
        still_frozen: Vec::new(),
        hooks: Vec::new(),
        after: Vec::new(),
        exit_code: Exit::Ok.code(),
    }
}

/// Prepare, freeze, tell, hold, thaw.
async fn window<E: Ec2>(
    stage: &Stage<'_, E>,
    lasts: Duration,
    record: &mut HeldFreezeRecord,
    journal: &mut Journal,
    control: &mut ControlSocket,
    interrupt: &mut Interrupt,
) -> Window {
    let failed = |failure| Window { failure: Some(failure), ..Window::default() };
    let limits = Limits {
        window: lasts,
        freeze: stage.settings.freeze_timeout.min(lasts / 2),
        flush: stage.settings.flush_timeout,
    };
    // If this process dies, nobody else is left who knows that post hooks are due.
    let recovery =
        [stage.program, "--run-dir".as_ref(), stage.run_dir, "thaw".as_ref(), "--recover".as_ref()];
    let extras = Extras {
        afterwards: Some(recovery.iter().map(|p| p.to_path_buf()).collect()),
        ..super::extras(stage.settings)
    };
    let watchdog: Arc<dyn StartGuard> = Arc::new(Program::new(stage.program));
    let machine = Machine { root: Path::new("/"), kernel: &stage.kernel, watchdog: &watchdog };
    let opened = Prepared::open(machine, stage.plan, limits, interrupt, extras);
    let prepared = match opened.await {
        Ok(prepared) => prepared,
        Err(e) => return failed(Failure::unprepared(&e)),
    };
    record.until = Timestamp::now().checked_add(lasts).ok();
    let ready = preflight::unchanged(stage)
        .and_then(|()| {
            if control.is_asked() {
                return Err(Failure::new(Exit::Freeze, "the thaw was asked for before anything was frozen"));
            }
            interrupt.pending().map_or(Ok(()), |signal| Err(Failure::by(signal)))
        })
        .and_then(|()| {
            let hold = HeldFreeze { watchdog: Some(prepared.watchdog()), record: record.clone() };
            let written = journal.update(|state| {
                state.frozen = will_freeze(stage.plan);
                state.held_freeze = Some(hold);
                state.expedited = prepared.expedited();
            });
            written.map_err(|e| Failure::new(Exit::Freeze, format!("cannot write the journal: {e}")))
        });
    if let Err(failure) = ready {
        prepared.dismiss();
        return failed(failure);
    }
    let after = |journal: &mut Journal, still: &[PathBuf]| {
        let _ = journal.update(|state| {
            state.frozen.retain(|f| still.contains(&f.mount_point));
            state.expedited = None;
        });
    };
    let mut frozen = match prepared.freeze(interrupt).await {
        Ok(frozen) => frozen,
        Err(not) => {
            after(journal, &not.thawed.still_frozen);
            let failure = match not.cause {
                FreezeFailure::Interrupted(signal) => Failure::by(signal),
                cause => {
                    Failure { hint: freeze_hint(&cause), ..Failure::new(Exit::Freeze, cause.to_string()) }
                }
            };
            return Window { thawed: Some(not.thawed), failure: Some(failure), ..Window::default() };
        }
    };
    record.times = frozen.times();
    record.until = record.times.started.checked_add(lasts).ok();
    // ---- frozen: between here and `thaw` a few messages over sockets that are open already, and nothing else ----
    let call = async {
        control.tell(record).await;
        control.asked().await;
    };
    let called = frozen.call(interrupt, call).await;
    let thawed = frozen.thaw().await;
    // ---- everything is thawed ----
    after(journal, &thawed.still_frozen);
    let show = humantime::format_duration(lasts);
    let failure = match called {
        Called::Returned(()) => None,
        Called::RanOut => Some(Failure::new(
            Exit::NotHeld,
            format!("nobody asked for the thaw within {show}: thawed at the deadline"),
        )),
        Called::WatchdogLost => Some(Failure::new(Exit::NotHeld, "the watchdog fired or died")),
        Called::Interrupted(signal) => Some(Failure { exit: Exit::NotHeld, ..Failure::by(signal) }),
    };
    Window { thawed: Some(thawed), failure, ..Window::default() }
}

/// What may be said of the freeze.
fn judge<E>(stage: &Stage<'_, E>, record: &mut HeldFreezeRecord, window: &Window, hooks: &[HookOutcome]) {
    let evidence = outcome::evidence(stage, window, hooks);
    let held = evidence.doubt.is_none();
    let label = match (&evidence.doubt, &evidence.hooks) {
        (Some(_), _) => Consistency::Crash,
        (None, Some(_)) => Consistency::Filesystem,
        (None, None) => Consistency::Application,
    };
    let label = label.min(stage.plan.best);
    let lower = label < record.requested;
    let thawed = window.thawed.clone().unwrap_or_default();
    record.held = Some(held);
    record.achieved = Some(label);
    record.reason = evidence.doubt.or(evidence.hooks.filter(|_| lower));
    record.frozen_ms = thawed.length.as_secs_f64() * 1e3;
    if !thawed.length.is_zero() {
        record.times = thawed.times;
    }
    let failed = window.failure.as_ref().map_or(Exit::NotHeld, |f| f.exit);
    record.hint = window.failure.as_ref().and_then(|f| f.hint.clone());
    let exit = match (held, lower) {
        _ if !thawed.still_frozen.is_empty() => Exit::StillFrozen,
        (false, _) => failed,
        (true, true) if stage.settings.on_degraded == OnDegraded::Fail => Exit::NotHeld,
        (true, true) => Exit::Lower,
        (true, false) => Exit::Ok,
    };
    record.still_frozen = thawed.still_frozen;
    record.exit_code = exit.code();
}

/// The command that waits prints while everything is frozen: what it prints must not be written there.
fn outputs_are_safe<E>(stage: &Stage<'_, E>, outputs: &[DevNo]) -> Result<(), Error> {
    let frozen =
        stage.plan.filesystems.iter().find(|f| f.method == Method::Freeze && outputs.contains(&f.dev));
    frozen.map_or(Ok(()), |f| {
        let what = format!(
            "standard output or error is a file on {}, which will be frozen",
            f.mount_point.display()
        );
        Err(Error::new(Exit::Config, what)
            .hint("send them elsewhere: what is printed says that it is frozen"))
    })
}

/// Whoever is to ask for the thaw has to be able to work meanwhile: the Systems Manager agent writes there before it starts a script.
fn agent_is_safe<E>(stage: &Stage<'_, E>) -> Result<(), Error> {
    let agent = Path::new(SSM_AGENT);
    if agent.exists()
        && let Some(on) = preflight::planned_at(stage, agent)?.filter(|f| f.method == Method::Freeze)
    {
        tracing::warn!(
            "{SSM_AGENT} is on {}: while that is frozen the Systems Manager agent cannot start the script that would \
             thaw it, and only the deadline does; leave it out (exclude_boot_volume = true)",
            on.mount_point.display()
        );
    }
    Ok(())
}
