//! What was stopped is kept from being started while the exchange runs.
//!
//! ```text
//! systemctl mask --runtime ─▶ masked? ─▶ no: the unit's file is in /etc, which counts more than a mask in
//!                                          /run/systemd/system, or in /run itself, where no mask can be
//!                                          ─▶ a link in /run/systemd/system.control, which counts more than both
//! ```
//!
//! Both are in /run: a boot forgets them. A unit is masked once it is stopped: masked before, it would be stopped without
//! its ExecStop=.
//!
//! In: names of units. Out: the same units, masked, or no longer. Must never: mask one before it is noted, take away a mask
//! that is not of this restore, or start a unit while it is masked.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::exchange::Exchange;
use crate::ec2::volumes::Volumes;
use crate::host::process;
use crate::quiesce::HookEnv;
use crate::quiesce::systemctl::{self, Systemctl};

/// What counts more than unit files in /etc/systemd/system (systemd.unit(5), "Unit File Load Path").
const CONTROL: &str = "run/systemd/system.control";

/// Units that this restore has masked.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Masked {
    /// In the order in which they were.
    pub units: Vec<String>,
    /// The boot that the masks are of.
    pub boot: Option<String>,
}

impl Masked {
    /// The commands that take the masks off by hand.
    #[must_use]
    pub fn by_hand(&self) -> Vec<String> {
        if self.units.is_empty() {
            return Vec::new();
        }
        let units = self.units.join(" ");
        let links: Vec<String> = self.units.iter().map(|u| format!("/{CONTROL}/{u}")).collect();
        vec![
            format!("systemctl unmask --runtime {units}"),
            format!("rm -f {} && systemctl daemon-reload", links.join(" ")),
        ]
    }
}

fn link(root: &Path, unit: &str) -> PathBuf {
    root.join(CONTROL).join(unit)
}

fn is_mask(path: &Path) -> bool {
    std::fs::read_link(path).is_ok_and(|to| to == Path::new("/dev/null"))
}

async fn load_state(systemctl: &Systemctl, unit: &str, env: &HookEnv) -> Result<String, String> {
    let state = systemctl.show(unit, "LoadState", env).await?;
    Ok(state.get("LoadState").cloned().unwrap_or_default())
}

impl<E: Volumes> Exchange<'_, '_, E> {
    /// Masks these, as far as they are not. What cannot be masked is told, and stopped once more at the end.
    pub(super) async fn mask(&mut self, units: &[String]) {
        let Some(systemctl) = Systemctl::find() else { return };
        let env = self.env();
        for unit in units {
            if let Err(why) = self.mask_one(&systemctl, unit, &env).await {
                (self.waiting.tell)(&format!("{unit} is not kept from being started meanwhile: {why}"));
            }
        }
    }

    async fn mask_one(&mut self, systemctl: &Systemctl, unit: &str, env: &HookEnv) -> Result<(), String> {
        // What is masked already is somebody else's, or of this restore.
        if load_state(systemctl, unit, env).await? != "loaded" {
            return Ok(());
        }
        let masked = &mut self.record.moving.masked;
        if !masked.units.iter().any(|known| known == unit) {
            masked.units.push(unit.to_owned());
        }
        masked.boot = process::boot(self.on.root);
        if let Err(stopped) = self.write() {
            // Nobody would take it off again.
            self.record.moving.masked.units.retain(|known| known != unit);
            return Err(stopped.to_string());
        }
        let refused = systemctl.tell(&["mask", "--runtime", "--", unit], env).await.err();
        if load_state(systemctl, unit, env).await? == "masked" {
            return Ok(());
        }
        let link = link(self.on.root, unit);
        if systemctl::booted() {
            let made = std::fs::create_dir_all(self.on.root.join(CONTROL))
                .and_then(|()| std::os::unix::fs::symlink("/dev/null", &link));
            match made {
                Err(e) if e.kind() != ErrorKind::AlreadyExists => {
                    return Err(format!("{}: {e}", link.display()));
                }
                _ => systemctl.tell(&["daemon-reload"], env).await?,
            }
        }
        match load_state(systemctl, unit, env).await?.as_str() {
            "masked" => Ok(()),
            state => Err(refused.unwrap_or_else(|| format!("systemd has it as {state} all the same"))),
        }
    }

    /// Takes the masks of this restore off. What cannot be is told with the commands, and counts as not started.
    pub(super) async fn unmask(&mut self) {
        let masked = std::mem::take(&mut self.record.moving.masked);
        if masked.units.is_empty() || masked.boot != process::boot(self.on.root) {
            return;
        }
        if let Err(why) = self.unmask_these(&masked.units).await {
            let said = format!("{} may still be masked: {why}", masked.units.join(", "));
            (self.waiting.tell)(&format!("{said}; by hand: {}", masked.by_hand().join("; ")));
            self.unstarted.push(said);
        }
    }

    async fn unmask_these(&self, units: &[String]) -> Result<(), String> {
        let systemctl = Systemctl::find().ok_or("there is no systemctl")?;
        let env = self.env();
        // What fails for one must not keep the others masked.
        let mut failed = Vec::new();
        let mut reload = false;
        for path in units.iter().map(|unit| link(self.on.root, unit)).filter(|path| is_mask(path)) {
            match std::fs::remove_file(&path) {
                Ok(()) => reload = true,
                Err(e) => failed.push(format!("{}: {e}", path.display())),
            }
        }
        let words = ["unmask", "--runtime", "--"].into_iter().chain(units.iter().map(String::as_str));
        failed.extend(systemctl.tell(&words.collect::<Vec<_>>(), &env).await.err());
        if reload {
            failed.extend(systemctl.tell(&["daemon-reload"], &env).await.err());
        }
        for unit in units {
            if load_state(&systemctl, unit, &env).await? == "masked" && failed.is_empty() {
                failed.push(format!("{unit} is masked by something else by now"));
            }
        }
        if failed.is_empty() { Ok(()) } else { Err(failed.join("; ")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_link_to_dev_null_is_a_mask() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join(CONTROL);
        std::fs::create_dir_all(&folder).unwrap();
        std::os::unix::fs::symlink("/dev/null", folder.join("a.service")).unwrap();
        std::os::unix::fs::symlink("/etc/b.service", folder.join("b.service")).unwrap();
        std::fs::write(folder.join("c.service"), "[Unit]\n").unwrap();
        let masks =
            ["a.service", "b.service", "c.service", "d.service"].map(|u| is_mask(&link(root.path(), u)));
        assert_eq!(masks, [true, false, false, false]);
    }

    #[test]
    fn what_is_done_by_hand_takes_off_both() {
        assert!(Masked::default().by_hand().is_empty());
        let masked = Masked { units: vec!["a.service".into(), "b.timer".into()], boot: None };
        assert_eq!(
            masked.by_hand(),
            [
                "systemctl unmask --runtime a.service b.timer",
                "rm -f /run/systemd/system.control/a.service /run/systemd/system.control/b.timer && systemctl daemon-reload"
            ]
        );
    }
}
