//! Puts the plan together.
//!
//! In: facts, settings. Out: [`Plan`]. Must never: choose (`select` does). Here everything chosen gets its
//! details, and everything else gets a line with the reason.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use super::classify::{SYSTEM_PATHS, can_freeze, is_read_only_image};
use super::in_use::{elsewhere, in_use, mounted_by};
use super::missing::{MissingMount, missing};
use super::names::{Names, mount_of};
use super::placement::{PlacedFilesystem, Placement, overlay_reason, placed};
use super::select::{Chosen, select};
use super::stack::{Stack, Walk};
use super::unread::unread;
use super::watch::{beside, is_trifling, swap_files, without_filesystem, witness};
use super::{
    Consistency, Expediting, LeftOut, MAX_EXCLUSIONS, MAX_SET, Method, Plan, PlanError, PlannedFilesystem,
    PlannedVolume, PointInTimeCall, Wave,
};
use crate::config::settings::{Expedite, PlanSettings};
use crate::discover::{Backing, BlockDevice, Facts, Filesystem, Volume};
use crate::ids::{DevNo, VolumeId};
use crate::path_encoding::{printable, shown};
use crate::sets::tags;

/// From this many on, mounts that stay out for the same reason get one line together: a container host has
/// hundreds of overlays.
const FOLD: usize = 4;
/// What is said of a device without a mount and without another use.
const NOT_MOUNTED: &str = "no mounted filesystem";

/// Makes the plan.
///
/// # Errors
/// When a choice names something that does not exist, or the set would be only partly consistent and
/// `allow_partial` is not set.
pub fn plan(facts: &Facts, settings: &PlanSettings) -> Result<Plan, PlanError> {
    let walk = Walk::new(facts);
    let placed = placed(facts, &walk);
    let boot = boot(facts, &placed);
    let mut chosen = select(facts, settings, &placed, boot.as_ref())?;
    unread(facts, &walk, &mut chosen);
    in_use(facts, &walk, &mut chosen);
    elsewhere(facts, &walk, &mut chosen);
    let make = Make { facts, settings, walk: &walk, placed: &placed, chosen: &chosen, boot };
    make.plan()
}

/// The boot volume: the one attached as RootDeviceName, else the only one under `/`.
fn boot(facts: &Facts, placed: &[PlacedFilesystem<'_>]) -> Option<VolumeId> {
    if let Some(volume) = facts.volumes.iter().find(|v| v.boot) {
        return Some(volume.id.clone());
    }
    let (root, _) = mount_of(facts, std::path::Path::new("/"))?;
    let mut volumes = placed.iter().find(|s| s.filesystem.dev == root.dev)?.volumes();
    let only = volumes.next()?;
    volumes.next().is_none().then(|| only.clone())
}

struct Make<'a> {
    facts: &'a Facts,
    settings: &'a PlanSettings,
    walk: &'a Walk<'a>,
    placed: &'a [PlacedFilesystem<'a>],
    chosen: &'a Chosen,
    boot: Option<VolumeId>,
}

impl Make<'_> {
    fn plan(&self) -> Result<Plan, PlanError> {
        let left_out = self.left_out();
        if self.chosen.volumes.is_empty() {
            return Err(PlanError::Nothing(summary(&left_out)));
        }
        if self.chosen.volumes.len() > MAX_SET {
            return Err(PlanError::TooMany { count: self.chosen.volumes.len() });
        }
        let filesystems = self.filesystems()?;
        let volumes = self.volumes();
        let (call, call_note) = self.call(&volumes);
        let beside = beside(self.facts, self.walk, &self.sound_volumes(), &self.known_devices());
        let mut notes = self.chosen.notes.clone();
        notes.extend(call_note);
        notes.extend(self.offer(&filesystems));
        notes.extend(self.not_copied());
        let raw = volumes.iter().filter(|v| v.mount_points.is_empty() && v.best == Consistency::Crash);
        let raw: Vec<_> = raw.map(|v| v.id.as_str()).collect();
        if !raw.is_empty() {
            notes.push(format!("Crash-consistent, for want of a mounted filesystem: {}.", raw.join(", ")));
        }
        notes.extend(beside.notes);
        notes.extend(swap_files(self.facts, |f| self.is_quiet(f)));
        notes.extend(self.facts.expected.notes.iter().cloned());
        Ok(Plan {
            name: self.settings.name.clone(),
            best: volumes.iter().map(|v| v.best).min().unwrap_or(Consistency::Crash),
            filesystems,
            volumes,
            witnesses: beside.witnesses,
            beneath: beside.beneath,
            left_out,
            missing: self.missing(),
            call,
            expedite: self.expedite(),
            notes,
        })
    }

    fn expedite(&self) -> Expediting {
        let (raise, why) = match (self.settings.rcu_expedited, &self.facts.not_expedited) {
            (Expedite::Always, _) => (true, "rcu_expedited = true".to_owned()),
            (Expedite::Never, _) => (false, "rcu_expedited = false".to_owned()),
            (Expedite::Auto, None) => (true, "nothing on this host speaks against it".to_owned()),
            (Expedite::Auto, Some(why)) => (false, why.clone()),
        };
        Expediting { raise, why }
    }

    fn is_quiet(&self, filesystem: &Filesystem) -> bool {
        self.chosen.filesystems.keys().any(|at| self.placed[*at].filesystem.dev == filesystem.dev)
    }

    fn filesystems(&self) -> Result<Vec<PlannedFilesystem>, PlanError> {
        let names = Names { facts: self.facts };
        let methods = names.methods(&self.settings.methods)?;
        let system = self.system();
        let mut planned = Vec::new();
        for (at, reason) in &self.chosen.filesystems {
            let filesystem = self.placed[*at].filesystem;
            let Placement::On(stack) = &self.placed[*at].placement else { continue };
            let method = method(filesystem, methods.get(at).copied())?;
            planned.push(self.filesystem(filesystem, stack, method, &system, reason));
        }
        planned.sort_by(|a, b| (a.wave, &a.mount_point).cmp(&(b.wave, &b.mount_point)));
        Ok(planned)
    }

    /// A note about filesystems that cannot freeze and have no method in the settings.
    fn offer(&self, planned: &[PlannedFilesystem]) -> Option<String> {
        let said = |f: &PlannedFilesystem| self.settings.methods.keys().any(|m| f.mount_points.contains(m));
        let synced =
            planned.iter().filter(|f| f.method == Method::Sync && !is_read_only_image(&f.fstype) && !said(f));
        let names: Vec<_> = synced.map(|f| format!("{} ({})", shown(&f.mount_point), f.fstype)).collect();
        (!names.is_empty()).then(|| {
            format!(
                "Cannot freeze, so they are synced and watched; the set is `crash` if one is written to \
                 meanwhile: {}. The method \"unmount\" unmounts them over the point in time instead.",
                names.join(", ")
            )
        })
    }

    /// A note about tags of the volumes that are not copied although they could be.
    fn not_copied(&self) -> Vec<String> {
        if !self.settings.copy_volume_tags {
            return Vec::new();
        }
        let chosen = self.facts.volumes.iter().filter(|v| self.chosen.volumes.contains_key(&v.id));
        let strange = chosen.map(|v| (v, tags::strange(v))).filter(|(_, keys)| !keys.is_empty());
        strange
            .map(|(v, keys)| {
                format!(
                    "Not copied, because only a run says anything by such tags: {} of {}.",
                    keys.iter().map(|k| printable(k)).collect::<Vec<_>>().join(", "),
                    v.id
                )
            })
            .collect()
    }

    fn filesystem(
        &self,
        filesystem: &Filesystem,
        stack: &Stack,
        method: Method,
        system: &BTreeSet<DevNo>,
        reason: &str,
    ) -> PlannedFilesystem {
        let mount_point = filesystem.mount_point().to_owned();
        let named = filesystem.mounts.iter().find(|m| m.mount_point == mount_point && !m.hidden);
        let mut mount_points = vec![mount_point.clone()];
        let mut roots = vec![named.map_or_else(|| "/".into(), |m| m.root.clone())];
        for mount in filesystem.mounts.iter().filter(|m| !m.hidden) {
            if !mount_points.contains(&mount.mount_point) {
                mount_points.push(mount.mount_point.clone());
                roots.push(mount.root.clone());
            }
        }
        let devices = match &filesystem.backing {
            Backing::Devices { devices } => devices.as_slice(),
            _ => &[],
        };
        PlannedFilesystem {
            dev: filesystem.dev,
            mount_point,
            mount_points,
            roots,
            fstype: filesystem.fstype.clone(),
            uuid: filesystem.uuid.clone(),
            options: named.map(|m| m.options.clone()).unwrap_or_default(),
            method,
            wave: match stack.depth {
                0 if system.contains(&filesystem.dev) => Wave::System,
                0 => Wave::Data,
                depth => Wave::Inner(Reverse(depth)),
            },
            stack: self.walk.in_words(filesystem),
            witnesses: devices.iter().filter_map(|d| Some(witness(self.walk.device(d)?))).collect(),
            volumes: stack.volumes.iter().filter(|v| self.chosen.volumes.contains_key(v)).cloned().collect(),
            reason: reason.to_owned(),
        }
    }

    /// Filesystems that have the paths in [`SYSTEM_PATHS`].
    fn system(&self) -> BTreeSet<DevNo> {
        let mounts = SYSTEM_PATHS.iter().filter_map(|p| mount_of(self.facts, std::path::Path::new(p)));
        mounts.filter_map(|(f, _)| self.walk.written(f)).map(|f| f.dev).collect()
    }

    /// Boot volume first, then by device name (`/dev/sdb` before `/dev/sdaa`).
    fn volumes(&self) -> Vec<PlannedVolume> {
        let in_set = self.facts.volumes.iter().filter(|v| self.chosen.volumes.contains_key(&v.id));
        let mut volumes: Vec<PlannedVolume> = in_set.map(|v| self.volume(v)).collect();
        volumes.sort_by_key(|v| (!v.boot, v.device_name.len(), v.device_name.clone(), v.id.clone()));
        volumes
    }

    fn volume(&self, volume: &Volume) -> PlannedVolume {
        let on_it = self.chosen.filesystems.keys().filter(|at| self.placed[**at].is_on(&volume.id));
        let mount_points = on_it.map(|at| self.placed[*at].filesystem.mount_point().to_owned());
        let full = if self.settings.holds_applications() {
            Consistency::Application
        } else {
            Consistency::Filesystem
        };
        PlannedVolume {
            id: volume.id.clone(),
            device_name: volume.device_name.clone(),
            disk: volume.disk.as_ref().map(|d| d.name.clone()),
            boot: self.boot.as_ref() == Some(&volume.id),
            size_gib: volume.size_gib,
            volume_type: volume.volume_type.clone(),
            iops: volume.iops,
            throughput: volume.throughput,
            encrypted: volume.encrypted,
            mount_points: mount_points.collect(),
            best: if self.chosen.crash.contains_key(&volume.id) { Consistency::Crash } else { full },
            reason: self.chosen.volumes.get(&volume.id).cloned().unwrap_or_default(),
            limited_by: self.chosen.crash.get(&volume.id).cloned(),
        }
    }

    fn call(&self, volumes: &[PlannedVolume]) -> (PointInTimeCall, Option<String>) {
        if let [only] = volumes {
            return (PointInTimeCall::CreateSnapshot { volume: only.id.clone() }, None);
        }
        let out = self.facts.volumes.iter().filter(|v| !self.chosen.volumes.contains_key(&v.id));
        let (boot, data): (Vec<_>, Vec<_>) =
            out.map(|v| v.id.clone()).partition(|id| self.boot.as_ref() == Some(id));
        if data.len() > MAX_EXCLUSIONS {
            let note = format!(
                "{} data volumes stay out, and CreateSnapshots can exclude {MAX_EXCLUSIONS}: each volume \
                 gets a call of its own, all at once in one window, so their points in time differ while \
                 nothing is written.",
                data.len()
            );
            let volumes = volumes.iter().map(|v| v.id.clone()).collect();
            return (PointInTimeCall::CreateSnapshotEach { volumes }, Some(note));
        }
        let exclude_boot_volume = !boot.is_empty();
        (PointInTimeCall::CreateSnapshots { exclude_boot_volume, exclude_data_volumes: data }, None)
    }

    fn missing(&self) -> Vec<MissingMount> {
        missing(self.facts, self.settings, self.walk, &self.chosen.volumes.keys().collect())
    }

    /// Volumes of the set that can be better than crash-consistent.
    fn sound_volumes(&self) -> BTreeSet<&VolumeId> {
        self.chosen.volumes.keys().filter(|v| !self.chosen.crash.contains_key(v)).collect()
    }

    /// Devices under a mounted filesystem on EBS, in the set or left out with a reason.
    fn known_devices(&self) -> BTreeSet<String> {
        let stacks = self.placed.iter().filter_map(|s| match &s.placement {
            Placement::On(stack) => Some(stack),
            _ => None,
        });
        stacks.flat_map(|s| s.devices.iter().cloned()).collect()
    }

    fn left_out(&self) -> Vec<LeftOut> {
        let mut lines: Vec<(Vec<String>, String, String)> = Vec::new();
        let mut kernel = 0usize;
        for (at, placed) in self.placed.iter().enumerate() {
            if self.chosen.filesystems.contains_key(&at) {
                continue;
            }
            let asked = self.chosen.left_filesystems.get(&at).cloned();
            let reason = match &placed.placement {
                Placement::Kernel => {
                    kernel += 1;
                    continue;
                }
                Placement::Overlay => overlay_reason(placed.filesystem, self.walk, |f| self.is_quiet(f)),
                Placement::Out(reason) => asked.unwrap_or_else(|| reason.clone()),
                Placement::On(_) => asked.unwrap_or_else(|| "not chosen".to_owned()),
            };
            let (what, kind) = (shown(placed.filesystem.mount_point()), placed.filesystem.fstype.clone());
            // Only mounts that could not be in the set anyway may share a line.
            let may_fold = !matches!(placed.placement, Placement::On(_));
            match lines.iter_mut().find(|(_, k, r)| may_fold && *k == kind && *r == reason) {
                Some((whats, ..)) => whats.push(what),
                None => lines.push((vec![what], kind, reason)),
            }
        }
        let mut left: Vec<LeftOut> = lines.into_iter().flat_map(fold).collect();
        left.extend(self.left_volumes());
        if kernel > 0 {
            let (s, are) = if kernel == 1 { ("", "is") } else { ("s", "are") };
            left.push(LeftOut {
                what: format!("{kernel} kernel and memory filesystem{s}"),
                kind: "kernel".to_owned(),
                reason: format!("{are} on no disk"),
            });
        }
        left
    }

    fn left_volumes(&self) -> impl Iterator<Item = LeftOut> {
        let out = self.facts.volumes.iter().filter(|v| !self.chosen.volumes.contains_key(&v.id));
        let mut out: Vec<&Volume> = out.collect();
        out.sort_by_key(|v| (self.boot.as_ref() != Some(&v.id), v.device_name.len(), &v.device_name, &v.id));
        out.into_iter().map(|v| LeftOut {
            what: format!("{} ({})", v.id, v.device_name),
            kind: "volume".to_owned(),
            reason: self.left_volume(v),
        })
    }

    fn left_volume(&self, volume: &Volume) -> String {
        if let Some(reason) = self.chosen.left_volumes.get(&volume.id) {
            return reason.clone();
        }
        let Some(disk) = &volume.disk else { return "no disk of this host belongs to it".to_owned() };
        let mounted: Vec<_> = self.placed.iter().enumerate().filter(|(_, s)| s.is_on(&volume.id)).collect();
        let why = |at: &usize| self.chosen.left_filesystems.get(at);
        if !mounted.is_empty() && mounted.iter().all(|(at, _)| why(at).is_none()) {
            return "not chosen".to_owned();
        }
        let mut reasons: Vec<String> = mounted
            .iter()
            .map(|(at, s)| {
                let why = why(at).map_or("not chosen", String::as_str);
                format!("{} is {why}", shown(s.filesystem.mount_point()))
            })
            .collect();
        reasons.sort();
        let known = self.known_devices();
        let others: Vec<&BlockDevice> = without_filesystem(self.facts, &known)
            .filter(|d| d.size > 0 && self.walk.below(&d.name).contains(disk.name.as_str()))
            .collect();
        let (big, small): (Vec<_>, Vec<_>) = others.into_iter().partition(|d| !is_trifling(d));
        // What is too small for data is named where there is nothing else.
        let others = if big.is_empty() && reasons.is_empty() { small } else { big };
        let whole = reasons.is_empty() && others.iter().all(|d| d.name == disk.name);
        reasons.extend(others.iter().map(|d| self.without_mount(d, !whole)));
        if reasons.is_empty() {
            reasons.push(NOT_MOUNTED.to_owned());
        }
        let mut all = reasons.join("; ");
        if mounted.is_empty() && all.contains(NOT_MOUNTED) {
            all.push_str("; take it with `unmounted_volumes = \"crash\"`");
        }
        all
    }

    /// What a device is that no filesystem of this namespace is on. A part of a disk is named.
    fn without_mount(&self, device: &BlockDevice, named: bool) -> String {
        let (verb, what) = match self.facts.elsewhere.get(&device.dev) {
            _ if device.swap => ("is", "swap, which is not data".to_owned()),
            Some(who) => {
                let who: Vec<_> = who.iter().map(String::as_str).collect();
                let who = who.join(", ");
                ("is", mounted_by(&who))
            }
            None => ("has", NOT_MOUNTED.to_owned()),
        };
        if named { format!("{} {verb} {what}", Walk::label(device)) } else { what }
    }
}

/// The method for a filesystem.
fn method(filesystem: &Filesystem, wanted: Option<Method>) -> Result<Method, PlanError> {
    let freezes = can_freeze(&filesystem.fstype) && !is_read_only_image(&filesystem.fstype);
    match wanted {
        Some(Method::Freeze) if !freezes => Err(PlanError::CannotFreeze {
            mount: filesystem.mount_point().to_owned(),
            fstype: filesystem.fstype.clone(),
        }),
        Some(Method::Unmount) if filesystem.mounts.iter().any(|m| m.mount_point.as_os_str() == "/") => {
            Err(PlanError::CannotUnmount { fstype: filesystem.fstype.clone() })
        }
        Some(method) => Ok(method),
        None if freezes => Ok(Method::Freeze),
        None => Ok(Method::Sync),
    }
}

fn fold((whats, kind, reason): (Vec<String>, String, String)) -> Vec<LeftOut> {
    let line = |what| LeftOut { what, kind: kind.clone(), reason: reason.clone() };
    match whats.as_slice() {
        [first, rest @ ..] if whats.len() >= FOLD => vec![line(format!("{first} and {} more", rest.len()))],
        _ => whats.into_iter().map(line).collect(),
    }
}

/// What was found, for the error that there is nothing to do.
fn summary(left_out: &[LeftOut]) -> String {
    const SHOWN: usize = 8;
    let lines = left_out.iter().take(SHOWN).map(|l| match l.kind.as_str() {
        "kernel" => format!("{} {}", l.what, l.reason),
        "volume" => format!("{}: {}", l.what, l.reason),
        kind => format!("{} ({kind}): {}", l.what, l.reason),
    });
    let mut lines: Vec<String> = lines.collect();
    if left_out.len() > SHOWN {
        lines.push(format!("{} more", left_out.len() - SHOWN));
    }
    if lines.is_empty() {
        lines.push("no filesystem and no attached volume was seen".to_owned());
    }
    lines.join("; ")
}
