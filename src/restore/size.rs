//! Restored volumes that are larger than their snapshots.
//!
//! In: a plan, what was asked for of its volumes. Out: the same plan with their sizes, or a [`Refusal`]. Pure. Must never:
//! ask for less than a snapshot has: EC2 takes that for a mistake, and makes the volume as large as the snapshot.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::plan::{Reach, Refusal, RestorePlan, filesystem_at, no};
use crate::ec2::volume_type::{self, Misfit, Performance};
use crate::ids::VolumeId;
use crate::path_encoding::{printable, shown};
use crate::sets::layout::Layout;

/// Which volume is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sized {
    /// The one that is made in the place of this.
    Volume(VolumeId),
    /// The one that this filesystem of the set is on.
    Mount(PathBuf),
}

/// A size that was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Size {
    /// Of which volume.
    pub of: Sized,
    /// In GiB.
    pub gib: i32,
}

/// Reads `vol-…=GIB` or `/PATH=GIB`.
///
/// # Errors
/// What is wrong with it.
pub fn read(text: &str) -> Result<Size, String> {
    let Some((of, gib)) = text.rsplit_once('=') else {
        return Err("is not VOLUME=GIB, nor PATH=GIB".to_owned());
    };
    let digits = !gib.is_empty() && gib.bytes().all(|b| b.is_ascii_digit());
    let gib = gib.parse().ok().filter(|gib| digits && *gib > 0).ok_or("has no size in whole GiB")?;
    let of = match of.starts_with('/') {
        true => Sized::Mount(of.into()),
        false => Sized::Volume(of.parse().map_err(|e: crate::ids::InvalidId| e.to_string())?),
    };
    Ok(Size { of, gib })
}

/// The size that was asked for each volume: `on` gives the volumes of the filesystem at a place, and `known` refuses a
/// volume that nothing is made of.
///
/// # Errors
/// Of these two; a filesystem on several volumes; a volume with two sizes.
pub(crate) fn by_volume<'a, E: From<Misfit>>(
    asked: &[Size],
    on: impl Fn(&Path) -> Result<&'a [VolumeId], E>,
    known: impl Fn(&VolumeId) -> Result<(), E>,
) -> Result<BTreeMap<VolumeId, i32>, E> {
    let mut sizes: BTreeMap<VolumeId, i32> = BTreeMap::new();
    for size in asked {
        let id = match &size.of {
            Sized::Volume(id) => id,
            Sized::Mount(place) => match on(place)? {
                [one] => one,
                several => {
                    let what = format!("{} is on {} volumes", shown(place), several.len());
                    return Ok(volume_type::no(what, "name each of them by its id: --size vol-…=GIB")?);
                }
            },
        };
        known(id)?;
        if let Some(other) = sizes.insert(id.clone(), size.gib).filter(|other| *other != size.gib) {
            let what = format!("{id} cannot have both {other} and {} GiB", size.gib);
            return Ok(volume_type::no(what, "leave one of them out")?);
        }
    }
    Ok(sizes)
}

impl RestorePlan {
    /// The plan with these sizes. `grow`: filesystems on volumes that get larger are grown with them.
    ///
    /// # Errors
    /// Why a volume cannot have its size.
    pub fn sized(mut self, layout: &Layout, sizes: &[Size], grow: bool) -> Result<Self, Refusal> {
        let wanted = self.wanted(layout, sizes)?;
        for volume in &mut self.volumes {
            let (id, snapshot) = (&volume.source, volume.size_gib);
            let gib = wanted.get(id).copied().unwrap_or(snapshot);
            if gib < snapshot {
                return no(
                    format!(
                        "{gib} GiB are less than the {snapshot} GiB of {}, the snapshot of {id}",
                        volume.made_of()
                    ),
                    "a volume cannot be smaller than its snapshot",
                );
            }
            let had = layout.volumes.iter().find(|v| v.id == *id);
            let as_it_was = had.is_some_and(|v| {
                v.volume_type == volume.volume_type && (volume.iops.is_none() || volume.iops == v.iops)
            });
            if wanted.contains_key(id) || !as_it_was {
                let performance = Performance {
                    kind: volume.volume_type.clone(),
                    iops: volume.iops,
                    throughput: volume.throughput,
                };
                performance.fits(gib, id.as_str(), &format!("--size {id}"))?;
            }
            if gib > snapshot {
                volume.grown_from = Some(snapshot);
                volume.size_gib = gib;
            }
        }
        self.grow = grow;
        let notes = self.what_grows();
        self.notes.extend(notes);
        Ok(self)
    }

    /// The size that was asked for each volume.
    fn wanted(&self, layout: &Layout, sizes: &[Size]) -> Result<BTreeMap<VolumeId, i32>, Refusal> {
        let on = |place: &Path| filesystem_at(layout, place).map(|filesystem| &filesystem.volumes[..]);
        by_volume(sizes, on, |id| {
            if self.volumes.iter().any(|v| v.source == *id) {
                return Ok(());
            }
            let all: Vec<&str> = self.volumes.iter().map(|v| v.source.as_str()).collect();
            no(
                format!("no volume is made in the place of {id}"),
                format!("those of this restore are in the place of {}", all.join(", ")),
            )
        })
    }

    /// Which filesystems get larger, and which stay as they are on a volume that is.
    fn what_grows(&self) -> Vec<String> {
        let grown = |n: usize| self.volumes.get(n).is_some_and(|v| v.grown_from.is_some());
        if self.reach != Reach::Mounted {
            let any = (0..self.volumes.len()).any(grown);
            let note = "what is on a larger volume keeps its size: grow it by hand, once it is mounted";
            return any.then(|| note.to_owned()).into_iter().collect();
        }
        // What is put together is as large as its layers say.
        let direct = self.filesystems.iter().enumerate().filter(|(n, _)| !self.stack.tops.contains_key(n));
        let of_it = direct.filter(|(_, f)| grown(f.volume));
        of_it
            .map(|(_, f)| {
                let (place, fstype) = (shown(&f.source), printable(&f.fstype).into_owned());
                match self.grow {
                    true => format!("{place} ({fstype}) is grown, if it is on a whole disk"),
                    false => format!("{place} ({fstype}) keeps its size: --grow, or by hand later"),
                }
            })
            .collect()
    }
}

#[cfg(test)]
#[path = "size_tests.rs"]
mod tests;
