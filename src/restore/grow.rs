//! A restored filesystem gets as large as its volume, by its own tool.
//!
//! The tools of XFS and btrfs take a mount point, and that of ext4 wants it mounted. So it is mounted for a moment in a
//! folder of root's alone: on the way to where it will be, there may be folders that others can rename.
//!
//! In: a whole disk with a filesystem that nothing else uses. Out: the same filesystem, larger. Must never: touch a
//! partition table, or a filesystem that is mounted elsewhere.

use std::path::{Path, PathBuf};

use super::identity::{installed, run, run_to};
use super::mounts;
use crate::host::block::BlockDevice;
use crate::host::{device, mountinfo};
use crate::ids::RunId;

/// The folder that filesystems of this restore are mounted in while they grow.
#[must_use]
pub fn folder(state_dir: &Path, id: &RunId) -> PathBuf {
    state_dir.join("restores").join(format!("{id}.growing"))
}

fn tool(fstype: &str) -> Option<(&'static str, &'static str)> {
    match fstype {
        "ext2" | "ext3" | "ext4" => Some(("resize2fs", "e2fsprogs")),
        "xfs" => Some(("xfs_growfs", "xfsprogs")),
        "btrfs" => Some(("btrfs", "btrfs-progs")),
        _ => None,
    }
}

/// Is its tool here?
///
/// # Errors
/// What to install.
pub fn has_tool(fstype: &str) -> Result<(), String> {
    let Some((name, package)) = tool(fstype) else { return Err(format!("{fstype} is not grown here")) };
    installed(name, package)
}

/// How it is done by hand, of one on a partition.
#[must_use]
pub fn by_hand(disk: &str, partition: u32, fstype: &str, place: &str) -> String {
    let part = if disk.ends_with(|c: char| c.is_ascii_digit()) { "p" } else { "" };
    let then = match fstype {
        "xfs" => format!("xfs_growfs {place}"),
        "btrfs" => format!("btrfs filesystem resize max {place}"),
        _ => format!("resize2fs /dev/{disk}{part}{partition}"),
    };
    format!("`growpart /dev/{disk} {partition}`, then `{then}`")
}

/// Unmounts what one that died while it grew filesystems has left in the folder.
///
/// # Errors
/// When it stays.
pub fn clear(folder: &Path) -> Result<(), String> {
    let Ok(folder) = folder.canonicalize() else { return Ok(()) };
    let table = mountinfo::read(Path::new("/"), "self").map_err(|e| e.to_string())?;
    let ids = table.lines.iter().filter(|l| l.mount_point == folder).map(|l| l.id).collect();
    mounts::unmount(&table.lines, &ids, &|_| ())?;
    std::fs::remove_dir(&folder).map_err(|e| format!("{}: {e}", folder.display()))
}

/// Grows the filesystem on this disk. One that is as large as its disk stays as it is.
///
/// # Errors
/// When it is not grown: what its tool said.
pub async fn grow(on: &BlockDevice, fstype: &str, folder: &Path) -> Result<(), String> {
    let node = device::node(on.dev, &[]).ok_or_else(|| format!("/dev has no node of {}", on.name))?;
    let target = mounts::target(folder, true)?;
    let (dev, fs, of) = (on.dev, fstype.to_owned(), node.clone());
    // It may read much of a cold volume: not on the thread that everything else is done by.
    let mounted = tokio::task::spawn_blocking(move || mounts::create(&of, dev, &[], &fs, &[], None));
    let mounted = mounted.await.map_err(|e| e.to_string())??;
    let hidden = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV | libc::MOUNT_ATTR_NOEXEC;
    mounts::attach(&target, Path::new(""), &mounted, hidden)?;
    drop((mounted, target));
    let grown = match fstype {
        "xfs" => run("xfs_growfs", &[], folder).await,
        "btrfs" => run("btrfs", &["filesystem", "resize", "max"], folder).await,
        _ => run("resize2fs", &[], &node).await,
    };
    clear(folder)?;
    match grown {
        Err(mounted) if fstype.starts_with("ext") => unmounted(&node, mounted).await,
        grown => grown,
    }
}

/// The kernel grows a mounted ext4 for whoever has CAP_SYS_RESOURCE, and only with what was kept free for that when it was
/// made. Not mounted, it is checked before: that reads all of its metadata.
async fn unmounted(node: &Path, mounted: String) -> Result<(), String> {
    let both = |e: String| format!("{mounted}; {e}");
    // e2fsck(8): 1, it has mended something.
    run_to("e2fsck", &["-f", "-p"], node, &[0, 1]).await.map_err(both)?;
    run("resize2fs", &[], node).await.map_err(both)
}
