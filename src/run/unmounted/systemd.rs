//! The part of systemd in an unmount: units to stop, units that it would stop itself, automounts, mount
//! units.
//!
//! In: what is to be unmounted. Out: [`Systemd`]. Must never: start or stop anything (its hooks do, once they
//! are journaled).

use std::path::Path;
use std::time::{Duration, Instant};

use super::refused;
use super::targets::UnmountTargets;
use crate::config::settings::Hook;
use crate::exit::Exit;
use crate::host::trust::{self, Trusted};
use crate::quiesce::HookEnv;
use crate::quiesce::systemctl::{self, Systemctl};
use crate::run::failure::Failure;
use crate::unmount::{REMOUNT_LIMIT, Recipe};

/// How long systemd gets to notice that a filesystem is mounted again.
const NOTICING: Duration = Duration::from_secs(2);

/// The units that matter for an unmount.
#[derive(Default)]
pub(super) struct Systemd {
    systemctl: Option<Systemctl>,
    /// Automounts, stopped only once the devices are claimed: before that a trigger could mount again, and
    /// systemd would unmount lazily.
    pub(crate) automounts: Vec<Hook>,
    pub(crate) mount_units: Vec<String>,
}

impl Systemd {
    pub async fn inspect(
        targets: &UnmountTargets,
        stop_units: &[String],
        env: &HookEnv,
    ) -> Result<Self, Failure> {
        let mut this = Self { systemctl: Systemctl::find(), ..Self::default() };
        if !stop_units.is_empty() && this.systemctl.is_none() {
            return Err(Failure::new(Exit::Config, "`stop_units` needs systemctl, which is not here"));
        }
        if let Some(systemctl) = &this.systemctl {
            not_triggered(systemctl, stop_units, env).await?;
        }
        let Some(systemctl) = this.systemctl.clone().filter(|_| systemctl::booted()) else {
            return match targets.automounts.first() {
                Some(unit) => Err(refused(
                    format!("an automounter other than systemd would mount it again in the window ({unit})"),
                    "stop and start that automounter by a hook (`pre`, `post`)",
                )),
                None => Ok(this),
            };
        };
        let asked = |e: String| Failure::new(Exit::Freeze, e);
        for mount in &targets.recipe.mounts {
            followed(&targets.automounts, &mount.mount_point)?;
        }
        for unit in &targets.automounts {
            let state = systemctl.show(unit, "ActiveState", env).await.map_err(asked)?;
            if !systemctl::is_active(&state) {
                let what = format!(
                    "an automounter other than systemd would mount it again in the window ({unit} is not \
                     active)"
                );
                return Err(refused(what, "stop and start that automounter by a hook (`pre`, `post`)"));
            }
            this.automounts.push(systemctl.hook(unit, REMOUNT_LIMIT));
        }
        for mount in &targets.recipe.mounts {
            let unit = systemctl::named_after(&mount.mount_point, "mount");
            let state = systemctl.show(&unit, "ActiveState,BoundBy", env).await.map_err(asked)?;
            if !systemctl::is_active(&state) {
                continue;
            }
            // systemd stops a unit that is bound to a mount when the mount goes, and nobody would start it
            // again.
            for bound in state.get("BoundBy").iter().flat_map(|b| b.split_whitespace()) {
                let known = stop_units.iter().chain(&targets.automounts).any(|u| u == bound);
                if !known
                    && systemctl::is_active(&systemctl.show(bound, "ActiveState", env).await.map_err(asked)?)
                {
                    let what =
                        format!("{bound} is bound to {unit}: systemd would stop it for good at the unmount");
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

    /// The stops of those units that are active, in order.
    pub async fn stop(
        &self,
        names: &[String],
        timeout: Duration,
        env: &HookEnv,
    ) -> Result<Vec<Hook>, Failure> {
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
            if systemctl::is_active(&state) {
                hooks.push(systemctl.hook(unit, timeout));
            }
        }
        Ok(hooks)
    }
}

/// Refuses when an active socket, timer or path unit could start a stopped unit again while its filesystem is
/// unmounted. One that comes earlier in the list is stopped by then.
async fn not_triggered(systemctl: &Systemctl, stop_units: &[String], env: &HookEnv) -> Result<(), Failure> {
    let asked = |e: String| Failure::new(Exit::Freeze, e);
    for (at, unit) in stop_units.iter().enumerate() {
        let state = systemctl.show(unit, "TriggeredBy", env).await.map_err(asked)?;
        let mut active = Vec::new();
        for trigger in state.get("TriggeredBy").iter().flat_map(|t| t.split_whitespace()) {
            if !stop_units[..at].iter().any(|u| u == trigger)
                && systemctl::is_active(&systemctl.show(trigger, "ActiveState", env).await.map_err(asked)?)
            {
                active.push(trigger);
            }
        }
        if !active.is_empty() {
            let first: Vec<_> = active.iter().chain([&unit.as_str()]).map(|u| format!("{u:?}")).collect();
            return Err(refused(
                format!("{} would start {unit} while its filesystem is unmounted", active.join(" and ")),
                &format!("stop it first, and have it started again: stop_units = [{}]", first.join(", ")),
            ));
        }
    }
    Ok(())
}

/// Refuses an automount whose path others than root could lead elsewhere: systemd follows paths itself when it
/// unmounts and mounts an automount, and nobody can do that for it by a descriptor.
fn followed(automounts: &[String], mount_point: &Path) -> Result<(), Failure> {
    let unit = systemctl::named_after(mount_point, "automount");
    if !automounts.contains(&unit) {
        return Ok(());
    }
    trust::check(mount_point.parent().unwrap_or(mount_point), Trusted::own()).map_err(|loose| {
        refused(
            format!("{unit} would have to be stopped and started, systemd follows its path, and {loose}"),
            &format!("{}, or mount it without the automount", loose.remedy),
        )
    })
}

/// Why systemd must not be asked for these automounts now; none when it may.
pub(super) fn leads_astray(automounts: &[Hook], recipe: &Recipe) -> Option<String> {
    let names: Vec<String> =
        automounts.iter().filter_map(|h| h.name.strip_prefix("unit ").map(str::to_owned)).collect();
    recipe.mounts.iter().find_map(|m| followed(&names, &m.mount_point).err()).map(|f| f.reason)
}

/// Mount units that were active and are not any more, though their filesystems are mounted again.
pub(super) async fn unnoticed(mount_units: &[String], env: &HookEnv) -> Vec<String> {
    let Some(systemctl) = Systemctl::find().filter(|_| !mount_units.is_empty()) else { return Vec::new() };
    let end = Instant::now() + NOTICING;
    let mut said = Vec::new();
    for unit in mount_units {
        while !systemctl.show(unit, "ActiveState", env).await.is_ok_and(|s| systemctl::is_active(&s)) {
            if Instant::now() > end {
                said.push(format!("{unit} was active, and systemd has not noticed that it is mounted again"));
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    said
}
