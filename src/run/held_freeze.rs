//! The goal of `freeze`: nothing is taken here; everything stays frozen for somebody else's snapshots.
//!
//! In: the longest time to stay frozen, and the control socket. Out: a [`HeldFreezeRecord`]. This process and
//! the watchdog guard each other: when one dies, the other thaws; both thaw at the deadline. Must never:
//! extend the deadline, or say without proof that a freeze held.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::applications::{self, Applications};
use super::control_socket::ControlSocket;
use super::environment::Environment;
use super::failure::Failure;
use super::goal::Goal;
use super::held_record::HeldFreezeRecord;
use super::job::Job;
use super::journal::{HeldFreeze, State};
use super::preflight;
use super::progress::Progress;
use super::verdict::{self, Ending, evidence};
use crate::config::settings::OnDegraded;
use crate::error::Error;
use crate::exit::Exit;
use crate::ids::DevNo;
use crate::interrupt::Interrupt;
use crate::plan::{Consistency, Method};
use crate::window::{Called, Limits, Prepared, Times};

/// How long the record that is kept before the post hooks run waits for the last checks. What has not
/// answered by then is claimed by the record that is kept after them.
const EARLY_RECHECK: Duration = Duration::from_secs(1);
/// Where the Systems Manager agent keeps its state.
const SSM_AGENT: &str = "/var/lib/amazon/ssm";

/// Holds a freeze for `lasts` at most. `outputs` are the superblocks that the waiting command writes to.
///
/// # Errors
/// When it is refused before anything is touched.
pub async fn hold<E>(
    env: &Environment<'_, E>,
    job: &Job<'_>,
    lasts: Duration,
    outputs: &[DevNo],
    control: &mut ControlSocket,
    interrupt: &mut Interrupt,
) -> Result<HeldFreezeRecord, Error> {
    let record = HeldFreezeRecord::begun(job);
    super::run(env, job, &mut ForOthers { lasts, outputs, control, record }, interrupt).await
}

struct ForOthers<'a> {
    lasts: Duration,
    outputs: &'a [DevNo],
    control: &'a mut ControlSocket,
    record: HeldFreezeRecord,
}

impl<E> Goal<E> for ForOthers<'_> {
    type Answer = ();
    type Outcome = HeldFreezeRecord;

    fn limits(&self, job: &Job<'_>) -> Limits {
        Limits {
            window: self.lasts,
            freeze: job.settings.freeze_timeout.min(self.lasts / 2),
            flush: job.settings.flush_timeout,
        }
    }

    /// Whoever asked waits for the answer, mostly for seconds only, and must not be given a freeze later that
    /// it no longer expects.
    fn patience(&self, _: &Job<'_>) -> Duration {
        Duration::ZERO
    }

    /// If this process dies, the recovery has to run the post hooks: no other process knows that they are
    /// due.
    fn recovery(&self, env: &Environment<'_, E>) -> Option<Vec<PathBuf>> {
        let command = [env.program, "--run-dir".as_ref(), env.run_dir, "thaw".as_ref(), "--recover".as_ref()];
        Some(command.map(Path::to_path_buf).into())
    }

    async fn preflight(&mut self, env: &Environment<'_, E>, job: &Job<'_>) -> Result<(), Error> {
        none_is_unmounted(job)?;
        outputs_are_safe(job, self.outputs)?;
        agent_is_safe(env, job)
    }

    fn note_start(&self, state: &mut State) {
        state.held_freeze = Some(HeldFreeze { watchdog: None, record: self.record.clone() });
    }

    async fn before_freeze(
        &mut self,
        _: &Environment<'_, E>,
        _: &Job<'_>,
        applications: &Applications,
    ) -> Result<(), Failure> {
        self.record.hooks.clone_from(&applications.outcomes);
        if self.control.is_thaw_requested() {
            return Err(Failure::new(Exit::Freeze, "the thaw was asked for before anything was frozen"));
        }
        Ok(())
    }

    fn note_freeze(&mut self, env: &Environment<'_, E>, prepared: &Prepared, state: &mut State) {
        self.record.until = env.clock.now().checked_add(self.lasts).ok();
        let watchdog = Some(prepared.watchdog());
        state.held_freeze = Some(HeldFreeze { watchdog, record: self.record.clone() });
    }

    /// Only sends and receives a few messages, over sockets that are already open.
    async fn point_in_time(&mut self, _: &Environment<'_, E>, times: Times) {
        self.record.times = times;
        self.record.until = times.started.checked_add(self.lasts).ok();
        self.control.send(&self.record).await;
        self.control.thaw_requested().await;
    }

    fn answered(&mut self, _: &Job<'_>, called: Called<()>, _: &mut State) -> Option<Failure> {
        let lasts = humantime::format_duration(self.lasts);
        Some(match called {
            Called::Returned(()) => return None,
            Called::RanOut => {
                let what = format!("nobody asked for the thaw within {lasts}: thawed at the deadline");
                Failure::new(Exit::NotHeld, what)
            }
            Called::WatchdogLost(how) => Failure::new(Exit::NotHeld, how.to_string()),
            Called::Interrupted(signal) => Failure { exit: Exit::NotHeld, ..Failure::interrupted(signal) },
        })
    }

    /// The record is kept before the post hooks run, too: they may take long, and this process may be killed
    /// meanwhile.
    async fn thawed(&mut self, _: &Environment<'_, E>, job: &Job<'_>, progress: &mut Progress) {
        progress.window.recheck(EARLY_RECHECK, &mut Interrupt::never()).await;
        self.judge(job, progress);
        self.control.keep(&self.unconfirmed(job, progress));
    }

    /// Judges once more, because a session can report at its release that its application was not quiesced
    /// all the time.
    async fn settle(
        &mut self,
        _: &Environment<'_, E>,
        job: &Job<'_>,
        progress: &mut Progress,
    ) -> HeldFreezeRecord {
        self.judge(job, progress);
        self.record.hooks = std::mem::take(&mut progress.applications.outcomes);
        self.record.clone()
    }
}

impl ForOthers<'_> {
    /// Sets the record's label, reason and hint from the evidence.
    fn judge(&mut self, job: &Job<'_>, progress: &Progress) {
        let (window, outcomes) = (&progress.window, &progress.applications.outcomes);
        let evidence = evidence(job, window, outcomes, progress.journal.is_taken());
        let held = evidence.doubt.is_none();
        let label = evidence.label().min(job.plan.best);
        let thawed = window.thawed.clone().unwrap_or_default();
        let record = &mut self.record;
        record.after = applications::after(outcomes);
        record.held = Some(held);
        record.achieved = Some(label);
        record.frozen_ms = thawed.length.as_secs_f64() * 1e3;
        if !thawed.length.is_zero() {
            record.times = thawed.times;
        }
        record.hint = window.failure.as_ref().and_then(|f| f.hint.clone());
        let failed = window.failure.as_ref().map_or(Exit::NotHeld, |f| f.exit);
        record.exit = verdict::exit(
            job,
            &Ending {
                still_frozen: !thawed.still_frozen.is_empty(),
                not_mounted: false,
                failure: (!held).then_some(failed),
                achieved: record.achieved,
                apart: false,
                trouble_after: !record.after.is_empty(),
            },
        );
        record.reason = evidence.doubt.or(evidence.applications.filter(|_| label < job.requested));
        record.unwitnessed = thawed.without_witness();
        record.still_frozen = thawed.still_frozen;
    }

    /// The record while sessions have not yet confirmed that their applications stayed quiesced. If this
    /// process dies, nobody can ask them any more, so it claims less.
    fn unconfirmed(&self, job: &Job<'_>, progress: &Progress) -> HeldFreezeRecord {
        let mut early = self.record.clone();
        let attempted = &progress.journal.state.attempted;
        let open = attempted.iter().any(|h| h.is_session() || h.releases_again());
        if open && early.achieved == Some(Consistency::Application) {
            early.achieved = Some(Consistency::Filesystem);
            early.reason =
                Some("it is not known whether the applications were quiesced all the time".to_owned());
            if early.requested > Consistency::Filesystem && early.exit == Exit::Ok {
                let fails = job.settings.on_degraded == OnDegraded::Fail;
                early.exit = if fails { Exit::NotHeld } else { Exit::Lower };
            }
        }
        early
    }
}

/// Refuses the method `unmount`: the filesystem would have to stay unmounted until somebody else is done, and
/// another process would have to mount it again.
fn none_is_unmounted(job: &Job<'_>) -> Result<(), Error> {
    job.with_method(Method::Unmount).next().map_or(Ok(()), |f| {
        let what = format!(
            "{} has the method \"unmount\", which `freeze` does not support",
            f.mount_point.display()
        );
        Err(Error::new(Exit::Config, what)
            .hint("give it another method in the plan for this, or leave it out (--exclude-mount)"))
    })
}

/// The command that waits prints while everything is frozen: its output must not be a file on a frozen
/// filesystem.
fn outputs_are_safe(job: &Job<'_>, outputs: &[DevNo]) -> Result<(), Error> {
    job.with_method(Method::Freeze).find(|f| outputs.contains(&f.dev)).map_or(Ok(()), |f| {
        let what = format!(
            "standard output or error is a file on {}, which will be frozen",
            f.mount_point.display()
        );
        Err(Error::new(Exit::Config, what)
            .hint("redirect them to another filesystem: they are written while this one is frozen"))
    })
}

/// The Systems Manager agent writes to its folder before it starts the script that would ask for the thaw:
/// that folder must not be frozen.
fn agent_is_safe<E>(env: &Environment<'_, E>, job: &Job<'_>) -> Result<(), Error> {
    let agent = Path::new(SSM_AGENT);
    if agent.exists()
        && let Some(on) = preflight::planned_at(env, job, agent)?.filter(|f| f.method == Method::Freeze)
    {
        tracing::warn!(
            "{SSM_AGENT} is on {}: while that is frozen the Systems Manager agent cannot start the \
             script that would thaw it, and only the deadline does; leave it out \
             (exclude_boot_volume = true)",
            on.mount_point.display()
        );
    }
    Ok(())
}
