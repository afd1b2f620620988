//! Several devices of one btrfs get a new UUID together.
//!
//! To the kernel, and to btrfs-progs, whatever has a filesystem's UUID is of that filesystem: the disks of a clone and of its
//! original would be one. The disks are hidden from udev, so that nobody tells the kernel of them, and btrfstune sees no
//! others (apart.rs).
//!
//! In: all devices of the filesystem, which nothing uses. Out: the new UUID. Must never: run btrfstune where it could find
//! the original, or on some of the devices.

use std::path::PathBuf;

use super::apart;
use super::tool::Tool;
use crate::host::block::BlockDevice;
use crate::host::device;
use crate::quiesce::query;
use crate::restore::disks;
use crate::window::guard::process::OWN;

/// The node of each.
fn nodes(of: &[BlockDevice]) -> Result<Vec<PathBuf>, String> {
    let node =
        |d: &BlockDevice| device::node(d.dev, &[]).ok_or_else(|| format!("/dev has no node of {}", d.name));
    of.iter().map(node).collect()
}

/// The arguments before a program by which this one becomes it, where it sees these devices alone.
///
/// # Errors
/// When one has no node.
pub(in crate::restore) fn seeing_only(of: &[BlockDevice]) -> Result<Vec<String>, String> {
    let nodes = nodes(of)?;
    let nodes = nodes.iter().map(|n| n.display().to_string());
    let (first, last) = (apart::ARGUMENT.to_owned(), apart::END.to_owned());
    Ok(std::iter::once(first).chain(nodes).chain([last]).collect())
}

/// Gives the filesystem on all of these a new UUID.
///
/// # Errors
/// When it could not be changed.
pub(in crate::restore) async fn renew(of: &[BlockDevice]) -> Result<String, String> {
    let uuids = || of.iter().map(|d| disks::uuid(d, "btrfs")).collect::<Result<Vec<_>, String>>();
    let before = uuids()?;
    for one in of {
        let claim = device::claim(one.dev).map_err(|e| format!("{} is in use: {}", one.name, e.desc()))?;
        drop(claim);
    }
    let program = query::program("btrfstune")?;
    let mut arguments = seeing_only(of)?;
    arguments.extend([program.display().to_string(), "-f".to_owned(), "-m".to_owned()]);
    arguments.extend(nodes(of)?.first().map(|n| n.display().to_string()));
    Tool::own(OWN, "btrfstune", arguments).run().await?;
    let after = uuids()?;
    match after.first() {
        Some(Some(uuid))
            if after.iter().all(|u| u.as_ref() == Some(uuid)) && before.first() != after.first() =>
        {
            Ok(uuid.clone())
        }
        _ => Err(format!("the UUIDs of {} are not one new one", names(of))),
    }
}

fn names(of: &[BlockDevice]) -> String {
    of.iter().map(|d| d.name.as_str()).collect::<Vec<_>>().join(" and ")
}
