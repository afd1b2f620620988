//! Which filesystems and volumes are in the set: the choices of the settings, and everything that shares a
//! volume with them.
//!
//! In: filesystems with their stacks, and the settings. Out: [`Chosen`]. Must never: leave a filesystem on a
//! volume of the set writable without refusing, or lowering that volume to `crash`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use super::PlanError;
use super::missing::is_expected;
use super::names::Names;
use super::placement::{NEEDS_ROOT, PlacedFilesystem, Placement};
use crate::config::settings::{PlanSettings, UnmountedVolumes};
use crate::discover::{Facts, Volume};
use crate::ids::VolumeId;
use crate::path_encoding::shown;

/// The chosen filesystems (by index into the facts) and volumes (by id), each with its reason.
#[derive(Debug, Default)]
pub(super) struct Chosen {
    pub filesystems: BTreeMap<usize, String>,
    pub volumes: BTreeMap<VolumeId, String>,
    /// Volumes of the set that can only be crash-consistent, and why.
    pub crash: BTreeMap<VolumeId, String>,
    /// Why filesystems stay out, where the settings are the reason.
    pub(crate) left_filesystems: BTreeMap<usize, String>,
    /// Why volumes stay out, where the settings are the reason.
    pub(crate) left_volumes: BTreeMap<VolumeId, String>,
    pub notes: Vec<String>,
}

pub(super) fn select(
    facts: &Facts,
    settings: &PlanSettings,
    placed: &[PlacedFilesystem<'_>],
    boot: Option<&VolumeId>,
) -> Result<Chosen, PlanError> {
    let names = Names { facts };
    let chosen: BTreeSet<usize> = names.mounts("mounts", &settings.mounts)?.into_iter().collect();
    // What fstab names is no mistake, though it may not be mounted just now.
    let is_mounted =
        |m: &PathBuf| facts.filesystems.iter().any(|f| f.mounts.iter().any(|l| l.mount_point == *m));
    let excluded = settings.exclude_mounts.iter().filter(|m| is_mounted(m) || !is_expected(facts, m));
    let excluded: Vec<PathBuf> = excluded.cloned().collect();
    let excluded: BTreeSet<usize> = names.mounts("exclude_mounts", &excluded)?.into_iter().collect();
    names.volumes("volumes", &settings.volumes)?;
    names.volumes("exclude_volumes", &settings.exclude_volumes)?;
    if settings.exclude_boot_volume && boot.is_none() {
        return Err(PlanError::BootUnknown);
    }
    let select =
        Select { settings, placed, excluded, barred: barred(facts, settings, boot)?, out: Chosen::default() };
    select.run(facts, &chosen)
}

/// Volumes that the settings keep out, and why.
fn barred(
    facts: &Facts,
    settings: &PlanSettings,
    boot: Option<&VolumeId>,
) -> Result<BTreeMap<VolumeId, Barred>, PlanError> {
    let mut barred = BTreeMap::new();
    let matches = |v: &Volume| {
        settings.volume_tags.iter().all(|(key, value)| {
            v.tags.iter().any(|(k, found)| k == key && (value.is_empty() || value == found))
        })
    };
    let wanted: Vec<String> = settings
        .volume_tags
        .iter()
        .map(|(k, v)| if v.is_empty() { format!("the tag {k}") } else { format!("the tag {k}={v}") })
        .collect();
    let wanted = wanted.join(" and ");
    if !settings.volume_tags.is_empty() && !facts.volumes.iter().any(matches) {
        return Err(PlanError::NoTagMatch { wanted });
    }
    for volume in &facts.volumes {
        let why = if settings.exclude_volumes.contains(&volume.id) {
            Barred { by_filter: false, why: "excluded by `exclude_volumes`".to_owned() }
        } else if settings.exclude_boot_volume && boot == Some(&volume.id) {
            Barred {
                by_filter: false,
                why: "the boot volume, left out by `exclude_boot_volume = true`".to_owned(),
            }
        } else if !matches(volume) {
            Barred { by_filter: true, why: format!("without {wanted}") }
        } else {
            continue;
        };
        barred.insert(volume.id.clone(), why);
    }
    Ok(barred)
}

struct Barred {
    /// True for `volume_tags`, which narrows what other settings choose; the other settings contradict a
    /// choice.
    by_filter: bool,
    why: String,
}

struct Select<'a> {
    settings: &'a PlanSettings,
    placed: &'a [PlacedFilesystem<'a>],
    excluded: BTreeSet<usize>,
    barred: BTreeMap<VolumeId, Barred>,
    out: Chosen,
}

impl Select<'_> {
    fn run(mut self, facts: &Facts, chosen: &BTreeSet<usize>) -> Result<Chosen, PlanError> {
        for at in &self.excluded {
            self.out.left_filesystems.insert(*at, "excluded by `exclude_mounts`".to_owned());
        }
        let all = self.settings.mounts.is_empty() && self.settings.volumes.is_empty();
        self.refuse_lost()?;
        self.check_chosen(facts, chosen)?;
        let filesystems = self.placed;
        for (at, placed) in filesystems.iter().enumerate() {
            if self.excluded.contains(&at) {
                continue;
            }
            let by_volume = placed.volumes().find(|v| self.settings.volumes.contains(v));
            let reason = match by_volume {
                _ if chosen.contains(&at) => "chosen by `mounts`".to_owned(),
                Some(volume) => format!("on {volume}, chosen by `volumes`"),
                None if all => "on EBS".to_owned(),
                None => continue,
            };
            self.not_attached(placed)?;
            self.want(at, reason)?;
        }
        for volume in self.settings.volumes.iter().filter(|v| !self.barred.contains_key(v)) {
            self.out.volumes.entry(volume.clone()).or_insert_with(|| "chosen by `volumes`".to_owned());
        }
        self.unmounted(facts, all);
        self.close()?;
        self.lower_for_lost();
        self.note_unchecked();
        let left = self.barred.into_iter().map(|(id, barred)| (id, barred.why));
        self.out.left_volumes.extend(left);
        Ok(self.out)
    }

    /// A choice by name must be possible, and no other setting may contradict it.
    fn check_chosen(&self, facts: &Facts, chosen: &BTreeSet<usize>) -> Result<(), PlanError> {
        let against = |what: String, key, volume| match self.barred.get(volume) {
            Some(b) if !b.by_filter => Err(PlanError::Contradiction { key, what, why: b.why.clone() }),
            _ => Ok(()),
        };
        for at in chosen {
            let placed = &self.placed[*at];
            let mount = placed.filesystem.mount_point();
            if self.excluded.contains(at) {
                let (what, why) = (shown(mount), "excluded by `exclude_mounts`".to_owned());
                return Err(PlanError::Contradiction { key: "mounts", what, why });
            }
            self.not_attached(placed)?;
            // A run mounts it first, or has tried to, and says so.
            if matches!(placed.placement, Placement::Kernel) && is_expected(facts, mount) {
                continue;
            }
            if let Some(reason) = placed.not_on_ebs().filter(|_| placed.unchecked.is_none()) {
                let (mount, fstype) = (mount.to_owned(), placed.filesystem.fstype.clone());
                return Err(PlanError::NotOnEbs { mount, fstype, reason });
            }
            // If only some of its volumes are barred, the filesystem is partial, which has its own message.
            if placed.volumes().all(|v| self.barred.contains_key(v)) {
                placed
                    .volumes()
                    .try_for_each(|v| against(format!("{} on {v}", shown(mount)), "mounts", v))?;
            }
        }
        for volume in facts.volumes.iter().filter(|v| self.settings.volumes.contains(&v.id)) {
            against(volume.id.to_string(), "volumes", &volume.id)?;
            let (id, device_name) = (volume.id.clone(), volume.device_name.clone());
            if volume.disk.is_none() {
                return Err(PlanError::NoDisk { volume: id, device_name });
            }
            let mounted = self.placed.iter().any(|s| s.is_on(&volume.id));
            if !mounted && self.settings.unmounted_volumes == UnmountedVolumes::Exclude {
                return Err(PlanError::NoFilesystem { volume: id, device_name });
            }
        }
        Ok(())
    }

    /// Refuses a wanted filesystem whose disk EC2 does not list: leaving it out silently would break the
    /// promise that everything on EBS is taken.
    fn not_attached(&self, placed: &PlacedFilesystem<'_>) -> Result<(), PlanError> {
        match placed.not_attached() {
            Some((volume, disk)) if placed.volumes().next().is_none() && !self.settings.allow_partial => {
                Err(PlanError::NotAttached {
                    mount: placed.filesystem.mount_point().to_owned(),
                    fstype: placed.filesystem.fstype.clone(),
                    volume: volume.clone(),
                    disk: disk.to_owned(),
                })
            }
            _ => Ok(()),
        }
    }

    /// Takes a filesystem and those of its volumes that are not barred.
    fn want(&mut self, at: usize, reason: String) -> Result<(), PlanError> {
        let placed = &self.placed[at];
        let Placement::On(stack) = &placed.placement else { return Ok(()) };
        let (barred, free): (Vec<_>, Vec<_>) =
            stack.volumes.iter().cloned().partition(|v| self.barred.contains_key(v));
        let mount = shown(placed.filesystem.mount_point());
        let mut missing: Vec<String> =
            barred.iter().map(|v| format!("{v} is {}", self.barred.get(v).map_or("", |b| &b.why))).collect();
        if free.is_empty() {
            self.out.left_filesystems.insert(at, missing.join("; "));
            return Ok(());
        }
        missing.extend(stack.off.iter().map(ToString::to_string));
        if placed.filesystem.mounts.iter().all(|m| m.hidden) {
            missing.push("another mount covers it, so it cannot be reached".to_owned());
            self.partly(at, &free, &missing.join("; "))?;
            self.out.left_filesystems.insert(at, "another mount covers it".to_owned());
            // Its volumes are in the set, although the filesystem cannot be frozen.
        } else {
            if !missing.is_empty() {
                self.partly(at, &free, &missing.join("; "))?;
            }
            self.out.filesystems.insert(at, reason);
        }
        for volume in free {
            let what = placed.beside.get(&volume).map(|role| format!("{} of {mount}", role.words()));
            self.out
                .volumes
                .entry(volume)
                .or_insert_with(|| what.unwrap_or_else(|| format!("holds {mount}")));
        }
        Ok(())
    }

    /// Refuses, or lowers the volumes to `crash` where the settings allow it.
    fn partly(&mut self, at: usize, volumes: &[VolumeId], why: &str) -> Result<(), PlanError> {
        let mount = self.placed[at].filesystem.mount_point();
        if !self.settings.allow_partial {
            let (mount, volumes) = (mount.to_owned(), volumes.to_vec());
            return Err(PlanError::Partial { mount, volumes, why: why.to_owned() });
        }
        let ids: Vec<_> = volumes.iter().map(VolumeId::as_str).collect();
        self.out.notes.push(format!(
            "{} on {} is only crash-consistent (`allow_partial`): {why}.",
            shown(mount),
            ids.join(", ")
        ));
        for volume in volumes {
            self.out.crash.entry(volume.clone()).or_insert_with(|| format!("{}: {why}", shown(mount)));
        }
        Ok(())
    }

    /// Takes volumes without a mounted filesystem, where the settings say so.
    fn unmounted(&mut self, facts: &Facts, all: bool) {
        if self.settings.unmounted_volumes == UnmountedVolumes::Exclude {
            return;
        }
        for volume in facts.volumes.iter().filter(|v| v.disk.is_some() && !self.barred.contains_key(&v.id)) {
            let wanted = all || self.settings.volumes.contains(&volume.id);
            if wanted && !self.placed.iter().any(|s| s.is_on(&volume.id)) {
                let reason = "no mounted filesystem, taken by `unmounted_volumes`".to_owned();
                self.out.volumes.insert(volume.id.clone(), reason);
                self.out.crash.insert(volume.id.clone(), "it has no mounted filesystem".to_owned());
            }
        }
    }

    /// Adds every mounted filesystem on a volume of the set, until there is no other.
    fn close(&mut self) -> Result<(), PlanError> {
        let mut met: BTreeSet<usize> = BTreeSet::new();
        loop {
            let next = self.placed.iter().enumerate().find_map(|(at, placed)| {
                let taken = self.out.filesystems.contains_key(&at) || met.contains(&at);
                let shared = placed.volumes().find(|v| self.out.volumes.contains_key(v));
                shared.filter(|_| !taken).map(|v| (at, v.clone()))
            });
            let Some((at, volume)) = next else { return Ok(()) };
            met.insert(at);
            let with = self.out.filesystems.keys().find(|i| self.placed[**i].is_on(&volume));
            let with = with
                .map_or_else(|| "the set".to_owned(), |i| shown(self.placed[*i].filesystem.mount_point()));
            if self.excluded.contains(&at) {
                let placed = &self.placed[at];
                let on: Vec<_> =
                    placed.volumes().filter(|v| self.out.volumes.contains_key(v)).cloned().collect();
                let why = format!("excluded by `exclude_mounts`, but shares {volume} with {with}");
                self.partly(at, &on, &why)?;
                self.out.left_filesystems.insert(at, why);
            } else if !self.out.left_filesystems.contains_key(&at) {
                self.want(at, format!("shares {volume} with {with}"))?;
            }
        }
    }

    /// Refuses a filesystem whose devices are not known, because it may be on any volume of the set.
    fn refuse_lost(&self) -> Result<(), PlanError> {
        if self.settings.allow_partial {
            return Ok(());
        }
        let mut others = self.placed.iter().enumerate().filter(|(at, _)| !self.excluded.contains(at));
        others.try_for_each(|(_, placed)| match &placed.lost {
            Some(why) => Err(PlanError::UnknownDevices {
                mount: placed.filesystem.mount_point().to_owned(),
                fstype: placed.filesystem.fstype.clone(),
                why: why.clone(),
            }),
            None => Ok(()),
        })
    }

    fn note_unchecked(&mut self) {
        for (at, placed) in self.placed.iter().enumerate() {
            let Some(what) = placed.unchecked.as_ref().filter(|_| !self.excluded.contains(&at)) else {
                continue;
            };
            self.out.notes.push(format!("{}: {NEEDS_ROOT}: {what}.", shown(placed.filesystem.mount_point())));
        }
    }

    /// Lowers the whole set to `crash` for such a filesystem, where the settings allow it.
    fn lower_for_lost(&mut self) {
        let lost =
            self.placed.iter().enumerate().filter(|(at, s)| s.lost.is_some() && !self.excluded.contains(at));
        for (_, placed) in lost {
            let (mount, fstype) = (placed.filesystem.mount_point(), &placed.filesystem.fstype);
            self.out.notes.push(format!(
                "Every volume is only crash-consistent (`allow_partial`): {} ({fstype}) may be on any of them, \
                 because its devices cannot be told.",
                shown(mount)
            ));
            let why = format!("{} may be on it, because its devices cannot be told", shown(mount));
            for volume in self.out.volumes.keys() {
                self.out.crash.entry(volume.clone()).or_insert_with(|| why.clone());
            }
        }
    }
}
