//! Filesystems with the method `unmount`: away before anything is frozen, back once everything is thawed.
//!
//! ```text
//! recipe ─→ holders? ─→ stop units ─→ holders? ─→ flush ─→ journal ─→ unmount ─→ claim ─→ stop automounts
//!                          ⋮ the window ⋮
//! start automounts ─→ mount again ─→ start units in reverse
//! ```
//!
//! In: the plan, systemd where it runs. Out: [`Away`] while they are away, [`Back`] when they are back. Must never: touch anything before
//! it is known how to mount it again, start a unit while its filesystem is missing, or unmount what somebody holds.

use std::collections::BTreeSet;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::journal::Journal;
use super::{Ended, Failure, Stage, preflight};
use crate::config::settings::Hook;
use crate::discover::mountinfo::MountLine;
use crate::discover::{self, Backing, DeviceKind, Filesystem, HostFacts};
use crate::error::chain;
use crate::exit::Exit;
use crate::interrupt::Interrupt;
use crate::plan::{Method, PlannedFilesystem, shown};
use crate::quiesce::units::{self, Systemctl};
use crate::quiesce::{self, HookEnv, HookOutcome};
use crate::window::unmount::again::{self, Again, Failed};
use crate::window::unmount::claim::{self, Claim, claim};
use crate::window::unmount::holders::{self, Holder, Targets};
use crate::window::unmount::{self, Device, Recipe, Wanted};

/// How long processes that were told to end may go on holding a filesystem.
const ENDING: Duration = Duration::from_secs(2);
/// How long umount(2) is tried against EBUSY: what a process held goes a moment after the process.
const BUSY: Duration = Duration::from_secs(1);
/// How long mounting may take before the run reports without it. A large btrfs takes minutes.
const MOUNTING: Duration = Duration::from_secs(300);
/// How long systemd has to notice what is mounted again.
const NOTICING: Duration = Duration::from_secs(2);
/// The most holders that a message names.
const NAMED: usize = 8;

/// Filesystems that are unmounted now. Dropped, it mounts them: a panic must not leave them away. The journal still has them then.
#[derive(Debug, Default)]
pub(super) struct Away {
    recipe: Recipe,
    claims: Vec<Claim>,
}

impl Drop for Away {
    fn drop(&mut self) {
        self.claims.clear();
        if !self.recipe.mounts.is_empty() {
            let _ = again::again(&self.recipe);
        }
    }
}

/// What came of mounting again.
#[derive(Debug, Default)]
#[must_use = "a filesystem may not be mounted"]
pub struct Back {
    /// Mounted again.
    pub mounted: Vec<PathBuf>,
    /// Not mounted; they stay in the journal.
    pub failed: Vec<Failed>,
    /// Mounted, but not as before.
    pub differs: Vec<String>,
    /// Units, as they were started.
    pub outcomes: Vec<HookOutcome>,
}

fn refused(what: impl Into<String>, hint: &str) -> Failure {
    Failure { hint: Some(hint.to_owned()), ..Failure::new(Exit::Freeze, what) }
}

/// Unmounts what the plan says. On failure whatever was done is undone by [`end`].
pub(super) async fn begin<E>(
    stage: &Stage<'_, E>,
    journal: &mut Journal,
    env: &HookEnv,
    interrupt: &mut Interrupt,
    outcomes: &mut Vec<HookOutcome>,
    away: &mut Away,
) -> Result<(), Failure> {
    let planned: Vec<_> = stage.plan.filesystems.iter().filter(|f| f.method == Method::Unmount).collect();
    if planned.is_empty() {
        return Ok(());
    }
    preflight::unchanged(stage)?;
    let end = Instant::now() + stage.settings.unmount_timeout;
    let ground = Ground::look(&planned)?;
    let systemd = Systemd::look(&ground, &stage.settings.stop_units, env).await?;
    // Processes of units may go when the units are stopped; nothing else will.
    let stops = !stage.settings.stop_units.is_empty();
    let stays = |h: &Holder| !stops || h.unit.as_ref().is_none_or(|u| !u.ends_with(".service"));
    ground.free(Duration::ZERO, stays).await?;

    let changed = journal.update(|state| {
        state.env = Some(env.clone());
        state.unmounted.mount_units.clone_from(&systemd.mount_units);
    });
    changed.map_err(|e| Failure::new(Exit::Freeze, format!("cannot write the journal: {e}")))?;
    for hook in systemd.stop(&stage.settings.stop_units, stage.settings.unmount_timeout, env).await? {
        let left = end.saturating_duration_since(Instant::now());
        attempt(journal, env, interrupt, outcomes, hook, left, |state| &mut state.units).await?;
    }
    ground.free(if stops { ENDING } else { Duration::ZERO }, |_| true).await?;
    flush(stage, &planned, end).await?;
    if let Some(signal) = interrupt.pending() {
        return Err(Failure::by(signal));
    }

    let journaled = journal.update(|state| state.unmounted.recipe = ground.recipe.clone());
    journaled.map_err(|e| Failure::new(Exit::Freeze, format!("cannot write the journal: {e}")))?;
    away.recipe = ground.recipe.clone();
    for mount in ground.recipe.mounts.iter().rev() {
        ground.unmount(mount).await?;
        tracing::info!("unmounted {}", mount.mount_point.display());
    }
    for device in ground.recipe.filesystems.iter().flat_map(|f| &f.devices) {
        away.claims.push(claim(device).map_err(|errno| {
            let what = format!("{} is unmounted here and still held: {}", device.path.display(), errno.desc());
            refused(what, "something else has mounted or opened it: look for other mount namespaces (lsns -t mnt) and containers")
        })?);
    }
    for hook in systemd.automounts {
        attempt(journal, env, interrupt, outcomes, hook, stage.settings.unmount_timeout, |state| {
            &mut state.automounts
        })
        .await?;
    }
    Ok(())
}

/// Journals a stop before it is tried, then tries it.
async fn attempt(
    journal: &mut Journal,
    env: &HookEnv,
    interrupt: &mut Interrupt,
    outcomes: &mut Vec<HookOutcome>,
    hook: Hook,
    limit: Duration,
    list: fn(&mut super::journal::Unmounted) -> &mut Vec<Hook>,
) -> Result<(), Failure> {
    if let Some(signal) = interrupt.pending() {
        return Err(Failure::by(signal));
    }
    journal
        .update(|state| list(&mut state.unmounted).push(hook.clone()))
        .map_err(|e| Failure::new(Exit::Freeze, format!("cannot write the journal: {e}")))?;
    let cancelled = async {
        interrupt.caught().await;
    };
    let outcome = quiesce::run_pre_until(&Hook { timeout: limit, ..hook }, env, cancelled).await;
    let (good, said) = (outcome.succeeded(), outcome.to_string());
    outcomes.push(outcome);
    match interrupt.pending() {
        Some(signal) => Err(Failure::by(signal)),
        None if good => Ok(()),
        None => Err(refused(
            said,
            "nothing was taken, and what was stopped is started again; `unmount_timeout` bounds the stop",
        )),
    }
}

/// syncfs first, so that umount(2), which cannot be broken off, has little to write.
async fn flush<E>(stage: &Stage<'_, E>, planned: &[&PlannedFilesystem], end: Instant) -> Result<(), Failure> {
    for filesystem in planned {
        let (kernel, path) = (std::sync::Arc::clone(&stage.kernel), filesystem.mount_point.clone());
        let flushed = bounded(end.saturating_duration_since(Instant::now()), move || {
            let fd = kernel.open(&path)?;
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
                    "nothing was unmounted; raise it, or flush before",
                ));
            }
        }
    }
    Ok(())
}

/// In a thread, waited for no longer than this. A thread that hangs in the kernel is left behind.
async fn bounded<T: Send + 'static>(limit: Duration, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let (tell, done) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let _ = tell.send(work());
    });
    tokio::time::timeout(limit, done).await.ok()?.ok()
}

/// What is to be unmounted, as it is now.
struct Ground {
    recipe: Recipe,
    targets: Targets,
    /// Holders that are no processes.
    fixed: Vec<Holder>,
    /// Units of automounts above which something is mounted.
    automounts: Vec<String>,
}

impl Ground {
    fn look(planned: &[&PlannedFilesystem]) -> Result<Self, Failure> {
        let unreadable = |e: String| Failure::new(Exit::Freeze, format!("cannot look at the mounts: {e}"));
        let host = discover::host(Path::new("/")).map_err(|e| unreadable(chain(&e)))?;
        let lines = unmount::now().map_err(|e| unreadable(e.to_string()))?;
        let mut wanted = Vec::new();
        for filesystem in planned {
            wanted.push(of_host(&host, &lines, filesystem)?);
        }
        let hint = "use the method \"freeze\" or \"sync\" for it";
        let recipe = unmount::recipe(&lines, &wanted).map_err(|e| refused(e.to_string(), hint))?;
        again::check(&recipe).map_err(|e| refused(e.to_string(), hint))?;
        let ids: BTreeSet<u32> = wanted.iter().flat_map(|w| w.ids.iter().copied()).collect();
        let of_ids = |id: u32| lines.iter().find(move |l| l.id == id);
        let parents: Vec<&MountLine> = ids.iter().filter_map(|id| of_ids(of_ids(*id)?.parent)).collect();
        let spreads = parents.iter().flat_map(|p| &p.optional).filter_map(|o| o.strip_prefix("shared:"));
        let targets = Targets {
            devs: lines.iter().filter(|l| ids.contains(&l.id)).map(|l| l.dev).collect(),
            spreads: spreads.map(str::to_owned).collect(),
            ids,
        };
        let automounts = parents.iter().filter(|p| p.fstype == "autofs");
        let automounts = automounts.map(|p| units::named_after(&p.mount_point, "automount")).collect();
        let fixed = fixed(&host, &lines, &targets);
        Ok(Self { recipe, targets, fixed, automounts })
    }

    /// Refuses while somebody holds it for whom `counts` says so.
    async fn free(&self, patience: Duration, counts: impl Fn(&Holder) -> bool) -> Result<(), Failure> {
        let end = Instant::now() + patience;
        loop {
            let targets = self.targets.clone();
            let (found, cut) =
                tokio::task::spawn_blocking(move || holders::processes(&targets, holders::LIMIT))
                    .await
                    .unwrap_or_default();
            let all: Vec<Holder> = self.fixed.iter().cloned().chain(found).filter(|h| counts(h)).collect();
            if all.is_empty() {
                return Ok(());
            }
            if Instant::now() >= end {
                return Err(self.held(&all, cut));
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    fn held(&self, holders: &[Holder], cut: bool) -> Failure {
        let mut places: Vec<&Path> = self.recipe.mounts.iter().map(|m| m.mount_point.as_path()).collect();
        places.dedup();
        let places: Vec<_> = places.into_iter().map(shown).collect();
        let mut names: Vec<_> = holders.iter().take(NAMED).map(ToString::to_string).collect();
        if holders.len() > NAMED {
            names.push(format!("{} more", holders.len() - NAMED));
        }
        if cut {
            names.push("perhaps others: there was no time to look at every process".to_owned());
        }
        let units: BTreeSet<&str> =
            holders.iter().filter_map(|h| h.unit.as_deref()).filter(|u| u.ends_with(".service")).collect();
        let hint = if units.is_empty() {
            "nothing was unmounted; end what holds it, or stop its units by `stop_units`".to_owned()
        } else {
            let units: Vec<_> = units.iter().map(|u| format!("{u:?}")).collect();
            format!("nothing was unmounted; stop them first: stop_units = [{}]", units.join(", "))
        };
        refused(format!("cannot unmount {}: {}", places.join(", "), names.join("; ")), &hint)
    }

    async fn unmount(&self, mount: &unmount::Mounted) -> Result<(), Failure> {
        let end = Instant::now() + BUSY;
        loop {
            match unmount::unmount(&self.recipe, mount) {
                Ok(()) => return Ok(()),
                Err(nix::errno::Errno::EBUSY) if Instant::now() < end => {
                    tokio::time::sleep(Duration::from_millis(20)).await
                }
                Err(errno) => {
                    // Who came meanwhile is named; what holds it inside the kernel has no name.
                    self.free(Duration::ZERO, |_| true).await?;
                    let what = format!("cannot unmount {}: {}", mount.mount_point.display(), errno.desc());
                    return Err(refused(
                        what,
                        "no process holds it: look for NFS exports, overlays, and namespaces kept by a file (lsns, findmnt)",
                    ));
                }
            }
        }
    }
}

/// The mounts and devices of a planned filesystem.
fn of_host(host: &HostFacts, lines: &[MountLine], planned: &PlannedFilesystem) -> Result<Wanted, Failure> {
    let place = planned.mount_point.display();
    let found = host.filesystems.iter().find(|f| f.dev == planned.dev);
    if found.is_none() {
        return Err(refused(
            format!("{place} is not mounted any more"),
            "hooks must not unmount what the run unmounts",
        ));
    }
    let ids: Vec<u32> = found.iter().flat_map(|f| f.mounts.iter().map(|m| m.id)).collect();
    let sources: Vec<PathBuf> =
        lines.iter().filter(|l| ids.contains(&l.id)).map(|l| PathBuf::from(&l.source)).collect();
    let mut devices = Vec::new();
    for witness in &planned.witnesses {
        let device = host.devices.iter().find(|d| d.name == witness.name);
        let node = device.and_then(|d| {
            let likely: Vec<PathBuf> =
                sources.iter().cloned().chain([Path::new("/dev").join(&d.name)]).collect();
            Some(Device { path: claim::node(d.dev, &likely)?, dev: d.dev })
        });
        let Some(node) = node else {
            return Err(refused(
                format!("cannot unmount {place}: no node of {} is to be found", witness.name),
                "use another method for it",
            ));
        };
        // Mounted from what it was mounted from, where that is a device of it.
        let at = if sources.contains(&node.path) { 0 } else { devices.len() };
        devices.insert(at, node);
    }
    Ok(Wanted { ids, devices })
}

/// Mounts on it, overlays over it, image files and swap files.
fn fixed(host: &HostFacts, lines: &[MountLine], targets: &Targets) -> Vec<Holder> {
    let holder = |what| Holder { pid: None, unit: None, what };
    let mut all = Vec::new();
    for line in lines.iter().filter(|l| targets.ids.contains(&l.parent) && !targets.ids.contains(&l.id)) {
        all.push(holder(format!("{} ({}) is mounted on it", shown(&line.mount_point), line.fstype)));
    }
    // btrfs: the plan goes by the first of its device numbers, and so do the holders.
    let on_it = |dev: &Option<crate::ids::DevNo>| dev.is_some_and(|d| targets.devs.contains(&d));
    for device in &host.devices {
        if let DeviceKind::Loop { backing_file: Some(file), holder: of } = &device.kind
            && on_it(of)
        {
            all.push(holder(format!("{} is over its file {}", device.name, shown(file))));
        }
    }
    for filesystem in &host.filesystems {
        if let Backing::Overlay { upper } = &filesystem.backing
            && on_it(upper)
        {
            all.push(holder(format!("the overlay on {} writes to it", shown(filesystem.mount_point()))));
        }
    }
    for swap in host.swap_files.iter().filter(|s| on_it(&s.holder)) {
        all.push(holder(format!("swap is on its file {}", shown(&swap.path))));
    }
    all
}

/// What systemd has to do with it.
#[derive(Default)]
struct Systemd {
    systemctl: Option<Systemctl>,
    /// Stopped once the devices are claimed, so that nothing is triggered in between and nothing is unmounted lazily.
    automounts: Vec<Hook>,
    mount_units: Vec<String>,
}

impl Systemd {
    async fn look(ground: &Ground, stop_units: &[String], env: &HookEnv) -> Result<Self, Failure> {
        let mut this = Self { systemctl: Systemctl::find(), ..Self::default() };
        if !stop_units.is_empty() && this.systemctl.is_none() {
            return Err(Failure::new(
                Exit::Config,
                "`stop_units` names units, and there is no systemctl in PATH",
            ));
        }
        let Some(systemctl) = this.systemctl.clone().filter(|_| units::booted()) else {
            return match ground.automounts.first() {
                Some(unit) => Err(refused(
                    format!("an automounter that is not systemd would mount it in the window ({unit})"),
                    "stop it by a hook",
                )),
                None => Ok(this),
            };
        };
        let asked = |e: String| Failure::new(Exit::Freeze, e);
        for unit in &ground.automounts {
            let state = systemctl.show(unit, "ActiveState", env).await.map_err(asked)?;
            if !units::is_active(&state) {
                let what = format!(
                    "an automounter that is not systemd would mount it in the window ({unit} is not active)"
                );
                return Err(refused(what, "stop it by a hook"));
            }
            this.automounts.push(systemctl.hook(unit, MOUNTING));
        }
        for mount in &ground.recipe.mounts {
            let unit = units::named_after(&mount.mount_point, "mount");
            let state = systemctl.show(&unit, "ActiveState,BoundBy", env).await.map_err(asked)?;
            if !units::is_active(&state) {
                continue;
            }
            // systemd stops what is bound to a mount that goes, and nobody would start it again.
            for bound in state.get("BoundBy").iter().flat_map(|b| b.split_whitespace()) {
                let known = stop_units.iter().chain(&ground.automounts).any(|u| u == bound);
                if !known
                    && units::is_active(&systemctl.show(bound, "ActiveState", env).await.map_err(asked)?)
                {
                    let what = format!("{bound} is bound to {unit}: systemd would stop it");
                    return Err(refused(
                        what,
                        &format!("stop it first, and have it started again: stop_units = [{bound:?}]"),
                    ));
                }
            }
            this.mount_units.push(unit);
        }
        Ok(this)
    }

    /// The units that are active, in order.
    async fn stop(&self, names: &[String], timeout: Duration, env: &HookEnv) -> Result<Vec<Hook>, Failure> {
        let mut hooks = Vec::new();
        let Some(systemctl) = &self.systemctl else { return Ok(hooks) };
        for unit in names {
            let state = systemctl.show(unit, "LoadState,ActiveState", env).await;
            let state = state.map_err(|e| Failure::new(Exit::Freeze, e))?;
            if state.get("LoadState").is_some_and(|l| l == "not-found") {
                return Err(Failure::new(
                    Exit::Config,
                    format!("`stop_units` names {unit}, which systemd does not know"),
                ));
            }
            if units::is_active(&state) {
                hooks.push(systemctl.hook(unit, timeout));
            }
        }
        Ok(hooks)
    }
}

/// Mounts everything again and starts what was stopped. Not to be interrupted.
pub(super) async fn end(mut away: Away, journal: &mut Journal, outcomes: &mut Vec<HookOutcome>) -> Back {
    away.recipe = Recipe::default(); // from here on it is the journal's
    let claims = std::mem::take(&mut away.claims);
    let mut back = back(journal, claims).await;
    outcomes.append(&mut back.outcomes);
    back
}

/// Does what the journal says is owed: automounts, mounts, units. What fails stays in it.
pub(super) async fn back(journal: &mut Journal, claims: Vec<Claim>) -> Back {
    let owed = journal.state.unmounted.clone();
    let mut back = Back::default();
    if owed.is_empty() {
        return back;
    }
    let Some(env) = journal.state.env.clone() else { return back };
    // While the devices are claimed, an automount that is triggered fails; it cannot come first.
    back.outcomes.extend(quiesce::release(&owed.automounts, &env).await);
    let _ = journal.update(|state| state.unmounted.automounts.clear());
    drop(claims);
    let recipe = owed.recipe.clone();
    let mounted = bounded(MOUNTING, move || again::again(&recipe)).await;
    let Again { mounted, failed, differs } = mounted.unwrap_or_else(|| late(&owed.recipe));
    (back.mounted, back.failed, back.differs) = (mounted, failed, differs);
    for failed in &back.failed {
        tracing::error!("{failed}");
    }
    if !back.failed.is_empty() {
        return back;
    }
    let _ = journal.update(|state| state.unmounted.recipe = Recipe::default());
    back.differs.extend(unnoticed(&owed.mount_units, &env).await);
    back.outcomes.extend(quiesce::release(&owed.units, &env).await);
    let _ = journal.update(|state| state.unmounted = super::journal::Unmounted::default());
    back
}

fn late(recipe: &Recipe) -> Again {
    let why = format!("it is not mounted after {}", humantime::format_duration(MOUNTING));
    Again { failed: all_failed(recipe, &why), ..Again::default() }
}

/// What is owed, and why it is not done now; the journal keeps it.
pub(super) fn not_yet(journal: &Journal, why: &str) -> Back {
    Back { failed: all_failed(&journal.state.unmounted.recipe, why), ..Back::default() }
}

fn all_failed(recipe: &Recipe, why: &str) -> Vec<Failed> {
    let failed = |m: &unmount::Mounted| Failed {
        mount_point: m.mount_point.clone(),
        why: why.to_owned(),
        by_hand: unmount::by_hand(recipe, m),
    };
    recipe.mounts.iter().map(failed).collect()
}

/// Mount units that were active and are not, though their mounts are back.
async fn unnoticed(mount_units: &[String], env: &HookEnv) -> Vec<String> {
    let Some(systemctl) = Systemctl::find().filter(|_| !mount_units.is_empty()) else { return Vec::new() };
    let end = Instant::now() + NOTICING;
    let mut said = Vec::new();
    for unit in mount_units {
        while !systemctl.show(unit, "ActiveState", env).await.is_ok_and(|s| units::is_active(&s)) {
            if Instant::now() > end {
                said.push(format!("{unit} was active, and systemd does not see it mounted again"));
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    said
}

/// Writes into the record what the user has to know.
pub(super) fn tell(ended: &mut Ended, back: Back) {
    let record = &mut ended.record;
    if !back.failed.is_empty() {
        ended.hint = Some("remove what is in the way, then `stillpoint thaw` mounts them again, as the next run does; or type the command".to_owned());
    }
    for failed in back.failed {
        record.after.push(failed.to_string());
        record.not_mounted.push(failed.mount_point);
    }
    record.after.extend(back.differs);
}

/// `now`, and what this run itself has unmounted, where it was.
pub(super) fn with_those_away<E>(stage: &Stage<'_, E>, mut now: Vec<Filesystem>) -> Vec<Filesystem> {
    for planned in stage.plan.filesystems.iter().filter(|f| f.method == Method::Unmount) {
        let known = &stage.facts.filesystems;
        if now.iter().any(|f| f.dev == planned.dev) {
            continue;
        }
        if let Some(at) = known.iter().position(|f| f.dev == planned.dev) {
            now.insert(at.min(now.len()), known[at].clone());
        }
    }
    now
}
