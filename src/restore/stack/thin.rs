//! A pool of thin volumes, and what is asked of it before it is activated.
//!
//! ```text
//! thin volume ─▶ pool ─▶ its metadata, its data: both linear or striped
//!                           └▶ the superblock, as it lies on its physical volume
//! ```
//!
//! LVM itself has `thin_check` go through all of the metadata before it activates a pool; but it only warns where there is
//! no such program, and by default takes away the mark of a pool whose kernel wants it checked. So the program has to be
//! here, and the mark is looked at first.
//!
//! In: a group's metadata, bytes. Out: leave to activate. Must never: write to a pool, or repair one.

use crate::path_encoding::printable;
use crate::restore::verify::part::{Group, Thin, Volume};

/// The program that goes through a pool's metadata, and what has it.
pub(super) const CHECK: (&str, &str) =
    ("thin_check", "thin-provisioning-tools or device-mapper-persistent-data");

/// Bytes of a sector.
const SECTOR: u64 = 512;
/// What is read of the superblock (`struct thin_disk_superblock` of drivers/md/dm-thin-metadata.c: `flags` at 4, `magic`
/// at 32).
pub(super) const LENGTH: usize = 40;
const MAGIC: u64 = 27_022_010;
const NEEDS_CHECK: u32 = 1;

/// What a thin volume lies in.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Pool<'m> {
    pub name: &'m str,
    pub data: &'m Volume,
    pub metadata: &'m Volume,
}

/// The pool of a logical volume; none where it is in none.
///
/// # Errors
/// What it is that is not put together here.
pub(super) fn pool<'m>(group: &'m Group, volume: &'m Volume) -> Result<Option<Pool<'m>>, String> {
    let (place, of) = (format!("{}/{}", group.name, volume.name), |name: &str| named(group, name));
    let [segment] = &volume.segments[..] else { return Ok(None) };
    let Some(Thin::Volume { pool, external }) = &segment.thin else { return Ok(None) };
    if *external {
        return Err(format!("{place} has an external origin, which is not put together here"));
    }
    let pool = of(pool)?;
    let [segment] = &pool.segments[..] else { return Err(strange(group, pool)) };
    let Some(Thin::Pool { data, metadata }) = &segment.thin else { return Err(strange(group, pool)) };
    let (data, metadata) = (of(data)?, of(metadata)?);
    for part in [data, metadata] {
        if let Some(other) = part.segments.iter().find(|s| s.kind != "striped" && s.kind != "linear") {
            let (part, kind) = (printable(&part.name), printable(&other.kind));
            return Err(format!(
                "{place} is in a pool whose {part} is LVM {kind}, which is not put together here"
            ));
        }
    }
    Ok(Some(Pool { name: &pool.name, data, metadata }))
}

fn named<'m>(group: &'m Group, name: &str) -> Result<&'m Volume, String> {
    let found = group.volumes.iter().find(|v| v.name == name);
    found.ok_or_else(|| format!("the volume group {} has no {}", printable(&group.name), printable(name)))
}

fn strange(group: &Group, pool: &Volume) -> String {
    format!("{}/{} is no thin pool as LVM describes one", printable(&group.name), printable(&pool.name))
}

/// Where a pool's superblock is: the UUID of a physical volume, and the byte on it.
///
/// # Errors
/// When the metadata does not say.
pub(super) fn superblock<'m>(group: &'m Group, pool: &Pool<'_>) -> Result<(&'m str, u64), String> {
    let first = pool.metadata.segments.first().and_then(|s| s.stripes.first());
    let place = first.and_then(|(name, extent)| {
        let pv = group.pvs.get(name)?;
        let sectors = extent.checked_mul(group.extent_size)?.checked_add(pv.start)?;
        Some((pv.uuid.as_str(), sectors.checked_mul(SECTOR)?))
    });
    place.ok_or_else(|| strange(group, pool.metadata))
}

/// May the pool with this superblock be activated?
///
/// # Errors
/// Why not.
pub(super) fn can_be_activated(superblock: &[u8]) -> Result<(), &'static str> {
    let flags = superblock.get(4..8).and_then(|b| b.try_into().ok()).map(u32::from_le_bytes);
    let magic = superblock.get(32..40).and_then(|b| b.try_into().ok()).map(u64::from_le_bytes);
    match (magic, flags) {
        (Some(MAGIC), Some(flags)) if flags & NEEDS_CHECK == 0 => Ok(()),
        (Some(MAGIC), Some(_)) => Err("its kernel has marked it as one that has to be checked"),
        _ => Err("its metadata does not begin as that of a pool"),
    }
}

/// How it is repaired by hand, for people.
pub(super) fn by_hand(group: &str, pool: &str) -> String {
    format!(
        "by hand, on a host without the original: restore with --no-attach, attach the volumes there, \
         `lvconvert --repair {group}/{pool}`"
    )
}

#[cfg(test)]
#[path = "thin_tests.rs"]
mod tests;
