//! The current state of what is to be unmounted: its mounts, its devices, and who keeps it busy.
//!
//! In: planned filesystems. Out: [`UnmountTargets`], with the recipe and the refusals. Must never: change
//! anything, except in [`UnmountTargets::unmount`].

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;

use super::refused;
use crate::discover::{self, Backing, DeviceKind, HostFacts};
use crate::error::chain;
use crate::exit::Exit;
use crate::host::device;
use crate::host::inspect::Helper;
use crate::host::mountinfo::{self, MountLine};
use crate::ids::DevNo;
use crate::path_encoding::shown;
use crate::plan::PlannedFilesystem;
use crate::quiesce::systemctl;
use crate::run::environment::Environment;
use crate::run::failure::Failure;
use crate::run::job::Job;
use crate::unmount::holders::{self, Holder, Targets};
use crate::unmount::remount;
use crate::unmount::{self, Device, Recipe, Wanted};

/// How long umount(2) is repeated on EBUSY: the kernel drops a process's files a moment after the process has
/// ended.
const BUSY: Duration = Duration::from_secs(1);
/// The most holders that a message names.
const NAMED: usize = 8;

const HINT: &str = "use the method \"freeze\" or \"sync\" for it";

/// The current state of what is to be unmounted.
pub(super) struct UnmountTargets {
    pub(crate) recipe: Recipe,
    /// The mount table that the recipe is from.
    lines: Vec<MountLine>,
    targets: Targets,
    /// Holders that are not processes.
    fixed: Vec<Holder>,
    /// Units of automounts above which something is mounted.
    pub(crate) automounts: Vec<String>,
}

impl UnmountTargets {
    pub fn find<E>(
        env: &Environment<'_, E>,
        job: &Job<'_>,
        planned: &[&PlannedFilesystem],
    ) -> Result<Self, Failure> {
        let root = env.root;
        let unreadable = |e: String| Failure::new(Exit::Freeze, format!("cannot read the mounts: {e}"));
        let inspect = Helper::new(env.program, Helper::HOLDING);
        let host =
            discover::host(root, &inspect, job.facts.answers.clone()).map_err(|e| unreadable(chain(&e)))?;
        let table = mountinfo::read(root, "self").map_err(|e| unreadable(e.to_string()))?;
        // What is unmounted has to be mounted again as it was, and what is on top of it comes first: no line
        // may be missing.
        let lines = table.whole().map_err(|e| unreadable(e.to_string()))?;
        let mut wanted = Vec::new();
        for filesystem in planned {
            wanted.push(wanted_of(&host, &lines, filesystem)?);
        }
        let recipe = unmount::recipe(&lines, &wanted).map_err(|e| refused(e.to_string(), HINT))?;
        remount::check(&recipe).map_err(|e| refused(e.to_string(), HINT))?;
        let ids: BTreeSet<u32> = wanted.iter().flat_map(|w| w.ids.iter().copied()).collect();
        let of_ids = |id: u32| lines.iter().find(move |l| l.id == id);
        let parents: Vec<&MountLine> = ids.iter().filter_map(|id| of_ids(of_ids(*id)?.parent)).collect();
        let spreads = parents.iter().flat_map(|p| &p.optional).filter_map(|o| o.strip_prefix("shared:"));
        let ours = || lines.iter().filter(|l| ids.contains(&l.id));
        let targets = Targets {
            // Backwards: of several mounts the first one names the filesystem.
            devs: ours().rev().map(|l| (l.dev, l.mount_point.clone())).collect(),
            spreads: spreads.map(str::to_owned).collect(),
            ids: ours().map(|l| (l.id, l.mount_point.clone())).collect(),
        };
        let automounts = parents.iter().filter(|p| p.fstype == "autofs");
        let automounts = automounts.map(|p| systemctl::named_after(&p.mount_point, "automount")).collect();
        let fixed = fixed(&host, &lines, &targets);
        Ok(Self { recipe, lines, targets, fixed, automounts })
    }

    /// Records in the recipe which folders are covered. The descriptors keep these.
    pub fn record_covered(&mut self) -> Result<Vec<OwnedFd>, Failure> {
        unmount::covered::record(&self.lines, &mut self.recipe).map_err(|e| refused(e.to_string(), HINT))
    }

    /// The mount that is to be unmounted at this place, the upper one of two.
    pub fn mount_on(&self, mount_point: &Path) -> Option<MountLine> {
        let ours = |l: &&MountLine| l.mount_point == mount_point && self.targets.ids.contains_key(&l.id);
        self.lines.iter().rfind(ours).cloned()
    }

    /// Waits until no holder is left that `counts` selects; refuses after `patience`.
    pub async fn free(&self, patience: Duration, counts: impl Fn(&Holder) -> bool) -> Result<(), Failure> {
        self.free_of(&self.targets, patience, counts).await
    }

    /// The same of these alone.
    async fn free_of(
        &self,
        of: &Targets,
        patience: Duration,
        counts: impl Fn(&Holder) -> bool,
    ) -> Result<(), Failure> {
        let end = Instant::now() + patience;
        loop {
            let targets = of.clone();
            let (found, cut) = tokio::task::spawn_blocking(move || {
                holders::processes(Path::new("/"), &targets, holders::LIMIT)
            })
            .await
            .unwrap_or_default();
            let all: Vec<Holder> = self.fixed.iter().cloned().chain(found).filter(|h| counts(h)).collect();
            if all.is_empty() {
                return Ok(());
            }
            if Instant::now() >= end {
                return Err(Self::held(&all, cut));
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    fn held(holders: &[Holder], cut: bool) -> Failure {
        // Each with the mount that it holds: the others could be unmounted.
        let mut busy: Vec<(&Path, Vec<String>)> = Vec::new();
        for holder in holders.iter().take(NAMED) {
            let at = busy.iter().position(|(of, _)| *of == holder.of).unwrap_or_else(|| {
                busy.push((&holder.of, Vec::new()));
                busy.len() - 1
            });
            busy[at].1.push(holder.to_string());
        }
        let mut said: Vec<_> =
            busy.into_iter().map(|(of, names)| format!("{}: {}", shown(of), names.join("; "))).collect();
        if holders.len() > NAMED {
            said.push(format!("{} more holders", holders.len() - NAMED));
        }
        if cut {
            said.push("perhaps others: there was no time to examine every process".to_owned());
        }
        let units: BTreeSet<&str> =
            holders.iter().filter_map(|h| h.unit.as_deref()).filter(|u| u.ends_with(".service")).collect();
        let hint = if units.is_empty() {
            "nothing was unmounted; end what keeps it busy, or stop its units with `stop_units`".to_owned()
        } else {
            let units: Vec<_> = units.iter().map(|u| format!("{u:?}")).collect();
            format!("nothing was unmounted; stop them first: stop_units = [{}]", units.join(", "))
        };
        refused(format!("cannot unmount {}", said.join("; ")), &hint)
    }

    pub async fn unmount(&self, mount: &unmount::Mounted) -> Result<(), Failure> {
        let end = Instant::now() + BUSY;
        loop {
            match unmount::unmount(&self.recipe, mount) {
                Ok(()) => return Ok(()),
                Err(Errno::EBUSY) if Instant::now() < end => {
                    tokio::time::sleep(Duration::from_millis(20)).await
                }
                Err(errno) => {
                    // If a process holds it by now, this names it. A holder inside the kernel cannot be
                    // found. The ids of the mounts that are gone may be those of others by now.
                    let mut only = self.targets.clone();
                    only.ids.retain(|_, of| *of == mount.mount_point);
                    only.devs.retain(|dev, _| *dev == mount.dev);
                    let its = |h: &Holder| only.ids.values().chain(only.devs.values()).any(|of| *of == h.of);
                    self.free_of(&only, Duration::ZERO, its).await?;
                    let what = format!("cannot unmount {}: {}", mount.mount_point.display(), errno.desc());
                    return Err(refused(
                        what,
                        "no process that can be seen holds it: look for NFS exports, overlays, and \
                         mount namespaces that a file keeps (lsns, findmnt)",
                    ));
                }
            }
        }
    }
}

/// The mounts and devices of a planned filesystem.
fn wanted_of(host: &HostFacts, lines: &[MountLine], planned: &PlannedFilesystem) -> Result<Wanted, Failure> {
    let place = planned.mount_point.display();
    let found = host.filesystems.iter().find(|f| f.dev == planned.dev);
    if found.is_none() {
        return Err(refused(
            format!("{place} is not mounted any more"),
            "a hook must not unmount a filesystem that has the method `unmount`",
        ));
    }
    let ids: Vec<u32> = found.iter().flat_map(|f| f.mounts.iter().map(|m| m.id)).collect();
    let sources: Vec<PathBuf> =
        lines.iter().filter(|l| ids.contains(&l.id)).map(|l| PathBuf::from(&l.source)).collect();
    let mut devices = Vec::new();
    for witness in &planned.witnesses {
        let known = host.devices.iter().find(|d| d.name == witness.name);
        let node = known.and_then(|d| {
            let likely: Vec<PathBuf> =
                sources.iter().cloned().chain([Path::new("/dev").join(&d.name)]).collect();
            Some(Device { path: device::node(d.dev, &likely)?, dev: d.dev })
        });
        let Some(node) = node else {
            return Err(refused(
                format!("cannot unmount {place}: there is no device node of {} in /dev", witness.name),
                "make udev create it, or choose another method (`methods`)",
            ));
        };
        // The device that it was mounted from comes first, so that it is mounted from that one again.
        let at = if sources.contains(&node.path) { 0 } else { devices.len() };
        devices.insert(at, node);
    }
    Ok(Wanted { ids, devices })
}

/// Holders that are not processes: mounts on it, overlays over it, image files and swap files.
fn fixed(host: &HostFacts, lines: &[MountLine], targets: &Targets) -> Vec<Holder> {
    let mut all = Vec::new();
    let mut add =
        |of: &Path, what: String| all.push(Holder { pid: None, unit: None, what, of: of.to_path_buf() });
    for line in lines.iter().filter(|l| !targets.ids.contains_key(&l.id)) {
        if let Some(of) = targets.ids.get(&line.parent) {
            add(of, format!("{} ({}) is mounted on it", shown(&line.mount_point), line.fstype));
        }
    }
    // A btrfs has several device numbers: the plan uses the first, so the holders are compared with that one.
    let on = |dev: &Option<DevNo>| targets.devs.get(dev.as_ref()?);
    for device in &host.devices {
        if let DeviceKind::Loop { backing_file: Some(file), superblock } = &device.kind
            && let Some(of) = on(superblock)
        {
            add(of, format!("the loop device {} is over its file {}", device.name, shown(file)));
        }
    }
    for filesystem in &host.filesystems {
        if let Backing::Overlay { upper } = &filesystem.backing
            && let Some(of) = on(upper)
        {
            add(of, format!("the overlay on {} writes to it", shown(filesystem.mount_point())));
        }
    }
    for swap in &host.swap_files {
        if let Some(of) = on(&swap.superblock) {
            add(of, format!("its file {} is used as swap", shown(&swap.path)));
        }
    }
    all
}
