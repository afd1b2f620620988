//! Whether this machine can do it at all.
//!
//! In: the machine. Out: nothing, or the first thing that is missing. It must never change anything.

use std::path::Path;

use super::Error;

/// Looks for root, loop devices and the commands that are called.
pub fn preflight(dir: &Path, own_network: bool) -> Result<(), Error> {
    if !nix::unistd::geteuid().is_root() {
        return Err(Error::NotRoot);
    }
    std::fs::OpenOptions::new().read(true).write(true).open("/dev/loop-control").map_err(Error::NoLoop)?;
    need("losetup")?;
    if own_network {
        need("ip")?;
    }
    // A folder that does not exist yet lands on the filesystem of its nearest ancestor.
    let existing = dir.ancestors().find(|path| path.is_dir());
    if !existing.is_some_and(|path| path.join("host").is_dir() || may_clone(path)) {
        need("mkfs.xfs")?;
    }
    Ok(())
}

/// Whether files here could be cloned, judged without writing: btrfs always can, XFS usually; the
/// truth is found out later by trying.
fn may_clone(path: &Path) -> bool {
    use nix::sys::statfs;
    statfs::statfs(path)
        .is_ok_and(|fs| [statfs::BTRFS_SUPER_MAGIC, statfs::XFS_SUPER_MAGIC].contains(&fs.filesystem_type()))
}

fn need(command: &'static str) -> Result<(), Error> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    if std::env::split_paths(&path).any(|folder| folder.join(command).is_file()) {
        Ok(())
    } else {
        Err(Error::Missing(command))
    }
}
