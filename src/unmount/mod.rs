//! Filesystems that are unmounted over the point in time, and what it takes to mount them again.
//!
//! ```text
//! mountinfo ──▶ Recipe ──▶ what each mount covers ──▶ journal ──▶ unmount, children first ──▶ claim the devices …
//!                                                       … ──▶ mount, parents first, on what each covered
//! ```
//!
//! In: mountinfo's lines. Out: a [`Recipe`], complete enough for a later process to mount everything exactly
//! as it was. Must never: unmount by force, or lazily what it did not mount itself a moment before, touch a
//! mount that no recipe covers, or leave out a mount that its recipe cannot make again.

pub(crate) mod by_hand;
pub mod claim;
pub mod covered;
pub mod holders;
mod moved;
mod propagation;
mod recipe;
pub mod remount;

use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;

pub use self::by_hand::by_hand;
pub use self::recipe::{Device, Make, Mounted, NoRecipe, Recipe, Superblock, Wanted, recipe};
use crate::host::mountinfo::{self, MountTree};

/// How long a run waits for mounting again. After that it reports the filesystem as not mounted. A large
/// btrfs takes minutes to mount.
pub(crate) const REMOUNT_LIMIT: Duration = Duration::from_secs(300);

/// Unmounts one mount, neither forced nor lazily, after a check that its path still leads to it.
///
/// # Errors
/// EBUSY when a process or the kernel holds it, ESTALE when its path leads to another mount by now.
pub fn unmount(recipe: &Recipe, mount: &Mounted) -> Result<(), Errno> {
    let table = mountinfo::read(Path::new("/"), "self").map_err(|_| Errno::EIO)?;
    // A line that cannot be read may be of what is mounted there now.
    let lines = table.whole().map_err(|_| Errno::EIO)?;
    let top = MountTree::new(&lines).mount_of(&mount.mount_point).cloned();
    match top {
        Some(top) if mount.line_is(&recipe.filesystems[mount.of], &top) => {
            covered::unmount(&lines, &mount.mount_point, top.id)
        }
        _ => Err(Errno::ESTALE),
    }
}
