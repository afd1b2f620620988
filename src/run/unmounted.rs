//! Filesystems with the method `unmount`: unmounted before anything is frozen, mounted again once everything
//! is thawed.
//!
//! ```text
//! recipe ─→ holders? ─→ stop units ─→ holders? ─→ flush ─→ journal ─→ unmount ─→ claim ─→ stop automounts
//!                          ⋮ the window ⋮
//! start automounts ─→ mount again ─→ start units in reverse
//! ```
//!
//! In: the plan; systemd where it runs. Out: [`Unmounted`] while they are unmounted, then [`Remounted`]. Must
//! never: touch anything before it is known how to mount it again, start a unit while its filesystem is
//! missing, or unmount what somebody holds.

mod targets;
mod systemd;

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::errno::Errno;

use self::systemd::{Systemd, unnoticed};
use self::targets::UnmountTargets;
use super::applications::Applications;
use super::environment::Environment;
use super::failure::Failure;
use super::job::Job;
use super::journal::Journal;
use super::preflight;
use crate::config::settings::Hook;
use crate::exit::Exit;
use crate::host::beneath::mount_root;
use crate::host::{reach, thread};
use crate::interrupt::Interrupt;
use crate::path_encoding::shown;
use crate::plan::{Method, PlannedFilesystem};
use crate::quiesce::{self, HookEnv, HookOutcome, Quiesced};
use crate::unmount::claim::{Claim, claim};
use crate::unmount::holders::Holder;
use crate::unmount::remount::{self, Failed, Remount};
use crate::unmount::{self, REMOUNT_LIMIT, Recipe};

/// How long processes of stopped units may still keep a filesystem busy.
const ENDING: Duration = Duration::from_secs(2);
/// How long the process of this run that has just looked at devices and paths may take to be gone.
const ASKED: Duration = Duration::from_secs(1);
/// How long this program may take to start, before anything is unmounted.
const STARTING: Duration = Duration::from_secs(5);

/// Set when a panic dropped [`Unmounted`] and something could not be mounted again: `main` then exits with 41
/// instead of 70.
pub static STILL_UNMOUNTED: AtomicBool = AtomicBool::new(false);

/// Filesystems that are unmounted now. Its drop mounts them, so that a panic does not leave them unmounted;
/// the journal still has them then.
#[derive(Debug, Default)]
pub(super) struct Unmounted {
    recipe: Recipe,
    /// The folders that are not covered any more: see [`unmount::covered::record`].
    folders: Vec<OwnedFd>,
    claims: Vec<Claim>,
    /// Every device, open from before its umount(2) until after it is mounted again: a loop device that was
    /// set up by `mount -o loop` loses its image at its last close.
    kept: Vec<File>,
}

impl Drop for Unmounted {
    fn drop(&mut self) {
        self.claims.clear();
        if !self.recipe.mounts.is_empty() && !remount::remount(&self.recipe).failed.is_empty() {
            STILL_UNMOUNTED.store(true, Ordering::SeqCst);
        }
    }
}

/// The result of mounting again.
#[derive(Debug, Default)]
#[must_use = "a filesystem may not be mounted"]
pub(crate) struct Remounted {
    pub mounted: Vec<PathBuf>,
    /// Not mounted; they stay in the journal.
    pub failed: Vec<Failed>,
    /// How mounts differ from before, one line each.
    pub differs: Vec<String>,
    /// The starts of units, one outcome each.
    pub outcomes: Vec<HookOutcome>,
}

impl Remounted {
    /// Mount points where something is not mounted, for post hooks.
    pub(super) fn not_mounted(&self) -> Vec<PathBuf> {
        self.failed.iter().map(|f| f.mount_point.clone()).collect()
    }

    fn logged(self) -> Self {
        for failed in &self.failed {
            tracing::error!("{failed}");
        }
        self
    }
}

fn refused(what: impl Into<String>, hint: &str) -> Failure {
    Failure::new(Exit::Freeze, what).hint(hint)
}

/// Unmounts what the plan says. After a failure [`remount`] has to undo what was done.
pub(super) async fn unmount<E>(
    env: &Environment<'_, E>,
    job: &Job<'_>,
    applications: &mut Applications,
    journal: &mut Journal,
    interrupt: &mut Interrupt,
    away: &mut Unmounted,
) -> Result<(), Failure> {
    let planned: Vec<_> = job.with_method(Method::Unmount).collect();
    if planned.is_empty() {
        return Ok(());
    }
    preflight::unchanged(env, job)?;
    let Applications { env: told, outcomes, .. } = applications;
    let settings = job.settings;
    let end = Instant::now() + settings.unmount_timeout;
    let targets = UnmountTargets::find(env, job, &planned)?;
    let targets = covered(targets, settings.unmount_timeout, away).await?;
    let systemd = Systemd::inspect(&targets, &settings.stop_units, told).await?;
    // A process of a service may end when `stop_units` are stopped, so it is looked for again after that.
    // Any other holder would still be there: refuse before a unit is stopped in vain.
    let stops = !settings.stop_units.is_empty();
    let stays = |h: &Holder| !stops || h.unit.as_ref().is_none_or(|u| !u.ends_with(".service"));
    targets.free(ASKED, stays).await?;

    let changed = journal.update(|state| {
        state.env = Some(told.clone());
        state.unmounted.mount_units.clone_from(&systemd.mount_units);
    });
    changed.map_err(|e| Failure::no_journal(&e))?;
    for hook in systemd.stop(&settings.stop_units, settings.unmount_timeout, told).await? {
        let left = end.saturating_duration_since(Instant::now());
        attempt(journal, told, interrupt, outcomes, hook, left, |state| &mut state.units).await?;
    }
    targets.free(if stops { ENDING } else { ASKED }, |_| true).await?;
    flush(env, &planned, &targets, end).await?;
    program_starts(env.program).await?;
    if let Some(signal) = interrupt.pending() {
        return Err(Failure::interrupted(signal));
    }

    let journaled = journal.update(|state| state.unmounted.recipe = targets.recipe.clone());
    journaled.map_err(|e| Failure::no_journal(&e))?;
    away.recipe = targets.recipe.clone();
    away.kept = kept_open(&targets.recipe)?;
    for mount in targets.recipe.mounts.iter().rev() {
        targets.unmount(mount).await?;
        tracing::info!("unmounted {}", shown(&mount.mount_point));
    }
    for device in targets.recipe.filesystems.iter().flat_map(|f| &f.devices) {
        away.claims.push(claim(device).map_err(|errno| {
            let what = format!(
                "{} is unmounted, and something still uses it: {}",
                device.path.display(),
                errno.desc()
            );
            refused(
                what,
                "end what has it mounted or open: look at containers and other mount \
                 namespaces (lsns -t mnt)",
            )
        })?);
    }
    for hook in systemd.automounts {
        attempt(journal, told, interrupt, outcomes, hook, settings.unmount_timeout, |state| {
            &mut state.automounts
        })
        .await?;
    }
    Ok(())
}

/// Adds to the recipe which folders are covered, and keeps these open.
async fn covered(
    mut targets: UnmountTargets,
    limit: Duration,
    away: &mut Unmounted,
) -> Result<UnmountTargets, Failure> {
    let work = move || {
        let held = targets.record_covered()?;
        Ok::<_, Failure>((targets, held))
    };
    // A mount point may be on a FUSE or a server that does not answer.
    let Some(done) = bounded(limit, work).await else {
        return Err(refused(
            "the folders that are mounted on cannot be opened within `unmount_timeout`",
            "nothing was unmounted; the filesystem that one of them is on does not answer",
        ));
    };
    let (targets, held) = done?;
    away.folders = held;
    Ok(targets)
}

/// Checks that this program can be started. A fanotify listener that does not answer makes exec hang, and a
/// child that hangs in exec keeps a copy of every claim, so that nothing could be mounted again. The watchdog
/// must not be the first to find that out.
async fn program_starts(program: &Path) -> Result<(), Failure> {
    let mut command = std::process::Command::new(program);
    command.arg("--version").env_clear().current_dir("/");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let program = program.display();
    match bounded(STARTING, move || command.status()).await {
        Some(Ok(_)) => Ok(()),
        Some(Err(e)) => Err(Failure::new(Exit::Freeze, format!("cannot start {program}: {e}"))),
        None => {
            let limit = humantime::format_duration(STARTING);
            Err(refused(
                format!("{program} does not start within {limit}, and the watchdog would not either"),
                "nothing was unmounted; a program that has to permit each exec, such as a virus scanner, \
                 does not answer; `stillpoint doctor` names it",
            ))
        }
    }
}

fn kept_open(recipe: &Recipe) -> Result<Vec<File>, Failure> {
    let open = |device: &unmount::Device| {
        File::open(&device.path)
            .map_err(|e| Failure::new(Exit::Freeze, format!("cannot open {}: {e}", device.path.display())))
    };
    recipe.filesystems.iter().flat_map(|f| &f.devices).map(open).collect()
}

/// Writes a stop to the journal, then does it.
async fn attempt(
    journal: &mut Journal,
    env: &HookEnv,
    interrupt: &mut Interrupt,
    outcomes: &mut Vec<HookOutcome>,
    hook: Hook,
    limit: Duration,
    list: fn(&mut super::journal::ToRemount) -> &mut Vec<Hook>,
) -> Result<(), Failure> {
    if let Some(signal) = interrupt.pending() {
        return Err(Failure::interrupted(signal));
    }
    journal
        .update(|state| list(&mut state.unmounted).push(hook.clone()))
        .map_err(|e| Failure::no_journal(&e))?;
    let cancelled = async {
        interrupt.caught().await;
    };
    let outcome =
        quiesce::quiesce_one(&Hook { timeout: limit, ..hook }, env, &mut Quiesced::default(), cancelled)
            .await;
    let (good, said) = (outcome.succeeded(), outcome.to_string());
    outcomes.push(outcome);
    match interrupt.pending() {
        Some(signal) => Err(Failure::interrupted(signal)),
        None if good => Ok(()),
        None => Err(refused(
            said,
            "nothing was taken, and what was stopped is started again; `unmount_timeout` limits the stop",
        )),
    }
}

/// Flushes by syncfs first, so that umount(2), which cannot be interrupted, has little to write.
async fn flush<E>(
    env: &Environment<'_, E>,
    planned: &[&PlannedFilesystem],
    targets: &UnmountTargets,
    end: Instant,
) -> Result<(), Failure> {
    for filesystem in planned {
        let (kernel, mount) = (Arc::clone(&env.kernel), targets.mount_on(&filesystem.mount_point));
        let flushed = bounded(end.saturating_duration_since(Instant::now()), move || {
            // Its path may lead to a device by now, which the mere open sets going.
            let root = mount_root(&mount.ok_or(Errno::ESTALE)?)?;
            let fd =
                if reach::is_plain(&root)? { reach::reopened(&root)? } else { return Err(Errno::ESTALE) };
            kernel.syncfs(fd.as_fd())
        });
        let place = filesystem.mount_point.display();
        match flushed.await {
            Some(Ok(())) => {}
            Some(Err(errno)) => {
                return Err(Failure::new(Exit::Freeze, format!("cannot flush {place}: {}", errno.desc())));
            }
            None => {
                return Err(refused(
                    format!("flushing {place} takes longer than `unmount_timeout`"),
                    "nothing was unmounted; raise `unmount_timeout`",
                ));
            }
        }
    }
    Ok(())
}

/// Runs `work` in a thread and waits for it until `limit`. A thread that hangs in the kernel is abandoned.
async fn bounded<T: Send + 'static>(limit: Duration, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let (tx, done) = tokio::sync::oneshot::channel();
    let started = thread::start("unmount", move || {
        let _ = tx.send(work());
    });
    if let Err(work) = started {
        work();
    }
    tokio::time::timeout(limit, done).await.ok()?.ok()
}

/// Mounts everything again and starts what was stopped. No signal interrupts it.
pub(super) async fn remount(
    mut away: Unmounted,
    journal: &mut Journal,
    applications: &mut Applications,
) -> Remounted {
    // From here on the journal has the only copy, so that dropping `away` does not mount as well.
    away.recipe = Recipe::default();
    let claims = std::mem::take(&mut away.claims);
    let mut remounted = owed(journal, claims).await;
    for mounted in &remounted.mounted {
        tracing::info!("mounted {} again", shown(mounted));
    }
    // Only now: a loop device loses its image at its last close, see [`Unmounted::kept`], and a folder that
    // is closed may lose its number to another.
    away.kept.clear();
    away.folders.clear();
    applications.outcomes.append(&mut remounted.outcomes);
    remounted
}

/// Starts and mounts what the journal says is owed: automounts, mounts, units. What fails stays in the
/// journal.
pub(super) async fn owed(journal: &mut Journal, claims: Vec<Claim>) -> Remounted {
    let owed = journal.state.unmounted.clone();
    let mut back = Remounted::default();
    if owed.is_empty() {
        return back;
    }
    let Some(env) = journal.state.env.clone() else { return back };
    // systemd follows paths itself, so it is not asked where others than root could have put a link.
    if let Some(why) = systemd::leads_astray(&owed.automounts, &owed.recipe) {
        drop(claims);
        back.failed = all_failed(&owed.recipe, &why);
        return back.logged();
    }
    // Automounts are started while the devices are still claimed. A mount that they trigger then fails, so
    // that nothing is mounted by them before it is mounted here, exactly as it was.
    back.outcomes.extend(quiesce::release(&owed.automounts, &env).await);
    let _ = journal.update(|state| state.unmounted.automounts.clear());
    drop(claims);
    let recipe = owed.recipe.clone();
    let mounted = bounded(REMOUNT_LIMIT, move || remount::remount(&recipe)).await;
    let Remount { mounted, failed, differs } = mounted.unwrap_or_else(|| late(&owed.recipe));
    (back.mounted, back.failed, back.differs) = (mounted, failed, differs);
    if !back.failed.is_empty() {
        return back.logged();
    }
    let _ = journal.update(|state| state.unmounted.recipe = Recipe::default());
    back.differs.extend(unnoticed(&owed.mount_units, &env).await);
    back.outcomes.extend(quiesce::release(&owed.units, &env).await);
    let _ = journal.update(|state| state.unmounted = super::journal::ToRemount::default());
    back
}

fn late(recipe: &Recipe) -> Remount {
    let why = format!("it is not mounted after {}", humantime::format_duration(REMOUNT_LIMIT));
    Remount { failed: all_failed(recipe, &why), ..Remount::default() }
}

/// The result when nothing is done now: everything owed has failed for this reason, and stays in the journal.
pub(super) fn not_yet(journal: &Journal, why: &str) -> Remounted {
    Remounted { failed: all_failed(&journal.state.unmounted.recipe, why), ..Remounted::default() }
}

fn all_failed(recipe: &Recipe, why: &str) -> Vec<Failed> {
    let failed = |m: &unmount::Mounted| Failed {
        mount_point: m.mount_point.clone(),
        why: why.to_owned(),
        by_hand: unmount::by_hand(recipe, m),
        astray: false,
    };
    recipe.mounts.iter().map(failed).collect()
}

/// What to do about what could not be mounted again.
pub(super) const BY_HAND: &str = "remove the cause, then run `stillpoint thaw`, which mounts what is missing \
    (so does the next run); or type the command that is printed with each mount";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::unmount::{Make, Mounted, Superblock};

    #[test]
    fn what_a_panic_leaves_unmounted_is_remembered_for_the_exit_code() {
        drop(Unmounted::default());
        assert!(!STILL_UNMOUNTED.load(Ordering::SeqCst));
        let nowhere = PathBuf::from("/nonexistent");
        let filesystem = Superblock {
            fstype: "ext4".to_owned(),
            shown_source: "/nonexistent".to_owned(),
            source: nowhere.clone(),
            devices: Vec::new(),
            options: Vec::new(),
        };
        let mount = Mounted {
            of: 0,
            dev: "7:4000".parse().unwrap(),
            mount_point: nowhere,
            root: "/".into(),
            options: "rw".to_owned(),
            propagation: Vec::new(),
            super_options: "rw".to_owned(),
            make: Make::New,
            covered: None,
        };
        let recipe = Recipe { filesystems: vec![filesystem], mounts: vec![mount] };
        drop(Unmounted { recipe, folders: Vec::new(), claims: Vec::new(), kept: Vec::new() });
        assert!(STILL_UNMOUNTED.load(Ordering::SeqCst));
    }
}
