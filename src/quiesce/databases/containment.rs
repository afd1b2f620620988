//! Is what a database writes to within the set, and where does its path lead?
//!
//! In: the set's filesystems, a path. Out: whether the filesystem that the path is on is frozen with the set; the path
//! without links. Must never: take a path that cannot be looked at for one that is within.

use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;

use super::Refusal;
use crate::host::superblock;
use crate::quiesce::environment::SetMount;

/// Where a path leads, without links: where the data is, whatever its configuration calls it. The filesystems of a set are
/// known by their mount points, and of a link on another one nothing is restored. As it is where it cannot be followed.
pub(super) fn real(path: &Path) -> PathBuf {
    std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())
}

/// An error unless `path` is on a filesystem of the set. `what` says what it is: `the data directory`.
pub(super) fn check(set: &[SetMount], what: &str, path: &Path) -> Result<(), Refusal> {
    let unknown =
        |e: &dyn std::fmt::Display| Refusal::new(format!("cannot look at {what} {}: {e}", path.display()));
    // Not to be read: a system user without rights to the folder itself can still be told where it is.
    let path_only = OFlag::O_PATH.bits();
    let fd = File::options().read(true).custom_flags(path_only).open(path).map_err(|e| unknown(&e))?;
    let dev = superblock::of_fd(&fd).ok_or_else(|| unknown(&"it is on no mount that mountinfo lists"))?;
    if set.iter().any(|m| m.dev == dev) {
        return Ok(());
    }
    let mounts: Vec<_> = set.iter().map(|m| m.mount_point.display().to_string()).collect();
    Err(Refusal::new(format!(
        "{what} {} is not on a filesystem of the set ({})",
        path.display(),
        mounts.join(", ")
    ))
    .hint(
        "take that filesystem into the plan too (`mounts`), or the set cannot be restored as this database",
    ))
}
